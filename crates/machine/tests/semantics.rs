//! `docs/semantics.md` names for each rule the tests that hold it: they are there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::path::Path;

/// Names of all tests and transcripts below a directory.
fn names_below(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is = |extension: &str| path.extension().is_some_and(|found| found == extension);
        if path.is_dir() {
            names_below(&path, names);
        } else if is("rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            names.extend(text.match_indices("fn ").filter_map(|(at, _)| {
                let name = text[at + 3..].split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
                Some(name.to_owned())
            }));
        } else if is("txt") {
            names.insert(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
}

#[test]
fn every_rule_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names = BTreeSet::new();
    for directory in ["crates", "tests"] {
        names_below(&root.join(directory), &mut names);
    }
    let text = std::fs::read_to_string(root.join("docs/semantics.md")).unwrap();
    let rules: Vec<&str> = text.split("\n- **").skip(1).map(|rule| rule.split("\n\n").next().unwrap()).collect();
    assert!(rules.len() > 50, "only {} rules were found", rules.len());
    for rule in rules {
        let last = rule.lines().last().unwrap().trim();
        let is_list = last.starts_with('`') && last.ends_with('`');
        assert!(is_list, "the last line of a rule names its tests: {rule}");
        for name in last.split(", ").map(|name| name.trim_matches('`')) {
            assert!(names.contains(name), "there is no test or transcript `{name}`, named by {rule}");
        }
    }
}
