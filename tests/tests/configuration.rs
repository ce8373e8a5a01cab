//! What the real server says of its configuration before it starts with it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::{Command, Output};

use dwell_tests::environment::binary;

/// Without the variables that this test is run with.
fn server(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary().unwrap());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"DWELL_")) {
        command.env_remove(name);
    }
    command.arg("server").args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_configuration_is_checked_and_shown_with_the_source_of_each_value_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (file, data) = (directory.path().join("dwell.toml"), directory.path().join("data"));
    std::fs::write(&file, "snapshot_log_entries = 900\n").unwrap();
    let data_dir = ["--data-dir", data.to_str().unwrap()];
    let arguments = [&["--check-config", "--config", file.to_str().unwrap()][..], &data_dir[..]].concat();
    let checked = server(&arguments, &[("DWELL_NODE_ID", "7"), ("DWELL_PORT", "tcp://10.0.0.1:7600")]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let shown = text(&checked.stdout);
    for line in [
        "node_id = 7 # DWELL_NODE_ID".to_owned(),
        format!("snapshot_log_entries = 900 # {}", file.display()),
        format!("data_dir = {data:?} # flag"),
        "join = false # default".to_owned(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\nis not in\n{shown}");
    }
    assert!(!data.exists());
}

#[test]
fn what_is_wrong_is_told_with_its_name_and_the_server_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dwell.toml");
    std::fs::write(&file, "nod_id = 7\nelection_timeout_max = 1\n").unwrap();
    let config = ["--config", file.to_str().unwrap()];
    for arguments in [&config[..], &["--check-config", config[0], config[1]][..]] {
        let refused = server(arguments, &[]);
        let error = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{error}");
        assert!(error.contains("`nod_id`") && error.contains("did you mean `node_id`?"), "{error}");
        assert!(error.contains("`election_timeout_max`"), "{error}");
    }
    let refused = server(&["--check-config"], &[("DWELL_STATE_MEMORY_BYTE", "1")]);
    assert!(text(&refused.stderr).contains("did you mean `DWELL_STATE_MEMORY_BYTES`?"), "{refused:?}");
    let refused = server(&["--check-config", "--client-address", "0.0.0.0:7600"], &[]);
    assert!(text(&refused.stderr).contains("`client_address` 0.0.0.0:7600 can be reached"), "{refused:?}");
}

#[test]
fn the_example_is_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dwell.toml");
    std::fs::write(&file, server(&["--print-example"], &[]).stdout).unwrap();
    assert!(std::fs::metadata(&file).unwrap().len() > 1000);
    let checked = server(&["--check-config", "--config", file.to_str().unwrap()], &[]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}
