-- One row: what holds for the whole file. batch_no is written in the transaction of the batch that it numbers.
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    boot INTEGER NOT NULL,
    batch_no INTEGER NOT NULL,
    clean INTEGER NOT NULL
);
INSERT INTO state VALUES (1, 0, 0, 1);

CREATE TABLE vhost (name TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE user (
    name TEXT PRIMARY KEY,
    password_hash TEXT NOT NULL,
    hashing_algorithm TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE user_tag (
    user TEXT NOT NULL, ordinal INTEGER NOT NULL, tag TEXT NOT NULL,
    PRIMARY KEY (user, ordinal)
) WITHOUT ROWID;
CREATE TABLE user_vhost (
    user TEXT NOT NULL, ordinal INTEGER NOT NULL, vhost TEXT NOT NULL,
    PRIMARY KEY (user, ordinal)
) WITHOUT ROWID;

CREATE TABLE exchange (
    vhost TEXT NOT NULL, name TEXT NOT NULL,
    kind TEXT NOT NULL, auto_delete INTEGER NOT NULL, internal INTEGER NOT NULL, arguments BLOB NOT NULL,
    PRIMARY KEY (vhost, name)
) WITHOUT ROWID;

CREATE TABLE queue (
    id INTEGER PRIMARY KEY,
    vhost TEXT NOT NULL, name TEXT NOT NULL,
    auto_delete INTEGER NOT NULL, arguments BLOB NOT NULL
);

-- All fields together are a binding's identity.
CREATE TABLE binding (
    vhost TEXT NOT NULL, source TEXT NOT NULL,
    destination_kind INTEGER NOT NULL, destination TEXT NOT NULL, -- 0 a queue, 1 an exchange
    routing_key TEXT NOT NULL, arguments BLOB NOT NULL,
    PRIMARY KEY (vhost, source, destination_kind, destination, routing_key, arguments)
) WITHOUT ROWID;

-- number has 23 bits and is used again once a dropped lane's rows are erased.
CREATE TABLE lane (
    number INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL, level INTEGER NOT NULL, generation INTEGER NOT NULL,
    head INTEGER NOT NULL, tail INTEGER NOT NULL, count INTEGER NOT NULL, body_bytes INTEGER NOT NULL,
    lent_ceiling INTEGER NOT NULL,
    dropped INTEGER NOT NULL
);
CREATE UNIQUE INDEX lane_by_queue ON lane (queue, level, generation) WHERE dropped = 0;

-- id is lane << 40 | position: one b-tree, read and erased in ranges.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    redelivered INTEGER NOT NULL,
    expires_at INTEGER, -- milliseconds since the Unix epoch
    head BLOB NOT NULL, -- the message, with its body when that is small
    body BLOB           -- a large body
);
