-- Steps owed for assets. One row per (asset, step, target): owing it twice is owing it once, at the better priority.
-- Times are UTC milliseconds. Done is no state: the row is gone, its attempts stay in job_history.
CREATE TABLE job (
  id                 INTEGER PRIMARY KEY,  -- also the place in the line: oldest first within one priority
  asset              INTEGER NOT NULL,
  step               TEXT NOT NULL,
  target             TEXT NOT NULL DEFAULT '',
  priority           INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 9),
  state              TEXT NOT NULL CHECK (state IN ('ready', 'running', 'delayed', 'blocked', 'failed')),
  generation         INTEGER NOT NULL,     -- moves on at every change of what is owed and at every claim
  claimed_generation INTEGER,              -- the generation that the running attempt may complete
  claim_serial       INTEGER,              -- order of claims and wakes within one life of the process
  is_dropped         INTEGER NOT NULL DEFAULT 0 CHECK (is_dropped IN (0, 1)),  -- forgotten while it runs
  attempts           INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  outages            INTEGER NOT NULL DEFAULT 0 CHECK (outages >= 0),          -- waits in a row that were not its fault
  run_at_ms          INTEGER,
  cause              TEXT,
  error              TEXT NOT NULL DEFAULT '',
  owner              TEXT,
  created_ms         INTEGER NOT NULL,
  updated_ms         INTEGER NOT NULL,
  UNIQUE (asset, step, target),
  CHECK ((state = 'running') = (claimed_generation IS NOT NULL)),
  CHECK ((state = 'delayed') = (run_at_ms IS NOT NULL)),
  CHECK ((state = 'blocked') = (cause IS NOT NULL)),
  CHECK (is_dropped = 0 OR state = 'running')
) STRICT;

-- Delayed, blocked and failed rows stand outside of the ready index: 200k retries in it cut claims from 15k/s to 54/s.
CREATE INDEX job_ready ON job (step, target, priority) WHERE state = 'ready';
CREATE INDEX job_delayed ON job (run_at_ms) WHERE state = 'delayed';
CREATE INDEX job_blocked ON job (cause) WHERE state = 'blocked';
-- Unique: no two running jobs of one asset, whatever the program does.
CREATE UNIQUE INDEX job_running ON job (asset) WHERE state = 'running';
CREATE INDEX job_failed ON job (state) WHERE state = 'failed';
-- For lists of trouble, newest first.
CREATE INDEX job_blocked_line ON job (state) WHERE state = 'blocked';

-- How attempts ended, newest last, capped by [queue] history_rows. Without an index: 10,000 rows are read in a millisecond.
CREATE TABLE job_history (
  id       INTEGER PRIMARY KEY,
  asset    INTEGER NOT NULL,
  step     TEXT NOT NULL,
  target   TEXT NOT NULL,
  outcome  TEXT NOT NULL CHECK (outcome IN ('done', 'retried', 'blocked', 'failed', 'superseded')),
  attempts INTEGER NOT NULL,
  error    TEXT NOT NULL,
  ended_ms INTEGER NOT NULL
) STRICT;

-- Reasons for which nothing but interactive work is claimed; they survive a restart.
CREATE TABLE queue_flag (
  reason   TEXT PRIMARY KEY,
  since_ms INTEGER NOT NULL
) STRICT;
