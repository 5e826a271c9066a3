-- all_figures -- Every model's figures, the longest not seen first.
SELECT key, host_bytes, device_bytes, load_s FROM model_figures ORDER BY seen_ms, key;

-- all_batches -- Every learned size.
SELECT key, kind, cost, size, cost_per_s, settled, shortage_at FROM model_batch;

-- put_figures -- Keep the figures of a model.
INSERT INTO model_figures (key, host_bytes, device_bytes, load_s, seen_ms)
VALUES (:key, :host_bytes, :device_bytes, :load_s, :seen_ms)
ON CONFLICT (key) DO UPDATE SET host_bytes = excluded.host_bytes, device_bytes = excluded.device_bytes,
    load_s = excluded.load_s, seen_ms = excluded.seen_ms;

-- put_batch -- Keep the size learned for one kind.
INSERT OR REPLACE INTO model_batch (key, kind, cost, size, cost_per_s, settled, shortage_at)
VALUES (:key, :kind, :cost, :size, :cost_per_s, :settled, :shortage_at);

-- forget_oldest -- Models that were tried once stay out of the way of those in use.
DELETE FROM model_figures WHERE key NOT IN (SELECT key FROM model_figures ORDER BY seen_ms DESC, key LIMIT :most);

-- forget_figures -- Begin to measure anew; the learned sizes go with them.
DELETE FROM model_figures;

-- all_pins -- What was decided by hand.
SELECT model, is_pinned FROM model_pin;

-- put_pin -- Decide.
INSERT OR REPLACE INTO model_pin (model, is_pinned) VALUES (:model, :is_pinned);

-- forget_pin -- The settings decide again.
DELETE FROM model_pin WHERE model = :model;

-- forget_pins -- The settings decide of every model again.
DELETE FROM model_pin;
