-- Identifies the cluster for life.
ALTER TABLE state ADD COLUMN cluster_id TEXT NOT NULL DEFAULT '';
UPDATE state SET cluster_id = 'prontomq-cluster-id-' || lower(hex(randomblob(16)));

-- Whether the settings named the user: until now all did but guest, who was made on an empty store.
ALTER TABLE user ADD COLUMN from_settings INTEGER NOT NULL DEFAULT 0;
UPDATE user SET from_settings = 1 WHERE name <> 'guest';
