//! The views for people (`views.sql`). The binary that opens the file replaces them by its own.
//!
//! They are no part of the schema: the store does not read them. A view can change without a migration, and an older
//! binary with the same schema restores its own. A start writes only if the views differ.

use sqlx::{Connection, SqlSafeStr, SqliteConnection};

const VIEWS: &str = include_str!("views.sql");

/// The statements as SQLite stores them: without comments before them and without semicolons.
fn statements() -> impl Iterator<Item = &'static str> {
    let parts = VIEWS.split(";\n").filter_map(|part| part.find("CREATE VIEW").map(|at| &part[at..]));
    parts.map(str::trim)
}

/// Replaces the views by those of this binary, if they differ.
pub(super) async fn put(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let found = "SELECT name, sql FROM sqlite_schema WHERE type = 'view' AND name GLOB 'v_*' ORDER BY rowid";
    let found: Vec<(String, String)> = sqlx::query_as(found).fetch_all(&mut *connection).await?;
    if found.iter().map(|(_, sql)| sql.as_str()).eq(statements()) {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    for (name, _) in &found {
        let drop = format!("DROP VIEW \"{}\"", name.replace('"', "\"\""));
        sqlx::query(sqlx::AssertSqlSafe(drop)).execute(&mut *transaction).await?;
    }
    for statement in statements() {
        sqlx::query(statement.into_sql_str()).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use crate::model::{Lane, Message, Name, Position, QueueId, WallMillis};
    use crate::store::contract::{batch, change};
    use crate::store::sqlite::{SqliteSettings, SqliteStore};
    use crate::store::{
        Batch, BindingRecord, CommitOutcome, Destination, ExchangeRecord, LaneChange, LaneState, QueueRecord, Row,
        Store, TopologyChange, UserRecord, VhostRecord,
    };
    use crate::wire::properties::{Properties, PropertiesWriter, Property};
    use rusqlite::{Connection, OpenFlags, params};
    use tempfile::TempDir;

    /// A store with a vhost and the contents of a test.
    struct TestStore {
        directory: TempDir,
        store: Box<SqliteStore>,
        batches: u64,
    }

    impl TestStore {
        fn new() -> Self {
            let directory = TempDir::new().unwrap();
            let mut store = Box::new(SqliteStore::open(&SqliteSettings::new(directory.path())).unwrap());
            store.recover().unwrap();
            Self { directory, store, batches: 0 }
        }

        fn commit(&mut self, topology: Vec<TopologyChange>, lanes: Vec<LaneChange>, drop_lanes: Vec<Lane>) {
            self.batches += 1;
            let batch = Batch { topology, lanes, drop_lanes, ..batch(self.batches) };
            assert_eq!(self.store.commit(&batch), CommitOutcome::Committed);
        }

        /// As `sqlite3 -readonly` opens it, beside the writer.
        fn read(&self) -> Connection {
            let file = self.directory.path().join("prontomq.sqlite3");
            Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
        }

        fn rows(&self, statement: &str) -> Vec<String> {
            let connection = self.read();
            let mut statement = connection.prepare(statement).unwrap();
            let columns = statement.column_count();
            let rows = statement.query_map([], |row| {
                let values = (0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap()));
                Ok(values.collect::<Vec<_>>().join(" "))
            });
            rows.unwrap().map(Result::unwrap).collect()
        }
    }

    fn lane(queue: u64, level: u8, generation: u32) -> Lane {
        Lane { queue: QueueId(queue), level, generation }
    }

    fn queue(id: u64, name: &str) -> TopologyChange {
        let (vhost, name) = (Name::from("/"), Name::from(name));
        TopologyChange::PutQueue(QueueRecord {
            vhost,
            name,
            id: QueueId(id),
            auto_delete: false,
            arguments: vec![0; 4],
        })
    }

    fn inserts(lane: Lane, messages: Vec<Message>) -> LaneChange {
        let bytes: usize = messages.iter().map(Message::body_len).sum();
        let state = LaneState {
            head: Position(1),
            tail: Position(messages.len() as u64),
            count: messages.len() as u64,
            body_bytes: bytes as u64,
            lent_ceiling: Position(0),
        };
        let row = |(position, message)| Row {
            position: Position(position),
            redelivered: false,
            expires_at: None,
            place: None,
            message,
        };
        LaneChange { inserts: (1..).zip(messages).map(row).collect(), state, ..change(lane) }
    }

    fn message(exchange: &[u8], routing_key: &[u8], properties: &PropertiesWriter<'_>, body: Vec<u8>) -> Message {
        let properties = properties.to_vec();
        Message::with_body(exchange, routing_key, &Properties::check(&properties).unwrap(), body)
    }

    #[test]
    fn a_message_reads_in_plain_sql_as_it_was_published() {
        let mut place = TestStore::new();
        let name = |len: usize| -> Vec<u8> { (0..len).map(|at| b'a' + (at % 26) as u8).collect() };
        let mut messages = Vec::new();
        for (at, len) in [0, 1, 15, 16, 17, 127, 128, 254, 255].into_iter().enumerate() {
            for (priority, body) in [(0, 0), (1, 1), (9, 300), (15, 4_096), (16, 4_097), (255, 70_000)] {
                let key = name(255 - len);
                let id = name(at * 20);
                let properties = PropertiesWriter::new().delivery_mode(1 + (at % 2) as u8).priority(priority);
                let properties = properties.shortstr(Property::MessageId, &id);
                messages.push(message(&name(len), &key, &properties, (0..body).map(|at| at as u8).collect()));
            }
        }
        // Headers so large that every digit of their length counts.
        let text = "h".repeat(0x0123_4567);
        let headers = long_header(&text);
        messages.push(message(b"x", b"y", &PropertiesWriter::new().headers(headers.table()), b"end".to_vec()));
        place.commit(vec![queue(1, "q")], vec![inserts(lane(1, 0, 0), messages.clone())], vec![]);

        let connection = place.read();
        let columns = "SELECT position, exchange, routing_key, size, priority, persistent, body, age, queue, vhost";
        let mut statement = connection.prepare(&format!("{columns} FROM v_messages ORDER BY position")).unwrap();
        let mut rows = statement.query([]).unwrap();
        for (message, position) in messages.iter().zip(1_i64..) {
            let row = rows.next().unwrap().expect("one row each");
            assert_eq!(row.get::<_, i64>(0).unwrap(), position);
            assert_eq!(row.get_ref(1).unwrap().as_bytes().unwrap(), message.exchange());
            assert_eq!(row.get_ref(2).unwrap().as_bytes().unwrap(), message.routing_key());
            assert_eq!(row.get::<_, i64>(3).unwrap(), message.body_len() as i64);
            assert_eq!(row.get::<_, u8>(4).unwrap(), message.priority());
            assert_eq!(row.get::<_, bool>(5).unwrap(), message.is_persistent());
            assert_eq!(row.get_ref(6).unwrap().as_blob().unwrap(), message.body());
            assert!((0.0..60.0).contains(&row.get::<_, f64>(7).unwrap()));
            assert_eq!((row.get(8), row.get(9)), (Ok("q".to_owned()), Ok("/".to_owned())));
        }
        assert!(rows.next().unwrap().is_none());
    }

    /// Encoded headers.
    struct Headers(Vec<u8>);

    impl Headers {
        fn table(&self) -> crate::wire::table::Table<'_> {
            crate::wire::table::Table::from_checked(&self.0)
        }
    }

    fn long_header(text: &str) -> Headers {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        Headers([&b"\x01kS"[..], &length, text.as_bytes()].concat())
    }

    #[test]
    fn a_body_in_chunks_reads_as_one() {
        let mut place = TestStore::new();
        let body: Vec<u8> = (0..200_000_u32).map(|at| (at.wrapping_mul(at) >> 3) as u8).collect();
        let large = message(b"", b"q", &PropertiesWriter::new(), body.clone());
        place.commit(vec![queue(1, "q")], vec![inserts(lane(1, 0, 0), vec![large])], vec![]);
        let writer = Connection::open(place.directory.path().join("prontomq.sqlite3")).unwrap();
        writer.execute("INSERT INTO body VALUES (7, 1, ?1)", [body.len() as i64]).unwrap();
        for (at, chunk) in (0_i64..).zip(body.chunks(65_536)) {
            writer.execute("INSERT INTO chunk VALUES (7 << 16 | ?1, ?2)", params![at, chunk]).unwrap();
        }
        writer.execute("INSERT INTO chunk VALUES (8 << 16, x'00')", []).unwrap();
        writer.execute("UPDATE message SET body = 7", []).unwrap();
        let found = "SELECT size, body FROM v_messages";
        let found: (i64, Vec<u8>) = place.read().query_row(found, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert!(found == (body.len() as i64, body));
    }

    #[test]
    fn queues_are_summed_up_and_dropped_lanes_do_not_show() {
        let mut place = TestStore::new();
        let text = |body: &str| message(b"", b"q", &PropertiesWriter::new(), body.into());
        let lanes = vec![
            inserts(lane(1, 0, 0), vec![text("one"), text("two")]),
            inserts(lane(1, 5, 0), vec![text("three")]),
            inserts(lane(1, 5, 1), vec![text("four")]),
            inserts(lane(2, 0, 0), vec![text("purged")]),
        ];
        place.commit(vec![queue(1, "work"), queue(2, "idle"), queue(3, "new")], lanes, vec![]);
        place.commit(vec![], vec![], vec![lane(2, 0, 0)]);
        let queues = "SELECT name, messages, bytes, levels, oldest_age BETWEEN 0 AND 60 FROM v_queues ORDER BY name";
        let expected = ["Text([105, 100, 108, 101]) Integer(0) Integer(0) Integer(0) Null"];
        assert_eq!(place.rows(queues)[0], expected[0]);
        let counts = "SELECT messages, bytes, levels, oldest_age BETWEEN 0 AND 60 FROM v_queues WHERE name = 'work'";
        assert_eq!(place.rows(counts), ["Integer(4) Integer(15) Integer(2) Integer(1)"]);
        assert_eq!(place.rows("SELECT count(*) FROM v_queues"), ["Integer(3)"]);
        assert_eq!(place.rows("SELECT count(*) FROM v_messages"), ["Integer(4)"]);
        let levels = "SELECT level, generation, messages FROM v_levels ORDER BY 1, 2";
        assert_eq!(
            place.rows(levels),
            [
                "Integer(0) Integer(0) Integer(2)",
                "Integer(5) Integer(0) Integer(1)",
                "Integer(5) Integer(1) Integer(1)"
            ]
        );
        let totals = "SELECT schema, queues, messages, bytes, stopped_in_good_order FROM v_store";
        assert_eq!(place.rows(totals), ["Integer(4) Integer(3) Integer(4) Integer(15) Integer(0)"]);
    }

    #[test]
    fn times_are_told_in_utc() {
        let mut place = TestStore::new();
        let mut change = inserts(lane(1, 0, 0), vec![message(b"", b"q", &PropertiesWriter::new(), b"x".to_vec())]);
        change.inserts[0].expires_at = Some(WallMillis(1_700_000_000_250));
        change.inserts[0].redelivered = true;
        place.commit(vec![queue(1, "q")], vec![change], vec![]);
        let connection = place.read();
        let row =
            "SELECT expires_at, redelivered, abs(julianday('now') - julianday(stored_at)) * 86400 FROM v_messages";
        let (expires_at, redelivered, seconds): (String, bool, f64) =
            connection.query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        assert_eq!((expires_at.as_str(), redelivered), ("2023-11-14 22:13:20.250", true));
        assert!(seconds < 60.0, "{seconds}");
    }

    #[test]
    fn topology_and_users_show_without_hashes() {
        let mut place = TestStore::new();
        let (vhost, arguments) = (Name::from("/"), vec![0; 4]);
        let binding = |destination_kind, destination: &str| {
            TopologyChange::PutBinding(BindingRecord {
                vhost: vhost.clone(),
                source: "logs".into(),
                destination_kind,
                destination: destination.into(),
                routing_key: "a.#".into(),
                arguments: arguments.clone(),
            })
        };
        let topology = vec![
            TopologyChange::PutVhost(VhostRecord { name: vhost.clone() }),
            queue(1, "q"),
            TopologyChange::PutExchange(ExchangeRecord {
                vhost: vhost.clone(),
                name: "logs".into(),
                kind: "topic".into(),
                auto_delete: false,
                internal: true,
                arguments: arguments.clone(),
            }),
            binding(Destination::Queue, "q"),
            binding(Destination::Exchange, "more"),
            TopologyChange::PutUser(UserRecord {
                name: "till".into(),
                password_hash: "secret".into(),
                hashing_algorithm: "sha".into(),
                tags: vec!["monitoring".into(), "administrator".into()],
                from_settings: false,
                vhosts: vec!["/".into(), "shop".into()],
            }),
        ];
        place.commit(topology, vec![], vec![]);
        let text = |statement: &str| -> Vec<String> {
            let connection = place.read();
            let mut statement = connection.prepare(statement).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let users = "SELECT name || ' ' || tags || ' ' || vhosts FROM v_users";
        assert_eq!(text(users), ["till monitoring,administrator /,shop"]);
        let columns = "SELECT group_concat(name) FROM pragma_table_info('v_users')";
        assert_eq!(text(columns), ["name,tags,vhosts"]);
        let exchanges = "SELECT name || ' ' || type || ' ' || auto_delete || internal FROM v_exchanges";
        assert_eq!(text(exchanges), ["logs topic 01"]);
        let bindings = "SELECT source || ' ' || destination_type || ' ' || destination || ' ' || routing_key \
                        FROM v_bindings ORDER BY 1";
        assert_eq!(text(bindings), ["logs exchange more a.#", "logs queue q a.#"]);
        let vhosts = "SELECT name || queues || exchanges || bindings || messages FROM v_vhosts";
        assert_eq!(text(vhosts), ["/1120"]);
    }

    #[test]
    fn another_versions_views_are_replaced_and_our_own_left_alone() {
        let place = TestStore::new();
        let directory = place.directory;
        place.store.close().unwrap();
        let raw = || Connection::open(directory.path().join("prontomq.sqlite3")).unwrap();
        let cookie = || raw().pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0)).unwrap();
        let reopen = || Box::new(SqliteStore::open(&SqliteSettings::new(directory.path())).unwrap()).close().unwrap();
        let before = cookie();
        reopen();
        assert_eq!(cookie(), before, "nothing was written");
        raw()
            .execute_batch(
                "DROP VIEW v_users; CREATE VIEW v_users AS SELECT * FROM user; CREATE VIEW v_old AS SELECT 1",
            )
            .unwrap();
        reopen();
        let names = "SELECT group_concat(name) FROM pragma_table_info('v_users')";
        assert_eq!(raw().query_row(names, [], |row| row.get::<_, String>(0)).unwrap(), "name,tags,vhosts");
        assert!(raw().prepare("SELECT * FROM v_old").is_err());
    }
}
