//! `vouch backup` and `vouch restore` with the real binary.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::fs;
use std::path::Path;

use support::{Node, Ran, vouch};

fn run(command: &str, folder: &Path, flags: &[&str], data_dir: Option<&Path>) -> Ran {
    let mut vouch = vouch();
    vouch.arg(command).arg(folder).args(flags);
    if let Some(data_dir) = data_dir {
        vouch.arg("--data-dir").arg(data_dir);
    }
    Ran::of(&vouch.output().unwrap())
}

/// What is acknowledged becomes part of a backup once the log says that it is durable: 100 ms later at most.
fn backed_up(data: &Path, folder: &Path, end: u64) -> Ran {
    loop {
        let taken = run("backup", folder, &["--json"], Some(data)).succeeded();
        if taken.json()["log_end"].as_u64().unwrap() >= end {
            return taken;
        }
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn a_running_node_is_backed_up_and_its_copy_serves_the_same_messages() {
    let node = Node::start(&[]);
    let (data, folder) = (node.folder.path().join("data"), tempfile::tempdir().unwrap());
    node.admin(&["topic", "create", "t"]).succeeded();
    node.client(&["message", "send", "t", "--body", "kept"]).succeeded();
    let verified = run("log", Path::new("verify"), &["--json"], Some(&data)).succeeded().json();
    // All that the node has written is acknowledged: the only client waited for its answer. The last entry may be a mark
    // of 64 bytes, which no mark covers.
    let end = verified["end"].as_u64().unwrap();
    let backup = folder.path().join("backup");
    let taken = backed_up(&data, &backup, end - 64);
    assert_eq!(taken.json()["node_was_running"], true);
    assert!(taken.stdout.starts_with('{'), "{taken:?}");

    let checked = run("restore", &backup, &["--check", "--json"], None).succeeded();
    assert_eq!(checked.json(), taken.json());
    let plain = run("restore", &backup, &["--check"], None).succeeded();
    assert!(plain.stdout.contains("is sound: cluster "), "{plain:?}");

    let new_home = folder.path().join("home");
    fs::create_dir(&new_home).unwrap();
    let restored = run("restore", &backup, &[], Some(&new_home.join("data"))).succeeded();
    assert!(restored.stderr.contains("cluster of one, node 2"), "{restored:?}");
    assert!(restored.stdout.contains("vouch serve --data-dir"), "{restored:?}");
    drop(node);
    let moved = tempfile::tempdir().unwrap();
    fs::rename(new_home.join("data"), moved.path().join("data")).unwrap();
    let node = Node::start_in(moved, &[]);
    let received = node.client(&["message", "receive", "t", "--group", "g", "--wait", "5s"]).succeeded();
    assert!(received.stdout.contains("kept"), "{received:?}");
}

#[test]
fn failures_exit_1_and_say_what_to_do_and_wrong_usage_exits_2() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, target) = (folder.path().join("empty"), folder.path().join("target"));
    fs::create_dir(&empty).unwrap();
    let none = run("backup", &target, &[], Some(&empty)).failed_with(1);
    assert!(
        none.stderr.contains("is not the data folder of a Vouch node") && none.stderr.contains("--data-dir"),
        "{none:?}"
    );
    let none = run("restore", &empty, &["--json"], Some(&target)).failed_with(1);
    assert!(none.stderr.contains("is no backup") && none.json()["detail"].is_string(), "{none:?}");
    run("restore", &empty, &["--check"], None).failed_with(1);
    assert!(!target.exists());
    let nowhere = run("restore", &empty, &[], None).failed_with(2);
    assert!(nowhere.stderr.contains("--data-dir"), "{nowhere:?}");
    for command in ["backup", "restore"] {
        let help = support::run(&[command, "--help"]).succeeded();
        assert!(help.stdout.contains("Examples:"), "{help:?}");
    }
}
