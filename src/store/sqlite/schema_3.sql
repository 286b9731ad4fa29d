-- The newest batch that wrote the lane: noted here, a batch touches one page less than when it is noted in state. That
-- keeps the newest of those that wrote no lane or dropped one.
ALTER TABLE lane ADD COLUMN batch_no INTEGER NOT NULL DEFAULT 0;
