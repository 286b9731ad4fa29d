//! The topic exchange's index: a trie over the words of binding keys.
//!
//! Words are split at dots. `*` stands for exactly one word and `#` for any number, none included; both only as whole
//! words of a binding key. The empty key has no words; `a..b` has an empty one in the middle, which `*` matches.
//!
//! Routing walks the trie one word at a time, with the set of all nodes that match the words so far. So the work grows with
//! the number of these nodes, not with the number of bindings, and no pattern makes it grow exponentially.

use ahash::{AHashMap, AHashSet};
use smallvec::{SmallVec, smallvec};

use super::kind::Destination;
use crate::model::Name;

/// Index of a node in [`Topic::nodes`].
type NodeNo = u32;

/// Nodes that match the words read so far.
type Nodes = SmallVec<[NodeNo; 16]>;

/// The node of the empty binding key; it always exists.
const ROOT: NodeNo = 0;

/// Up to this many matches are compared one by one to leave out repetitions; more go through a set.
const COMPARED_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
enum Edge<'a> {
    Literal(&'a [u8]),
    /// `*`
    OneWord,
    /// `#`
    AnyWords,
}

impl<'a> Edge<'a> {
    fn of(word: &'a [u8]) -> Self {
        match word {
            b"*" => Self::OneWord,
            b"#" => Self::AnyWords,
            literal => Self::Literal(literal),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Node {
    literals: AHashMap<Box<[u8]>, NodeNo>,
    one_word: Option<NodeNo>,
    any_words: Option<NodeNo>,
    /// Whether this node was reached by `#`: then it matches any number of further words.
    repeats: bool,
    destinations: SmallVec<[Destination; 1]>,
}

impl Node {
    fn child(&self, edge: Edge<'_>) -> Option<NodeNo> {
        match edge {
            Edge::Literal(word) => self.literals.get(word).copied(),
            Edge::OneWord => self.one_word,
            Edge::AnyWords => self.any_words,
        }
    }

    fn set_child(&mut self, edge: Edge<'_>, child: NodeNo) {
        match edge {
            Edge::Literal(word) => {
                self.literals.insert(word.into(), child);
            }
            Edge::OneWord => self.one_word = Some(child),
            Edge::AnyWords => self.any_words = Some(child),
        }
    }

    fn remove_child(&mut self, edge: Edge<'_>) {
        match edge {
            Edge::Literal(word) => {
                self.literals.remove(word);
            }
            Edge::OneWord => self.one_word = None,
            Edge::AnyWords => self.any_words = None,
        }
    }

    fn is_unused(&self) -> bool {
        self.destinations.is_empty() && self.literals.is_empty() && self.one_word.is_none() && self.any_words.is_none()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Topic {
    nodes: Vec<Node>,
    unused: Vec<NodeNo>,
}

impl Default for Topic {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], unused: Vec::new() }
    }
}

/// The words of a key.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Splitting nothing gives one empty word, but the empty key has none.
    key.split(|&byte| byte == b'.').filter(move |_| !key.is_empty())
}

impl Topic {
    fn node(&self, number: NodeNo) -> &Node {
        &self.nodes[number as usize]
    }

    fn node_mut(&mut self, number: NodeNo) -> &mut Node {
        &mut self.nodes[number as usize]
    }

    fn new_node(&mut self, repeats: bool) -> NodeNo {
        let node = Node { repeats, ..Node::default() };
        if let Some(number) = self.unused.pop() {
            *self.node_mut(number) = node;
            return number;
        }
        self.nodes.push(node);
        NodeNo::try_from(self.nodes.len() - 1).expect("four billion nodes do not fit into memory")
    }

    /// Adds a destination that is not bound under this key yet.
    pub(super) fn add(&mut self, routing_key: &Name, destination: Destination) {
        let mut at = ROOT;
        for word in words(routing_key.as_bytes()) {
            let edge = Edge::of(word);
            at = match self.node(at).child(edge) {
                Some(child) => child,
                None => {
                    let child = self.new_node(matches!(edge, Edge::AnyWords));
                    self.node_mut(at).set_child(edge, child);
                    child
                }
            };
        }
        self.node_mut(at).destinations.push(destination);
    }

    /// Removes a destination and the nodes that only it needed.
    pub(super) fn remove(&mut self, routing_key: &Name, destination: &Destination) {
        let mut path: SmallVec<[(NodeNo, Edge<'_>); 8]> = SmallVec::new();
        let mut at = ROOT;
        for word in words(routing_key.as_bytes()) {
            let edge = Edge::of(word);
            let Some(child) = self.node(at).child(edge) else { return };
            path.push((at, edge));
            at = child;
        }
        let destinations = &mut self.node_mut(at).destinations;
        if let Some(found) = destinations.iter().position(|known| known == destination) {
            destinations.swap_remove(found);
        }
        while let Some((parent, edge)) = path.pop() {
            if !self.node(at).is_unused() {
                break;
            }
            *self.node_mut(at) = Node::default();
            self.unused.push(at);
            self.node_mut(parent).remove_child(edge);
            at = parent;
        }
    }

    pub(super) fn route<'a>(&'a self, routing_key: &[u8], out: &mut impl FnMut(&'a Destination)) {
        let matched = self.matching_nodes(routing_key);
        let mut bound = matched.iter().map(|&number| self.node(number)).filter(|node| !node.destinations.is_empty());
        let Some(first) = bound.next() else { return };
        let Some(second) = bound.next() else {
            first.destinations.iter().for_each(out);
            return;
        };
        let all = [first, second].into_iter().chain(bound).flat_map(|node| &node.destinations);
        each_once(all, out);
    }

    /// The nodes whose binding keys match, each once.
    fn matching_nodes(&self, routing_key: &[u8]) -> Nodes {
        let mut nodes: Nodes = smallvec![ROOT];
        self.add_wordless(&mut nodes, 0);
        for word in words(routing_key) {
            let mut next: Nodes = nodes.iter().copied().filter(|&number| self.node(number).repeats).collect();
            // The nodes that a `#` reaches without a word match as long as the `#` does, so only newly entered nodes are followed.
            let entered_from = next.len();
            for &number in &nodes {
                let node = self.node(number);
                next.extend(node.literals.get(word).copied());
                next.extend(node.one_word);
            }
            if self.add_wordless(&mut next, entered_from) {
                // A `#` may be entered again while it still matches: only so can one node be in the list twice.
                next.sort_unstable();
                next.dedup();
            }
            nodes = next;
            if nodes.is_empty() {
                break;
            }
        }
        nodes
    }

    /// Adds the nodes that `#` reaches from `nodes[from..]` by matching no word. Returns whether there were any.
    fn add_wordless(&self, nodes: &mut Nodes, from: usize) -> bool {
        let before = nodes.len();
        let mut at = from;
        while at < nodes.len() {
            nodes.extend(self.node(nodes[at]).any_words);
            at += 1;
        }
        nodes.len() > before
    }
}

/// Calls `out` with each different destination once.
fn each_once<'a>(all: impl Iterator<Item = &'a Destination>, out: &mut impl FnMut(&'a Destination)) {
    let mut compared: SmallVec<[&Destination; COMPARED_MAX]> = SmallVec::new();
    let mut set: AHashSet<&Destination> = AHashSet::new();
    for destination in all {
        let is_new = if compared.len() < COMPARED_MAX {
            let is_new = !compared.contains(&destination);
            if is_new {
                compared.push(destination);
            }
            is_new
        } else {
            if set.is_empty() {
                set.extend(compared.iter().copied());
            }
            set.insert(destination)
        };
        if is_new {
            out(destination);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::binding::tests::{binding, queue, routed};
    use crate::routing::{Bindings, ExchangeKind};
    use proptest::prelude::*;

    /// The rule of the specification, without regard to cost.
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], _) => matches(rest, key) || (!key.is_empty() && matches(pattern, &key[1..])),
            (["*", rest @ ..], [_, key @ ..]) => matches(rest, key),
            ([word, rest @ ..], [first, key @ ..]) => word == first && matches(rest, key),
            _ => false,
        }
    }

    fn split(key: &str) -> Vec<&str> {
        if key.is_empty() { Vec::new() } else { key.split('.').collect() }
    }

    fn exchange(keys: &[&str]) -> Bindings {
        let mut bindings = Bindings::new(ExchangeKind::Topic);
        for key in keys {
            bindings.bind(binding(queue(key), key));
        }
        bindings
    }

    #[test]
    fn patterns_match_as_section_10_says() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("", &["", "#", "#.#"], &["*", "a", "#.*", "."]),
            ("a", &["a", "*", "#", "#.a", "a.#", "#.*", "*.#", "#.a.#"], &["", "a.*", "b", "a*", "*.a"]),
            ("a.b", &["a.b", "a.*", "*.b", "#", "a.#.b", "a.b.#", "#.#"], &["a", "*", "a.b.*", "b.a"]),
            ("a..b", &["a..b", "a.*.b", "a.#.b", "#"], &["a.b", "a.*", "a...b"]),
            (".", &[".", "*.*", "#", "*.", ".*"], &["", "*", "a.b"]),
            ("a.", &["a.", "a.*", "a.#"], &["a"]),
            ("#", &["#", "*"], &["", "a"]),
            ("*.#", &["*.#", "*.*", "#"], &["*"]),
            ("ab", &["ab", "*"], &["a*", "a#", "*b"]),
        ];
        for (key, yes, no) in table {
            let bindings = exchange(&[*yes, *no].concat());
            let mut expected: Vec<_> = yes.iter().map(ToString::to_string).collect();
            expected.sort();
            assert_eq!(routed(&bindings, key, None), expected, "routing key {key:?}");
        }
    }

    #[test]
    fn a_queue_that_matches_by_many_patterns_gets_a_message_once() {
        let mut bindings = Bindings::new(ExchangeKind::Topic);
        for name in 0..100 {
            for key in ["#", "a.*", "*.b", "a.b", "#.b"] {
                bindings.bind(binding(queue(&format!("q{name:03}")), key));
            }
        }
        let expected: Vec<_> = (0..100).map(|name| format!("q{name:03}")).collect();
        assert_eq!(routed(&bindings, "a.b", None), expected);
    }

    #[test]
    fn removed_bindings_leave_no_node_behind() {
        let mut topic = Topic::default();
        for key in ["a.b.c", "a.*.#", "#.#", "", "a"] {
            topic.add(&key.into(), queue("q"));
        }
        for key in ["a", "", "a.b.c", "#.#", "a.*.#"] {
            topic.remove(&key.into(), &queue("q"));
        }
        assert!(topic.node(ROOT).is_unused());
        assert_eq!(topic.nodes.len(), topic.unused.len() + 1);
    }

    #[test]
    fn a_key_of_many_hashes_is_routed_in_bounded_time() {
        // 128 words against 128 `#`: a walk that tries every split never ends.
        let pattern = vec!["#"; 128].join(".");
        let key = vec!["a"; 128].join(".");
        let bindings = exchange(&[&pattern, &format!("{}.b", &pattern[2..])]);
        assert_eq!(routed(&bindings, &key, None), [pattern]);
    }

    fn key(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(words), 0..6).prop_map(|words| words.join("."))
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_the_rule(
            mut bound in prop::collection::vec(key(&["a", "b", "", "*", "#", "a*"]), 0..40),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            keys in prop::collection::vec(key(&["a", "b", "", "*", "#", "a*"]), 1..10),
        ) {
            let mut bindings = exchange(&bound.iter().map(String::as_str).collect::<Vec<_>>());
            bound.sort();
            bound.dedup();
            for index in removed {
                if !bound.is_empty() {
                    let gone = bound.remove(index.index(bound.len()));
                    prop_assert!(bindings.unbind(&binding(queue(&gone), &gone)));
                }
            }
            for key in keys {
                let expected: Vec<_> =
                    bound.iter().filter(|pattern| matches(&split(pattern), &split(&key))).cloned().collect();
                prop_assert_eq!(routed(&bindings, &key, None), expected, "routing key {:?}", key);
            }
        }
    }
}
