-- Contents, segments, spaces, intents. Read by msearchd/store/catalog/contents.py, segments.py, spaces.py and sweep.py.

-- put_content --  The content with this hash; its type is what the newest look found.
INSERT INTO content (hash, uuid, size, mime, type_label, modality, orphan_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (hash) DO UPDATE SET mime = excluded.mime, type_label = excluded.type_label, modality = excluded.modality
RETURNING id;

-- link_asset --  The file holds this content, and stat said so before and after it was read.
UPDATE asset SET content = ?2, size = ?3, mtime_ns = ?4, ctime_ns = ?5, inode = ?6 WHERE id = ?1 RETURNING id;

-- content_of_asset --  What a file holds.
SELECT content FROM asset WHERE id = ?1;

-- content_by_id --  All of a content.
SELECT id, hash, uuid, size, mime, type_label, modality, extracted_ms, wants_ocr, ocr_pages, ocr_ms, segments, note,
    metadata, visible, heard_ms, heard_until_ms,
    EXISTS (SELECT 1 FROM segment WHERE id BETWEEN (content.id << 32 | (5 << 28)) AND (content.id << 32 | (6 << 28)) - 1),
    EXISTS (SELECT 1 FROM segment WHERE id BETWEEN (content.id << 32 | (6 << 28)) AND (content.id << 32 | (7 << 28)) - 1),
    EXISTS (SELECT 1 FROM segment WHERE id BETWEEN (content.id << 32 | (7 << 28)) AND (content.id << 32 | (8 << 28)) - 1)
FROM content WHERE id = ?1;

-- content_by_uuid --  Its id.
SELECT id FROM content WHERE uuid = ?1;

-- spaces_of_content --  Where its points are, and the model key by which jobs name that space.
SELECT content_space.space, content_space.is_complete, nullif(space.target, '')
FROM content_space JOIN space ON space.name = content_space.space WHERE content_space.content = ?1;

-- extracted --  What extract found.
UPDATE content SET extracted_ms = ?2, metadata = json_patch(metadata, ?3), note = ?4, wants_ocr = ?5, ocr_pages = ?6
WHERE id = ?1;

-- read_pixels --  What OCR found; its note follows that of extract.
UPDATE content SET ocr_ms = ?2, metadata = json_patch(metadata, ?3), note = ?4 WHERE id = ?1;

-- heard --  Up to where its speech is written down, and when that was to its end.
UPDATE content SET heard_until_ms = ?2, heard_ms = ?3 WHERE id = ?1 RETURNING id;

-- note_of_content --  Its note.
SELECT note FROM content WHERE id = ?1;

-- segments_between --  Segments by a range of ids: of a content, or of one kind.
SELECT id, text, char_start, char_end, page, t0_ms, t1_ms FROM segment WHERE id BETWEEN ?1 AND ?2 ORDER BY id;

-- texts_between --  The same, their text alone.
SELECT id, text FROM segment WHERE id BETWEEN ?1 AND ?2 AND text <> '';

-- put_segment --  One segment.
INSERT INTO segment (id, text, char_start, char_end, page, t0_ms, t1_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- delete_segment --  One segment.
DELETE FROM segment WHERE id = ?1;

-- delete_segments --  All of a range.
DELETE FROM segment WHERE id BETWEEN ?1 AND ?2;

-- put_words --  Its words become searchable.
INSERT INTO segment_words (rowid, text, parts) VALUES (?1, ?2, ?3);

-- delete_words --  No longer. The columns must be those that were put.
INSERT INTO segment_words (segment_words, rowid, text, parts) VALUES ('delete', ?1, ?2, ?3);

-- forget_all_words --  Of all segments: the index is to be filled again.
INSERT INTO segment_words (segment_words) VALUES ('delete-all');

-- texts_after --  Texts in the order of their ids.
SELECT id, text FROM segment WHERE id > ?1 AND text <> '' ORDER BY id LIMIT ?2;

-- count_words_astray --  Segments that the index of words lacks, and those that it holds and are no more.
SELECT
    (SELECT count(*) FROM segment
     WHERE text <> '' AND NOT EXISTS (SELECT 1 FROM segment_words_docsize AS held WHERE held.id = segment.id)),
    (SELECT count(*) FROM segment_words_docsize AS held
     WHERE NOT EXISTS (SELECT 1 FROM segment WHERE segment.id = held.id AND text <> ''));

-- some_texts --  Texts spread over all segments: of each content whose id is a multiple.
SELECT id, text FROM segment WHERE text <> '' AND content % ?1 = 0 LIMIT ?2;

-- count_contents --  How many there are.
SELECT count(*) FROM content;

-- is_found_by --  Whether the index of words finds a segment by a word.
SELECT 1 FROM segment_words WHERE segment_words MATCH ?2 AND rowid = ?1;

-- count_texts --  How many segments with text a content has.
UPDATE content SET segments = (SELECT count(*) FROM segment WHERE id BETWEEN ?2 AND ?3 AND text <> '') WHERE id = ?1;

-- kinds_of_content --  Segments with text, by kind.
SELECT kind, count(*) FROM segment WHERE id BETWEEN ?1 AND ?2 AND text <> '' GROUP BY kind;

-- outdate_spaces --  Its segments of a modality changed: to be embedded again, meanwhile what is there stays visible.
UPDATE content_space SET is_complete = 0
WHERE content = ?1 AND (SELECT modality FROM space WHERE name = content_space.space) = ?2;

-- dirs_of_visible --  Folders that hold a visible file with this content.
SELECT DISTINCT dir FROM asset WHERE content = ?1 AND gone_ms IS NULL;

-- assets_of_content --  Visible files with this content.
SELECT id FROM asset WHERE content = ?1 AND gone_ms IS NULL ORDER BY id LIMIT ?2;

-- contents_lacking --  Contents with text and a visible file that a space does not hold as they are now.
SELECT id FROM content WHERE id > ?2 AND visible > 0 AND segments > 0 AND extracted_ms IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM content_space WHERE content = content.id AND space = ?1 AND is_complete = 1
) ORDER BY id LIMIT ?3;

-- contents_lacking_kind --  The same for places without text, by the code of their kind.
SELECT id FROM content WHERE id > ?2 AND visible > 0 AND extracted_ms IS NOT NULL AND EXISTS (
    SELECT 1 FROM segment
    WHERE segment.id BETWEEN (content.id << 32 | (?4 << 28)) AND (content.id << 32 | ((?4 + 1) << 28)) - 1
) AND NOT EXISTS (
    SELECT 1 FROM content_space WHERE content = content.id AND space = ?1 AND is_complete = 1
) ORDER BY id LIMIT ?3;

-- contents_unheard --  Contents with sound and a visible file whose speech is not written down to its end.
SELECT id FROM content WHERE id > ?1 AND visible > 0 AND extracted_ms IS NOT NULL AND heard_ms IS NULL AND EXISTS (
    SELECT 1 FROM segment WHERE segment.id BETWEEN (content.id << 32 | (6 << 28)) AND (content.id << 32 | (7 << 28)) - 1
) ORDER BY id LIMIT ?2;

-- has_text --  One row if any content was read.
SELECT 1 FROM total WHERE name = 'segments' AND n > 0;

-- put_space --  A vector space.
INSERT INTO space (name, model, fingerprint, dim, distance, multi, sparse, modality, made_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (name) DO NOTHING;

-- spaces --  All of them, oldest first.
SELECT name, model, fingerprint, dim, distance, multi, sparse FROM space ORDER BY rowid;

-- space_by_name --  One of them.
SELECT name, model, fingerprint, dim, distance, multi, sparse FROM space WHERE name = ?1;

-- active_space --  The one that answers questions of a modality.
SELECT name, model, fingerprint, dim, distance, multi, sparse FROM space WHERE modality = ?1 AND is_active = 1;

-- deactivate_spaces --  None answers for a modality.
UPDATE space SET is_active = 0 WHERE modality = ?1 AND is_active = 1;

-- activate_space --  This one does.
UPDATE space SET is_active = 1, modality = ?2 WHERE name = ?1;

-- forget_space_contents --  Nothing is live in it any more.
DELETE FROM content_space WHERE space = ?1;

-- forget_space_intents --  Nor begun.
DELETE FROM intent WHERE space = ?1;

-- forget_space --  It is gone.
DELETE FROM space WHERE name = ?1;

-- space_counts --  Contents and points that should be in each space.
SELECT name, contents, points FROM space;

-- expected_points --  Points that should be in a space.
SELECT points FROM space WHERE name = ?1;

-- expected_contents --  Contents that should be in a space with their points, in order of content, a page at a time.
SELECT content_space.content, content.uuid, content_space.points
FROM content_space JOIN content ON content.id = content_space.content
WHERE content_space.space = ?1 AND content_space.content > ?2 ORDER BY content_space.content LIMIT ?3;

-- intend --  Points of a content are about to be put into a space.
INSERT INTO intent (space, uuid, kind, made_ms) SELECT ?1, uuid, 'put', ?3 FROM content WHERE id = ?2
ON CONFLICT (space, uuid) DO UPDATE SET kind = 'put', made_ms = excluded.made_ms;

-- put_live --  They are there: visible from this commit on.
INSERT INTO content_space (content, space, points, live_ms) SELECT id, ?2, ?3, ?4 FROM content WHERE id = ?1
ON CONFLICT (content, space) DO UPDATE SET points = excluded.points, live_ms = excluded.live_ms, is_complete = 1
RETURNING content;

-- settle_put --  The store has them on its disk.
DELETE FROM intent WHERE space = ?1 AND kind = 'put' AND uuid = (SELECT uuid FROM content WHERE id = ?2);

-- open_puts --  Begun and not known to be on the disk.
SELECT intent.space, content.id FROM intent JOIN content ON content.uuid = intent.uuid WHERE intent.kind = 'put';

-- open_sweeps --  Points that nothing refers to, still to be deleted.
SELECT space, uuid FROM intent WHERE kind = 'sweep';

-- intend_sweep --  Points of a content must go from every space that may hold some.
INSERT INTO intent (space, uuid, kind, made_ms)
SELECT content_space.space, content.uuid, 'sweep', ?2
FROM content_space JOIN content ON content.id = content_space.content WHERE content.id = ?1
UNION SELECT intent.space, intent.uuid, 'sweep', ?2
FROM content JOIN space JOIN intent ON intent.space = space.name AND intent.uuid = content.uuid WHERE content.id = ?1
ON CONFLICT (space, uuid) DO UPDATE SET kind = 'sweep', made_ms = excluded.made_ms RETURNING space;

-- settle_sweep --  They are deleted, and the store has flushed.
DELETE FROM intent WHERE space = ?1 AND uuid = ?2 AND kind = 'sweep';

-- orphans_due --  Contents that no visible file has held for long enough, longest first.
SELECT id FROM content WHERE visible = 0 AND orphan_ms <= ?1 ORDER BY orphan_ms LIMIT ?2;

-- is_orphan --  No visible file holds it.
SELECT 1 FROM content WHERE id = ?1 AND visible = 0;

-- delete_gone_assets_of --  Files that are gone and held it.
DELETE FROM asset WHERE content = ?1 AND gone_ms IS NOT NULL;

-- delete_live --  In no space any more.
DELETE FROM content_space WHERE content = ?1;

-- delete_content --  Its row goes.
DELETE FROM content WHERE id = ?1;

-- unlink_space --  Not live in one space any more (its points were found missing).
DELETE FROM content_space WHERE content = ?1 AND space = ?2;

-- gone_due --  Files gone for long enough.
DELETE FROM asset WHERE id IN (SELECT id FROM asset WHERE gone_ms <= ?1 ORDER BY gone_ms LIMIT ?2) RETURNING id;

-- empty_gone_dirs --  Folders that are gone and hold nothing.
DELETE FROM dir WHERE id IN (
    SELECT id FROM dir WHERE is_gone = 1 AND parent <> 0
        AND NOT EXISTS (SELECT 1 FROM asset WHERE asset.dir = dir.id)
        AND NOT EXISTS (SELECT 1 FROM dir AS child WHERE child.root = dir.root AND child.parent = dir.id)
    LIMIT ?1
) RETURNING id;

-- totals --  Sizes kept by triggers.
SELECT name, n FROM total;
