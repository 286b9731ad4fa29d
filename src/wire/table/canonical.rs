//! A table in the form in which RabbitMQ writes it.

use super::check::{Form, is_normal};
use super::value::{Array, Entry, Table};
use super::write::{TableWriter, write_value};
use std::borrow::Cow;

impl<'a> Table<'a> {
    /// The entries as RabbitMQ 4.2 delivers message headers: sorted by key in byte order, the first of repeated keys
    /// kept (Erlang's `lists:usort` keeps the first), `L` written as `l`, booleans as 0 or 1. Nested tables keep
    /// their order. `None` if that changes nothing, which one walk finds without allocating.
    #[must_use]
    pub fn canonical(&self) -> Option<Vec<u8>> {
        // Unchecked bytes are not rewritten: writing recurses as deep as the table nests.
        if !matches!(Self::check_stored(self.bytes()), Ok((_, Form::Loose))) {
            return None;
        }
        let mut entries = self.sorted_entries();
        entries.dedup_by_key(|entry| entry.key);
        Some(self.written(&entries))
    }

    /// The entries sorted by key, repeated keys kept in their order, with values written as in
    /// [`canonical`](Self::canonical): two tables with the same sorted entries are the same arguments to RabbitMQ.
    #[must_use]
    pub fn sorted(&self) -> Vec<u8> {
        match Self::check_stored(self.bytes()) {
            Ok((_, Form::Loose)) => self.written(&self.sorted_entries()),
            _ => self.bytes().to_vec(),
        }
    }

    /// The entries in their order, with values written as in [`canonical`](Self::canonical): a nested table is compared in
    /// this form.
    #[must_use]
    pub fn normalised(&self) -> Cow<'a, [u8]> {
        if is_normal(self.bytes(), true) {
            return Cow::Borrowed(self.bytes());
        }
        Cow::Owned(self.written(&self.iter().collect::<Vec<_>>()))
    }

    fn sorted_entries(&self) -> Vec<Entry<'a>> {
        let mut entries: Vec<Entry<'a>> = self.iter().collect();
        entries.sort_by_key(|entry| entry.key);
        entries
    }

    fn written(&self, entries: &[Entry<'a>]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes().len());
        let mut writer = TableWriter::new(&mut bytes);
        for entry in entries {
            writer.value(entry.key, entry.value);
        }
        bytes
    }
}

impl<'a> Array<'a> {
    /// The values as [`Table::canonical`] writes them.
    #[must_use]
    pub fn normalised(&self) -> Cow<'a, [u8]> {
        if is_normal(self.bytes(), false) {
            return Cow::Borrowed(self.bytes());
        }
        let mut bytes = Vec::with_capacity(self.bytes().len());
        for value in self.iter() {
            write_value(&mut bytes, value);
        }
        Cow::Owned(bytes)
    }
}

/// Like [`Table::canonical`], for the bytes of a table that has been checked.
#[must_use]
pub fn canonical(bytes: &[u8]) -> Option<Vec<u8>> {
    Table::from_checked(bytes).canonical()
}
