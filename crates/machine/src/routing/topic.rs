//! The bindings of a topic exchange.
//!
//! A pattern is words between dots, where `*` stands for exactly one word and `#` for any number of them, none
//! included. The empty key has no words; a dot at either end, or two in a row, make an empty word.
//!
//! The patterns stand in a trie. A message walks down all paths that its words allow at once: the nodes where it
//! may be after each word are a set, so the work is at most the number of its words times the number of nodes that
//! part of the key can reach, whatever the patterns. Bindings whose first words do not match are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use super::{Destination, Tally};

/// Index of the node without words.
const ROOT: u32 = 0;

/// Patterns, and what is bound with them.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Indexes of nodes that are not in use.
    free: Vec<u32>,
    /// The words of all patterns, each held once, so that what leads from node to node is small.
    words: BTreeMap<Box<str>, Word>,
    words_seen: u64,
    /// From a node by a word to the next.
    edges: BTreeMap<(u32, u64), u32>,
}

#[derive(Debug, Default)]
struct Node {
    bound: Tally,
    /// How many edges by a word lead on.
    edges: u32,
    /// Where `*` leads.
    one: Option<u32>,
    /// Where `#` leads.
    many: Option<u32>,
    /// This is where a `#` leads: every further word may stay here.
    stays: bool,
}

#[derive(Debug)]
struct Word {
    id: u64,
    /// How many edges it labels.
    uses: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Word(&'a str),
    One,
    Many,
}

impl Default for Trie {
    fn default() -> Trie {
        Trie {
            nodes: vec![Node::default()],
            free: Vec::new(),
            words: BTreeMap::new(),
            words_seen: 0,
            edges: BTreeMap::new(),
        }
    }
}

impl Trie {
    pub fn bind(&mut self, destination: Destination, pattern: &str) {
        let mut node = ROOT;
        for part in parts(pattern) {
            node = match self.next(node, part) {
                Some(next) => next,
                None => self.grow(node, part),
            };
        }
        self.node_mut(node).bound.add(destination);
    }

    /// Whether there was such a binding.
    pub fn unbind(&mut self, destination: Destination, pattern: &str) -> bool {
        let mut node = ROOT;
        let mut path = Vec::new();
        for part in parts(pattern) {
            let Some(next) = self.next(node, part) else {
                return false;
            };
            path.push((node, part));
            node = next;
        }
        let removed = self.node_mut(node).bound.remove(destination);
        while let Some((parent, part)) = path.pop()
            && self.node(node).is_bare()
        {
            self.prune(parent, part, node);
            node = parent;
        }
        removed
    }

    /// Adds what matches to `found`. Returns how many nodes were visited.
    pub fn route(&self, routing_key: &str, found: &mut BTreeSet<Destination>) -> usize {
        let mut reached = Vec::new();
        self.reach(ROOT, &mut reached);
        let mut visited = reached.len();
        let mut next = Vec::new();
        for word in words(routing_key) {
            let word = self.words.get(word).map(|word| word.id);
            for index in reached.drain(..) {
                let node = self.node(index);
                if node.stays {
                    next.push(index);
                }
                if let Some(one) = node.one {
                    self.reach(one, &mut next);
                }
                if node.edges > 0
                    && let Some(word) = word
                    && let Some(child) = self.edges.get(&(index, word))
                {
                    self.reach(*child, &mut next);
                }
            }
            if next.is_empty() {
                return visited;
            }
            // A node where a `#` leads may have been reached twice: by staying, and by getting there anew.
            next.sort_unstable();
            next.dedup();
            visited += next.len();
            std::mem::swap(&mut reached, &mut next);
        }
        for index in reached {
            self.node(index).bound.add_to(found);
        }
        visited
    }

    /// Adds a node, and the one that a `#` without words leads to.
    fn reach(&self, index: u32, reached: &mut Vec<u32>) {
        reached.push(index);
        reached.extend(self.node(index).many);
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }

    fn next(&self, index: u32, part: Part<'_>) -> Option<u32> {
        match part {
            Part::One => self.node(index).one,
            Part::Many => self.node(index).many,
            Part::Word(word) => self.edges.get(&(index, self.words.get(word)?.id)).copied(),
        }
    }

    fn grow(&mut self, parent: u32, part: Part<'_>) -> u32 {
        let index = self.free.pop().unwrap_or(self.nodes.len() as u32);
        if index as usize == self.nodes.len() {
            self.nodes.push(Node::default());
        }
        match part {
            Part::One => self.node_mut(parent).one = Some(index),
            Part::Many => {
                self.node_mut(parent).many = Some(index);
                self.node_mut(index).stays = true;
            }
            Part::Word(text) => {
                if !self.words.contains_key(text) {
                    self.words_seen += 1;
                    self.words.insert(text.into(), Word { id: self.words_seen, uses: 0 });
                }
                if let Some(word) = self.words.get_mut(text) {
                    word.uses += 1;
                    self.edges.insert((parent, word.id), index);
                }
                self.node_mut(parent).edges += 1;
            }
        }
        index
    }

    /// Removes a node to which `part` leads from `parent`, and that leads nowhere.
    fn prune(&mut self, parent: u32, part: Part<'_>, index: u32) {
        *self.node_mut(index) = Node::default();
        self.free.push(index);
        match part {
            Part::One => self.node_mut(parent).one = None,
            Part::Many => self.node_mut(parent).many = None,
            Part::Word(text) => {
                if let Some(word) = self.words.get_mut(text) {
                    word.uses -= 1;
                    self.edges.remove(&(parent, word.id));
                    if word.uses == 0 {
                        self.words.remove(text);
                    }
                }
                self.node_mut(parent).edges -= 1;
            }
        }
    }
}

impl Node {
    /// Whether nothing is bound here and nothing leads on.
    fn is_bare(&self) -> bool {
        self.bound.is_empty() && self.edges == 0 && self.one.is_none() && self.many.is_none()
    }
}

fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').take(if key.is_empty() { 0 } else { usize::MAX })
}

/// A pattern's parts. One `#` stands for several in a row.
fn parts(pattern: &str) -> impl Iterator<Item = Part<'_>> {
    let mut after_many = false;
    words(pattern)
        .map(|word| match word {
            "*" => Part::One,
            "#" => Part::Many,
            _ => Part::Word(word),
        })
        .filter(move |part| {
            let again = after_many && *part == Part::Many;
            after_many = *part == Part::Many;
            !again
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trie(patterns: &[&str]) -> Trie {
        let mut trie = Trie::default();
        for (number, pattern) in patterns.iter().enumerate() {
            trie.bind(Destination::Queue(number as u64), pattern);
        }
        trie
    }

    fn routed(trie: &Trie, key: &str) -> Vec<u64> {
        let mut found = BTreeSet::new();
        trie.route(key, &mut found);
        let queue = |destination| match destination {
            Destination::Queue(id) | Destination::Exchange(id) => id,
        };
        found.into_iter().map(queue).collect()
    }

    #[test]
    fn a_star_is_one_word_and_a_hash_any_number() {
        let trie = trie(&["a.*.c", "a.#", "#.c", "#", "*", "a.#.c", ""]);
        assert_eq!(routed(&trie, "a.b.c"), [0, 1, 2, 3, 5]);
        assert_eq!(routed(&trie, "a.c"), [1, 2, 3, 5]);
        assert_eq!(routed(&trie, "a"), [1, 3, 4]);
        assert_eq!(routed(&trie, "a.b.b.c"), [1, 2, 3, 5]);
        assert_eq!(routed(&trie, ""), [3, 6]);
        assert_eq!(routed(&trie, "."), [3]);
        assert_eq!(routed(&trie, "a..c"), [0, 1, 2, 3, 5]);
    }

    #[test]
    fn stars_and_hashes_in_a_key_are_words_like_others() {
        let trie = trie(&["a", "*", "#", "a.b"]);
        assert_eq!(routed(&trie, "*"), [1, 2]);
        assert_eq!(routed(&trie, "a.#"), [2]);
    }

    #[test]
    fn bindings_that_do_not_match_cost_no_visit() {
        let visited = |others: u32| {
            let mut trie = trie(&["order.*.paid", "order.#", "#.paid"]);
            for number in 0..others {
                let patterns = [
                    format!("other{number}.eu.paid"),
                    format!("order.other{number}.#"),
                    format!("order.*.other{number}"),
                    format!("#.other{number}"),
                    format!("*.other{number}.*"),
                ];
                for pattern in patterns {
                    trie.bind(Destination::Queue(1000 + u64::from(number)), &pattern);
                }
            }
            let mut found = BTreeSet::new();
            let visited = trie.route("order.eu.paid", &mut found);
            assert_eq!(found.len(), 3);
            visited
        };
        assert_eq!(visited(10), visited(10_000));
    }

    #[test]
    fn many_hashes_and_words_cost_words_times_nodes_at_most() {
        let key = vec!["a"; 127].join(".");
        let patterns = [vec!["#"; 127].join("."), vec!["#.a"; 63].join("."), vec!["#.*"; 63].join("."), "#.b".into()];
        let mut trie = Trie::default();
        for pattern in &patterns {
            trie.bind(Destination::Queue(1), pattern);
        }
        let nodes = trie.nodes.len();
        assert!(nodes <= 2 + 2 * 126 + 1, "{nodes}");
        let visited = trie.route(&key, &mut BTreeSet::new());
        assert!(visited <= 128 * nodes, "{visited}");
    }

    /// By the definition of the patterns.
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], _) => matches(rest, key) || !key.is_empty() && matches(pattern, &key[1..]),
            ([first, rest @ ..], [word, words @ ..]) => (*first == "*" || first == word) && matches(rest, words),
            _ => false,
        }
    }

    fn dotted(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(words), 0..7).prop_map(|words| words.join("."))
    }

    proptest! {
        #[test]
        fn what_matches_is_what_the_definition_says(
            patterns in prop::collection::vec((dotted(&["a", "b", "", "*", "#", "#"]), 0u64..4), 0..40),
            unbound in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            keys in prop::collection::vec(dotted(&["a", "b", "c", ""]), 1..10),
        ) {
            let mut trie = Trie::default();
            let mut model = patterns;
            for (pattern, queue) in &model {
                trie.bind(Destination::Queue(*queue), pattern);
            }
            for index in unbound {
                if !model.is_empty() {
                    let (pattern, queue) = model.swap_remove(index.index(model.len()));
                    prop_assert!(trie.unbind(Destination::Queue(queue), &pattern));
                }
            }
            for key in keys {
                let key_words: Vec<&str> = words(&key).collect();
                let expected: BTreeSet<u64> = model
                    .iter()
                    .filter(|(pattern, _)| matches(&words(pattern).collect::<Vec<_>>(), &key_words))
                    .map(|(_, queue)| *queue)
                    .collect();
                prop_assert_eq!(routed(&trie, &key), expected.into_iter().collect::<Vec<_>>(), "{}", key);
            }
            for (pattern, queue) in &model {
                prop_assert!(!trie.unbind(Destination::Queue(queue + 100), pattern));
                prop_assert!(trie.unbind(Destination::Queue(*queue), pattern));
            }
            prop_assert!(trie.words.is_empty() && trie.edges.is_empty() && trie.node(ROOT).is_bare());
            prop_assert_eq!(trie.free.len() + 1, trie.nodes.len());
        }
    }
}
