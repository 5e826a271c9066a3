-- Places without text: pictures, windows of sound, page images; and speech that was written down.
ALTER TABLE content ADD COLUMN heard_ms INTEGER;                            -- NULL: speech not written down to its end
ALTER TABLE content ADD COLUMN heard_until_ms INTEGER NOT NULL DEFAULT 0;   -- where a cut-off transcript goes on

-- What was found by name only, or read without its places, is read again: a pending file without a job is identified.
UPDATE content SET extracted_ms = NULL WHERE modality IN ('image', 'audio', 'video') OR type_label = 'pdf';
UPDATE asset SET state = 'pending' WHERE gone_ms IS NULL AND state IN ('indexed', 'skipped') AND content IN (
    SELECT id FROM content WHERE modality IN ('image', 'audio', 'video') OR type_label = 'pdf'
);
