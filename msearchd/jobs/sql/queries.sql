-- enqueue --  Owe a step: a new row, or the row there is, one generation on; while it runs it stays running. (asset, step, target, priority, now)
INSERT INTO job (asset, step, target, priority, state, generation, created_ms, updated_ms)
VALUES (?1, ?2, ?3, ?4, 'ready', 1, ?5, ?5)
ON CONFLICT (asset, step, target) DO UPDATE SET
  generation = generation + 1,
  priority = min(priority, excluded.priority),
  attempts = CASE state WHEN 'running' THEN attempts ELSE 0 END,
  outages = 0,
  state = CASE state WHEN 'running' THEN 'running' ELSE 'ready' END,
  is_dropped = 0,
  run_at_ms = NULL,
  cause = NULL,
  error = '',
  updated_ms = excluded.updated_ms;

-- forget_waiting --  Delete what is owed for an asset and not in work, but for the steps kept.
DELETE FROM job WHERE asset = :asset AND state <> 'running' AND step NOT IN (SELECT value FROM json_each(:keep));

-- forget_running --  What is in work cannot be deleted (a new change would run beside it): its end deletes it.
UPDATE job SET is_dropped = 1, generation = generation + 1, updated_ms = :now
WHERE asset = :asset AND state = 'running' AND is_dropped = 0 AND step NOT IN (SELECT value FROM json_each(:keep));

-- forget_targets --  Delete some jobs of a step for targets that are not kept.
DELETE FROM job WHERE id IN (
  SELECT id FROM job WHERE step = :step AND state <> 'running' AND target NOT IN (SELECT value FROM json_each(:keep)) LIMIT :limit
) RETURNING asset;

-- forget_all_waiting --  Delete every job that is not in work.
DELETE FROM job WHERE state <> 'running';

-- forget_all_running --  Mark all work in hand as forgotten.
UPDATE job SET is_dropped = 1, generation = generation + 1, updated_ms = :now WHERE state = 'running' AND is_dropped = 0;

-- forget_history --  Delete the history.
DELETE FROM job_history;

-- targets --  The targets of a step that have ready jobs, by skipping through the ready index (not by reading it).
WITH RECURSIVE found (target) AS (
  SELECT min(target) FROM job WHERE state = 'ready' AND step = :step
  UNION ALL
  SELECT (SELECT min(target) FROM job WHERE state = 'ready' AND step = :step AND target > found.target)
  FROM found WHERE found.target IS NOT NULL
)
SELECT target FROM found WHERE target IS NOT NULL;

-- target_ends --  The first and the last target of a step that have ready jobs. (step)
SELECT (SELECT min(target) FROM job WHERE state = 'ready' AND step = ?1),
       (SELECT max(target) FROM job WHERE state = 'ready' AND step = ?1);

-- has_ready --  One row if a step and target have a ready job of a priority. (step, target, priority)
SELECT 1 FROM job INDEXED BY job_ready WHERE state = 'ready' AND step = ?1 AND target = ?2 AND priority = ?3 LIMIT 1;

-- is_paused --  One row if a pause is on.
SELECT 1 FROM queue_flag LIMIT 1;

-- complete --  The job is done, unless something changed since its claim. (id, generation)
DELETE FROM job WHERE id = ?1 AND generation = ?2 AND state = 'running';

-- is_current --  One row if nothing changed since the claim. (id, generation)
SELECT 1 FROM job WHERE id = ?1 AND generation = ?2 AND state = 'running';

-- claimed_row --  The row of a running attempt, if it is still this attempt's.
SELECT generation, is_dropped, attempts, outages, claim_serial FROM job
WHERE id = :id AND claimed_generation = :generation;

-- forget_one --  Delete a job by id.
DELETE FROM job WHERE id = :id;

-- ready_again --  Back to the line at its old place; *attempts* says how many count from now on.
UPDATE job SET state = 'ready', claimed_generation = NULL, claim_serial = NULL, owner = NULL, attempts = :attempts, updated_ms = :now
WHERE id = :id;

-- delay --  Not before run_at_ms.
UPDATE job SET state = 'delayed', claimed_generation = NULL, claim_serial = NULL, owner = NULL, run_at_ms = :run_at,
  attempts = :attempts, outages = :outages, error = :error, updated_ms = :now
WHERE id = :id;

-- block --  Not before its cause is gone; the attempt does not count.
UPDATE job SET state = 'blocked', claimed_generation = NULL, claim_serial = NULL, owner = NULL, cause = :cause,
  attempts = :attempts, error = :error, updated_ms = :now
WHERE id = :id;

-- fail --  For good, until a change or somebody asks again.
UPDATE job SET state = 'failed', claimed_generation = NULL, claim_serial = NULL, owner = NULL, error = :error, updated_ms = :now
WHERE id = :id;

-- remember --  Note how an attempt ended. (asset, step, target, outcome, attempts, error, now)
INSERT INTO job_history (asset, step, target, outcome, attempts, error, ended_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- trim_history --  Keep the newest rows only.
DELETE FROM job_history WHERE id <= (SELECT max(id) FROM job_history) - :rows;

-- wake --  Some of the jobs blocked on a cause, in order of id (a walk: what is blocked again meanwhile is not met twice).
UPDATE job SET state = 'ready', cause = NULL, updated_ms = :now
WHERE id IN (SELECT id FROM job INDEXED BY job_blocked WHERE state = 'blocked' AND cause = :cause AND id > :after ORDER BY id LIMIT :limit)
RETURNING id;

-- retry_failed_of --  The failed jobs of one asset.
UPDATE job SET state = 'ready', attempts = 0, outages = 0, error = '', updated_ms = :now WHERE asset = :asset AND state = 'failed';

-- retry_failed --  Some of the failed jobs, in order of id.
UPDATE job SET state = 'ready', attempts = 0, outages = 0, error = '', updated_ms = :now
WHERE id IN (SELECT id FROM job INDEXED BY job_failed WHERE state = 'failed' AND id > :after ORDER BY id LIMIT :limit)
RETURNING id;

-- promote --  Some of the delayed jobs that are due; those beyond every possible wait come from a clock that ran ahead.
UPDATE job SET state = 'ready', run_at_ms = NULL, updated_ms = :now
WHERE id IN (SELECT id FROM job INDEXED BY job_delayed WHERE state = 'delayed' AND run_at_ms <= :due
             UNION ALL
             SELECT id FROM job INDEXED BY job_delayed WHERE state = 'delayed' AND run_at_ms > :horizon
             LIMIT :limit);

-- next_due --  When the first delayed job is due.
SELECT min(run_at_ms) FROM job WHERE state = 'delayed';

-- killed --  At start: what was running and has used up its attempts at the bytes it has.
UPDATE job SET state = 'failed', claimed_generation = NULL, claim_serial = NULL, owner = NULL,
  error = 'killed its worker ' || attempts || ' times', updated_ms = :now
WHERE state = 'running' AND generation = claimed_generation AND attempts >= :max_attempts
RETURNING asset, step, target, attempts, error;

-- forgotten_at_start --  At start: what was forgotten while it ran.
DELETE FROM job WHERE state = 'running' AND is_dropped = 1;

-- return_running --  At start: the rest of what was running; the attempt counts, but not against newer bytes.
UPDATE job SET state = 'ready', attempts = CASE WHEN generation = claimed_generation THEN attempts ELSE 0 END,
  claimed_generation = NULL, claim_serial = NULL, owner = NULL, updated_ms = :now
WHERE state = 'running';

-- open_states --  The states of what is owed for an asset.
SELECT state, count(*) FROM job WHERE asset = :asset AND is_dropped = 0 GROUP BY state;

-- open_jobs --  What is owed for an asset.
SELECT step, target, state FROM job WHERE asset = :asset AND is_dropped = 0;

-- open_reason --  Why an asset is not done: a failure first, then a block, then a delay.
SELECT error FROM job WHERE asset = :asset AND is_dropped = 0 AND error <> ''
ORDER BY CASE state WHEN 'failed' THEN 0 WHEN 'blocked' THEN 1 WHEN 'delayed' THEN 2 ELSE 3 END, id LIMIT 1;

-- pause --  Set a pause.
INSERT INTO queue_flag (reason, since_ms) VALUES (:reason, :now) ON CONFLICT (reason) DO NOTHING;

-- resume --  Lift one pause.
DELETE FROM queue_flag WHERE reason = :reason;

-- resume_all --  Lift all pauses.
DELETE FROM queue_flag;

-- pauses --  The pauses that are on, oldest first.
SELECT reason FROM queue_flag ORDER BY since_ms, reason;

-- count_ready --  Ready jobs by step and target, and the first in line of each.
SELECT step, target, count(*), min(id) FROM job INDEXED BY job_ready WHERE state = 'ready' GROUP BY step, target;

-- count_running --  Jobs in work.
SELECT count(*) FROM job INDEXED BY job_running WHERE state = 'running';

-- count_delayed --  Jobs that wait for a time.
SELECT count(*) FROM job INDEXED BY job_delayed WHERE state = 'delayed';

-- count_blocked --  Jobs by the cause that they wait for.
SELECT cause, count(*), min(id) FROM job INDEXED BY job_blocked WHERE state = 'blocked' GROUP BY cause ORDER BY cause;

-- count_failed --  Jobs that failed for good.
SELECT count(*) FROM job INDEXED BY job_failed WHERE state = 'failed';

-- oldest_of --  When the first of these jobs was enqueued.
SELECT min(created_ms) FROM job WHERE id IN (SELECT value FROM json_each(:ids));

-- error_of --  The error of one job.
SELECT error, updated_ms FROM job WHERE id = :id;

-- failures --  Failed jobs in order of id.
SELECT id, asset, step, target, priority, state, attempts, error, cause, run_at_ms, created_ms, updated_ms
FROM job INDEXED BY job_failed WHERE state = 'failed' AND id > :after ORDER BY id LIMIT :limit;

-- troubles --  Failed and blocked jobs, newest first.
SELECT * FROM (
  SELECT * FROM (
    SELECT id, asset, step, target, priority, state, attempts, error, cause, run_at_ms, created_ms, updated_ms
    FROM job INDEXED BY job_failed WHERE state = 'failed' AND id < :before ORDER BY id DESC LIMIT :limit)
  UNION ALL
  SELECT * FROM (
    SELECT id, asset, step, target, priority, state, attempts, error, cause, run_at_ms, created_ms, updated_ms
    FROM job INDEXED BY job_blocked_line WHERE state = 'blocked' AND id < :before ORDER BY id DESC LIMIT :limit))
ORDER BY id DESC LIMIT :limit;

-- jobs_of --  All that is owed for an asset.
SELECT id, asset, step, target, priority, state, attempts, error, cause, run_at_ms, created_ms, updated_ms
FROM job WHERE asset = :asset AND is_dropped = 0 ORDER BY id;

-- running --  All that is in work.
SELECT id, asset, step, target, priority, state, attempts, error, cause, run_at_ms, created_ms, updated_ms
FROM job INDEXED BY job_running WHERE state = 'running' ORDER BY id;

-- history_of --  How the attempts for an asset ended, newest first.
SELECT asset, step, target, outcome, attempts, error, ended_ms FROM job_history WHERE asset = :asset ORDER BY id DESC LIMIT :limit;

-- is_busy --  One row if anything is ready or in work.
SELECT 1 WHERE EXISTS (SELECT 1 FROM job INDEXED BY job_ready WHERE state = 'ready')
            OR EXISTS (SELECT 1 FROM job INDEXED BY job_running WHERE state = 'running');

-- is_asset_busy --  One row if anything of an asset is ready or in work.
SELECT 1 FROM job WHERE asset = :asset AND state IN ('ready', 'running') LIMIT 1;

-- count_by_step --  For `msearch queue`: jobs by state, step and target, and the oldest of each. Reads every row that waits.
SELECT state, step, target, count(*), min(created_ms) FROM job GROUP BY state, step, target;

-- ended_since --  Attempts that ended lately by outcome, and when the first of them did. The history is short.
SELECT outcome, count(*), min(ended_ms) FROM job_history WHERE ended_ms >= :since GROUP BY outcome;

-- reasons_failed --  The most frequent reasons among the newest failed jobs.
SELECT step, error, count(*) AS jobs, min(updated_ms) FROM (
  SELECT step, error, updated_ms FROM job INDEXED BY job_failed WHERE state = 'failed' ORDER BY id DESC LIMIT :rows)
GROUP BY step, error ORDER BY jobs DESC, step, error LIMIT :limit;

-- reasons_blocked --  The most frequent reasons among the newest blocked jobs.
SELECT step, error, count(*) AS jobs, min(updated_ms) FROM (
  SELECT step, error, updated_ms FROM job INDEXED BY job_blocked_line WHERE state = 'blocked' ORDER BY id DESC LIMIT :rows)
GROUP BY step, error ORDER BY jobs DESC, step, error LIMIT :limit;

-- reasons_delayed --  The most frequent reasons among the delayed jobs that are due next.
SELECT step, error, count(*) AS jobs, min(updated_ms) FROM (
  SELECT step, error, updated_ms FROM job INDEXED BY job_delayed WHERE state = 'delayed' ORDER BY run_at_ms LIMIT :rows)
GROUP BY step, error ORDER BY jobs DESC, step, error LIMIT :limit;

-- owed_assets --  Assets that something is owed for, in order. (after, limit)
SELECT DISTINCT asset FROM job WHERE asset > :after ORDER BY asset LIMIT :limit;
