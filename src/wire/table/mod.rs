//! Field tables in RabbitMQ's dialect: checked once, then read in place; written entry by entry.
//!
//! A table's bytes here are its entries, without the 32-bit length that precedes them on the wire.
//!
//! - `value`: values, tables and arrays as they are read.
//! - `check`: whether bytes are a table; `canonical`: how RabbitMQ would write it.
//! - `write`: tables written entry by entry.

mod canonical;
mod check;
#[cfg(test)]
mod tests;
mod value;
mod write;

pub use canonical::canonical;
pub use check::{DEPTH_MAX, Form, TableError, check};
pub use value::{Array, Entries, Entry, Table, Value, Values};
pub use write::{ArrayWriter, TableWriter, write_table};
