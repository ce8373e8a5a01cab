//! Where the messages of an exchange go.
//!
//! A [`Router`] holds one exchange's bindings in memory, in the form in which a message finds the matching ones
//! without looking at the others.

mod headers;
mod topic;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use crate::command::ExchangeKind;

use headers::HeaderIndex;
use topic::Trie;

/// What a binding leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// The queue with this id.
    Queue(u64),
    /// The exchange with this id.
    Exchange(u64),
}

/// One exchange's bindings.
#[derive(Debug)]
pub struct Router(Table);

#[derive(Debug)]
enum Table {
    Direct(BTreeMap<String, Tally>),
    Topic(Trie),
    Fanout(Tally),
    Headers(HeaderIndex),
}

impl Router {
    /// An exchange without bindings.
    pub fn new(kind: ExchangeKind) -> Router {
        let table = match kind {
            ExchangeKind::Direct => Table::Direct(BTreeMap::new()),
            ExchangeKind::Topic => Table::Topic(Trie::default()),
            ExchangeKind::Fanout => Table::Fanout(Tally::default()),
            ExchangeKind::Headers => Table::Headers(HeaderIndex::default()),
        };
        Router(table)
    }

    /// Adds a binding. One that is added twice has to be removed twice.
    ///
    /// The exchange's kind decides which of key and headers counts; bindings that differ only in what does not are
    /// still two.
    pub fn bind(
        &mut self,
        destination: Destination,
        routing_key: &str,
        headers: &BTreeMap<String, String>,
        match_any: bool,
    ) {
        match &mut self.0 {
            Table::Direct(keys) => add_under(keys, routing_key, destination),
            Table::Topic(trie) => trie.bind(destination, routing_key),
            Table::Fanout(bound) => bound.add(destination),
            Table::Headers(index) => index.bind(destination, headers, match_any),
        }
    }

    /// Removes a binding, and no other that leads to the same destination. Does nothing if it does not exist.
    pub fn unbind(
        &mut self,
        destination: Destination,
        routing_key: &str,
        headers: &BTreeMap<String, String>,
        match_any: bool,
    ) {
        match &mut self.0 {
            Table::Direct(keys) => remove_under(keys, routing_key, destination),
            Table::Topic(trie) => trie.unbind(destination, routing_key),
            Table::Fanout(bound) => bound.remove(destination),
            Table::Headers(index) => index.unbind(destination, headers, match_any),
        };
    }

    /// Adds to `found` where a message with this key and these headers goes.
    pub fn route(&self, routing_key: &str, headers: &BTreeMap<String, String>, found: &mut BTreeSet<Destination>) {
        match &self.0 {
            Table::Direct(keys) => {
                if let Some(bound) = keys.get(routing_key) {
                    bound.add_to(found);
                }
            }
            Table::Topic(trie) => {
                trie.route(routing_key, found);
            }
            Table::Fanout(bound) => bound.add_to(found),
            Table::Headers(index) => index.route(headers, found),
        }
    }
}

/// Destinations, and how many bindings lead to each.
#[derive(Debug, Default)]
struct Tally(BTreeMap<Destination, u32>);

impl Tally {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, destination: Destination) {
        *self.0.entry(destination).or_default() += 1;
    }

    /// Takes one back; whether there was one.
    fn remove(&mut self, destination: Destination) -> bool {
        let Some(count) = self.0.get_mut(&destination) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&destination);
        }
        true
    }

    fn add_to(&self, found: &mut BTreeSet<Destination>) {
        found.extend(self.0.keys());
    }
}

fn add_under<Q, K>(bindings: &mut BTreeMap<K, Tally>, key: &Q, destination: Destination)
where
    Q: ToOwned<Owned = K> + Ord + ?Sized,
    K: Borrow<Q> + Ord,
{
    match bindings.get_mut(key) {
        Some(bound) => bound.add(destination),
        None => bindings.entry(key.to_owned()).or_default().add(destination),
    }
}

/// Whether there was one.
fn remove_under<Q, K>(bindings: &mut BTreeMap<K, Tally>, key: &Q, destination: Destination) -> bool
where
    Q: Ord + ?Sized,
    K: Borrow<Q> + Ord,
{
    let Some(bound) = bindings.get_mut(key) else {
        return false;
    };
    let removed = bound.remove(destination);
    if bound.is_empty() {
        bindings.remove(key);
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q1: Destination = Destination::Queue(1);
    const Q2: Destination = Destination::Queue(2);
    const E1: Destination = Destination::Exchange(1);

    fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn routed(router: &Router, key: &str, pairs: &[(&str, &str)]) -> Vec<Destination> {
        let mut found = BTreeSet::new();
        router.route(key, &headers(pairs), &mut found);
        found.into_iter().collect()
    }

    #[test]
    fn direct_asks_for_an_equal_key() {
        let mut router = Router::new(ExchangeKind::Direct);
        router.bind(Q1, "a", &headers(&[]), false);
        router.bind(E1, "a", &headers(&[]), false);
        router.bind(Q2, "a.#", &headers(&[]), false);
        assert_eq!(routed(&router, "a", &[]), [Q1, E1]);
        assert_eq!(routed(&router, "a.b", &[]), []);
        assert_eq!(routed(&router, "a.#", &[]), [Q2]);
    }

    #[test]
    fn fanout_takes_every_binding() {
        let mut router = Router::new(ExchangeKind::Fanout);
        router.bind(Q1, "a", &headers(&[]), false);
        router.bind(E1, "b", &headers(&[("c", "d")]), true);
        assert_eq!(routed(&router, "x", &[]), [Q1, E1]);
    }

    #[test]
    fn headers_may_begin_with_anything() {
        let mut router = Router::new(ExchangeKind::Headers);
        router.bind(Q1, "", &headers(&[("x-kind", "pdf")]), false);
        assert_eq!(routed(&router, "", &[("x-kind", "pdf")]), [Q1]);
        assert_eq!(routed(&router, "", &[("x-kind", "zip")]), []);
    }

    #[test]
    fn what_is_found_is_added() {
        let mut router = Router::new(ExchangeKind::Fanout);
        router.bind(Q1, "", &headers(&[]), false);
        let mut found = BTreeSet::from([Q2]);
        router.route("", &headers(&[]), &mut found);
        assert_eq!(found, BTreeSet::from([Q1, Q2]));
    }

    #[test]
    fn unbinding_removes_one_binding_of_any_kind_and_leaves_the_others() {
        let kinds = [ExchangeKind::Direct, ExchangeKind::Topic, ExchangeKind::Fanout, ExchangeKind::Headers];
        let (first, second) = (headers(&[("a", "1")]), headers(&[("a", "1"), ("b", "2")]));
        for kind in kinds {
            for match_any in [false, true] {
                let mut router = Router::new(kind);
                router.bind(Q1, "a", &first, match_any);
                router.bind(Q1, "a", &second, match_any);
                router.bind(Q2, "a", &first, match_any);
                let message = [("a", "1"), ("b", "2")];
                assert_eq!(routed(&router, "a", &message), [Q1, Q2], "{kind:?}");
                router.unbind(Q1, "a", &first, match_any);
                assert_eq!(routed(&router, "a", &message), [Q1, Q2], "{kind:?}");
                router.unbind(Q1, "a", &second, match_any);
                assert_eq!(routed(&router, "a", &message), [Q2], "{kind:?}");
                router.unbind(Q1, "a", &second, match_any);
                assert_eq!(routed(&router, "a", &message), [Q2], "{kind:?}");
                router.unbind(Q2, "a", &first, match_any);
                assert_eq!(routed(&router, "a", &message), [], "{kind:?}");
            }
        }
    }
}
