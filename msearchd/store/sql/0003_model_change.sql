-- Spaces side by side: one answers, another is filled beside it, those that answered before are kept for a while.

-- What it is while it does not answer (is_active = 1: it does).
ALTER TABLE space ADD COLUMN phase TEXT NOT NULL DEFAULT 'waiting'
    CHECK (phase IN ('waiting', 'building', 'declined', 'kept'));
ALTER TABLE space ADD COLUMN since_ms INTEGER NOT NULL DEFAULT 0;           -- in this phase
-- 0: what it lacks is not embedded unasked.
ALTER TABLE space ADD COLUMN is_filling INTEGER NOT NULL DEFAULT 0 CHECK (is_filling IN (0, 1));
-- The model key by which jobs name it in this life; '': no model makes its vectors now.
ALTER TABLE space ADD COLUMN target TEXT NOT NULL DEFAULT '';
-- The settings that its vectors were made by, as JSON; '': not known.
ALTER TABLE space ADD COLUMN made_by TEXT NOT NULL DEFAULT '';

UPDATE space SET target = model, is_filling = is_active, since_ms = made_ms, phase = iif(is_active, 'waiting', 'kept')
WHERE NOT EXISTS (SELECT 1 FROM space AS newer WHERE newer.model = space.model AND newer.rowid > space.rowid);
UPDATE space SET phase = 'kept', since_ms = made_ms WHERE target = '';

CREATE UNIQUE INDEX space_target ON space (target) WHERE target <> '';
-- Until it is said otherwise, a model's newest space is the one that its jobs mean.
CREATE TRIGGER space_targeted AFTER INSERT ON space BEGIN
    UPDATE space SET target = '' WHERE target = NEW.model AND name <> NEW.name;
    UPDATE space SET target = NEW.model WHERE name = NEW.name;
END;
