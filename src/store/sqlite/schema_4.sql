-- Identifies the cluster for life.
ALTER TABLE state ADD COLUMN cluster_id TEXT NOT NULL DEFAULT '';
UPDATE state SET cluster_id = 'prontomq-cluster-id-' || lower(hex(randomblob(16)));

-- Whether the settings named the user. Of those that are there nobody knows it: the first start notes whom they name.
ALTER TABLE user ADD COLUMN from_settings INTEGER NOT NULL DEFAULT 0;
