//! Which publisher confirms are still to come, whatever frames they come in.

use crate::link::Said;
use crate::value::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers that a dialogue expects to be acknowledged or refused, each once.
#[derive(Debug, Clone)]
pub struct Confirms {
    /// Number to whether it is to be acknowledged.
    open: BTreeMap<u64, bool>,
    /// Numbers whose message was returned, if every message must be before it is confirmed.
    returned: Option<BTreeSet<u64>>,
}

impl Confirms {
    /// Expects these; with `after_return` each message, whose body is its number, must have come
    /// back by basic.return first.
    pub fn new(acked: &[u64], nacked: &[u64], after_return: bool) -> Self {
        let acked = acked.iter().map(|number| (*number, true));
        let nacked = nacked.iter().map(|number| (*number, false));
        Self { open: acked.chain(nacked).collect(), returned: after_return.then(BTreeSet::new) }
    }

    /// The numbers still to come.
    pub fn open(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }

    /// Takes what was said into account; `false` if it may not be said now.
    pub fn hear(&mut self, said: &Said) -> bool {
        match said.method.name {
            "basic.ack" => self.settle(said, true),
            "basic.nack" => self.settle(said, false),
            "basic.return" => self.note_return(said),
            _ => false,
        }
    }

    fn settle(&mut self, said: &Said, is_ack: bool) -> bool {
        let Value::Number(number) = *said.field("delivery-tag") else {
            return false;
        };
        let multiple = *said.field("multiple") == Value::Flag(true);
        let covers = |open: &u64| i128::from(*open) == number || multiple && i128::from(*open) < number;
        let covered: Vec<u64> = self.open.keys().copied().filter(covers).collect();
        let may_settle = |open: &u64| {
            let returned = self.returned.as_ref();
            self.open[open] == is_ack && returned.is_none_or(|numbers| numbers.contains(open))
        };
        let names_one = covered.iter().any(|open| i128::from(*open) == number);
        if !names_one || !covered.iter().all(may_settle) {
            return false;
        }
        self.open.retain(|open, _| !covered.contains(open));
        true
    }

    fn note_return(&mut self, said: &Said) -> bool {
        let body = said.content.as_ref().map(|content| String::from_utf8_lossy(&content.body));
        let number = body.and_then(|body| body.parse().ok());
        match (&mut self.returned, number) {
            (Some(returned), Some(number)) => returned.insert(number),
            _ => false,
        }
    }
}
