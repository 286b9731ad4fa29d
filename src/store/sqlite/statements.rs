//! Statements that several files use.

use rusqlite::{Connection, Result};

/// Deletes the rows in a range of keys.
pub(super) const DELETE_RANGE: &str = "DELETE FROM message WHERE id BETWEEN ?1 AND ?2";

/// Runs a statement without parameters.
pub(super) fn run(connection: &Connection, statement: &str) -> Result<()> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

/// The number that a pragma returns.
pub(super) fn number(connection: &Connection, pragma: &str) -> Result<i64> {
    connection.prepare_cached(pragma)?.query_row([], |row| row.get(0))
}
