-- When the row was written, in milliseconds since the Unix epoch; NULL in rows that version 1 wrote.
ALTER TABLE message ADD COLUMN stored_at INTEGER;

-- Where a transient message lies among durable ones; only in the scratch store, NULL elsewhere.
ALTER TABLE message ADD COLUMN behind INTEGER;
ALTER TABLE message ADD COLUMN nth INTEGER;

-- Rows with keys from first to last live no more; they are erased in slices. A range is within one lane.
CREATE TABLE erasing (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL
);

-- Rows of the lane whose body lies in the table body.
ALTER TABLE lane ADD COLUMN bodies INTEGER NOT NULL DEFAULT 0;

-- A body that several rows share, or that is stored in chunks. From here on message.body is NULL (the body is small and
-- lies in head), a BLOB (a large body), or an INTEGER: the id of a row here.
CREATE TABLE body (
    id INTEGER PRIMARY KEY,
    refs INTEGER NOT NULL, -- rows of message that name it
    bytes INTEGER NOT NULL -- of the whole body
);

-- id is body.id << 16 | index: 64 KiB each but the last.
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
