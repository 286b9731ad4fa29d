//! The bindings of one exchange: added, removed, listed, and used to route.
//!
//! [`Bindings`] holds every binding by its destination, for adding, removing and listing, and in the index of its kind, for
//! routing. A fanout exchange needs no index: a message goes to all its destinations.

use ahash::AHashMap;
use smallvec::SmallVec;

use super::direct::Direct;
use super::headers::{self, Patterns};
use super::kind::{Binding, Destination, ExchangeKind};
use super::topic::Topic;
use crate::model::{AmqpError, Arguments, Name};
use crate::wire::table::Table;

/// The arguments with which one destination is bound under one key: hardly ever more than one set.
type ArgumentSets = SmallVec<[Arguments; 1]>;

#[derive(Clone, Debug)]
enum Index {
    Direct(Direct),
    Fanout,
    Topic(Topic),
    Headers(Box<Patterns>),
}

/// All bindings of one exchange.
#[derive(Clone, Debug)]
pub struct Bindings {
    bound: AHashMap<Destination, AHashMap<Name, ArgumentSets>>,
    count: usize,
    index: Index,
}

impl Bindings {
    /// An exchange of this kind without bindings.
    pub fn new(kind: ExchangeKind) -> Self {
        let index = match kind {
            ExchangeKind::Direct => Index::Direct(Direct::default()),
            ExchangeKind::Fanout => Index::Fanout,
            ExchangeKind::Topic => Index::Topic(Topic::default()),
            ExchangeKind::Headers => Index::Headers(Box::default()),
        };
        Self { bound: AHashMap::new(), count: 0, index }
    }

    /// The kind of exchange that these bindings belong to.
    pub fn kind(&self) -> ExchangeKind {
        match self.index {
            Index::Direct(_) => ExchangeKind::Direct,
            Index::Fanout => ExchangeKind::Fanout,
            Index::Topic(_) => ExchangeKind::Topic,
            Index::Headers(_) => ExchangeKind::Headers,
        }
    }

    /// Checks that this kind of exchange can have `binding`; call it before [`bind`](Self::bind).
    ///
    /// # Errors
    /// 406 for an `x-match` that a headers exchange does not know.
    pub fn validate(&self, binding: &Binding) -> Result<(), AmqpError> {
        match self.index {
            Index::Headers(_) => headers::validate(&binding.arguments),
            Index::Direct(_) | Index::Fanout | Index::Topic(_) => Ok(()),
        }
    }

    /// Adds a binding. Returns whether it is new.
    pub fn bind(&mut self, binding: Binding) -> bool {
        let Binding { destination, routing_key, arguments } = binding;
        let keys = self.bound.entry(destination.clone()).or_default();
        let sets = keys.entry(routing_key.clone()).or_default();
        if sets.contains(&arguments) {
            return false;
        }
        let key_is_new = sets.is_empty();
        sets.push(arguments.clone());
        self.count += 1;
        match &mut self.index {
            Index::Direct(direct) if key_is_new => direct.add(routing_key, destination),
            Index::Topic(topic) if key_is_new => topic.add(&routing_key, destination),
            Index::Headers(headers) => headers.add(destination, arguments),
            Index::Direct(_) | Index::Topic(_) | Index::Fanout => {}
        }
        true
    }

    /// Whether this binding exists.
    pub fn contains(&self, binding: &Binding) -> bool {
        self.bound
            .get(&binding.destination)
            .and_then(|keys| keys.get(&binding.routing_key))
            .is_some_and(|sets| sets.contains(&binding.arguments))
    }

    /// Removes a binding. Returns whether it existed.
    pub fn unbind(&mut self, binding: &Binding) -> bool {
        let Some(keys) = self.bound.get_mut(&binding.destination) else { return false };
        let Some(sets) = keys.get_mut(&binding.routing_key) else { return false };
        let Some(at) = sets.iter().position(|arguments| *arguments == binding.arguments) else { return false };
        sets.swap_remove(at);
        let key_is_gone = sets.is_empty();
        if key_is_gone {
            keys.remove(&binding.routing_key);
        }
        if keys.is_empty() {
            self.bound.remove(&binding.destination);
        }
        self.count -= 1;
        self.unindex(&binding.destination, &binding.routing_key, &binding.arguments, key_is_gone);
        true
    }

    /// Removes every binding that leads to `destination` and returns them.
    pub fn remove_destination(&mut self, destination: &Destination) -> Vec<Binding> {
        let Some(keys) = self.bound.remove(destination) else { return Vec::new() };
        let mut removed = Vec::new();
        for (routing_key, sets) in keys {
            let mut left = sets.len();
            for arguments in sets {
                left -= 1;
                self.unindex(destination, &routing_key, &arguments, left == 0);
                removed.push(Binding { destination: destination.clone(), routing_key: routing_key.clone(), arguments });
            }
        }
        self.count -= removed.len();
        removed
    }

    fn unindex(&mut self, destination: &Destination, key: &Name, arguments: &Arguments, key_is_gone: bool) {
        match &mut self.index {
            Index::Direct(direct) if key_is_gone => direct.remove(key, destination),
            Index::Topic(topic) if key_is_gone => topic.remove(key, destination),
            Index::Headers(headers) => headers.remove(destination, arguments),
            Index::Direct(_) | Index::Topic(_) | Index::Fanout => {}
        }
    }

    /// Whether there is no binding.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bindings there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// All bindings, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Binding> + '_ {
        self.bound.iter().flat_map(|(destination, keys)| {
            keys.iter().flat_map(move |(routing_key, sets)| {
                sets.iter().map(move |arguments| Binding {
                    destination: destination.clone(),
                    routing_key: routing_key.clone(),
                    arguments: arguments.clone(),
                })
            })
        })
    }

    /// Calls `out` once for each destination that a message with this key and these headers goes to, in no order.
    pub fn route<'a>(&'a self, routing_key: &[u8], headers: Option<Table<'_>>, out: &mut impl FnMut(&'a Destination)) {
        match &self.index {
            Index::Direct(direct) => direct.route(routing_key, out),
            Index::Fanout => self.bound.keys().for_each(out),
            Index::Topic(topic) => topic.route(routing_key, out),
            Index::Headers(index) => index.route(headers, out),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::table::Value;

    pub(in super::super) fn queue(name: &str) -> Destination {
        Destination::Queue(name.into())
    }

    pub(in super::super) fn binding(destination: Destination, routing_key: &str) -> Binding {
        Binding { destination, routing_key: routing_key.into(), arguments: Arguments::default() }
    }

    pub(in super::super) fn routed(bindings: &Bindings, routing_key: &str, headers: Option<Table<'_>>) -> Vec<String> {
        let mut names = Vec::new();
        bindings.route(routing_key.as_bytes(), headers, &mut |destination| match destination {
            Destination::Queue(name) => names.push(name.to_string()),
            Destination::Exchange(name) => names.push(format!("exchange {name}")),
        });
        names.sort();
        names
    }

    fn arguments(value: Value<'_>) -> Arguments {
        Arguments::default().with("a", value)
    }

    const ALL_KINDS: [ExchangeKind; 4] =
        [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers];

    #[test]
    fn a_destination_bound_several_times_gets_a_message_once_and_until_its_last_binding_goes() {
        for kind in ALL_KINDS {
            let mut bindings = Bindings::new(kind);
            let plain = binding(queue("q"), "k");
            let other = Binding { arguments: arguments(Value::Void), ..plain.clone() };
            let headers = Table::check(&[1, b'a', b'V']).unwrap().0;
            assert!(bindings.bind(plain.clone()));
            assert!(bindings.bind(other.clone()));
            assert!(!bindings.bind(plain.clone()), "a binding made again is no new one");
            assert_eq!(bindings.len(), 2);
            assert_eq!(routed(&bindings, "k", Some(headers)), ["q"]);
            assert!(bindings.unbind(&plain));
            assert_eq!(routed(&bindings, "k", Some(headers)), ["q"]);
            assert!(!bindings.unbind(&plain), "what is gone cannot be removed again");
            assert!(bindings.unbind(&other));
            assert!(bindings.is_empty());
            assert!(routed(&bindings, "k", Some(headers)).is_empty());
        }
    }

    #[test]
    fn arguments_of_another_type_make_another_binding() {
        let mut bindings = Bindings::new(ExchangeKind::Direct);
        let int = Binding { arguments: arguments(Value::I32(5)), ..binding(queue("q"), "k") };
        let long = Binding { arguments: arguments(Value::I64(5)), ..int.clone() };
        assert!(bindings.bind(int));
        assert!(!bindings.unbind(&long));
        assert!(bindings.bind(long));
        assert_eq!(bindings.len(), 2);
    }

    #[test]
    fn removing_a_destination_returns_its_bindings_and_leaves_the_others() {
        for kind in ALL_KINDS {
            let mut bindings = Bindings::new(kind);
            bindings.bind(binding(queue("q"), "k"));
            bindings.bind(Binding { arguments: arguments(Value::Void), ..binding(queue("q"), "k") });
            bindings.bind(binding(queue("q"), "l"));
            bindings.bind(binding(queue("other"), "k"));
            bindings.bind(binding(Destination::Exchange("q".into()), "k"));
            let removed = bindings.remove_destination(&queue("q"));
            assert_eq!(removed.len(), 3);
            assert!(removed.iter().all(|binding| binding.destination == queue("q")));
            assert_eq!(bindings.len(), 2);
            assert_eq!(bindings.iter().count(), 2);
            assert_eq!(routed(&bindings, "k", None), ["exchange q", "other"]);
            assert!(bindings.remove_destination(&queue("q")).is_empty());
        }
    }

    #[test]
    fn a_fanout_exchange_ignores_keys() {
        let mut bindings = Bindings::new(ExchangeKind::Fanout);
        bindings.bind(binding(queue("one"), "x"));
        bindings.bind(binding(queue("two"), ""));
        assert_eq!(routed(&bindings, "anything", None), ["one", "two"]);
    }

    #[test]
    fn kinds_are_known_by_the_names_they_print() {
        for kind in ALL_KINDS {
            assert_eq!(ExchangeKind::from_name(kind.name()), Some(kind));
            assert_eq!(Bindings::new(kind).kind(), kind);
        }
        assert_eq!(ExchangeKind::from_name("x-delayed-message"), None);
    }
}
