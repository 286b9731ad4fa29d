-- What people may read in the file, whatever version of SQLite they use. docs/sql.md explains the columns; they keep
-- their names and meaning, and new ones come last. Statements end with a semicolon at the end of a line, and nothing
-- else does.

CREATE VIEW v_store AS
SELECT
    (SELECT max(version) FROM _sqlx_migrations) AS schema,
    boot AS starts,
    max(batch_no, (SELECT coalesce(max(batch_no), 0) FROM lane)) AS batch_no,
    clean AS stopped_in_good_order,
    (SELECT count(*) FROM queue) AS queues,
    (SELECT coalesce(sum(count), 0) FROM lane WHERE dropped = 0) AS messages,
    (SELECT coalesce(sum(body_bytes), 0) FROM lane WHERE dropped = 0) AS bytes
FROM state;

CREATE VIEW v_vhosts AS
SELECT
    name,
    (SELECT count(*) FROM queue WHERE queue.vhost = vhost.name) AS queues,
    (SELECT count(*) FROM exchange WHERE exchange.vhost = vhost.name) AS exchanges,
    (SELECT count(*) FROM binding WHERE binding.vhost = vhost.name) AS bindings,
    (SELECT coalesce(sum(count), 0) FROM lane JOIN queue ON queue.id = lane.queue
        WHERE dropped = 0 AND queue.vhost = vhost.name) AS messages
FROM vhost;

CREATE VIEW v_users AS
SELECT
    name,
    (SELECT coalesce(group_concat(tag, ','), '') FROM
        (SELECT tag FROM user_tag WHERE user_tag.user = user.name ORDER BY ordinal)) AS tags,
    (SELECT coalesce(group_concat(vhost, ','), '') FROM
        (SELECT vhost FROM user_vhost WHERE user_vhost.user = user.name ORDER BY ordinal)) AS vhosts
FROM user;

CREATE VIEW v_exchanges AS
SELECT vhost, name, kind AS type, auto_delete, internal, arguments FROM exchange;

CREATE VIEW v_bindings AS
SELECT
    vhost, source,
    CASE destination_kind WHEN 0 THEN 'queue' ELSE 'exchange' END AS destination_type,
    destination, routing_key, arguments
FROM binding;

CREATE VIEW v_levels AS
SELECT
    queue.vhost AS vhost, queue.name AS queue,
    lane.level AS level, lane.generation AS generation,
    lane.count AS messages, lane.body_bytes AS bytes,
    lane.head AS head, lane.tail AS tail,
    lane.number AS lane
FROM lane JOIN queue ON queue.id = lane.queue
WHERE lane.dropped = 0;

CREATE VIEW v_queues AS
SELECT
    queue.vhost AS vhost, queue.name AS name,
    coalesce(sum(lane.count), 0) AS messages,
    coalesce(sum(lane.body_bytes), 0) AS bytes,
    count(DISTINCT CASE WHEN lane.count > 0 THEN lane.level END) AS levels,
    (SELECT round((julianday('now') - 2440587.5) * 86400 - min(first.stored_at) / 1000.0, 3)
        FROM lane AS its CROSS JOIN message AS first
        WHERE its.queue = queue.id AND its.dropped = 0 AND first.id =
            (SELECT min(id) FROM message
                WHERE id BETWEEN its.number << 40 | its.head AND its.number << 40 | 0xFFFFFFFFFF
                AND NOT EXISTS (SELECT 1 FROM erasing WHERE message.id BETWEEN erasing.first AND erasing.last))
    ) AS oldest_age,
    queue.auto_delete AS auto_delete,
    queue.arguments AS arguments,
    queue.id AS id
FROM queue LEFT JOIN lane ON lane.queue = queue.id AND lane.dropped = 0
GROUP BY queue.id;

-- head begins with 16 bytes: flags (1: persistent), priority, length of the address (2), length of the properties (4),
-- expiration (8), all little-endian. Then come exchange and routing key, a byte of length before each, the properties,
-- and the body when it is small. What instr finds in the digits of hex is a digit's value.
CREATE VIEW v_messages AS
SELECT
    vhost, queue, level, generation, position,
    instr('123456789ABCDEF', substr(prefix, 3, 1)) * 16 + instr('123456789ABCDEF', substr(prefix, 4, 1)) AS priority,
    CAST(substr(head, 18, exchange_bytes) AS TEXT) AS exchange,
    CAST(substr(head, 19 + exchange_bytes,
        instr('123456789ABCDEF', substr(hex(substr(head, 18 + exchange_bytes, 1)), 1, 1)) * 16
        + instr('123456789ABCDEF', substr(hex(substr(head, 18 + exchange_bytes, 1)), 2, 1))) AS TEXT) AS routing_key,
    CASE typeof(body)
        WHEN 'null' THEN length(head) - before_body
        WHEN 'blob' THEN length(body)
        ELSE (SELECT bytes FROM body AS shared WHERE shared.id = message.body)
    END AS size,
    round((julianday('now') - 2440587.5) * 86400 - stored_at / 1000.0, 3) AS age,
    strftime('%Y-%m-%d %H:%M:%f', stored_at / 1000.0, 'unixepoch') AS stored_at,
    strftime('%Y-%m-%d %H:%M:%f', expires_at / 1000.0, 'unixepoch') AS expires_at,
    redelivered,
    instr('13579BDF', substr(prefix, 2, 1)) > 0 AS persistent,
    head,
    CASE typeof(body)
        WHEN 'null' THEN substr(head, before_body + 1)
        WHEN 'blob' THEN body
        ELSE (SELECT CAST(group_concat(data, '') AS BLOB) FROM
            (SELECT data FROM chunk WHERE id BETWEEN message.body << 16 AND message.body << 16 | 0xFFFF ORDER BY id))
    END AS body
FROM (
    SELECT
        *,
        instr('123456789ABCDEF', substr(prefix, 33, 1)) * 16
            + instr('123456789ABCDEF', substr(prefix, 34, 1)) AS exchange_bytes,
        16 + instr('123456789ABCDEF', substr(prefix, 5, 1)) * 16
            + instr('123456789ABCDEF', substr(prefix, 6, 1))
            + instr('123456789ABCDEF', substr(prefix, 7, 1)) * 4096
            + instr('123456789ABCDEF', substr(prefix, 8, 1)) * 256
            + instr('123456789ABCDEF', substr(prefix, 9, 1)) * 16
            + instr('123456789ABCDEF', substr(prefix, 10, 1))
            + instr('123456789ABCDEF', substr(prefix, 11, 1)) * 4096
            + instr('123456789ABCDEF', substr(prefix, 12, 1)) * 256
            + instr('123456789ABCDEF', substr(prefix, 13, 1)) * 1048576
            + instr('123456789ABCDEF', substr(prefix, 14, 1)) * 65536
            + instr('123456789ABCDEF', substr(prefix, 15, 1)) * 268435456
            + instr('123456789ABCDEF', substr(prefix, 16, 1)) * 16777216 AS before_body
    FROM (
        SELECT
            queue.vhost AS vhost, queue.name AS queue,
            lane.level AS level, lane.generation AS generation,
            row.id & 0xFFFFFFFFFF AS position,
            hex(substr(row.head, 1, 17)) AS prefix,
            row.head AS head, row.body AS body,
            row.stored_at AS stored_at, row.expires_at AS expires_at,
            -- Only the process that runs knows how far it has handed messages out; its end in good order leaves that exact.
            row.redelivered OR (row.id & 0xFFFFFFFFFF < lane.lent_ceiling AND (SELECT clean FROM state)) AS redelivered
        FROM lane
        JOIN queue ON queue.id = lane.queue
        CROSS JOIN message AS row
        WHERE lane.dropped = 0 AND row.id BETWEEN lane.number << 40 | lane.head AND lane.number << 40 | 0xFFFFFFFFFF
            AND NOT EXISTS (SELECT 1 FROM erasing WHERE row.id BETWEEN erasing.first AND erasing.last)
    )
) AS message;
