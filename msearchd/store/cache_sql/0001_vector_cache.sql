-- Vectors that were computed once, in a file of their own: it may be deleted at any time and costs inference, nothing else.

CREATE TABLE space (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL,    -- of the model, whatever its name: renaming a model costs nothing
    dim INTEGER NOT NULL CHECK (dim > 0),
    UNIQUE (fingerprint, dim)
) STRICT;

-- Rows are appended, and only the small indexes are written at random places: eight times less WAL than keyed rows.
CREATE TABLE vector (
    id INTEGER PRIMARY KEY,
    space INTEGER NOT NULL REFERENCES space (id),
    key BLOB NOT NULL CHECK (length(key) = 16),
    used INTEGER NOT NULL,        -- day it was last asked for
    rows BLOB NOT NULL            -- float16[n, dim], little-endian; n > 1 for late interaction
) STRICT;
CREATE UNIQUE INDEX vector_key ON vector (space, key);
CREATE INDEX vector_used ON vector (used);

CREATE TABLE total (vectors INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO total VALUES (0, 0);
