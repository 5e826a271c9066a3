-- What search asks. Read by msearchd/store/catalog/scope.py, words.py, names.py and resolve.py.
-- :list is replaced by as many ? as there are values.

-- words --  Segments that match, best first.
SELECT rowid, rank FROM segment_words WHERE segment_words MATCH ?1 ORDER BY rank LIMIT ?2;

-- words_of_contents --  Matches in these contents (JSON list), with their bm25, in no order.
SELECT rowid, rank FROM segment_words WHERE segment_words MATCH ?1 AND (rowid >> ?2) IN (SELECT value FROM json_each(?3));

-- words_anywhere --  Segments that match, in no order: cheap, because nothing is ranked.
SELECT rowid FROM segment_words WHERE segment_words MATCH ?1 LIMIT ?2;

-- newest_words --  Where the newest so many matches begin; no row if there are fewer.
SELECT rowid FROM segment_words WHERE segment_words MATCH ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2;

-- words_from --  Matches from a segment on, best first.
SELECT rowid, rank FROM segment_words WHERE segment_words MATCH ?1 AND rowid >= ?2 ORDER BY rank;

-- words_newest_first --  Matches, newest first.
SELECT rowid FROM segment_words WHERE segment_words MATCH ?1 ORDER BY rowid DESC LIMIT ?2;

-- words_between --  Segments that match within a range of segments: does this content have such words?
SELECT rowid FROM segment_words WHERE segment_words MATCH ?1 AND rowid BETWEEN ?2 AND ?3 LIMIT ?4;

-- count_words --  How many segments match, counted no further than a limit.
SELECT count(*) FROM (SELECT 1 FROM segment_words WHERE segment_words MATCH ?1 LIMIT ?2);

-- files_of_contents --  Visible files that hold these contents (JSON list), with what filters look at.
SELECT asset.id, asset.dir, asset.content, asset.ext, asset.size, asset.mtime_ns, content.type_label, content.mime,
    content.modality
FROM json_each(?1) AS asked CROSS JOIN asset ON asset.content = asked.value
CROSS JOIN content ON content.id = asset.content
CROSS JOIN dir ON dir.id = asset.dir CROSS JOIN root ON root.id = dir.root
WHERE asset.gone_ms IS NULL AND root.removed_ms IS NULL;

-- files_by_id --  The same of these files, whether or not they have a content yet.
SELECT asset.id, asset.dir, asset.content, asset.ext, asset.size, asset.mtime_ns, content.type_label, content.mime,
    content.modality
FROM json_each(?1) AS asked CROSS JOIN asset ON asset.id = asked.value
CROSS JOIN dir ON dir.id = asset.dir CROSS JOIN root ON root.id = dir.root
LEFT JOIN content ON content.id = asset.content
WHERE asset.gone_ms IS NULL AND root.removed_ms IS NULL;

-- shown_contents --  Which of these contents (JSON list) a visible file holds.
SELECT DISTINCT asset.content
FROM json_each(?1) AS asked CROSS JOIN asset ON asset.content = asked.value
CROSS JOIN dir ON dir.id = asset.dir CROSS JOIN root ON root.id = dir.root
WHERE asset.gone_ms IS NULL AND root.removed_ms IS NULL;

-- live_contents --  Ids of contents (by the names that points have) that are live in a space and that a file shows.
SELECT content.uuid, content.id FROM content CROSS JOIN content_space
ON content_space.content = content.id AND content_space.space = ?1
WHERE content.uuid IN (:list) AND EXISTS (
    SELECT 1 FROM asset CROSS JOIN dir ON dir.id = asset.dir CROSS JOIN root ON root.id = dir.root
    WHERE asset.content = content.id AND asset.gone_ms IS NULL AND root.removed_ms IS NULL
);

-- existing_segments --  Which of these segments exist.
SELECT id FROM segment WHERE id IN (:list);

-- shown_files --  What a hit shows of these files (JSON list).
SELECT asset.id, asset.dir, asset.name, asset.content, asset.size, asset.mtime_ns, content.mime, content.type_label,
    content.modality
FROM json_each(?1) AS asked CROSS JOIN asset ON asset.id = asked.value
LEFT JOIN content ON content.id = asset.content;

-- type_kinds --  Type labels that contents have, with their mime, modality and number.
SELECT type_label, mime, modality, n FROM type_count WHERE n > 0;

-- labels_of_ext --  Type labels ever seen with an extension.
SELECT type_label FROM ext_type WHERE ext = ?1;

-- count_ext --  Files with an extension, counted no further than a limit.
SELECT count(*) FROM (SELECT 1 FROM asset WHERE ext = ?1 AND gone_ms IS NULL LIMIT ?2);

-- count_time --  Files modified in a range, counted no further than a limit.
SELECT count(*) FROM (
    SELECT 1 FROM asset WHERE gone_ms IS NULL AND mtime_ns BETWEEN ?1 AND ?2 LIMIT ?3);

-- count_size --  Contents of a size in a range, counted no further than a limit.
SELECT count(*) FROM (SELECT 1 FROM content WHERE size BETWEEN ?1 AND ?2 LIMIT ?3);

-- files_in_dirs --  Files of these folders (JSON list).
SELECT asset.id FROM json_each(?1) AS asked CROSS JOIN asset ON asset.dir = asked.value
WHERE asset.gone_ms IS NULL LIMIT ?2;

-- files_of_ext --  Files with an extension.
SELECT id FROM asset WHERE ext = ?1 AND gone_ms IS NULL LIMIT ?2;

-- files_of_labels --  Files whose content has one of these type labels (JSON list).
SELECT asset.id FROM json_each(?1) AS asked CROSS JOIN content ON content.type_label = asked.value
CROSS JOIN asset ON asset.content = content.id WHERE asset.gone_ms IS NULL LIMIT ?2;

-- files_of_time --  Files modified in a range.
SELECT id FROM asset WHERE gone_ms IS NULL AND mtime_ns BETWEEN ?1 AND ?2 LIMIT ?3;

-- files_of_size --  Files whose content has a size in a range.
SELECT asset.id FROM content CROSS JOIN asset ON asset.content = content.id
WHERE content.size BETWEEN ?1 AND ?2 AND asset.gone_ms IS NULL LIMIT ?3;

-- uuids_of --  Names that the points of these contents (JSON list) have.
SELECT content.uuid FROM json_each(?1) AS asked CROSS JOIN content ON content.id = asked.value;

-- names_between --  Files by a range of folded names, in order.
SELECT id, name_key FROM asset WHERE name_key >= ?1 AND name_key < ?2 AND gone_ms IS NULL ORDER BY name_key LIMIT ?3;

-- names_in_dirs --  Files right in these folders (JSON list) whose folded names lie in one of two ranges.
SELECT asset.id FROM json_each(?1) AS asked CROSS JOIN asset ON asset.dir = asked.value
WHERE asset.gone_ms IS NULL
    AND ((asset.name_key >= ?2 AND asset.name_key < ?3) OR (asset.name_key >= ?4 AND asset.name_key < ?5)) LIMIT ?6;

-- names_by_grams --  Files whose names have all of these trigrams, newest first.
SELECT rowid FROM asset_names WHERE asset_names MATCH ?1 ORDER BY rowid DESC LIMIT ?2;

-- dirs_by_grams --  The same of folders.
SELECT rowid FROM dir_names WHERE dir_names MATCH ?1 ORDER BY rowid DESC LIMIT ?2;

-- dir_keys --  Folded names of these folders (JSON list).
SELECT dir_name.id, dir_name.name_key FROM json_each(?1) AS asked CROSS JOIN dir_name ON dir_name.id = asked.value;

-- name_keys --  Folder and folded name of these files (JSON list), gone ones left out.
SELECT asset.id, asset.dir, asset.name_key FROM json_each(?1) AS asked CROSS JOIN asset ON asset.id = asked.value
WHERE asset.gone_ms IS NULL;
