//! The bindings of a headers exchange.
//!
//! A binding asks for all of its headers or for any of them, with equal values. With no headers, the one that asks
//! for all matches every message, and the one that asks for any matches none.
//!
//! The bindings stand under the pairs of name and value that they ask for, so that a message looks up its own
//! headers and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::{Destination, Tally, add_under, remove_under};

/// Bindings by what they ask for.
#[derive(Debug, Default)]
pub(super) struct HeaderIndex {
    /// Those that ask for all, each under one of its headers.
    all: ByPair<BTreeMap<BTreeMap<String, String>, Tally>>,
    /// Those that ask for any, each under all of its headers.
    any: ByPair<Tally>,
    /// Those that ask for any, whole: what stands under a header does not tell which other ones went with it.
    any_whole: BTreeMap<BTreeMap<String, String>, Tally>,
    /// Those that ask for all of no headers.
    always: Tally,
}

impl HeaderIndex {
    pub fn bind(&mut self, destination: Destination, headers: &BTreeMap<String, String>, match_any: bool) {
        if match_any {
            add_under(&mut self.any_whole, headers, destination);
            for (name, value) in headers {
                self.any.get_or_insert(name, value).add(destination);
            }
            return;
        }
        match self.place(headers).or_else(|| self.rarest(headers)) {
            Some((name, value)) => add_under(self.all.get_or_insert(name, value), headers, destination),
            None => self.always.add(destination),
        }
    }

    /// Whether there was such a binding.
    pub fn unbind(&mut self, destination: Destination, headers: &BTreeMap<String, String>, match_any: bool) -> bool {
        if match_any {
            let removed = remove_under(&mut self.any_whole, headers, destination);
            if removed {
                for (name, value) in headers {
                    self.any.change(name, value, |bound| {
                        bound.remove(destination);
                        bound.is_empty()
                    });
                }
            }
            return removed;
        }
        if headers.is_empty() {
            return self.always.remove(destination);
        }
        let Some((name, value)) = self.place(headers) else {
            return false;
        };
        let mut removed = false;
        self.all.change(name, value, |place| {
            removed = remove_under(place, headers, destination);
            place.is_empty()
        });
        removed
    }

    /// Adds what matches to `found`.
    pub fn route(&self, message: &BTreeMap<String, String>, found: &mut BTreeSet<Destination>) {
        self.always.add_to(found);
        for (name, value) in message {
            if let Some(bound) = self.any.get(name, value) {
                bound.add_to(found);
            }
            for (headers, bound) in self.all.get(name, value).into_iter().flatten() {
                if headers.iter().all(|(name, value)| message.get(name) == Some(value)) {
                    bound.add_to(found);
                }
            }
        }
    }

    /// The header under which bindings that ask for all of these stand.
    fn place<'a>(&self, headers: &'a BTreeMap<String, String>) -> Option<(&'a String, &'a String)> {
        headers.iter().find(|(name, value)| self.all.get(name, value).is_some_and(|place| place.contains_key(headers)))
    }

    /// The header under which the fewest stand so far, lest all are looked at for one that they share.
    fn rarest<'a>(&self, headers: &'a BTreeMap<String, String>) -> Option<(&'a String, &'a String)> {
        headers.iter().min_by_key(|(name, value)| self.all.get(name, value).map_or(0, BTreeMap::len))
    }
}

/// Things by the name and value of a header.
#[derive(Debug, Default)]
struct ByPair<T>(BTreeMap<String, BTreeMap<String, T>>);

impl<T: Default> ByPair<T> {
    fn get(&self, name: &str, value: &str) -> Option<&T> {
        self.0.get(name)?.get(value)
    }

    fn get_or_insert(&mut self, name: &str, value: &str) -> &mut T {
        self.0.entry(name.to_owned()).or_default().entry(value.to_owned()).or_default()
    }

    /// Changes what stands there; the change says whether nothing is left.
    fn change(&mut self, name: &str, value: &str, change: impl FnOnce(&mut T) -> bool) {
        if let Some(values) = self.0.get_mut(name)
            && let Some(thing) = values.get_mut(value)
            && change(thing)
        {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Bound = (BTreeMap<String, String>, bool, u64);

    fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn routed(index: &HeaderIndex, message: &BTreeMap<String, String>) -> BTreeSet<Destination> {
        let mut found = BTreeSet::new();
        index.route(message, &mut found);
        found
    }

    /// By the definition.
    fn matches((asked, match_any, _): &Bound, message: &BTreeMap<String, String>) -> bool {
        let mut equal = asked.iter().map(|(name, value)| message.get(name) == Some(value));
        if *match_any { equal.any(|equal| equal) } else { equal.all(|equal| equal) }
    }

    #[test]
    fn no_headers_match_everything_if_all_are_asked_for_and_nothing_if_any() {
        let mut index = HeaderIndex::default();
        index.bind(Destination::Queue(1), &headers(&[]), false);
        index.bind(Destination::Queue(2), &headers(&[]), true);
        for message in [headers(&[]), headers(&[("a", "1")])] {
            assert_eq!(routed(&index, &message), BTreeSet::from([Destination::Queue(1)]));
        }
        assert!(index.unbind(Destination::Queue(2), &headers(&[]), true));
        assert!(!index.unbind(Destination::Queue(2), &headers(&[]), true));
    }

    #[test]
    fn bindings_that_share_a_header_stand_under_their_other_ones() {
        let mut index = HeaderIndex::default();
        for number in 0..1000 {
            let asked = headers(&[("a", "1"), ("b", &number.to_string())]);
            index.bind(Destination::Queue(number), &asked, false);
        }
        assert_eq!(index.all.get("a", "1").unwrap().len(), 1);
        let message = headers(&[("a", "1"), ("b", "700")]);
        assert_eq!(routed(&index, &message), BTreeSet::from([Destination::Queue(700)]));
    }

    #[test]
    fn unbinding_what_was_not_bound_removes_nothing() {
        let mut index = HeaderIndex::default();
        for match_any in [false, true] {
            index.bind(Destination::Queue(1), &headers(&[("a", "1"), ("b", "2")]), match_any);
            for other in [headers(&[]), headers(&[("a", "1")]), headers(&[("a", "1"), ("c", "3")])] {
                assert!(!index.unbind(Destination::Queue(1), &other, match_any));
            }
            let both = headers(&[("a", "1"), ("b", "2")]);
            assert!(!index.unbind(Destination::Queue(2), &both, match_any));
            assert_eq!(routed(&index, &both), BTreeSet::from([Destination::Queue(1)]));
            for alone in [headers(&[("a", "1")]), headers(&[("b", "2")])] {
                assert_eq!(!routed(&index, &alone).is_empty(), match_any);
            }
            assert!(index.unbind(Destination::Queue(1), &both, match_any));
            assert_eq!(routed(&index, &both), BTreeSet::new());
        }
    }

    fn some_headers() -> impl Strategy<Value = BTreeMap<String, String>> {
        prop::collection::btree_map("[a-d]", "[12]", 0..4)
    }

    proptest! {
        #[test]
        fn what_matches_is_what_the_definition_says(
            bound in prop::collection::vec((some_headers(), any::<bool>(), 0u64..5), 0..40),
            unbound in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            messages in prop::collection::vec(some_headers(), 1..10),
        ) {
            let mut index = HeaderIndex::default();
            let mut model = bound;
            for (asked, match_any, queue) in &model {
                index.bind(Destination::Queue(*queue), asked, *match_any);
            }
            for place in unbound {
                if !model.is_empty() {
                    let (asked, match_any, queue) = model.swap_remove(place.index(model.len()));
                    prop_assert!(index.unbind(Destination::Queue(queue), &asked, match_any));
                }
            }
            for message in messages {
                let matching = model.iter().filter(|bound| matches(bound, &message));
                let expected: BTreeSet<_> = matching.map(|(.., queue)| Destination::Queue(*queue)).collect();
                prop_assert_eq!(routed(&index, &message), expected, "{:?}", message);
            }
            for (asked, match_any, queue) in &model {
                prop_assert!(!index.unbind(Destination::Queue(queue + 100), asked, *match_any));
                prop_assert!(index.unbind(Destination::Queue(*queue), asked, *match_any));
            }
            prop_assert!(index.all.0.is_empty() && index.any.0.is_empty());
            prop_assert!(index.any_whole.is_empty() && index.always.is_empty());
        }
    }
}
