//! What nodes export, as they say it themselves.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{Query, Recorded};
use crate::promql::{self, Selector};

/// What Prometheus adds to all that it scrapes, and `cluster`, which rules and dashboard allow for.
const TARGET_LABELS: [&str; 3] = ["cluster", "instance", "job"];

/// Metrics by name.
#[derive(Debug, Default)]
pub struct Exported {
    families: BTreeMap<String, Family>,
    recorded: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Family {
    is_histogram: bool,
    /// With the values that they were seen to have.
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl Exported {
    /// Takes in a scrape.
    pub fn add(&mut self, text: &str) {
        for line in text.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                let (name, kind) = described.split_once(' ').unwrap();
                self.families.entry(name.to_owned()).or_default().is_histogram = kind == "histogram";
            } else if !line.starts_with('#') {
                let sample = promql::uses(line).unwrap().selectors.remove(0);
                let family = self.families.iter_mut().find(|(name, family)| is_series(name, family, &sample.name));
                let (_, family) = family.unwrap_or_else(|| panic!("no type was told: {line}"));
                for matcher in sample.matchers {
                    family.labels.entry(matcher.label).or_default().insert(matcher.value);
                }
            }
        }
    }

    /// Takes in what rules record.
    pub fn add_recorded(&mut self, recorded: &[Recorded]) {
        self.recorded.extend(recorded.iter().map(|rule| (rule.name.clone(), rule.labels.clone())));
    }

    /// The names of all metrics, a histogram's without the suffixes of its series.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.families.keys().map(String::as_str)
    }

    /// An error if the query asks for a metric, a label or a value of one that there is not.
    pub fn check(&self, query: &Query) -> Result<(), String> {
        let wrong = |what: String| Err(format!("{}: {what} in `{}`", query.place, query.expression.trim()));
        let uses = promql::uses(&query.expression).or_else(wrong_syntax(query))?;
        let mut known: BTreeSet<String> = TARGET_LABELS.map(str::to_owned).into();
        for selector in &uses.selectors {
            match self.labels(selector) {
                Ok(labels) => known.extend(labels),
                Err(problem) => return wrong(problem),
            }
        }
        match uses.grouping.iter().chain(&query.labels).find(|label| !known.contains(*label)) {
            Some(label) => wrong(format!("nothing has the label `{label}`")),
            None => Ok(()),
        }
    }

    /// The labels of a selector's series besides those of the target.
    fn labels(&self, selector: &Selector) -> Result<BTreeSet<String>, String> {
        let Selector { name, matchers } = selector;
        let found = self.families.iter().find(|(family_name, family)| is_series(family_name, family, name));
        let labels: BTreeSet<String> = match (found, self.recorded.get(name)) {
            (Some((_, family)), _) => family.labels.keys().cloned().collect(),
            (None, Some(labels)) => labels.clone(),
            // Prometheus makes it.
            (None, None) if name == "up" => BTreeSet::new(),
            (None, None) => return Err(format!("there is no metric `{name}`")),
        };
        for matcher in matchers.iter().filter(|matcher| !TARGET_LABELS.contains(&matcher.label.as_str())) {
            if !labels.contains(&matcher.label) {
                return Err(format!("`{name}` has no label `{}`", matcher.label));
            }
            let values = found.and_then(|(_, family)| family.labels.get(&matcher.label));
            if matcher.operator == "=" && !values.is_some_and(|values| values.contains(&matcher.value)) {
                return Err(format!("the label `{}` of `{name}` is never `{}`", matcher.label, matcher.value));
            }
        }
        Ok(labels)
    }
}

fn wrong_syntax<T>(query: &Query) -> impl FnOnce(String) -> Result<T, String> {
    move |problem| Err(format!("{}: {problem}", query.place))
}

/// True if the family has series of this name. A histogram has none of its own name.
fn is_series(family_name: &str, family: &Family, series: &str) -> bool {
    match series.strip_prefix(family_name) {
        Some("") => !family.is_histogram,
        Some("_bucket" | "_count" | "_sum") => family.is_histogram,
        _ => false,
    }
}

#[test]
fn a_query_is_refused_that_asks_for_what_is_not_there() {
    let mut exported = Exported::default();
    exported.add(
        "# HELP a is b\n# TYPE a gauge\na{state=\"on\"} 1\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 0\nh_sum 0\nh_count 0\n",
    );
    let check = |expression: &str, label: &str| {
        let query = Query {
            place: "here".to_owned(),
            expression: expression.to_owned(),
            labels: (!label.is_empty()).then(|| label.to_owned()).into_iter().collect(),
        };
        exported.check(&query)
    };
    for (expression, label) in
        [(r#"a{state="on", job="x"} == 1"#, "state"), ("sum by (le) (rate(h_bucket[5m]))", ""), ("up / h_count", "job")]
    {
        assert_eq!(check(expression, label), Ok(()));
    }
    for (expression, label, problem) in [
        ("b", "", "here: there is no metric `b` in `b`"),
        ("h", "", "here: there is no metric `h` in `h`"),
        (r#"a{stat="on"}"#, "", r#"here: `a` has no label `stat` in `a{stat="on"}`"#),
        (r#"a{state="of"}"#, "", r#"here: the label `state` of `a` is never `of` in `a{state="of"}`"#),
        ("max by (queue) (a)", "", "here: nothing has the label `queue` in `max by (queue) (a)`"),
        ("a", "peer", "here: nothing has the label `peer` in `a`"),
    ] {
        assert_eq!(check(expression, label), Err(problem.to_owned()));
    }
}
