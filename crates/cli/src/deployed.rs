//! What `deploy/` asks of the binary is there: variables, settings in files, and whole command lines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use dwell_server::Config;

use crate::arguments::{Arguments, PASSWORD_VARIABLE};

const BINARY: &str = "/usr/local/bin/dwell";

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy().join(path)).unwrap()
}

/// All files that are written by hand or rendered, with their contents.
fn files(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            found.push((path, text));
        }
    }
}

fn settings() -> BTreeSet<String> {
    let config = serde_json::to_value(Config::default()).unwrap();
    config.as_object().unwrap().keys().cloned().collect()
}

fn variables() -> BTreeSet<String> {
    let mut known: BTreeSet<String> = settings().iter().map(|key| format!("DWELL_{}", key.to_uppercase())).collect();
    // It has no flag.
    known.insert(PASSWORD_VARIABLE.to_owned());
    let mut commands = vec![Arguments::command()];
    while let Some(command) = commands.pop() {
        let environment = command.get_arguments().filter_map(|argument| argument.get_env());
        known.extend(environment.map(|name| name.to_string_lossy().into_owned()));
        commands.extend(command.get_subcommands().cloned());
    }
    known
}

/// The words in a text that begin so and go on with capitals.
fn words<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c: char| !is_part(c)).filter(|word| word.starts_with(prefix) && word.len() > prefix.len()).collect()
}

#[test]
fn variables_that_are_set_are_read() {
    let (mut found, known) = (Vec::new(), variables());
    files(&deploy(), &mut found);
    let mut asked = 0;
    for (path, text) in found {
        for name in words(&text, "DWELL_") {
            assert!(known.contains(name), "{}: {name} is no variable of the binary", path.display());
            asked += 1;
        }
    }
    assert!(asked > 10, "only {asked} variables were found");
}

#[test]
fn settings_that_the_chart_writes_are_known() {
    let known = settings();
    let template = read("helm/dwell/templates/configmap.yaml");
    let written: BTreeSet<&str> = template
        .lines()
        .filter_map(|line| line.trim().split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    let unknown: BTreeSet<&str> = written.into_iter().filter(|key| !known.contains(*key)).collect();
    assert_eq!(unknown, BTreeSet::new());
}

/// Checks a command line without the binary's own name.
fn check_line(line: &[String]) {
    let line: Vec<String> = line.iter().map(|word| word.replace("$(POD_NAME)", "dwell-0")).collect();
    let parsed = Arguments::try_parse_from(std::iter::once("dwell".to_owned()).chain(line.iter().cloned()));
    if let Err(error) = parsed {
        panic!("dwell {}: {error}", line.join(" "));
    }
}

/// The words of lists under a key, one list for each time that it stands there.
fn lists(text: &str, key: &str) -> Vec<Vec<String>> {
    let mut lists = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() == key {
            let mut list = Vec::new();
            while let Some(item) = lines.next_if(|next| next.trim().starts_with("- ")) {
                list.push(item.trim()[2..].trim_matches('"').to_owned());
            }
            lists.push(list);
        }
    }
    lists
}

/// The words after the binary's name in a list on one line.
fn inline_lists(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(&format!("{BINARY}, "))?;
        let inside = rest.split(']').next()?;
        Some(inside.split(", ").map(|word| word.trim_matches('"').to_owned()).collect())
    })
}

#[test]
fn command_lines_are_understood() {
    let (compose, manifests) = (read("compose.yaml"), read("kubernetes/dwell.yaml"));
    let nodes = lists(&compose, "command:");
    assert_eq!(nodes.len(), 3);
    let pods = lists(&manifests, "args:");
    assert_eq!(pods.len(), 1);
    let hooks: Vec<Vec<String>> = inline_lists(&compose).chain(inline_lists(&manifests)).collect();
    assert_eq!(hooks.len(), 2, "a health check and a preStop: {hooks:?}");
    nodes.iter().chain(&pods).chain(&hooks).for_each(|line| check_line(line));
    // The Job's words are parts of templates, which the manifests do not have.
    let prune = read("helm/dwell/templates/prune-job.yaml");
    let [prune] = &lists(&prune, "args:")[..] else { panic!("one command") };
    let prune: Vec<String> = prune
        .iter()
        .map(|word| {
            word.replace("{{ .Values.replicaCount }}", "3").replace(r#"{{ include "dwell.host" . }}"#, "d-{ordinal}.p")
        })
        .collect();
    check_line(&prune);
}
