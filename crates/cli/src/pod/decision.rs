//! Whether a pod's node forms a cluster, joins one, or waits.
//!
//! # To ensure correctness
//!
//! A second cluster must never be formed beside one that there is, and no node may take part under an id whose votes it
//! has forgotten. So founders go through three steps, each kept on disk before it is said to others:
//!
//! - *empty*: it has no data. It says so until each founder says that it is empty or founding.
//! - *founding*: it has its id as a founder. It waits until each founder says that it is founding or has started.
//! - *started*: it may have voted.
//!
//! The first that starts has seen all founders founding. From then on a founder that is empty has lost its data, since
//! founding is on disk; and as long as one that has started is there to say so, it joins under a new id. If none is, it
//! waits for those that do not answer. A founder that is founding when another has started never took part, so that its
//! id is unused: it starts, whoever else is missing.
//!
//! What remains: all founders lose their data at once, and no other pod answers. They form a new cluster then, as the
//! old one's majority is gone.

use std::collections::BTreeMap;

use dwell_storage::enrolment::Phase;

/// What a pod says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It has no data.
    Empty,
    /// It is to be a founder, and has not taken part in anything.
    Founding,
    /// It takes part.
    Started,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Become a founder, and go on asking.
    Found,
    /// Take part with the id that it has.
    Start,
    /// Ask the cluster for a place, under a new id.
    Join,
    /// Ask again.
    Wait(String),
}

/// Decides for a pod that has come so far, from what the others say; who is missing did not answer.
pub fn decide(own: Option<Phase>, ordinal: u32, founders: u32, others: &BTreeMap<u32, Answer>) -> Decision {
    let has_cluster = others.values().any(|answer| *answer == Answer::Started);
    let others_founders = (0..founders).filter(|founder| *founder != ordinal);
    let lacking = |said: &dyn Fn(&Answer) -> bool| -> Vec<u32> {
        others_founders.clone().filter(|founder| !others.get(founder).is_some_and(said)).collect()
    };
    match own {
        Some(Phase::Started) => Decision::Start,
        Some(Phase::Founding) if has_cluster => Decision::Start,
        Some(Phase::Founding) => match lacking(&|answer| *answer != Answer::Empty) {
            none if none.is_empty() => Decision::Start,
            lacking => Decision::Wait(format!("waiting until the pods {lacking:?} are ready to form the cluster")),
        },
        None if has_cluster => Decision::Join,
        None if ordinal >= founders => Decision::Wait("waiting for a cluster to join".to_owned()),
        None => match lacking(&|_| true) {
            none if none.is_empty() => Decision::Found,
            lacking => {
                Decision::Wait(format!("waiting for the pods {lacking:?}, in order to form the cluster with them"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::Answer::{Empty, Founding, Started};
    use super::*;

    fn of(own: Option<Phase>, ordinal: u32, others: &[(u32, Answer)]) -> Decision {
        decide(own, ordinal, 3, &others.iter().copied().collect())
    }

    fn waits(own: Option<Phase>, ordinal: u32, others: &[(u32, Answer)]) -> bool {
        matches!(of(own, ordinal, others), Decision::Wait(_))
    }

    #[test]
    fn founders_form_a_cluster_when_all_of_them_are_there_without_data() {
        assert!(waits(None, 0, &[]));
        assert!(waits(None, 0, &[(1, Empty), (3, Empty)]), "another pod stands for no founder");
        assert_eq!(of(None, 0, &[(1, Empty), (2, Founding)]), Decision::Found);
        assert!(waits(Some(Phase::Founding), 0, &[(1, Empty), (2, Founding)]));
        assert_eq!(of(Some(Phase::Founding), 0, &[(1, Founding), (2, Founding)]), Decision::Start);
        assert_eq!(decide(None, 0, 1, &BTreeMap::new()), Decision::Found);
    }

    #[test]
    fn a_founder_that_lost_its_data_joins_and_forms_nothing() {
        assert_eq!(of(None, 0, &[(1, Started), (2, Started)]), Decision::Join);
        assert_eq!(of(None, 0, &[(1, Empty), (2, Started)]), Decision::Join, "so did another one");
        assert_eq!(of(None, 0, &[(1, Empty), (2, Empty), (3, Started)]), Decision::Join, "so did all founders");
        assert!(waits(None, 0, &[(1, Empty)]), "the one that does not answer may have started");
    }

    #[test]
    fn a_founder_that_did_not_start_with_the_others_starts_later() {
        assert_eq!(of(Some(Phase::Founding), 0, &[(1, Started)]), Decision::Start);
        assert_eq!(of(Some(Phase::Founding), 0, &[(1, Started), (2, Empty)]), Decision::Start);
        assert!(waits(Some(Phase::Founding), 0, &[(1, Founding)]));
    }

    #[test]
    fn a_pod_that_comes_later_joins_and_never_forms_a_cluster() {
        assert!(waits(None, 3, &[(0, Empty), (1, Empty), (2, Empty)]));
        assert!(waits(None, 3, &[(0, Founding), (1, Founding), (2, Founding)]));
        assert_eq!(of(None, 3, &[(1, Started)]), Decision::Join);
    }

    #[test]
    fn who_has_data_goes_on_with_it_whatever_the_others_say() {
        assert_eq!(of(Some(Phase::Started), 0, &[]), Decision::Start);
        assert_eq!(of(Some(Phase::Started), 4, &[(1, Empty)]), Decision::Start);
    }
}
