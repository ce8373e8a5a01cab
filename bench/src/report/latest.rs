//! What the results hold: of each workload and system, what its latest run measured.

use std::collections::BTreeMap;

use crate::results::{Line, Outcome};

/// A run, and one of its rounds.
pub type Round = (usize, usize);
/// What each round came to.
pub type Rounds<'a> = BTreeMap<Round, &'a Outcome>;
/// By system.
pub type Systems<'a> = BTreeMap<&'a str, Rounds<'a>>;
/// One number, by round.
pub type Values = BTreeMap<Round, f64>;

/// Earlier runs of the same workload and system are left out: they may be of another build.
#[derive(Debug, Default)]
pub struct Latest<'a> {
    /// Where and how each run was made.
    pub runs: Vec<&'a BTreeMap<String, String>>,
    /// By system.
    pub settings: BTreeMap<&'a str, &'a [(String, String)]>,
    /// By workload.
    pub outcomes: BTreeMap<&'a str, Systems<'a>>,
    /// By workload and system: why a round failed.
    pub failures: BTreeMap<(&'a str, &'a str), BTreeMap<Round, &'a str>>,
}

impl<'a> Latest<'a> {
    /// Chooses from lines in the order in which they were written.
    pub fn of(lines: &'a [Line]) -> Latest<'a> {
        let mut latest = Latest::default();
        for line in lines {
            latest.add(line);
        }
        latest.outcomes.values_mut().for_each(|systems| systems.retain(|_, rounds| !rounds.is_empty()));
        latest.outcomes.retain(|_, systems| !systems.is_empty());
        latest
    }

    fn add(&mut self, line: &'a Line) {
        match line {
            Line::Environment(entries) => self.runs.push(entries),
            Line::Settings { system, settings } => {
                self.settings.insert(system, settings);
            }
            Line::Result { workload, system, round, outcome } => {
                self.forget_earlier(workload, system);
                let rounds = self.outcomes.entry(workload).or_default().entry(system).or_default();
                rounds.insert((self.runs.len(), *round), outcome);
            }
            Line::Failure { workload, system, round, error } => {
                self.forget_earlier(workload, system);
                let failures = self.failures.entry((workload, system)).or_default();
                failures.insert((self.runs.len(), *round), error);
            }
        }
    }

    fn forget_earlier(&mut self, workload: &'a str, system: &'a str) {
        let run = self.runs.len();
        if let Some(rounds) = self.outcomes.get_mut(workload).and_then(|systems| systems.get_mut(system)) {
            rounds.retain(|(of, _), _| *of == run);
        }
        if let Some(failures) = self.failures.get_mut(&(workload, system)) {
            failures.retain(|(of, _), _| *of == run);
        }
    }
}

/// One number of each round that has it.
pub fn values(rounds: &Rounds<'_>, metric: &str) -> Values {
    rounds.iter().filter_map(|(round, outcome)| Some((*round, *outcome.metrics.get(metric)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(round: usize, value: f64) -> Line {
        let mut outcome = Outcome::default();
        outcome.set("x", value);
        Line::Result { workload: "w".into(), system: "s".into(), round, outcome }
    }

    #[test]
    fn a_later_run_replaces_the_earlier_one_with_all_its_rounds() {
        let begin = || Line::Environment(BTreeMap::new());
        let failure = Line::Failure { workload: "w".into(), system: "s".into(), round: 2, error: "e".into() };
        let lines = [begin(), result(0, 1.0), result(1, 2.0), failure.clone(), begin(), result(0, 3.0)];
        let latest = Latest::of(&lines);
        assert_eq!(values(&latest.outcomes["w"]["s"], "x"), Values::from([((2, 0), 3.0)]));
        assert!(latest.failures.values().all(BTreeMap::is_empty));
        let lines = [begin(), result(0, 1.0), begin(), failure];
        let latest = Latest::of(&lines);
        assert!(latest.outcomes.is_empty() && latest.failures[&("w", "s")].len() == 1);
    }
}
