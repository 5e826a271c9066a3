-- Spaces side by side. Read by msearchd/store/catalog/space_book.py.

-- records --  All of them, oldest first.
SELECT name, model, fingerprint, dim, distance, multi, sparse, modality, is_active, phase, since_ms, is_filling, target, made_by,
    contents, points FROM space ORDER BY rowid;

-- record --  One of them.
SELECT name, model, fingerprint, dim, distance, multi, sparse, modality, is_active, phase, since_ms, is_filling, target, made_by,
    contents, points FROM space WHERE name = ?1;

-- by_target --  The one that jobs of a model key mean.
SELECT name, target, fingerprint, dim, distance, multi, sparse FROM space WHERE target = ?1;

-- untarget --  No jobs mean any of a modality.
UPDATE space SET target = '' WHERE modality = ?1;

-- release_target --  Jobs of this model key mean none.
UPDATE space SET target = '' WHERE target = ?1;

-- retarget --  Jobs of this model key mean it.
UPDATE space SET target = ?2 WHERE name = ?1;

-- note_maker --  What its vectors are made by.
UPDATE space SET made_by = ?2 WHERE name = ?1;

-- retire --  What answered for a modality is kept, its jobs are over.
UPDATE space SET is_active = 0, phase = 'kept', since_ms = ?2, is_filling = 0 WHERE modality = ?1 AND is_active = 1;

-- promote --  It answers.
UPDATE space SET is_active = 1, phase = 'waiting', since_ms = ?2 WHERE name = ?1;

-- set_phase --  What it is while it does not answer.
UPDATE space SET phase = ?2, since_ms = ?3 WHERE name = ?1 AND is_active = 0;

-- set_filling --  Whether what it lacks is embedded.
UPDATE space SET is_filling = ?2 WHERE name = ?1;

-- behind --  Contents that one space shows and another does not hold as they are now, by id.
SELECT shown.content FROM content_space AS shown CROSS JOIN content ON content.id = shown.content
WHERE shown.space = ?1 AND shown.content > ?3 AND content.visible > 0 AND NOT EXISTS (
    SELECT 1 FROM content_space AS held
    WHERE held.content = shown.content AND held.space = ?2 AND held.is_complete = 1
) ORDER BY shown.content LIMIT ?4;

-- lacking_text --  Contents and passages that a space of texts would still have to embed.
SELECT count(*), coalesce(sum(segments), 0) FROM content
WHERE visible > 0 AND segments > 0 AND extracted_ms IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM content_space WHERE content = content.id AND space = ?1 AND is_complete = 1
);

-- lacking_kind --  The same of places without text, by the code of their kind.
SELECT count(DISTINCT segment.content), count(*) FROM segment JOIN content ON content.id = segment.content
WHERE segment.kind = ?2 AND content.visible > 0 AND NOT EXISTS (
    SELECT 1 FROM content_space WHERE content = content.id AND space = ?1 AND is_complete = 1
);

-- texts_read --  Contents with text that were read, and a file of each that may be read again, by id.
SELECT content.id, (SELECT min(asset.id) FROM asset WHERE content = content.id AND gone_ms IS NULL AND inode <> 0)
FROM content WHERE content.id > ?1 AND visible > 0 AND segments > 0 AND extracted_ms IS NOT NULL
ORDER BY content.id LIMIT ?2;

-- unread --  Its text is to be read again; what is there stays until then.
UPDATE content SET extracted_ms = NULL WHERE id = ?1;

-- some_texts --  Passages from all over, to measure with.
SELECT text FROM segment WHERE id >= ?1 AND text <> '' ORDER BY id LIMIT ?2;

-- last_segment --  The greatest id.
SELECT max(id) FROM segment;
