//! The direct exchange's index: destinations by binding key.

use ahash::AHashMap;
use smallvec::SmallVec;

use super::kind::Destination;
use crate::model::Name;

#[derive(Clone, Debug, Default)]
pub(super) struct Direct {
    by_key: AHashMap<Name, SmallVec<[Destination; 1]>>,
}

impl Direct {
    /// Adds a destination that is not bound under this key yet.
    pub(super) fn add(&mut self, routing_key: Name, destination: Destination) {
        self.by_key.entry(routing_key).or_default().push(destination);
    }

    pub(super) fn remove(&mut self, routing_key: &Name, destination: &Destination) {
        let Some(destinations) = self.by_key.get_mut(routing_key) else { return };
        if let Some(at) = destinations.iter().position(|known| known == destination) {
            destinations.swap_remove(at);
        }
        if destinations.is_empty() {
            self.by_key.remove(routing_key);
        }
    }

    pub(super) fn route<'a>(&'a self, routing_key: &[u8], out: &mut impl FnMut(&'a Destination)) {
        if let Some(destinations) = self.by_key.get(routing_key) {
            destinations.iter().for_each(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::routing::binding::tests::{binding, queue, routed};
    use crate::routing::{Bindings, ExchangeKind};

    #[test]
    fn a_direct_exchange_compares_keys_byte_for_byte() {
        let mut bindings = Bindings::new(ExchangeKind::Direct);
        bindings.bind(binding(queue("lower"), "key"));
        bindings.bind(binding(queue("too"), "key"));
        bindings.bind(binding(queue("upper"), "Key"));
        bindings.bind(binding(queue("wild"), "#"));
        bindings.bind(binding(queue("empty"), ""));
        assert_eq!(routed(&bindings, "key", None), ["lower", "too"]);
        assert_eq!(routed(&bindings, "Key", None), ["upper"]);
        assert_eq!(routed(&bindings, "", None), ["empty"]);
        assert!(routed(&bindings, "ke", None).is_empty());
    }
}
