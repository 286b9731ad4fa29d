//! `prontomq sql`: runs one read-only statement on the store's file.

mod functions;
mod print;

use super::store_options::StoreOptions;
use crate::store::chain;
use crate::store::sqlite::existing_database;
use clap::Args;
use print::{Format, Printer};
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection, ErrorCode, OpenFlags};
use std::io::{self, BufWriter};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Steps of SQLite's virtual machine between two checks of the timeout.
const STEPS_PER_CHECK: i32 = 10_000;

/// How long to wait for a broker that locks the file while it opens it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Query the store in SQL: SELECT name, messages FROM v_queues.
///
/// The file is opened read-only; a broker may be running on it. docs/sql.md explains the views (v_store, v_vhosts,
/// v_users, v_exchanges, v_bindings, v_queues, v_levels, v_messages). In addition to SQLite's own functions there are
/// amqp_properties(head), amqp_headers(head) and amqp_table(bytes), which return JSON; `arguments` of the views is JSON
/// too. A table cuts cells at 60 characters; --csv and --json print them in full.
#[derive(Debug, Args)]
pub(super) struct Sql {
    /// One statement.
    statement: String,
    #[command(flatten)]
    store: StoreOptions,
    /// Print a JSON array with an object for each row.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV with a heading.
    #[arg(long)]
    csv: bool,
    /// Stop after this many seconds. A long read keeps the write-ahead log from being emptied.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    /// Print at most this many rows; 0 prints all.
    #[arg(long, value_name = "ROWS", default_value_t = 1_000)]
    rows: u64,
}

/// Why the rows could not be printed, or not all of them.
enum Failure {
    /// An error to report.
    Message(String),
    /// The reader of stdout is gone.
    OutputClosed,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Message(format!("the rows cannot be printed: {error}")),
        }
    }
}

impl Sql {
    #[expect(clippy::print_stderr, reason = "the command line's own words")]
    pub(super) fn run(&self) -> ExitCode {
        match self.print() {
            Ok(false) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
            Ok(true) => {
                eprintln!("prontomq sql: cut after {} rows; --rows shows more", self.rows);
                ExitCode::SUCCESS
            }
            Err(Failure::Message(why)) => {
                eprintln!("prontomq sql: {why}");
                ExitCode::FAILURE
            }
        }
    }

    /// Runs the statement and prints its rows. Returns whether rows were left out.
    fn print(&self) -> Result<bool, Failure> {
        let directory = self.store.directory().map_err(Failure::Message)?;
        let connection = open(&directory).map_err(Failure::Message)?;
        let to_failure = |error: rusqlite::Error| Failure::Message(self.describe(&directory, &connection, &error));
        functions::decode_arguments(&connection).map_err(to_failure)?;
        let began = Instant::now();
        let timeout = Duration::from_secs(self.timeout);
        connection.progress_handler(STEPS_PER_CHECK, Some(move || began.elapsed() >= timeout)).map_err(to_failure)?;

        let mut statements = Batch::new(&connection, &self.statement);
        let nothing = || Failure::Message("there is no statement".into());
        let mut statement = statements.next().map_err(to_failure)?.ok_or_else(nothing)?;
        if !matches!(statements.next(), Ok(None)) {
            return Err(Failure::Message("one statement at a time".into()));
        }
        if !statement.readonly() || statement.column_count() == 0 {
            return Err(Failure::Message("the file can only be read: use a SELECT".into()));
        }
        let columns = statement.column_names().into_iter().map(str::to_owned).collect();
        let mut printer = Printer::begin(self.format(), columns, BufWriter::new(io::stdout().lock()))?;
        let mut rows = statement.query([]).map_err(to_failure)?;
        let mut printed = 0;
        while let Some(row) = rows.next().map_err(to_failure)? {
            if self.rows > 0 && printed == self.rows {
                printer.end()?;
                return Ok(true);
            }
            let values: Result<Vec<_>, _> = (0..printer.columns()).map(|at| row.get_ref(at)).collect();
            printer.row(values.map_err(to_failure)?.into_iter())?;
            printed += 1;
        }
        printer.end()?;
        Ok(false)
    }

    fn format(&self) -> Format {
        match (self.json, self.csv) {
            (true, _) => Format::Json,
            (false, true) => Format::Csv,
            (false, false) => Format::Table,
        }
    }

    fn describe(&self, directory: &Path, connection: &Connection, error: &rusqlite::Error) -> String {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => {
                format!("stopped after {} s; --timeout allows more", self.timeout)
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                format!("the file is damaged ({error}); prontomq doctor shows the damage, once no broker runs")
            }
            // Readers of a write-ahead log must write too: they share its index with the writer.
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => format!(
                "no permission to write in {}, which a write-ahead log requires of readers too ({error}): run this as the user that \
                 the broker runs as",
                directory.display()
            ),
            _ if !has_views(connection) => {
                format!("{error}; the file has no views yet: prontomq serve creates them when it starts")
            }
            _ => error.to_string(),
        }
    }
}

fn open(directory: &Path) -> Result<Connection, String> {
    let file = existing_database(directory).map_err(|error| chain(&error).to_string())?;
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&file, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        functions::add_to(&connection)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| format!("{}: {error}", file.display()))
}

fn has_views(connection: &Connection) -> bool {
    let views = "SELECT count(*) FROM sqlite_schema WHERE type = 'view' AND name = 'v_messages'";
    connection.query_row(views, [], |row| row.get::<_, i64>(0)).is_ok_and(|count| count > 0)
}
