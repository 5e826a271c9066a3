-- What was measured of each model, and what was decided by hand.

CREATE TABLE model_figures (
    key TEXT PRIMARY KEY,               -- fingerprint, engine, kind of device, threads
    host_bytes INTEGER NOT NULL CHECK (host_bytes >= 0),
    device_bytes INTEGER NOT NULL CHECK (device_bytes >= 0),
    load_s REAL NOT NULL CHECK (load_s >= 0),
    seen_ms INTEGER NOT NULL            -- UTC; the longest not seen go first
) STRICT, WITHOUT ROWID;

-- The learned size of a batch, by what is in it (text, pair, image, audio). Costs in tokens, patches or frames.
CREATE TABLE model_batch (
    key TEXT NOT NULL REFERENCES model_figures (key) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    cost REAL NOT NULL,                 -- that a successor begins with
    size REAL NOT NULL,                 -- as it is cut under the time limit
    cost_per_s REAL NOT NULL,
    settled REAL NOT NULL,              -- 1: no other size is being tried
    shortage_at REAL,                   -- did not fit in memory; NULL: all did
    PRIMARY KEY (key, kind)
) STRICT, WITHOUT ROWID;

-- Models pinned (1) or let go (0) by hand, where the settings say otherwise.
CREATE TABLE model_pin (
    model TEXT PRIMARY KEY,
    is_pinned INTEGER NOT NULL CHECK (is_pinned IN (0, 1))
) STRICT, WITHOUT ROWID;
