//! Patterns of a headers exchange by one header and the value that they want of it.

use ahash::AHashMap;
use smallvec::SmallVec;

use super::slots::Slot;
use crate::model::term::{RunKind, Scalar, Term};

/// What a pattern wants of one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// That it is there.
    Present,
    /// This value.
    Value(Term<'static>),
}

/// Patterns by header and wanted value; a pattern may be under several.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderIndex {
    by_header: AHashMap<Box<[u8]>, ByValue>,
}

/// The patterns under one value, in no order.
type Patterns = SmallVec<[Slot; 2]>;

/// The patterns that want something of one header.
#[derive(Clone, Debug, Default)]
struct ByValue {
    present: Patterns,
    scalars: AHashMap<Scalar, Patterns>,
    bytes: AHashMap<Box<[u8]>, Patterns>,
    arrays: AHashMap<Box<[u8]>, Patterns>,
    tables: AHashMap<Box<[u8]>, Patterns>,
}

impl HeaderIndex {
    pub(super) fn add(&mut self, header: &[u8], wanted: &Wanted, pattern: Slot) {
        if !self.by_header.contains_key(header) {
            self.by_header.insert(header.into(), ByValue::default());
        }
        let by_value = self.by_header.get_mut(header).expect("inserted above");
        by_value.patterns_mut(wanted).push(pattern);
    }

    /// Takes a pattern away that was added under this header and value.
    pub(super) fn remove(&mut self, header: &[u8], wanted: &Wanted, pattern: Slot) {
        let Some(by_value) = self.by_header.get_mut(header) else { return };
        let patterns = by_value.patterns_mut(wanted);
        if let Some(at) = patterns.iter().position(|known| *known == pattern) {
            patterns.swap_remove(at);
        }
        if patterns.is_empty() {
            by_value.forget(wanted);
        }
        if by_value.is_empty() {
            self.by_header.remove(header);
        }
    }

    /// How many patterns are under this header and value.
    pub(super) fn count(&self, header: &[u8], wanted: &Wanted) -> usize {
        let Some(by_value) = self.by_header.get(header) else { return 0 };
        match wanted {
            Wanted::Present => by_value.present.len(),
            Wanted::Value(term) => by_value.patterns(term).len(),
        }
    }

    /// The patterns that want a header with this value, or any: those that were added twice come twice.
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

    fn patterns_mut(&mut self, wanted: &Wanted) -> &mut Patterns {
        match wanted {
            Wanted::Present => &mut self.present,
            Wanted::Value(Term::Scalar(scalar)) => self.scalars.entry(*scalar).or_default(),
            Wanted::Value(Term::Run(kind, bytes)) => self.runs_mut(*kind).entry((**bytes).into()).or_default(),
        }
    }

    fn forget(&mut self, wanted: &Wanted) {
        match wanted {
            Wanted::Present => {}
            Wanted::Value(Term::Scalar(scalar)) => drop(self.scalars.remove(scalar)),
            Wanted::Value(Term::Run(kind, bytes)) => drop(self.runs_mut(*kind).remove(&**bytes)),
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
