//! Room in the file for what its log holds.
//!
//! A transaction goes into the log, and the log is moved into the file later, which makes the file grow. On a disk that has
//! become full in between it could not be moved any more, and a log that cannot be moved cannot become shorter. So a
//! transaction commits only when the file has grown for it: from then on moving the log needs no space, and gives all of its
//! own back.

use super::opened_file::{OpenedFile, PAGE_BYTES};
use super::statements::number;
use rusqlite::{Connection, Result};

/// Zeros that are written at once.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// What a transaction adds to the file.
pub(super) struct Growth {
    /// Of what is committed. Nobody but the transaction writes beyond them.
    pages: i64,
    /// The file's length before it grew.
    was: Option<i64>,
}

impl Growth {
    /// To be called when the transaction has the write lock, before it writes.
    pub(super) fn begin(connection: &Connection) -> Result<Self> {
        Ok(Self { pages: pages(connection)?, was: None })
    }

    /// To be called before it commits: takes the space from the disk.
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
            // No more than a piece.
            let count = (end - at).min(ZEROS.len() as i64);
            file.write_at(&ZEROS[..count as usize], at)?;
            at += count;
        }
        Ok(())
    }

    /// To be called when it was rolled back: gives the space to the disk again. What cannot be cut now is when the log is
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
