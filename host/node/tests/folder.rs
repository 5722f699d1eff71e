//! The data folder: what a start takes for a node's, who else may use it, and who may read it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{config, message, receive_now, send, topic};
use vouch_broker::{NotDone, NothingStored, ResourceName};
use vouch_node::{Health, Node, NodeConfig, PluginUpload, SendRequest, StartError};
use vouch_storage::{backup, restore};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn refused(config: NodeConfig) -> StartError {
    Node::start(config).err().expect("the start is refused")
}

/// A stopped node's folder with a message in its log.
async fn stopped(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let node = Node::start(config(&data)).unwrap();
    topic(&node, "t", "{}").await;
    send(&node, "t", message("kept", "body")).await;
    node.stop().await;
    data
}

async fn still_has_its_message(data: &Path) {
    // A newcomer each time: the one before has it leased.
    static LOOKS: AtomicU32 = AtomicU32::new(0);
    let newcomer = format!("g{}", LOOKS.fetch_add(1, Ordering::Relaxed));
    let node = Node::start(config(data)).unwrap();
    assert_eq!(receive_now(&node, "t", &newcomer).await.len(), 1);
    node.stop().await;
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_folder_whose_log_is_not_there_is_refused_and_what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
    let away = folder.path().join("away");
    for (moved, found) in [("shards", "is missing"), ("shards/0", "is missing"), ("shards/0/log", "is missing")] {
        fs::rename(data.join(moved), &away).unwrap();
        let error = refused(config(&data));
        let named = matches!(&error, StartError::LogMissing { missing, .. } if *missing == data.join(moved));
        assert!(named && error.to_string().contains(found) && error.to_string().contains("mount"), "{error}");
        assert!(!data.join(moved).exists(), "nothing is made where a volume belongs");
        fs::rename(&away, data.join(moved)).unwrap();
    }
    // The folder that a volume is mounted on, with what every file system has.
    fs::rename(data.join("shards/0/log"), &away).unwrap();
    fs::create_dir_all(data.join("shards/0/log/lost+found")).unwrap();
    let error = refused(config(&data)).to_string();
    assert!(error.contains("shards/0/log holds no segment of a log") && error.contains("restore"), "{error}");
    fs::remove_dir_all(data.join("shards/0/log")).unwrap();
    fs::rename(&away, data.join("shards/0/log")).unwrap();
    still_has_its_message(&data).await;
}

#[tokio::test]
async fn a_first_start_that_was_interrupted_is_begun_again_and_never_over_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (identity, part) = (data.join("identity.json"), data.join("identity.part"));
    // Before the log: the identity may be torn.
    for torn in ["", r#"{"cluster_id": "00000"#] {
        fs::create_dir_all(&data).unwrap();
        fs::write(&part, torn).unwrap();
        Node::start(config(&data)).unwrap().stop().await;
        assert!(identity.exists() && !part.exists());
        fs::remove_dir_all(&data).unwrap();
    }
    // While the log was made: the folder of the log cannot be, so the identity has no name yet.
    fs::create_dir_all(data.join("shards/0")).unwrap();
    std::os::unix::fs::symlink("nowhere/at/all", data.join("shards/0/log")).unwrap();
    refused(config(&data));
    assert!(part.exists() && !identity.exists(), "no log was made");
    fs::remove_file(data.join("shards/0/log")).unwrap();
    // A smaller segment may be what helps.
    Node::start(NodeConfig { segment_size: Some(8 << 20), ..config(&data) }).unwrap().stop().await;
    fs::remove_dir_all(&data).unwrap();

    // Behind the first records: the same log goes on, whatever is in it.
    let data = stopped(folder.path()).await;
    let cluster = fs::read(&identity).unwrap();
    fs::rename(&identity, &part).unwrap();
    still_has_its_message(&data).await;
    assert!(fs::read(&identity).unwrap() == cluster && !part.exists());

    // Neither tells whose log it is: nothing is made anew.
    fs::rename(&identity, folder.path().join("identity")).unwrap();
    let error = refused(config(&data)).to_string();
    assert!(error.contains("the folder holds a log"), "{error}");
    fs::write(&part, "torn").unwrap();
    let error = refused(config(&data)).to_string();
    assert!(error.contains("identity.part cannot be read"), "{error}");
    fs::remove_file(&part).unwrap();
    // Nor beside snapshots of a log that is gone.
    let snapshots = data.join("shards/0/snapshots");
    fs::write(snapshots.join(format!("{:020}.snapshot", 1)), "").unwrap();
    fs::rename(data.join("shards/0/log"), folder.path().join("log")).unwrap();
    refused(config(&data));
    fs::copy(folder.path().join("identity"), &part).unwrap();
    let error = refused(config(&data)).to_string();
    assert!(error.contains("holds snapshots"), "{error}");
    assert!(!identity.exists() && !data.join("shards/0/log").exists());

    fs::remove_file(snapshots.join(format!("{:020}.snapshot", 1))).unwrap();
    fs::rename(folder.path().join("log"), data.join("shards/0/log")).unwrap();
    still_has_its_message(&data).await;
}

#[tokio::test]
async fn a_setting_that_no_log_can_have_leaves_no_folder_behind() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    refused(NodeConfig { segment_size: Some(5), ..NodeConfig::new(&data) });
    refused(NodeConfig { syncs_in_flight: 99, ..NodeConfig::new(&data) });
    assert!(!data.exists());
}

#[tokio::test]
async fn a_folder_that_is_somebody_elses_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("home");
    fs::create_dir(&theirs).unwrap();
    fs::set_permissions(&theirs, Permissions::from_mode(0o755)).unwrap();
    fs::write(theirs.join("thesis.odt"), "").unwrap();
    let error = refused(config(&theirs)).to_string();
    assert!(error.contains("holds thesis.odt"), "{error}");
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1);
    assert_eq!(fs::metadata(&theirs).unwrap().permissions().mode() & 0o777, 0o755);

    let (data, target) = (stopped(folder.path()).await, folder.path().join("backup"));
    backup(&data, &target, &mut |_| ()).unwrap();
    let error = refused(config(&target)).to_string();
    assert!(error.contains("is a backup") && error.contains("vouch restore"), "{error}");
    // One that was cut short is none that can be restored, and no node's folder either.
    fs::rename(target.join("backup.json"), target.join("backup.unfinished")).unwrap();
    assert!(matches!(refused(config(&target)), StartError::IsBackup(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_removed_lets_no_second_node_in_and_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(config(folder.path())).unwrap();
    topic(&node, "t", "{}").await;
    let identity = folder.path().join("identity.json");
    let was = fs::read(&identity).unwrap();
    for removed in [&folder.path().join("lock"), &identity] {
        fs::remove_file(removed).unwrap();
        assert!(matches!(refused(config(folder.path())), StartError::Locked { .. }));
        until("it is put back", async || removed.exists()).await;
    }
    let all = [&folder.path().join("lock"), &identity];
    all.iter().for_each(|file| fs::remove_file(file).unwrap());
    assert!(matches!(refused(config(folder.path())), StartError::Locked { .. }));
    until("both are put back", async || all.iter().all(|file| file.exists())).await;
    assert_eq!(fs::read(&identity).unwrap(), was);
    let me = format!("process {} (vouch serve)", std::process::id());
    until("the lock says who holds it", async || refused(config(folder.path())).to_string().contains(&me)).await;
    assert_eq!(node.status.health(), Health::Ready);
    send(&node, "t", message("m", "x")).await;
    node.stop().await;
    still_has_its_message(folder.path()).await;
}

/// Sends until the node says that it may write no more, and why; how many were acknowledged before.
async fn fenced(node: &Node) -> (usize, String) {
    let mut acknowledged = 0;
    let began = Instant::now();
    loop {
        let messages = vec![message(&format!("m{acknowledged}"), "x")];
        let request = SendRequest { topic: ResourceName::plain("t"), producer: "p".to_owned(), messages };
        match node.messages.send(request).await {
            Ok(_) => acknowledged += 1,
            Err(NotDone::NothingStored(NothingStored::Poisoned(reason)) | NotDone::Unknown(reason)) => {
                assert!(matches!(node.status.health(), Health::Poisoned(_)));
                return (acknowledged, reason);
            }
            Err(refusal) => panic!("{refusal}"),
        }
        assert!(began.elapsed() < PATIENCE, "the node does not notice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_folder_is_taken_away_writes_no_more_and_leaves_the_one_that_took_its_place_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (data, away) = (folder.path().join("data"), folder.path().join("away"));
    let node = Node::start(config(&data)).unwrap();
    topic(&node, "t", "{}").await;
    fs::rename(&data, &away).unwrap();
    let next = Node::start(config(&data)).unwrap();
    topic(&next, "t", "{}").await;
    let (acknowledged, reason) = fenced(&node).await;
    assert!(reason.contains("was moved, removed or replaced") && reason.contains("start it again"), "{reason}");
    node.stop().await;
    // Nothing of the old one's end came to the new one's folder.
    send(&next, "t", message("kept", "body")).await;
    next.stop().await;
    still_has_its_message(&data).await;

    fs::remove_dir_all(&data).unwrap();
    fs::rename(&away, &data).unwrap();
    let node = Node::start(config(&data)).unwrap();
    assert!(receive_now(&node, "t", "g").await.len() >= acknowledged);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_or_identity_is_taken_away_writes_no_more() {
    type Take = fn(&Path);
    let takes: [(&str, Take, &str); 3] = [
        ("the folder of the log", |data| fs::rename(data.join("shards/0/log"), data.join("log")).unwrap(), "removed"),
        (
            "its files",
            |data| fs::remove_file(data.join(format!("shards/0/log/{:020}.log", 0))).unwrap(),
            "was removed while this node wrote to it",
        ),
        (
            "the identity",
            |data| {
                let other = fs::read_to_string(data.join("identity.json")).unwrap().replace("4194304", "8388608");
                fs::write(data.join("other"), other).unwrap();
                fs::rename(data.join("other"), data.join("identity.json")).unwrap();
            },
            "was replaced by another",
        ),
    ];
    for (what, take, told) in takes {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(config(folder.path())).unwrap();
        topic(&node, "t", "{}").await;
        take(folder.path());
        let (_, reason) = fenced(&node).await;
        assert!(reason.contains(told), "{what}: {reason}");
        node.stop().await;
    }
}

#[tokio::test]
async fn a_folder_whose_segments_have_other_names_is_refused_until_they_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
    let copy = folder.path().join("copy");
    let linked = std::process::Command::new("cp").arg("-al").args([&data, &copy]).status().unwrap();
    assert!(linked.success());
    // Whichever is served would change the other.
    for shared in [&copy, &data] {
        let error = refused(config(shared)).to_string();
        assert!(error.contains("hard link") && error.contains(".log"), "{error}");
    }
    fs::remove_dir_all(&copy).unwrap();
    still_has_its_message(&data).await;
}

#[tokio::test]
async fn two_data_folders_that_share_a_log_serve_it_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(data.join("identity.json"), other.join("identity.json")).unwrap();
    std::os::unix::fs::symlink(data.join("shards"), other.join("shards")).unwrap();
    let node = Node::start(config(&data)).unwrap();
    let error = refused(config(&other)).to_string();
    assert!(error.contains("shards/0/log is in use"), "{error}");
    node.stop().await;
    still_has_its_message(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_a_tool_that_needs_the_folder_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
    for held in [data.clone(), data.join("lock")] {
        let tool = File::open(held).unwrap();
        tool.lock_shared().unwrap();
        let starting = tokio::task::spawn_blocking({
            let config = config(&data);
            move || Node::start(config)
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!starting.is_finished());
        drop(tool);
        starting.await.unwrap().unwrap().stop().await;
    }
}

/// Everything in a folder, itself included, with its mode. What a running node removes meanwhile may be left out.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mode = |path: &Path| fs::symlink_metadata(path).map(|found| found.permissions().mode() & 0o777);
    let mut all = vec![(folder.to_owned(), mode(folder).unwrap())];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(modes(&path)),
            false => all.extend(mode(&path).map(|mode| (path, mode))),
        }
    }
    all
}

fn assert_private(folder: &Path) {
    for (path, mode) in modes(folder) {
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_owner_reads_what_a_node_keeps_backs_up_and_restores() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("above/data");
    let settings = || NodeConfig { snapshot_every: 1 << 20, ..config(&data) };
    let node = Node::start(settings()).unwrap();
    topic(&node, "t", "{}").await;
    let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    let wasm = fs::read(component).unwrap().into();
    let upload = PluginUpload { name: "c".to_owned(), tag: "1".to_owned(), wasm, expected: None };
    node.components.upload(upload).await.unwrap();
    for n in 0..20 {
        send(&node, "t", message(&format!("m{n}"), &"b".repeat(1 << 19))).await;
    }
    let has = |name: &str| modes(&data).iter().any(|(path, _)| path.to_string_lossy().ends_with(name));
    for kind in [".log", ".snapshot", ".part", ".lookup", ".room", ".wasm", "identity.json", "lock", "scrub"] {
        until(kind, async || has(kind)).await;
    }
    assert_private(&data);
    let (target, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    // A folder that somebody made for it.
    fs::create_dir(&target).unwrap();
    backup(&data, &target, &mut |_| ()).unwrap();
    restore(&target, &restored, &mut |_| ()).unwrap();
    assert_private(&target);
    assert_private(&restored);
    node.stop().await;

    // As earlier versions left it.
    for (path, mode) in modes(&data) {
        fs::set_permissions(path, Permissions::from_mode(mode | (mode & 0o700) >> 3 | (mode & 0o700) >> 6)).unwrap();
    }
    let node = Node::start(settings()).unwrap();
    assert_private(&data);
    node.stop().await;
    assert_private(&data);
}
