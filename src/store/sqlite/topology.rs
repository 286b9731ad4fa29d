//! Topology in the file: changes written by the writer, everything read back once at start.

use super::lanes::{LaneNumber, Lanes};
use crate::model::{Lane, Name, Position, QueueId};
use crate::store::{
    BatchNo, BindingRecord, Destination, ExchangeRecord, LaneRecord, LaneState, QueueRecord, RecoveredState,
    TopologyChange, UserRecord, VhostRecord,
};
use rusqlite::{Connection, params};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::HashMap;

const QUEUE: i64 = 0;
const EXCHANGE: i64 = 1;

fn kind_number(kind: Destination) -> i64 {
    match kind {
        Destination::Queue => QUEUE,
        Destination::Exchange => EXCHANGE,
    }
}

/// Writes one change within the transaction of its batch. The caller drops the lanes of a deleted queue.
pub(super) fn write(connection: &Connection, change: &TopologyChange) -> rusqlite::Result<()> {
    let run = |statement: &str, values: &[&dyn rusqlite::ToSql]| -> rusqlite::Result<()> {
        connection.prepare_cached(statement)?.execute(values)?;
        Ok(())
    };
    match change {
        TopologyChange::PutVhost(vhost) => run("INSERT OR IGNORE INTO vhost VALUES (?1)", params![vhost.name.as_str()]),
        TopologyChange::DeleteVhost(name) => run("DELETE FROM vhost WHERE name = ?1", params![name.as_str()]),
        TopologyChange::PutUser(user) => put_user(connection, user),
        TopologyChange::DeleteUser(name) => delete_user(connection, name),
        TopologyChange::PutExchange(exchange) => run(
            "INSERT OR REPLACE INTO exchange VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                exchange.vhost.as_str(),
                exchange.name.as_str(),
                exchange.kind,
                exchange.auto_delete,
                exchange.internal,
                exchange.arguments
            ],
        ),
        TopologyChange::DeleteExchange { vhost, name } => {
            run("DELETE FROM exchange WHERE vhost = ?1 AND name = ?2", params![vhost.as_str(), name.as_str()])
        }
        TopologyChange::PutQueue(queue) => run(
            "INSERT OR REPLACE INTO queue VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                queue.id.0.cast_signed(),
                queue.vhost.as_str(),
                queue.name.as_str(),
                queue.auto_delete,
                queue.arguments
            ],
        ),
        TopologyChange::DeleteQueue(id) => run("DELETE FROM queue WHERE id = ?1", params![id.0.cast_signed()]),
        TopologyChange::PutBinding(binding) => {
            with_binding(connection, "INSERT OR IGNORE INTO binding VALUES (?1, ?2, ?3, ?4, ?5, ?6)", binding)
        }
        TopologyChange::DeleteBinding(binding) => with_binding(
            connection,
            "DELETE FROM binding WHERE vhost = ?1 AND source = ?2 AND destination_kind = ?3 AND destination = ?4 \
             AND routing_key = ?5 AND arguments = ?6",
            binding,
        ),
    }
}

fn with_binding(connection: &Connection, statement: &str, binding: &BindingRecord) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute(params![
        binding.vhost.as_str(),
        binding.source.as_str(),
        kind_number(binding.destination_kind),
        binding.destination.as_str(),
        binding.routing_key.as_str(),
        binding.arguments
    ])?;
    Ok(())
}

fn put_user(connection: &Connection, user: &UserRecord) -> rusqlite::Result<()> {
    delete_user(connection, &user.name)?;
    connection.prepare_cached("INSERT INTO user VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        user.name.as_str(),
        user.password_hash,
        user.hashing_algorithm,
        user.from_settings
    ])?;
    let mut tag_statement = connection.prepare_cached("INSERT INTO user_tag VALUES (?1, ?2, ?3)")?;
    for (tag, ordinal) in user.tags.iter().zip(0_i64..) {
        tag_statement.execute(params![user.name.as_str(), ordinal, tag])?;
    }
    let mut vhost_statement = connection.prepare_cached("INSERT INTO user_vhost VALUES (?1, ?2, ?3)")?;
    for (vhost, ordinal) in user.vhosts.iter().zip(0_i64..) {
        vhost_statement.execute(params![user.name.as_str(), ordinal, vhost.as_str()])?;
    }
    Ok(())
}

fn delete_user(connection: &Connection, name: &Name) -> rusqlite::Result<()> {
    for statement in [
        "DELETE FROM user WHERE name = ?1",
        "DELETE FROM user_tag WHERE user = ?1",
        "DELETE FROM user_vhost WHERE user = ?1",
    ] {
        connection.prepare_cached(statement)?.execute(params![name.as_str()])?;
    }
    Ok(())
}

/// Reads everything but rows of messages.
pub(super) async fn read(connection: &mut SqliteConnection) -> Result<(RecoveredState, Lanes), sqlx::Error> {
    let State { boot, batch_no, clean, cluster_id } = read_state(connection).await?;
    let (lane_records, lanes) = read_lanes(connection).await?;
    let recovered = RecoveredState {
        boot,
        batch_no,
        clean,
        cluster_id,
        vhosts: read_all(connection, "SELECT name FROM vhost", |row| Ok(VhostRecord { name: name(row, 0)? })).await?,
        users: read_users(connection).await?,
        exchanges: read_all(connection, "SELECT * FROM exchange", exchange_from).await?,
        queues: read_all(connection, "SELECT * FROM queue", queue_from).await?,
        bindings: read_all(connection, "SELECT * FROM binding", binding_from).await?,
        lanes: lane_records,
    };
    Ok((recovered, lanes))
}

/// What holds for the whole file.
pub(super) struct State {
    boot: u32,
    pub(super) batch_no: BatchNo,
    clean: bool,
    cluster_id: String,
}

pub(super) async fn read_state(connection: &mut SqliteConnection) -> Result<State, sqlx::Error> {
    let statement =
        "SELECT boot, max(batch_no, (SELECT coalesce(max(batch_no), 0) FROM lane)), clean, cluster_id FROM state";
    let row = sqlx::query(statement).fetch_one(connection).await?;
    Ok(State {
        boot: row.try_get(0)?,
        batch_no: BatchNo(unsigned(&row, 1)?),
        clean: row.try_get(2)?,
        cluster_id: row.try_get(3)?,
    })
}

/// All lanes: the live ones as records, and the numbers of all.
pub(super) async fn read_lanes(connection: &mut SqliteConnection) -> Result<(Vec<LaneRecord>, Lanes), sqlx::Error> {
    let statement = "SELECT number, dropped, queue, level, generation, head, tail, count, body_bytes, lent_ceiling, \
                     bodies FROM lane ORDER BY number";
    let last_body = sqlx::query("SELECT coalesce(max(id), 0) FROM body").fetch_one(&mut *connection).await?;
    let mut lanes = Lanes::with_last_body(last_body.try_get(0)?);
    // Before the lanes: the number of a dropped one is given again only after its ranges are erased.
    for row in sqlx::query("SELECT first, last FROM erasing ORDER BY first").fetch_all(&mut *connection).await? {
        lanes.found_range(row.try_get(0)?, row.try_get(1)?);
    }
    let mut records = Vec::new();
    for row in sqlx::query(statement).fetch_all(connection).await? {
        let number = LaneNumber(row.try_get(0)?);
        if row.try_get::<bool, _>(1)? {
            lanes.found(number, None, unsigned(&row, 10)?);
            continue;
        }
        let record = lane_from(&row)?;
        lanes.found(number, Some(record.lane), unsigned(&row, 10)?);
        lanes.set_head(number, record.state.head);
        records.push(record);
    }
    Ok((records, lanes))
}

fn lane_from(row: &SqliteRow) -> Result<LaneRecord, sqlx::Error> {
    let lane = Lane { queue: QueueId(unsigned(row, 2)?), level: row.try_get(3)?, generation: row.try_get(4)? };
    let state = LaneState {
        head: Position(unsigned(row, 5)?),
        tail: Position(unsigned(row, 6)?),
        count: unsigned(row, 7)?,
        body_bytes: unsigned(row, 8)?,
        lent_ceiling: Position(unsigned(row, 9)?),
    };
    Ok(LaneRecord { lane, state })
}

async fn read_all<T>(
    connection: &mut SqliteConnection,
    statement: &'static str,
    from: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, sqlx::Error> {
    sqlx::query(statement).fetch_all(connection).await?.iter().map(from).collect()
}

async fn read_users(connection: &mut SqliteConnection) -> Result<Vec<UserRecord>, sqlx::Error> {
    let pair = |row: &SqliteRow| Ok((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
    let mut users = read_all(connection, "SELECT * FROM user", user_from).await?;
    let index: HashMap<_, _> = users.iter().enumerate().map(|(at, user)| (user.name.to_string(), at)).collect();
    for (user, tag) in read_all(connection, "SELECT user, tag FROM user_tag ORDER BY user, ordinal", pair).await? {
        if let Some(at) = index.get(&user) {
            users[*at].tags.push(tag);
        }
    }
    for (user, vhost) in read_all(connection, "SELECT user, vhost FROM user_vhost ORDER BY user, ordinal", pair).await?
    {
        if let Some(at) = index.get(&user) {
            users[*at].vhosts.push(Name::from(vhost));
        }
    }
    Ok(users)
}

fn user_from(row: &SqliteRow) -> Result<UserRecord, sqlx::Error> {
    Ok(UserRecord {
        name: name(row, 0)?,
        password_hash: row.try_get(1)?,
        hashing_algorithm: row.try_get(2)?,
        tags: Vec::new(),
        from_settings: row.try_get(3)?,
        vhosts: Vec::new(),
    })
}

fn exchange_from(row: &SqliteRow) -> Result<ExchangeRecord, sqlx::Error> {
    Ok(ExchangeRecord {
        vhost: name(row, 0)?,
        name: name(row, 1)?,
        kind: row.try_get(2)?,
        auto_delete: row.try_get(3)?,
        internal: row.try_get(4)?,
        arguments: row.try_get(5)?,
    })
}

fn queue_from(row: &SqliteRow) -> Result<QueueRecord, sqlx::Error> {
    Ok(QueueRecord {
        id: QueueId(unsigned(row, 0)?),
        vhost: name(row, 1)?,
        name: name(row, 2)?,
        auto_delete: row.try_get(3)?,
        arguments: row.try_get(4)?,
    })
}

fn binding_from(row: &SqliteRow) -> Result<BindingRecord, sqlx::Error> {
    let destination_kind = match row.try_get::<i64, _>(2)? {
        QUEUE => Destination::Queue,
        EXCHANGE => Destination::Exchange,
        other => return Err(sqlx::Error::Decode(format!("{other} is no kind of destination").into())),
    };
    Ok(BindingRecord {
        vhost: name(row, 0)?,
        source: name(row, 1)?,
        destination_kind,
        destination: name(row, 3)?,
        routing_key: name(row, 4)?,
        arguments: row.try_get(5)?,
    })
}

fn name(row: &SqliteRow, column: usize) -> Result<Name, sqlx::Error> {
    row.try_get::<String, _>(column).map(Name::from)
}

fn unsigned(row: &SqliteRow, column: usize) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(column).map(i64::cast_unsigned)
}
