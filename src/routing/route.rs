//! From the exchange of a publish to the queues: along exchange-to-exchange bindings and alternate exchanges.

use std::borrow::Borrow;

use ahash::AHashSet;
use smallvec::SmallVec;

use super::binding::Bindings;
use super::kind::Destination;
use crate::model::Name;
use crate::wire::table::Table;

/// An exchange, as routing sees it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The bindings.
    pub bindings: Bindings,
    /// The exchange for messages that match none of the bindings.
    pub alternate: Option<Name>,
}

/// The queues that a message goes to, each once; in no order.
pub type Queues = SmallVec<[Name; 4]>;

/// Up to this many names are compared one by one; more go through a set.
const COMPARED_MAX: usize = 16;

/// The queues that a message published to `exchange` goes to.
///
/// `lookup` finds an exchange by name. Each exchange is visited once per message, so cycles end. An exchange without a
/// matching binding hands the message to its alternate exchange; a binding to an exchange that was visited already is a match.
/// Exchanges that `lookup` does not find are skipped. The caller serves the default exchange.
pub fn route<'e, E: Borrow<Exchange> + 'e>(
    exchange: &[u8],
    routing_key: &[u8],
    headers: Option<Table<'_>>,
    lookup: impl Fn(&[u8]) -> Option<E>,
) -> Queues {
    let mut queues = Queues::new();
    let mut further: SmallVec<[Name; 2]> = SmallVec::new();
    let Some(first) = lookup(exchange) else { return queues };
    visit(first.borrow(), routing_key, headers, &mut queues, &mut further);
    if further.is_empty() {
        return queues;
    }
    let mut seen: AHashSet<Name> = AHashSet::new();
    while let Some(name) = further.pop() {
        if name.as_bytes() == exchange || !seen.insert(name.clone()) {
            continue;
        }
        if let Some(next) = lookup(name.as_bytes()) {
            visit(next.borrow(), routing_key, headers, &mut queues, &mut further);
        }
    }
    leave_out_repetitions(&mut queues);
    queues
}

/// Visits one exchange: adds the queues and exchanges that it sends the message to.
fn visit(
    exchange: &Exchange,
    routing_key: &[u8],
    headers: Option<Table<'_>>,
    queues: &mut Queues,
    further: &mut SmallVec<[Name; 2]>,
) {
    let mut matched = false;
    exchange.bindings.route(routing_key, headers, &mut |destination| {
        matched = true;
        match destination {
            Destination::Queue(name) => queues.push(name.clone()),
            Destination::Exchange(name) => further.push(name.clone()),
        }
    });
    if !matched {
        further.extend(exchange.alternate.clone());
    }
}

fn leave_out_repetitions(queues: &mut Queues) {
    if queues.len() > COMPARED_MAX {
        let mut seen = AHashSet::with_capacity(queues.len());
        queues.retain(|name| seen.insert(name.clone()));
        return;
    }
    let mut kept = 0;
    for at in 0..queues.len() {
        if !queues[..kept].contains(&queues[at]) {
            queues.swap(kept, at);
            kept += 1;
        }
    }
    queues.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::ExchangeKind;
    use crate::routing::binding::tests::{binding, queue};
    use std::cell::Cell;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Vhost {
        exchanges: HashMap<String, Exchange>,
        asked: Cell<usize>,
    }

    impl Vhost {
        fn exchange(mut self, name: &str, kind: ExchangeKind, alternate: Option<&str>) -> Self {
            let exchange = Exchange { bindings: Bindings::new(kind), alternate: alternate.map(Name::from) };
            self.exchanges.insert(name.to_owned(), exchange);
            self
        }

        fn bind(mut self, source: &str, destination: Destination, key: &str) -> Self {
            self.exchanges.get_mut(source).unwrap().bindings.bind(binding(destination, key));
            self
        }

        fn bind_exchange(self, source: &str, destination: &str, key: &str) -> Self {
            self.bind(source, Destination::Exchange(destination.into()), key)
        }

        fn route(&self, exchange: &str, key: &str) -> Vec<String> {
            let queues = route(exchange.as_bytes(), key.as_bytes(), None, |name| {
                self.asked.set(self.asked.get() + 1);
                self.exchanges.get(std::str::from_utf8(name).unwrap())
            });
            let mut names: Vec<_> = queues.iter().map(ToString::to_string).collect();
            names.sort();
            names
        }
    }

    use ExchangeKind::{Direct, Fanout, Topic};

    #[test]
    fn a_queue_reached_by_several_paths_gets_a_message_once() {
        let vhost = Vhost::default()
            .exchange("top", Fanout, None)
            .exchange("left", Fanout, None)
            .exchange("right", Topic, None)
            .bind_exchange("top", "left", "")
            .bind_exchange("top", "right", "")
            .bind("top", queue("q"), "")
            .bind("left", queue("q"), "")
            .bind("left", queue("l"), "")
            .bind("right", queue("q"), "#")
            .bind("right", queue("r"), "other");
        assert_eq!(vhost.route("top", "k"), ["l", "q"]);
    }

    #[test]
    fn many_queues_reached_twice_are_named_once() {
        let mut vhost =
            Vhost::default().exchange("a", Fanout, None).exchange("b", Fanout, None).bind_exchange("a", "b", "");
        for number in 0..100 {
            vhost = vhost.bind("a", queue(&format!("q{number}")), "").bind("b", queue(&format!("q{number}")), "");
        }
        assert_eq!(vhost.route("a", "").len(), 100);
    }

    #[test]
    fn in_a_cycle_each_exchange_is_visited_once() {
        let vhost = Vhost::default()
            .exchange("a", Fanout, None)
            .exchange("b", Fanout, None)
            .bind_exchange("a", "b", "")
            .bind_exchange("b", "a", "")
            .bind_exchange("a", "a", "")
            .bind("a", queue("qa"), "")
            .bind("b", queue("qb"), "");
        assert_eq!(vhost.route("a", ""), ["qa", "qb"]);
        assert_eq!(vhost.asked.get(), 2);
    }

    #[test]
    fn the_alternate_exchange_gets_what_matches_no_binding() {
        let vhost = Vhost::default()
            .exchange("main", Direct, Some("rest"))
            .exchange("rest", Fanout, None)
            .bind("main", queue("known"), "known")
            .bind("rest", queue("rest"), "");
        assert_eq!(vhost.route("main", "known"), ["known"]);
        assert_eq!(vhost.route("main", "unknown"), ["rest"]);
    }

    #[test]
    fn an_alternate_exchange_inside_a_chain_serves_its_own_exchange() {
        let vhost = Vhost::default()
            .exchange("top", Fanout, Some("unused"))
            .exchange("inner", Direct, Some("rest"))
            .exchange("rest", Fanout, None)
            .exchange("unused", Fanout, None)
            .bind_exchange("top", "inner", "")
            .bind("top", queue("q"), "")
            .bind("rest", queue("rest"), "")
            .bind("unused", queue("never"), "");
        assert_eq!(vhost.route("top", "k"), ["q", "rest"]);
    }

    #[test]
    fn a_binding_to_an_exchange_is_a_match_even_if_it_reaches_no_queue() {
        let vhost = Vhost::default()
            .exchange("main", Direct, Some("rest"))
            .exchange("dead-end", Direct, None)
            .exchange("rest", Fanout, None)
            .bind_exchange("main", "dead-end", "k")
            .bind_exchange("main", "main", "self")
            .bind_exchange("main", "gone", "gone")
            .bind("rest", queue("rest"), "");
        assert!(vhost.route("main", "k").is_empty());
        assert!(vhost.route("main", "self").is_empty());
        assert!(vhost.route("main", "gone").is_empty());
        assert_eq!(vhost.route("main", "other"), ["rest"]);
    }

    #[test]
    fn missing_and_circular_alternate_exchanges_end_the_walk() {
        let vhost = Vhost::default().exchange("a", Direct, Some("b")).exchange("b", Direct, Some("a")).exchange(
            "c",
            Direct,
            Some("nowhere"),
        );
        assert!(vhost.route("a", "k").is_empty());
        assert!(vhost.route("c", "k").is_empty());
        assert!(vhost.route("nowhere", "k").is_empty());
    }
}
