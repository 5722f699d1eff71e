//! `vouch log` on the folder of a running and of a stopped node, and on a damaged one.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::path::Path;

use support::{Node, Ran, vouch};

fn log(data: &Path, arguments: &[&str]) -> Ran {
    Ran::of(&vouch().arg("log").args(arguments).arg("--data-dir").arg(data).output().unwrap())
}

fn node_with_messages() -> (Node, std::path::PathBuf) {
    let node = Node::start(&[]);
    node.admin(&["topic", "create", "orders"]).succeeded();
    for n in 0..5 {
        let body = format!("body-{n}");
        node.client(&["message", "send", "orders", "--body", &body, "--tag", "t", "--key", "k"]).succeeded();
    }
    let data = node.folder.path().join("data");
    (node, data)
}

/// Those in which something happened: marks may lie anywhere, and a leader begins with an entry that holds nothing.
fn with_records(entries: &[serde_json::Value]) -> Vec<&serde_json::Value> {
    entries.iter().filter(|entry| entry["records"].as_array().is_some_and(|records| !records.is_empty())).collect()
}

#[test]
fn the_log_of_a_running_node_is_inspected_verified_and_dumped() {
    let (_node, data) = node_with_messages();
    let inspected = log(&data, &["inspect", "--json"]).succeeded().json();
    assert_eq!((&inspected["segment_size"], &inspected["shard"]), (&(4 << 20).into(), &0.into()));
    assert!(inspected["segments"][0]["entries"].as_u64() >= Some(6), "{inspected}");
    let table = log(&data, &["inspect"]).succeeded().stdout;
    assert!(table.contains("DURABLE MARK") && table.contains("00000000000000000000.log"), "{table}");

    let verified = log(&data, &["verify", "--json"]).succeeded().json();
    assert_eq!((&verified["sound"], &verified["start"]), (&true.into(), &0.into()));
    assert!(log(&data, &["verify"]).succeeded().stdout.starts_with("sound: "));

    let dumped = log(&data, &["dump"]).succeeded().stdout;
    assert!(dumped.contains("TopicPut") && dumped.contains("tag t keys k"), "{dumped}");
    assert!(
        !dumped.contains("handle_key") && !dumped.contains("body-3"),
        "no secrets, and bodies only if asked: {dumped}"
    );
    assert!(log(&data, &["dump", "--bodies"]).succeeded().stdout.contains(": body-3"));
    let first = log(&data, &["dump", "--limit", "1", "--json"]).succeeded().json();
    assert_eq!((&first["position"], &first["index"], &first["kind"]), (&4096.into(), &1.into(), &"records".into()));
    let second =
        log(&data, &["dump", "--from", &first["end"].to_string(), "--limit", "1", "--json"]).succeeded().json();
    assert_eq!(second["index"], 2);
}

#[test]
fn a_damaged_log_is_told_by_place_and_number_of_lost_entries() {
    let (mut node, data) = node_with_messages();
    node.signal("TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    let dumped = log(&data, &["dump", "--json"]).succeeded().stdout;
    let entries: Vec<serde_json::Value> = dumped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let records = with_records(&entries);
    let hit = records[3]["position"].as_u64().unwrap();
    let file = data.join("shards/0/log/00000000000000000000.log");
    let before = std::fs::read(&file).unwrap();
    let mut bytes = before.clone();
    bytes[hit as usize + 70] ^= 1;
    std::fs::write(&file, &bytes).unwrap();

    let told = log(&data, &["verify"]).failed_with(1);
    assert!(told.stderr.contains("damaged in 1 places") && told.stderr.contains(&format!("offset {hit}")), "{told:?}");
    assert!(told.stderr.contains("1 entries lost") && told.stderr.contains("restore"), "{told:?}");
    let document = log(&data, &["verify", "--json"]).failed_with(1).json();
    assert_eq!((&document["sound"], &document["damage"][0]["offset"]), (&false.into(), &hit.into()));
    let dumped = log(&data, &["dump"]).succeeded().stdout;
    assert_eq!(dumped.matches("DAMAGED").count(), 1, "what is whole is dumped: {dumped}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was changed");
}

#[test]
fn a_folder_without_a_log_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let ran = log(folder.path(), &["verify"]).failed_with(1);
    assert!(ran.stderr.contains("there is no log in") && ran.stderr.contains("--data-dir"), "{ran:?}");
}

#[test]
fn a_damaged_log_is_served_read_only_if_the_operator_says_so() {
    let (mut node, data) = node_with_messages();
    assert!(node.admin(&["log", "damage"]).succeeded().stdout.contains("no damage of the log is known"));
    node.signal("TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    let dumped = log(&data, &["dump", "--json"]).succeeded().stdout;
    let entries: Vec<serde_json::Value> = dumped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The first two hold the identity and the topic.
    let records = with_records(&entries);
    let hit = records[4]["position"].as_u64().unwrap();
    let file = data.join("shards/0/log/00000000000000000000.log");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[hit as usize + 70] ^= 1;
    std::fs::write(&file, &bytes).unwrap();

    let refused = Ran::of(&vouch().args(["serve", "--data-dir"]).arg(&data).output().unwrap()).failed_with(1);
    assert!(refused.stderr.contains("--on-damage read-only"), "{refused:?}");
    let folder = std::mem::replace(&mut node.folder, tempfile::tempdir().unwrap());
    let node = Node::start_in(folder, &["--on-damage", "read-only"]);
    let told = node.admin(&["log", "damage"]).failed_with(1);
    assert!(told.stderr.contains("read-only") && told.stderr.contains(&format!("offset {hit}")), "{told:?}");
    assert!(told.stderr.contains("1 entries lost") && told.stderr.contains("nobody knows"), "{told:?}");
    let document = node.admin(&["log", "damage", "--json"]).failed_with(1).json();
    assert_eq!((&document["mode"], &document["damage"][0]["offset"]), (&"read-only".into(), &hit.into()));
    let listed = node.admin(&["message", "list", "--topic", "orders", "--json"]).succeeded().json();
    assert!(listed["items"].as_array().is_some_and(|items| items.len() == 2), "{listed}");
    let refused = node.client(&["message", "send", "orders", "--body", "x"]).failed_with(1);
    assert!(refused.stderr.contains("nothing was stored"), "{refused:?}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was changed");
}

#[test]
fn a_damaged_copy_of_a_snapshot_is_told_with_what_becomes_of_it() {
    let mut node = Node::start(&["--snapshot-every", "1MiB", "--scrub-rate", "0"]);
    node.admin(&["topic", "create", "orders"]).succeeded();
    let (data, body) = (node.folder.path().join("data"), "b".repeat(100_000));
    for _ in 0..12 {
        node.client(&["message", "send", "orders", "--body", &body]).succeeded();
    }
    let find = |extension: &str| {
        let mut files = std::fs::read_dir(data.join("shards/0/snapshots")).unwrap().map(|file| file.unwrap().path());
        files.find(|path| path.extension().is_some_and(|found| found == extension))
    };
    let give_up_at = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // The last file of a snapshot that is written.
    while find("snapshot2").is_none() {
        assert!(std::time::Instant::now() < give_up_at, "no snapshot is made");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    node.signal("TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    let [first, second] = ["part", "part2"].map(|extension| find(extension).unwrap());
    assert!(log(&data, &["verify"]).succeeded().stdout.contains("snapshots: 4 files are as they were written"));
    let whole = std::fs::read(&second).unwrap();
    std::fs::remove_file(&second).unwrap();
    assert!(log(&data, &["verify"]).succeeded().stdout.contains("1 of them have no second copy yet"));
    std::fs::write(&second, &whole).unwrap();

    let mut bytes = whole;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&first, &bytes).unwrap();
    let told = log(&data, &["verify"]).failed_with(1);
    assert!(told.stderr.contains("the log is sound, and 1 files of its snapshots are damaged"), "{told:?}");
    let name = first.to_str().unwrap();
    assert!(told.stderr.contains(name) && told.stderr.contains("repairable, the other copy is whole"), "{told:?}");
    let document = log(&data, &["verify", "--json"]).failed_with(1).json();
    let damage = &document["snapshots"]["damage"];
    assert_eq!((&document["sound"], &damage[0]["state"]), (&false.into(), &"repairable".into()), "{document}");
    assert!(name.ends_with(damage[0]["file"].as_str().unwrap()), "{document}");
    std::fs::write(&second, &bytes).unwrap();
    let told = log(&data, &["verify"]).failed_with(1);
    assert!(
        told.stderr.contains("2 files of its snapshots") && told.stderr.contains("the log says the same"),
        "{told:?}"
    );
}

#[test]
fn messages_that_are_gone_with_the_first_segments_are_damage_and_what_is_told_of_a_start_is_true() {
    let mut node = Node::start(&["--snapshot-every", "1MiB", "--scrub-rate", "0"]);
    node.admin(&["topic", "create", "orders"]).succeeded();
    let (data, body) = (node.folder.path().join("data"), "b".repeat(100_000));
    let send = |node: &Node| node.client(&["message", "send", "orders", "--body", &body]).succeeded();
    let newest = || {
        let files = std::fs::read_dir(data.join("shards/0/snapshots")).unwrap().map(|file| file.unwrap().path());
        // The last file of a snapshot that is written.
        let covered = files.filter(|path| path.extension().is_some_and(|found| found == "snapshot2"));
        covered.map(|path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap()).max()
    };
    let give_up_at = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while newest().is_none_or(|covered| covered < 5 << 20) {
        assert!(std::time::Instant::now() < give_up_at, "no snapshot is made");
        send(&node);
    }
    node.signal("TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    log(&data, &["verify"]).succeeded();

    // Damage that a snapshot covers.
    let first = data.join("shards/0/log/00000000000000000000.log");
    let whole = std::fs::read(&first).unwrap();
    let mut bytes = whole.clone();
    bytes[1 << 20] ^= 1;
    std::fs::write(&first, &bytes).unwrap();
    let starts = "starts on it and writes";
    let told = log(&data, &["verify"]).failed_with(1);
    assert!(told.stderr.contains("damaged in 1 places") && told.stderr.contains(starts), "{told:?}");
    std::fs::write(&first, &whole).unwrap();

    std::fs::remove_file(&first).unwrap();
    let told = log(&data, &["verify"]).failed_with(1);
    assert!(told.stderr.contains("the log's first segments are gone") && told.stderr.contains(starts), "{told:?}");
    let document = log(&data, &["verify", "--json"]).failed_with(1).json();
    assert_eq!((&document["sound"], &document["missing"]["to"]), (&false.into(), &(4 << 20).into()), "{document}");
    let folder = std::mem::replace(&mut node.folder, tempfile::tempdir().unwrap());
    let node = Node::start_in(folder, &[]);
    send(&node);
    let told = log(&data, &["verify"]).failed_with(1);
    assert!(told.stderr.contains("the log's first segments are gone"), "of a running node, too: {told:?}");
}
