//! The files of `deploy/`, and the page that its alerts refer to.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::promql;

/// An expression, and where it stands.
#[derive(Debug)]
pub struct Query {
    pub place: String,
    pub expression: String,
    /// Labels that are shown of what comes out.
    pub labels: BTreeSet<String>,
}

/// A rule that records, or one that alerts.
#[derive(Debug, Default)]
pub struct Rule {
    pub name: String,
    pub is_alert: bool,
    pub expression: String,
    pub runbook: String,
    /// Labels in its annotations.
    pub labels: BTreeSet<String>,
}

/// What a rule records, and the labels that it keeps.
#[derive(Debug)]
pub struct Recorded {
    pub name: String,
    pub labels: BTreeSet<String>,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `docs/operations.md`.
pub fn operations() -> String {
    read("docs/operations.md")
}

/// The tests of the rules, one text for each.
pub fn rules_tests() -> Vec<String> {
    read("deploy/prometheus/dwell.rules.test.yaml").split("\n  - interval: ").skip(1).map(str::to_owned).collect()
}

/// The rules. The file is YAML of a plain kind, which is read by its lines: `promtool` reads all of it.
pub fn rules() -> Vec<Rule> {
    let text = read("deploy/prometheus/dwell.rules.yaml");
    let mut rules: Vec<Rule> = Vec::new();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).peekable();
    while let Some(line) = lines.next() {
        let (key, value) = line.trim().split_once(": ").unwrap_or((line.trim(), ""));
        if let "- alert" | "- record" = key {
            rules.push(Rule { name: value.to_owned(), is_alert: key == "- alert", ..Rule::default() });
        }
        let Some(rule) = rules.last_mut() else { continue };
        match key {
            "expr" if value == "|" => {
                let indent = line.len() - line.trim_start().len();
                let is_inside = |next: &&str| next.len() - next.trim_start().len() > indent;
                while let Some(next) = lines.next_if(is_inside) {
                    rule.expression.extend([next.trim(), "\n"]);
                }
            }
            "expr" => value.clone_into(&mut rule.expression),
            "runbook_url" => value.clone_into(&mut rule.runbook),
            _ => rule.labels.extend(names_after(line, "$labels.")),
        }
    }
    assert!(rules.iter().all(|rule| !rule.expression.is_empty()), "{rules:?}");
    rules
}

/// The names that stand right behind a mark.
fn names_after(text: &str, mark: &str) -> impl Iterator<Item = String> {
    text.split(mark).skip(1).filter_map(|after| promql::names(after).next()).map(str::to_owned)
}

/// Those that alert.
pub fn alerts(rules: &[Rule]) -> impl Iterator<Item = &Rule> {
    rules.iter().filter(|rule| rule.is_alert)
}

/// What is recorded. Each of these rules says by `by` which labels it keeps.
pub fn recorded(rules: &[Rule]) -> Vec<Recorded> {
    let recording = rules.iter().filter(|rule| !rule.is_alert);
    let recorded = recording
        .map(|rule| Recorded { name: rule.name.clone(), labels: promql::uses(&rule.expression).unwrap().grouping });
    recorded.collect()
}

/// The dashboard.
pub fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/dwell.json")).unwrap()
}

/// The data sources that it asks.
pub fn datasources(dashboard: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(dashboard, &mut |object| {
        found.extend(object["datasource"]["uid"].as_str().map(str::to_owned));
    });
    found
}

/// All expressions of rules and dashboard.
pub fn queries(rules: &[Rule], dashboard: &Value) -> Vec<Query> {
    let of_rule = |rule: &Rule| Query {
        place: rule.name.clone(),
        expression: rule.expression.clone(),
        labels: rule.labels.clone(),
    };
    let mut queries: Vec<Query> = rules.iter().map(of_rule).collect();
    walk(dashboard, &mut |object| {
        let title = object["title"].as_str().or(object["label"].as_str()).unwrap_or_default();
        for target in object["targets"].as_array().into_iter().flatten() {
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            queries.push(Query {
                place: format!("the panel `{title}`"),
                expression: target["expr"].as_str().unwrap().to_owned(),
                labels: names_after(legend, "{{").collect(),
            });
        }
        // A variable: the values of a label.
        if let Some(query) = object["query"]["query"].as_str() {
            let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (expression, label) = inside.and_then(|inside| inside.rsplit_once(',')).unwrap();
            queries.push(Query {
                place: format!("the variable `{title}`"),
                expression: expression.to_owned(),
                labels: BTreeSet::from([label.trim().to_owned()]),
            });
        }
    });
    queries
}

fn walk(value: &Value, look: &mut impl FnMut(&Value)) {
    match value {
        Value::Object(members) => {
            look(value);
            members.values().for_each(|member| walk(member, look));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, look)),
        _ => {}
    }
}

/// What a heading is linked to by, as GitHub makes it.
pub fn anchor(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = title.to_lowercase().replace(' ', "-");
    Some(kept.chars().filter(|character| character.is_alphanumeric() || "-_".contains(*character)).collect())
}
