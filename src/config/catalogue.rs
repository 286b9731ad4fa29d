//! Every setting, described once. `docs/configuration.md` is made from this table.

use std::fmt::Write as _;

use super::settings::{Durability, LogFormat, LogLevel, Settings, StoreKind};
use super::value::{Choice, Integer, Kind, Range};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The setting's name in a configuration file; a dot separates a section from the name in it.
    pub name: &'static str,
    /// The type and the limits of its value.
    pub kind: Kind,
    /// The meaning, for the manual.
    pub meaning: &'static str,
}

impl Setting {
    /// The environment variable that sets it.
    pub(crate) fn environment(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// Every environment variable with this prefix is a setting, or a mistake.
pub(crate) const ENVIRONMENT_PREFIX: &str = "PRONTOMQ_";

/// A year in milliseconds: longer than any useful time.
const YEAR: u64 = 365 * 24 * 3_600_000;
const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Pairs of settings of which the first may not be greater than the second.
pub(super) const PAIRS: [(&str, &str); 3] = [
    ("initial_frame_max", "frame_max"),
    ("limits.consumer_window_messages", "limits.consumer_window_messages_max"),
    ("limits.window_entries_min", "limits.window_entries"),
];

const fn range(min: u64, max: u64) -> Range {
    Range { min, max }
}

const LOG_FORMATS: [LogFormat; 3] = [LogFormat::Auto, LogFormat::Human, LogFormat::Json];
const LOG_LEVELS: [LogLevel; 5] = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
const DURABILITIES: [Durability; 3] = [Durability::Commit, Durability::Interval, Durability::Off];
const STORE_KINDS: [StoreKind; 2] = [StoreKind::Sqlite, StoreKind::Memory];

/// All settings, in the order of the manual.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        name: "data_dir",
        kind: Kind::Path(|s| &mut s.data_dir),
        meaning: "Directory of the store's files; made when it is missing, held by one process at a time.",
    },
    Setting {
        name: "amqp",
        kind: Kind::Addresses(|s| &mut s.amqp),
        meaning: "Addresses that speak AMQP. Port 0 picks a free port and prints it.",
    },
    Setting {
        name: "metrics",
        kind: Kind::AddressOrOff(|s| &mut s.metrics.address),
        meaning: "Address of `/metrics` (Prometheus), `/healthz` and `/readyz`.",
    },
    Setting {
        name: "connections_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.connections_max), range(1, U32)),
        meaning: "Open connections; one more is refused with 530 NOT_ALLOWED after its login.",
    },
    Setting {
        name: "io_threads",
        kind: Kind::Count(Integer::U32(|s| &mut s.loops.threads), range(0, 1024)),
        meaning: "Most threads that serve connections. A thread is used once those before it have no time left. 0 is one \
                  per processor.",
    },
    Setting {
        name: "channels_max",
        kind: Kind::Count(Integer::U16(|s| &mut s.connection.channels_max), range(1, U16)),
        meaning: "Open channels per connection, as offered to clients.",
    },
    Setting {
        name: "frame_max",
        kind: Kind::Bytes(Integer::U32(|s| &mut s.connection.frame_max), range(4096, 16 * MIB)),
        meaning: "The largest frame, as offered to clients.",
    },
    Setting {
        name: "initial_frame_max",
        kind: Kind::Bytes(Integer::U32(|s| &mut s.connection.initial_frame_max), range(4096, MIB)),
        meaning: "The largest frame before a client has logged in and agreed on another size; at most `frame_max`.",
    },
    Setting {
        name: "heartbeat",
        kind: Kind::Seconds(|s| &mut s.connection.heartbeat, range(0, U16 * 1000)),
        meaning: "Heartbeat interval, as offered to clients. Whole seconds; 0 offers none. A client that has been silent for \
                  two to two and a half intervals is disconnected.",
    },
    Setting {
        name: "handshake_timeout",
        kind: Kind::Time(|s| &mut s.connection.handshake_timeout, range(100, YEAR)),
        meaning: "How long a client may take from connecting to an open connection.",
    },
    Setting {
        name: "message_bytes_max",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.connection.message_bytes_max), range(1, 512 * MIB)),
        meaning: "The largest message body; a larger one closes its channel with 406 PRECONDITION_FAILED.",
    },
    Setting {
        name: "log_format",
        kind: Kind::Choice(Choice {
            words: &["auto", "human", "json"],
            get: |s| s.logging.format as usize,
            set: |s, index| s.logging.format = LOG_FORMATS[index],
        }),
        meaning: "The format of log lines; `auto` is `human` on a terminal and `json` elsewhere. Beside these, \
                  `prontomq serve` prints a text on stdout when it has started, or on stderr the reason why it \
                  does not start: as text with `auto` and `human`, and as a JSON line with `json`.",
    },
    Setting {
        name: "log_level",
        kind: Kind::Choice(Choice {
            words: &["error", "warn", "info", "debug", "trace"],
            get: |s| s.logging.level as usize,
            set: |s, index| s.logging.level = LOG_LEVELS[index],
        }),
        meaning: "Log lines of this level and of those before it are written.",
    },
    Setting {
        name: "log_queue_bytes_max",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.logging.queue_bytes_max), range(4 * KIB, GIB)),
        meaning: "Log lines that wait to be written. While stderr or stdout accepts none, further lines are \
                  dropped and counted (`prontomq_log_lines_dropped_total`); the broker never waits for either.",
    },
    Setting {
        name: "metrics_connections_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.metrics.connections_max), range(1, 65_536)),
        meaning: "Open connections of the metrics listener; one more is closed at once \
                  (`prontomq_metrics_connections_refused_total`).",
    },
    Setting {
        name: "metrics_timeout",
        kind: Kind::Time(|s| &mut s.metrics.timeout, range(100, 3_600_000)),
        meaning: "How long a connection of the metrics listener may take from connecting to the last byte of its answer; then \
                  it is closed. Each connection is for one request.",
    },
    Setting {
        name: "product",
        kind: Kind::Text(|s| &mut s.identity.product),
        meaning: "`product` in the server properties. Some clients, kombu and Celery among them, choose by product \
                  and version how they set their prefetch; therefore the default is RabbitMQ's name.",
    },
    Setting {
        name: "version",
        kind: Kind::Text(|s| &mut s.identity.version),
        meaning: "`version` in the server properties; see `product`.",
    },
    Setting {
        name: "cluster_name",
        kind: Kind::Text(|s| &mut s.identity.cluster_name),
        meaning: "`cluster_name` in the server properties and in metrics. Empty: the same as `node_name`.",
    },
    Setting {
        name: "node_name",
        kind: Kind::Text(|s| &mut s.identity.node_name),
        meaning: "This node's name in metrics and in the log. Empty: `prontomq@` and the host's name.",
    },
    Setting {
        name: "loopback_users",
        kind: Kind::Names(|s| &mut s.loopback_users),
        meaning: "Users that may log in from this machine only.",
    },
    Setting {
        name: "store.kind",
        kind: Kind::Choice(Choice {
            words: &["sqlite", "memory"],
            get: |s| s.store.kind as usize,
            set: |s, index| s.store.kind = STORE_KINDS[index],
        }),
        meaning: "The store of durable messages and topology; `memory` forgets them when the process ends.",
    },
    Setting {
        name: "store.cache_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.store.cache_bytes), range(MIB, 64 * GIB)),
        meaning: "The store's page cache.",
    },
    Setting {
        name: "store.batch_rows_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.store.batch_rows_max), range(1, 100_000)),
        meaning: "Rows of one transaction; an AMQP transaction may exceed it.",
    },
    Setting {
        name: "store.batch_bytes_max",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.store.batch_bytes_max), range(4 * KIB, 256 * MIB)),
        meaning: "Bytes of one transaction; a single larger message exceeds it.",
    },
    Setting {
        name: "store.durability",
        kind: Kind::Choice(Choice {
            words: &["commit", "interval", "off"],
            get: |s| s.store.durability as usize,
            set: |s, index| s.store.durability = DURABILITIES[index],
        }),
        meaning: "What a confirm of a persistent message means. `commit`: the message is flushed to the disk and \
                  survives a power failure. `interval`: the message survives the end of the broker, `kill -9` \
                  included, and is flushed within `store.durability_interval`; a power failure or a crash of the \
                  operating system loses messages confirmed since the last flush. `off`: the broker never flushes; \
                  messages survive the end of the broker, but a power failure may lose all of them and damage the \
                  file.",
    },
    Setting {
        name: "store.durability_interval",
        kind: Kind::Time(|s| &mut s.store.durability_interval, range(1, 3_600_000)),
        meaning: "With `store.durability` at `interval`: the longest time between the commit of a message and its \
                  flush.",
    },
    Setting {
        name: "store.wal_bytes_max",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.store.wal_bytes_max), range(MIB, 1024 * GIB)),
        meaning: "The intended largest size of the write-ahead log. One large message or transaction exceeds it \
                  for a moment. When another program that reads the database keeps it from being emptied, a \
                  warning is logged, and connections that publish are blocked until it is short again.",
    },
    Setting {
        name: "store.redo_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.store.redo_bytes), range(0, 64 * MIB)),
        meaning: "Size of the redo log, in which small batches of persistent messages are flushed at once. They \
                  are moved into the database later, many at a time, after a tenth of a second if there is time. \
                  The file has this size from the first batch on; 0 works without it.",
    },
    Setting {
        name: "store.unwritten_bytes_max",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.store.unwritten_bytes_max), range(64 * KIB, 64 * GIB)),
        meaning: "Messages in memory that are not written yet. Above it, connections that publish are not read \
                  until the store has caught up. Applies as well to transient messages on their way to the scratch \
                  files.",
    },
    Setting {
        name: "store.give_up_after",
        kind: Kind::Time(|s| &mut s.store.give_up_after, range(0, 86_400_000)),
        meaning: "How long flushes, or opening the file again after one, may keep failing before the store counts as failed: \
                  then messages are refused until the broker is started again.",
    },
    Setting {
        name: "store.hold_max",
        kind: Kind::Time(|s| &mut s.store.hold_max, range(0, 1000)),
        meaning: "How long a persistent message that a consumer holds may wait to be written: a message that is \
                  acknowledged by then is never written. 0 writes at once.",
    },
    Setting {
        name: "store.hold_ack_time_max",
        kind: Kind::Time(|s| &mut s.store.hold_ack_time_max, range(0, 1000)),
        meaning: "Messages are written at once in queues whose consumers take longer than this to acknowledge, on \
                  average.",
    },
    Setting {
        name: "limits.memory_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.memory_bytes), range(0, 1024 * GIB)),
        meaning: "Memory that clients may take: messages in queues, contents and transactions that are not \
                  complete, output for sockets, channels, consumers, topology. Above it, connections that publish \
                  are blocked until it is 5 % less. 0 is 60 % of the memory that the machine or its cgroup has.",
    },
    Setting {
        name: "limits.resident_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.resident_bytes), range(0, 1024 * GIB)),
        meaning: "Memory of the whole process, as the operating system counts it. Above it, free memory is given \
                  back to the system; if that is not enough, connections that publish are blocked until it is 5 % \
                  less. 0 is `limits.memory_bytes` and 128 MiB, and at most 90 % of the memory that the machine or \
                  its cgroup has.",
    },
    Setting {
        name: "limits.disk_free_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.disk_free_bytes), range(0, 1024 * GIB)),
        meaning: "Free space on the disk of the data directory. Below it, connections that publish are blocked \
                  until there is 5 % more.",
    },
    Setting {
        name: "limits.connection_unfinished_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.connection_unfinished_bytes), range(64 * KIB, 64 * GIB)),
        meaning: "Contents of one connection that have not arrived completely, and publishes and acknowledgements \
                  of its transactions that are not committed. Above it, the channel that adds to them is closed \
                  with 506 RESOURCE_ERROR. A message larger than this cannot be published.",
    },
    Setting {
        name: "limits.unfinished_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.unfinished_bytes), range(0, 1024 * GIB)),
        meaning: "Such contents and transactions (`limits.connection_unfinished_bytes`) of all connections \
                  together. 0 is half of `limits.memory_bytes`.",
    },
    Setting {
        name: "limits.channel_consumers_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.channel_consumers_max), range(1, U32)),
        meaning: "Consumers of one channel; one more closes its connection with 530 NOT_ALLOWED.",
    },
    Setting {
        name: "limits.channel_unacked_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.channel_unacked_max), range(1, U32)),
        meaning: "Unacknowledged deliveries of one consumer; at this number it gets no more, whatever its prefetch \
                  is. On a channel with as many, `basic.get` is answered with 506 RESOURCE_ERROR.",
    },
    Setting {
        name: "limits.vhost_queues_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.vhost_queues_max), range(1, U32)),
        meaning: "Queues of one vhost; one more is refused with 406 PRECONDITION_FAILED.",
    },
    Setting {
        name: "limits.vhost_exchanges_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.vhost_exchanges_max), range(1, U32)),
        meaning: "Exchanges of one vhost, with those that every vhost has; one more is refused with 406 PRECONDITION_FAILED.",
    },
    Setting {
        name: "limits.vhost_bindings_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.vhost_bindings_max), range(1, U32)),
        meaning: "Bindings of one vhost; one more is refused with 406 PRECONDITION_FAILED.",
    },
    Setting {
        name: "limits.outbox_bytes_max",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.outbox_bytes_max), range(16 * KIB, GIB)),
        meaning: "Output that waits for one socket. Above it, the connection's consumers get no new messages, and \
                  methods whose answers add to the output wait.",
    },
    Setting {
        name: "limits.gets_in_flight_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.gets_in_flight_max), range(1, U16)),
        meaning: "Gets on different channels of one connection that wait for their answers at the same time; \
                  further gets wait for these.",
    },
    Setting {
        name: "limits.parked_bytes_max",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.parked_bytes_max), range(4 * KIB, GIB)),
        meaning: "Frames of one connection that wait behind an unanswered method, or for room in the output. Above \
                  it, the socket is not read.",
    },
    Setting {
        name: "limits.moderation",
        kind: Kind::Micros(|s| &mut s.loops.moderation, range(0, 10_000)),
        meaning: "How long small methods of a client that sends 100,000 or more of them per second are gathered in its \
                  socket, to be read at once. At half the rate it is half the time; at less than three methods in \
                  that time nothing is gathered, and never from a client that waits for an answer. The end of a burst \
                  is read one to two milliseconds later. 0 gathers nothing.",
    },
    Setting {
        name: "limits.consumer_window_messages",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.consumer_window.messages), range(1, MIB)),
        meaning: "Window of a new consumer: messages on their way to its socket; at most \
                  `limits.consumer_window_messages_max`. A consumer whose window is full counts as blocked: the \
                  next messages go to others, of a lower priority too, or they wait, and limits of length and time \
                  apply to them.",
    },
    Setting {
        name: "limits.consumer_window_messages_max",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.consumer_window.messages_max), range(1, MIB)),
        meaning: "Largest window of a consumer in messages: the window grows while the consumer keeps up.",
    },
    Setting {
        name: "limits.consumer_window_bytes_max",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.consumer_window.bytes_max), range(KIB, GIB)),
        meaning: "Largest window of a consumer in bytes; one message may exceed it.",
    },
    Setting {
        name: "limits.windows_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.windows.all_bytes), range(64 * KIB, 64 * GIB)),
        meaning: "Memory for stored messages at the heads of all queues together. From half of it on, the limits \
                  `limits.window_*` are halved, step by step, down to `limits.window_entries_min`.",
    },
    Setting {
        name: "limits.transient_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.windows.transient_bytes), range(0, 1024 * GIB)),
        meaning: "Memory for transient messages, entries included. Further ones wait in scratch files, which are \
                  deleted at every start. 0 is a quarter of `limits.memory_bytes`, at most 4 GiB.",
    },
    Setting {
        name: "limits.window_entries",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.windows.head_entries), range(1, MIB)),
        meaning: "Messages at the head of a queue that are kept in memory, per priority level.",
    },
    Setting {
        name: "limits.window_entries_min",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.windows.head_entries_min), range(1, MIB)),
        meaning: "Messages at the head of a queue that are kept in memory while memory for windows is short, per \
                  priority level; at most `limits.window_entries`. A queue without consumers keeps an eighth of \
                  it.",
    },
    Setting {
        name: "limits.window_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.windows.head_bytes), range(4 * KIB, GIB)),
        meaning: "Bytes at the head of a queue that are kept in memory, per priority level, and most bytes of one \
                  read from the store; a single larger message exceeds it.",
    },
    Setting {
        name: "limits.window_tail_entries",
        kind: Kind::Count(Integer::U32(|s| &mut s.limits.windows.tail_entries), range(1, MIB)),
        meaning: "Messages behind the head that are kept in memory, per priority level. Above it, stored ones \
                  leave memory.",
    },
    Setting {
        name: "limits.window_tail_bytes",
        kind: Kind::Bytes(Integer::U64(|s| &mut s.limits.windows.tail_bytes), range(4 * KIB, GIB)),
        meaning: "Bytes of messages behind the head that are kept in memory, per priority level. Above it, stored \
                  ones leave memory.",
    },
    Setting {
        name: "dead_letter.trust_published_x_death",
        kind: Kind::Flag(|s| &mut s.dead_letter.trust_published_x_death),
        meaning: "Whether dead-lettering adds to an `x-death` header that a publisher sent, or replaces it. \
                  Programs that publish a dead letter again and count their retries this way need `true`. RabbitMQ \
                  up to 3.13 adds; 4.0 replaces.",
    },
];

#[cfg(feature = "cli")]
/// The text of a configuration file with these settings, without users and vhosts.
pub(crate) fn as_file(settings: &Settings) -> String {
    SETTINGS.iter().map(|setting| format!("{} = {}\n", setting.name, setting.kind.get(settings))).collect()
}

/// The text of `docs/configuration.md`.
pub fn manual() -> String {
    let defaults = Settings::default();
    let mut text = String::from(MANUAL_HEAD);
    for setting in SETTINGS {
        let _ = write!(
            text,
            "\n### `{}`\n\n{}\n\n- value: {}\n- default: `{}`\n- environment: `{}`\n- SIGHUP: {}\n",
            setting.name,
            setting.meaning,
            setting.kind.expectation(),
            setting.kind.get(&defaults),
            setting.environment(),
            if setting.is_reloadable() { "applied" } else { "needs a restart" },
        );
    }
    text.push_str(MANUAL_LISTS);
    text
}

const MANUAL_HEAD: &str = "\
# Configuration

<!-- Made from src/config/catalogue.rs; `UPDATE=1 cargo test --test configuration` writes it anew. -->

Nothing needs to be configured. A setting is taken from the first of these that has it:

1. a flag of `prontomq serve`,
2. the environment: `PRONTOMQ_` and the setting's name in capitals, dots as `_`; the items of a list separated by commas,
3. the file named by `--config`, in TOML; a dot in a name leads into a section,
4. its default.

`prontomq serve --print-settings` prints what these make together, without users and vhosts, and starts nothing.

An unknown name or an impossible value is an error. The error names the setting, its source, and the nearest setting if the name
is unknown. Variables that Kubernetes sets for Services named `prontomq` or `prontomq-*` (such as
`PRONTOMQ_SERVICE_HOST` and `PRONTOMQ_PORT_5672_TCP`) are ignored.
Numbers of bytes may be written as `65536` or `\"64 KiB\"` (`B`, `KiB`, `MiB`, `GiB`), times as seconds or with a unit
(`ms`, `s`, `min`, `h`). All numbers are whole: `\"500 ms\"`, not `\"0.5 s\"`.

```toml
amqp = [\"0.0.0.0:5672\"]
heartbeat = \"30 s\"

[store]
cache_bytes = \"64 MiB\"

[[vhosts]]
name = \"shop\"

[[users]]
name = \"till\"
password = \"secret\"
vhosts = [\"shop\"]
```

## While the broker runs

On SIGHUP, `prontomq serve` reads file and environment again and applies what it can: vhosts, users, and the settings that are
marked below. Limits of one connection hold for connections that open afterwards. A changed setting that needs a restart is logged.
If anything is wrong with the new settings, none of them is applied, and the reason is logged. SIGUSR1 and SIGUSR2 are ignored.

## Settings
";

const MANUAL_LISTS: &str = "
## Lists

Only in the file, and applied at every start and at SIGHUP: what is missing is made, what differs is changed. A user or a vhost
that came from the file and is no longer in it loses its login, and its open connections are closed with
320 CONNECTION_FORCED. Such a user is deleted; the queues and messages of such a vhost stay, for when it is named again.

Two entries of the same name, an entry for a vhost that is not listed here (apart from `/`), an unknown tag and a malformed hash are
errors.

Start every broker on a store, and on a copy of it, with the file that lists its users. Without the file these users are deleted, and
only users that never were in a file keep their login.

On an empty store, and only if no user is configured, the broker makes a user `guest` with the password `guest`, who may open `/`.
That user did not come from the file, and stays when users are configured later. To remove `guest`, list it once in `[[users]]`, start
the broker, take the entry out again and send SIGHUP.

### `[[vhosts]]`

- `name`: the vhost's name, required.

### `[[users]]`

- `name`: the login name, required.
- `password`: in plain text; or
- `password_hash`: base64 of a 4-byte salt and the SHA-256 of salt and password, as RabbitMQ's definitions carry it. One
  of the two is required.
- `tags`: any of `administrator`, `monitoring`, `policymaker`, `management` and `impersonator`; the last allows a foreign
  `user-id`. Default: `[]`.
- `vhosts`: the vhosts that the user may open, each `/` or one of `[[vhosts]]`. Default: `[\"/\"]`.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reload::Reloaded;
    use crate::config::sources::{File, Sources};
    use crate::config::value::Raw;

    #[test]
    fn every_default_is_a_value_that_its_own_setting_accepts() {
        for setting in SETTINGS {
            let mut settings = Settings::default();
            let printed = setting.kind.get(&settings);
            let value: toml::Table = toml::from_str(&format!("value = {printed}")).unwrap();
            assert!(setting.kind.set(&mut settings, &Raw::Toml(value["value"].clone())), "{}: {printed}", setting.name);
            assert_eq!(settings, Settings::default(), "{}: {printed}", setting.name);
        }
    }

    /// A value of this setting that is not its default, as text.
    fn other_value(setting: &Setting) -> String {
        match setting.kind {
            Kind::Text(_) | Kind::Path(_) | Kind::Names(_) => "other".to_owned(),
            Kind::Addresses(_) | Kind::AddressOrOff(_) => "127.0.0.1:1".to_owned(),
            Kind::Count(_, range) | Kind::Bytes(_, range) => range.max.to_string(),
            Kind::Time(_, range) | Kind::Seconds(_, range) => format!("{} ms", range.max),
            Kind::Micros(_, range) => format!("{} us", range.max),
            Kind::Choice(choice) => (*choice.words.last().unwrap()).to_owned(),
            Kind::Flag(_) => "false".to_owned(),
        }
    }

    /// Settings of which none has its default value.
    fn other_settings() -> Settings {
        let mut settings = Settings::default();
        for setting in SETTINGS {
            assert!(setting.kind.set(&mut settings, &Raw::Text(other_value(setting))), "{}", setting.name);
        }
        settings
    }

    #[test]
    fn printed_settings_are_read_back_equal() {
        let mut settings = other_settings();
        (settings.limits.windows.head_entries_min, settings.limits.consumer_window.messages) = (1, 1);
        settings.connection.initial_frame_max = 4096;
        let text = as_file(&settings);
        let file = Some(File { path: "p.toml", text: &text });
        assert_eq!(Sources { file, ..Sources::default() }.settings(), Ok(settings));
    }

    #[test]
    fn every_setting_reaches_a_field_of_its_own() {
        for setting in SETTINGS {
            let mut settings = Settings::default();
            assert!(setting.kind.set(&mut settings, &Raw::Text(other_value(setting))), "{}", setting.name);
            let changed: Vec<_> = SETTINGS
                .iter()
                .filter(|each| each.kind.get(&settings) != each.kind.get(&Settings::default()))
                .map(|each| each.name)
                .collect();
            assert_eq!(changed, [setting.name]);
        }
    }

    #[test]
    fn each_changed_setting_is_adopted_or_reported_as_needing_a_restart() {
        let in_force = Settings::default();
        for setting in SETTINGS {
            let mut wanted = in_force.clone();
            setting.kind.copy(&other_settings(), &mut wanted);
            let reloaded = Reloaded::new(&in_force, &wanted);
            if setting.is_reloadable() {
                assert_eq!((&reloaded.settings, reloaded.changed), (&wanted, vec![setting.name]));
                assert!(reloaded.needs_restart.is_empty());
            } else {
                assert_eq!((reloaded.settings, reloaded.needs_restart), (in_force.clone(), vec![setting.name]));
                assert!(reloaded.changed.is_empty());
            }
        }
    }
}
