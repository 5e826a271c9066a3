-- Read by msearchd/store/vector_cache.py.

-- put_space --  A space by what its vectors are made by.
INSERT INTO space (fingerprint, dim) VALUES (?1, ?2) ON CONFLICT (fingerprint, dim) DO NOTHING;

-- space_id --  Its number.
SELECT id FROM space WHERE fingerprint = ?1 AND dim = ?2;

-- find --  The vectors of one sample.
SELECT id, used, rows FROM vector WHERE space = ?1 AND key = ?2;

-- put --  The vectors of one sample; those that are known stay as they are.
INSERT INTO vector (space, key, used, rows) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (space, key) DO NOTHING RETURNING id;

-- touch --  It was asked for today.
UPDATE vector SET used = ?2 WHERE id = ?1;

-- evict --  The longest not asked for go, within a day the oldest.
DELETE FROM vector WHERE id IN (SELECT id FROM vector ORDER BY used, id LIMIT ?1) RETURNING length(rows);

-- total --  How much there is.
SELECT vectors, bytes FROM total;

-- add_total --  More, or with a minus less.
UPDATE total SET vectors = vectors + ?1, bytes = bytes + ?2;

-- clear --  Nothing is known any more.
DELETE FROM vector;

-- clear_total --  Nor counted.
UPDATE total SET vectors = 0, bytes = 0;
