//! The data folder under a node that serves: who else may use it, what is taken away from under it, and who may read it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{config, message, receive_now, send, topic};
use vouch_broker::{NotDone, NothingStored, ResourceName};
use vouch_node::{Node, NodeConfig, NodeHealth, PluginUpload, SendRequest, StartError};
use vouch_storage::{backup, restore};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn refused(config: NodeConfig) -> StartError {
    Node::start(config).err().expect("the start is refused")
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
    assert_eq!(node.status.health(), NodeHealth::Ready);
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
                assert!(matches!(node.status.health(), NodeHealth::Poisoned(_)));
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
