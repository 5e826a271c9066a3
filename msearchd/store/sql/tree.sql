-- Roots, folders and files. Read by msearchd/store/catalog/tree.py and known.py.

-- put_root --  Watch a folder; one that was removed comes back with its ids.
INSERT INTO root (path, added_ms) VALUES (?1, ?2)
ON CONFLICT (path) DO UPDATE SET removed_ms = NULL, state = 'online', reason = '' RETURNING id;

-- root_paths --  Watched folders.
SELECT id, path, state, reason FROM root WHERE removed_ms IS NULL ORDER BY id;

-- remove_root --  Watch it no longer: everything in it is out of every search at once.
UPDATE root SET removed_ms = ?2 WHERE id = ?1 AND removed_ms IS NULL;

-- removed_roots --  Folders watched no longer.
SELECT id FROM root WHERE removed_ms IS NOT NULL;

-- set_root_state --  Online or offline, with the reason.
UPDATE root SET state = ?2, reason = ?3 WHERE id = ?1;

-- child_dir --  A folder by its name in its parent.
SELECT id, is_gone FROM dir WHERE root = ?1 AND parent = ?2 AND name = ?3;

-- put_dir --  A new folder.
INSERT INTO dir (root, parent, name) VALUES (?1, ?2, ?3) RETURNING id;

-- put_dir_name --  Its folded name, for search.
INSERT INTO dir_name (id, name_key, name_short) VALUES (?1, ?2, ?3)
ON CONFLICT (id) DO UPDATE SET name_key = excluded.name_key, name_short = excluded.name_short;

-- revive_dir --  Seen again.
UPDATE dir SET is_gone = 0 WHERE id = ?1;

-- mark_dir_gone --  Everything in it is hidden: forget how it was compared.
UPDATE dir SET is_gone = 1, signature = 0, scanned_ms = 0 WHERE id = ?1;

-- place_dir --  Rename or move: one row.
UPDATE dir SET root = ?2, parent = ?3, name = ?4 WHERE id = ?1;

-- cut_off_dir --  Out of the way of a folder that takes its place; purged with the grace period.
UPDATE dir SET parent = -id, is_gone = 1 WHERE id = ?1;

-- adopt_subtree --  Folders below a folder that moved to another root follow it.
WITH RECURSIVE sub (id) AS (
    VALUES (?1)
    UNION ALL
    SELECT dir.id FROM sub JOIN dir ON dir.root = ?2 AND dir.parent = sub.id
)
UPDATE dir SET root = ?3 WHERE id IN (SELECT id FROM sub WHERE id <> ?1);

-- compared_dir --  How a folder was when it was last compared.
UPDATE dir SET inode = ?2, mtime_ns = ?3, ctime_ns = ?4, signature = ?5, scanned_ms = ?6 WHERE id = ?1;

-- known_dir --  The same, read.
SELECT inode, mtime_ns, ctime_ns, signature, scanned_ms FROM dir WHERE id = ?1;

-- child_dirs --  Folders in a folder.
SELECT id, name, inode, mtime_ns, ctime_ns, signature, scanned_ms FROM dir WHERE root = ?1 AND parent = ?2 AND is_gone = 0;

-- some_child_dirs --  Folders in a folder, from one name to another, at most so many. (root, parent, first, last, limit)
SELECT id, name, inode, mtime_ns, ctime_ns, signature, scanned_ms FROM dir
WHERE root = ?1 AND parent = ?2 AND name BETWEEN ?3 AND ?4 AND is_gone = 0 LIMIT ?5;

-- first_child_dir --  One folder in a folder that is not gone yet.
SELECT id FROM dir WHERE root = ?1 AND parent = ?2 AND is_gone = 0 LIMIT 1;

-- dir_row --  Where a folder hangs.
SELECT root, parent, name FROM dir WHERE id = ?1;

-- path_of_dirs --  Every folder on the way from each asked one (JSON list) up to its root, the asked one first.
WITH RECURSIVE up (start, id, parent, name, root, depth) AS (
    SELECT dir.id, dir.id, dir.parent, dir.name, dir.root, 0 FROM json_each(?1) AS asked JOIN dir ON dir.id = asked.value
    UNION ALL
    SELECT up.start, dir.id, dir.parent, dir.name, dir.root, up.depth + 1 FROM up JOIN dir ON dir.id = up.parent
)
SELECT start, id, name, root, parent FROM up ORDER BY start, depth;

-- subtree --  Ids of a folder and all folders below it.
WITH RECURSIVE sub (id) AS (
    VALUES (?2)
    UNION ALL
    SELECT dir.id FROM sub JOIN dir ON dir.root = ?1 AND dir.parent = sub.id
)
SELECT id FROM sub LIMIT ?3;

-- count_below --  Files in a folder and all folders below it.
WITH RECURSIVE sub (id) AS (
    VALUES (?2)
    UNION ALL
    SELECT dir.id FROM sub JOIN dir ON dir.root = ?1 AND dir.parent = sub.id
)
SELECT count(*) FROM sub CROSS JOIN asset ON asset.dir = sub.id WHERE asset.gone_ms IS NULL;

-- assets_of_dirs --  Files in the given folders (JSON list).
SELECT asset.id FROM json_each(?1) AS asked CROSS JOIN asset ON asset.dir = asked.value WHERE asset.gone_ms IS NULL;

-- file_row --  A file by its name in its folder, gone or not.
SELECT id, size, mtime_ns, ctime_ns, inode, content, gone_ms FROM asset WHERE dir = ?1 AND name = ?2;

-- files_of_dir --  Files in a folder.
SELECT name, size, mtime_ns, ctime_ns, inode FROM asset WHERE dir = ?1 AND gone_ms IS NULL;

-- put_file --  A file that was never seen.
INSERT INTO asset (dir, name, name_key, name_short, ext, size, mtime_ns, ctime_ns, inode)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id;

-- set_fingerprint --  What stat says now.
UPDATE asset SET size = ?2, mtime_ns = ?3, ctime_ns = ?4, inode = ?5 WHERE id = ?1;

-- unhide_file --  Seen again.
UPDATE asset SET gone_ms = NULL WHERE id = ?1 AND gone_ms IS NOT NULL;

-- hide_file --  Gone: out of every search, the row stays.
UPDATE asset SET gone_ms = ?2 WHERE id = ?1 AND gone_ms IS NULL;

-- hide_files_of_dir --  The same for some files of a folder.
UPDATE asset SET gone_ms = ?2 WHERE id IN (SELECT id FROM asset WHERE dir = ?1 AND gone_ms IS NULL LIMIT ?3) RETURNING id;

-- place_file --  Rename or move.
UPDATE asset SET dir = ?2, name = ?3, name_key = ?4, name_short = ?5, ext = ?6 WHERE id = ?1;

-- delete_file --  Its row goes.
DELETE FROM asset WHERE id = ?1;

-- unlink_content --  Its bytes are left alone from now on.
UPDATE asset SET content = NULL WHERE id = ?1;

-- set_state --  Where it stands.
UPDATE asset SET state = ?2, reason = ?3 WHERE id = ?1 AND (state <> ?2 OR reason <> ?3);

-- is_left --  One row if a file is left alone.
SELECT 1 FROM asset WHERE id = ?1 AND inode = 0;

-- pending_assets --  Visible files that are pending, by id.
SELECT id FROM asset WHERE id > ?1 AND state = 'pending' AND gone_ms IS NULL ORDER BY id LIMIT ?2;

-- state_of_asset --  Where it stands.
SELECT state FROM asset WHERE id = ?1;

-- asset_by_id --  All of a file.
SELECT asset.id, asset.dir, asset.name, asset.size, asset.mtime_ns, asset.ctime_ns, asset.inode, asset.content,
    asset.state, asset.reason, asset.gone_ms, content.mime, content.type_label, content.modality
FROM asset LEFT JOIN content ON content.id = asset.content WHERE asset.id = ?1;

-- counts --  Files by root and state.
SELECT asset_count.root, asset_count.state, asset_count.n FROM asset_count JOIN root ON root.id = asset_count.root
WHERE asset_count.n <> 0 AND root.removed_ms IS NULL;

-- count_root --  Files of a root.
SELECT coalesce(sum(n), 0) FROM asset_count WHERE root = ?1;

-- label_seen --  A file with this extension has this type.
INSERT INTO ext_type SELECT asset.ext, content.type_label FROM asset JOIN content ON content.id = asset.content
WHERE asset.id = ?1 ON CONFLICT DO NOTHING;

-- any_root_ever --  One row if a root was ever added, whatever became of it.
SELECT 1 FROM sqlite_sequence WHERE name = 'root';

-- folded_as --  The way in which all names are folded; no row: older ones may be folded in another.
SELECT version FROM component_version WHERE component = 'folded names';

-- set_folded_as --  They are.
INSERT INTO component_version VALUES ('folded names', ?1) ON CONFLICT (component) DO UPDATE SET version = excluded.version;

-- last_asset --  The greatest id of a file.
SELECT coalesce(max(id), 0) FROM asset;

-- last_dir_name --  The greatest id of a folder that can be found by name.
SELECT coalesce(max(id), 0) FROM dir_name;

-- names_not_ascii --  Of files between two ids, the names that have more than ASCII: others are folded as ever.
SELECT id, name, name_key, name_short, ext FROM asset WHERE id > ?1 AND id <= ?2 AND name_key GLOB '*[^ -~]*';

-- dir_names_not_ascii --  The same of folders.
SELECT dir_name.id, dir.name, name_key, name_short FROM dir_name JOIN dir ON dir.id = dir_name.id
WHERE dir_name.id > ?1 AND dir_name.id <= ?2 AND name_key GLOB '*[^ -~]*';

-- fold_file --  What a file is found by.
UPDATE asset SET name_key = ?2, name_short = ?3, ext = ?4 WHERE id = ?1;
