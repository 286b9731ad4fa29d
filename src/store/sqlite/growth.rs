//! Space in the file for the pages that are still in its log.
//!
//! A transaction is written to the log. Moving the log into the file later makes the file grow. If the disk becomes full in
//! between, the log could not be moved any more, and so not be shortened. So the file grows before the transaction commits:
//! from then on moving the log needs no space, and frees all of the log's own.

use super::opened_file::{OpenedFile, PAGE_BYTES};
use super::statements::number;
use rusqlite::{Connection, Result};

/// The zeros of one write.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The pages that a transaction adds to the file.
pub(super) struct Growth {
    /// Pages before the transaction. Only the transaction writes beyond them.
    pages: i64,
    /// The file's length before it grew, if it did.
    was: Option<i64>,
}

impl Growth {
    /// Call it when the transaction has the write lock and has written nothing.
    pub(super) fn begin(connection: &Connection) -> Result<Self> {
        Ok(Self { pages: pages(connection)?, was: None })
    }

    /// Makes the file grow. Call it before the commit.
    pub(super) fn take(&mut self, connection: &Connection) -> Result<()> {
        let pages = pages(connection)?;
        if pages <= self.pages {
            return Ok(());
        }
        let Some(file) = OpenedFile::database_of(connection)? else { return Ok(()) };
        let len = file.len()?;
        let end = pages * i64::from(PAGE_BYTES);
        let mut at = len.max(self.pages * i64::from(PAGE_BYTES));
        while at < end {
            self.was = Some(len);
            // At most the length of `ZEROS`.
            let count = (end - at).min(ZEROS.len() as i64);
            file.write_at(&ZEROS[..count as usize], at)?;
            at += count;
        }
        Ok(())
    }

    /// Gives the space back to the disk. Call it after a rollback. If the file cannot be cut now, it is when the log is
    /// moved.
    pub(super) fn give_back(&self, connection: &Connection) {
        let Some(was) = self.was else { return };
        let len = was.max(self.pages * i64::from(PAGE_BYTES));
        let cut = OpenedFile::database_of(connection).and_then(|file| match file {
            Some(file) if file.len()? > len => file.cut(len),
            _ => Ok(()),
        });
        if let Err(error) = cut {
            tracing::warn!(%error, "the file could not be cut after a transaction that was rolled back");
        }
    }
}

fn pages(connection: &Connection) -> Result<i64> {
    number(connection, "PRAGMA page_count")
}
