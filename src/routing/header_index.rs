//! Patterns of a headers exchange, indexed by one header and the value that they require.

use ahash::AHashMap;
use smallvec::SmallVec;

use super::slots::Slot;
use crate::model::term::{RunKind, Scalar, Term};

/// What a pattern requires of one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Requirement {
    /// The header is present.
    Present,
    /// The header has this value.
    Value(Term<'static>),
}

/// Patterns by header and required value. A pattern may be listed several times.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderIndex {
    by_header: AHashMap<Box<[u8]>, ByValue>,
}

/// The patterns under one value, in no order.
type Patterns = SmallVec<[Slot; 2]>;

/// The patterns that require something of one header.
#[derive(Clone, Debug, Default)]
struct ByValue {
    present: Patterns,
    scalars: AHashMap<Scalar, Patterns>,
    bytes: AHashMap<Box<[u8]>, Patterns>,
    arrays: AHashMap<Box<[u8]>, Patterns>,
    tables: AHashMap<Box<[u8]>, Patterns>,
}

impl HeaderIndex {
    pub(super) fn add(&mut self, header: &[u8], required: &Requirement, pattern: Slot) {
        if !self.by_header.contains_key(header) {
            self.by_header.insert(header.into(), ByValue::default());
        }
        let by_value = self.by_header.get_mut(header).expect("inserted above");
        by_value.patterns_mut(required).push(pattern);
    }

    /// Removes a pattern that was added under this header and value.
    pub(super) fn remove(&mut self, header: &[u8], required: &Requirement, pattern: Slot) {
        let Some(by_value) = self.by_header.get_mut(header) else { return };
        let patterns = by_value.patterns_mut(required);
        if let Some(at) = patterns.iter().position(|known| *known == pattern) {
            patterns.swap_remove(at);
        }
        if patterns.is_empty() {
            by_value.forget(required);
        }
        if by_value.is_empty() {
            self.by_header.remove(header);
        }
    }

    /// How many patterns are under this header and value.
    pub(super) fn count(&self, header: &[u8], required: &Requirement) -> usize {
        let Some(by_value) = self.by_header.get(header) else { return 0 };
        match required {
            Requirement::Present => by_value.present.len(),
            Requirement::Value(term) => by_value.patterns(term).len(),
        }
    }

    /// The patterns that require this header with this value, or with any. Patterns that were added twice come twice.
    pub(super) fn find(&self, header: &[u8], value: &Term<'_>) -> impl Iterator<Item = Slot> {
        let by_value = self.by_header.get(header);
        by_value.into_iter().flat_map(|by_value| by_value.present.iter().chain(by_value.patterns(value)).copied())
    }
}

impl ByValue {
    fn patterns(&self, value: &Term<'_>) -> &[Slot] {
        let patterns = match value {
            Term::Scalar(scalar) => self.scalars.get(scalar),
            Term::Run(kind, bytes) => self.runs(*kind).get(&**bytes),
        };
        patterns.map_or(&[], |patterns| patterns)
    }

    fn patterns_mut(&mut self, required: &Requirement) -> &mut Patterns {
        match required {
            Requirement::Present => &mut self.present,
            Requirement::Value(Term::Scalar(scalar)) => self.scalars.entry(*scalar).or_default(),
            Requirement::Value(Term::Run(kind, bytes)) => self.runs_mut(*kind).entry((**bytes).into()).or_default(),
        }
    }

    fn forget(&mut self, required: &Requirement) {
        match required {
            Requirement::Present => {}
            Requirement::Value(Term::Scalar(scalar)) => drop(self.scalars.remove(scalar)),
            Requirement::Value(Term::Run(kind, bytes)) => drop(self.runs_mut(*kind).remove(&**bytes)),
        }
    }

    fn is_empty(&self) -> bool {
        let runs = [RunKind::Bytes, RunKind::Array, RunKind::Table];
        self.present.is_empty() && self.scalars.is_empty() && runs.into_iter().all(|kind| self.runs(kind).is_empty())
    }

    fn runs(&self, kind: RunKind) -> &AHashMap<Box<[u8]>, Patterns> {
        match kind {
            RunKind::Bytes => &self.bytes,
            RunKind::Array => &self.arrays,
            RunKind::Table => &self.tables,
        }
    }

    fn runs_mut(&mut self, kind: RunKind) -> &mut AHashMap<Box<[u8]>, Patterns> {
        match kind {
            RunKind::Bytes => &mut self.bytes,
            RunKind::Array => &mut self.arrays,
            RunKind::Table => &mut self.tables,
        }
    }
}
