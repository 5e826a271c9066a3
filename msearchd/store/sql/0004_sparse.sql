-- Spaces of sparse vectors.

ALTER TABLE space ADD COLUMN sparse INTEGER NOT NULL DEFAULT 0 CHECK (sparse IN (0, 1));
