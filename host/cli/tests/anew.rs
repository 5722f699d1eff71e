//! A cluster that begins anew with the real binary: restored beside one that lives, and recovered when a majority is lost.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::cluster::{INSECURE, Member, bodies, join, three, until, voters_are};
use support::{Ran, read, vouch};
use tonic::transport::Endpoint;
use vouch_protocol::wire::messaging_service_client::MessagingServiceClient;
use vouch_protocol::wire::{AckMessageEntry, AckMessageRequest, Code, Resource};

/// Runs a command about the data folder of a member.
fn about(command: &[&str], member: &Path) -> Ran {
    Ran::of(&vouch().args(command).arg("--data-dir").arg(member.join("data")).output().unwrap())
}

/// Sends a half message and leaves it open; its transaction.
fn half(member: &Member, body: &str) -> String {
    let send = ["message", "send", "h", "--body", body, "--transaction", "leave-open", "--json"];
    let sent = member.client(&send).succeeded().json();
    sent["transaction_id"].as_str().unwrap_or_else(|| panic!("{sent}")).to_owned()
}

/// Receives a message and keeps it; its receipt handle.
fn handle(member: &Member) -> String {
    let receive = ["message", "receive", "t", "--group", "kept", "--no-ack", "--json", "--wait", "20s"];
    let received = member.client(&receive).succeeded().json();
    received["receipt_handle"].as_str().unwrap_or_else(|| panic!("{received}")).to_owned()
}

/// What a member says to a handle.
async fn acked(member: &Member, handle: &str) -> i32 {
    let endpoint = Endpoint::from_shared(format!("http://{}", member.at("grpc"))).unwrap();
    let mut client = MessagingServiceClient::new(endpoint.connect().await.unwrap());
    let resource = |name: &str| Some(Resource { name: name.to_owned(), ..Default::default() });
    let entries = vec![AckMessageEntry { receipt_handle: handle.to_owned(), ..Default::default() }];
    let mut ack = tonic::Request::new(AckMessageRequest { topic: resource("t"), group: resource("kept"), entries });
    ack.metadata_mut().insert("x-mq-client-id", "client".parse().unwrap());
    client.ack_message(ack).await.unwrap().into_inner().status.unwrap().code
}

/// Topics and a group that both have that the tests compare.
fn make(member: &Member) {
    member.admin(&["topic", "create", "h", "--type", "transaction", "--queues", "1"]).succeeded();
    member.admin(&["group", "create", "kept"]).succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_beside_the_one_that_lives_is_another_and_nothing_of_one_means_anything_to_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] = three(&folder.path().join("living"));
    make(&one);
    let before = half(&one, "before");
    let copy = folder.path().join("copy");
    let at = u64::from_str_radix(&before[5..21], 16).unwrap();
    until("all of it is in the backup", || {
        let _ = std::fs::remove_dir_all(&copy);
        let taken = about(&["backup", copy.to_str().unwrap(), "--json"], &two.folder).succeeded().json();
        taken["log_end"].as_u64().unwrap() > at
    });
    let place = folder.path().join("restored/1");
    std::fs::create_dir_all(&place).unwrap();
    let restored = about(&["restore", copy.to_str().unwrap(), "--json"], &place).succeeded().json();
    assert_eq!(restored["node"], 4, "ids are counted on");
    assert!(restored["incarnation"].as_str().is_some_and(|life| life.len() == 8), "{restored}");
    let other = Member::start(&place, &INSECURE);
    assert_eq!((other.status()["voters"].clone(), other.status()["leader"].clone()), (json!([4]), json!(4)));

    // Both go on from one place in their logs.
    let (here, there) = (half(&one, "here"), half(&other, "there"));
    assert_eq!((here.as_bytes()[0], here.len(), there.as_bytes()[0], there.len()), (b'T', 21, b'U', 29));
    for member in [&one, &other] {
        member.admin(&["transaction", "show", &before]).succeeded();
    }
    for (member, stranger) in [(&other, &here), (&one, &there)] {
        let unknown = member.admin(&["transaction", "commit", stranger, "--reason", "r"]).failed_with(1);
        assert!(unknown.stderr.contains("another life of this cluster"), "{unknown:?}");
    }
    let own = other.admin(&["transaction", "commit", &there, "--reason", "r"]).succeeded();
    assert!(own.stdout.contains("commit"), "{own:?}");
    let (here, there) = (handle(&one), handle(&other));
    let (invalid, ok) = (Code::InvalidReceiptHandle as i32, Code::Ok as i32);
    assert_eq!((acked(&other, &here).await, acked(&one, &there).await), (invalid, invalid));
    assert_eq!((acked(&other, &there).await, acked(&one, &here).await), (ok, ok));

    // Others join the restored one, which keeps what it has, and those of before are strangers.
    let fifth = join(&other, &other, &folder.path().join("restored/2"), &["--two-voters"]);
    voters_are(&[&other, &fifth], &[4, 5]);
    fifth.client(&["message", "send", "t", "--body", "m7"]).succeeded();
    assert_eq!(bodies(&fifth, "g", "4"), ["m1", "m2", "m3", "m7"]);
    assert_eq!(bodies(&two, "g", "3"), ["m1", "m2", "m3"]);
    other.admin(&["cluster", "transfer-leader", "--to", "5"]).succeeded();
    assert_eq!(acked(&fifth, &handle(&fifth)).await, ok, "it signs with the key of this life");

    // One of before that takes the restored node for one of its own is told what it is.
    three.kill();
    let port = other.at("peer").to_owned();
    other.stop();
    let wrong = ["--peer-insecure", "--peer-addr", &port];
    let impostor = Member::start(&folder.path().join("living/3"), &wrong);
    until("both sides say so", || {
        let of = |member: &Member| read(&member.folder.join("node.log"));
        of(&impostor).contains("of the cluster, and you are in incarnation")
            && of(&fifth).contains("of the cluster, and you are in incarnation")
    });
    assert_eq!(fifth.status()["nodes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn what_is_left_when_two_of_three_are_lost_goes_on_and_others_join_it() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] = three(folder.path());
    make(&one);
    let refused = about(&["cluster", "recover", "--yes"], &three.folder).failed_with(1);
    assert!(refused.stderr.contains("is in use by"), "{refused:?}");
    one.client(&["message", "send", "t", "--body", "m4"]).succeeded();
    let open = half(&one, "open");
    // What is acknowledged is on a majority, and this one is to be of it.
    until("the third has all of it", || one.knows_of(3)["lag_bytes"] == 0);
    [one, two, three].into_iter().for_each(Member::kill);
    for lost in ["1", "2"] {
        std::fs::remove_dir_all(folder.path().join(lost)).unwrap();
    }
    let left = folder.path().join("3");
    let before = std::fs::read(left.join("data/identity.json")).unwrap();
    let unasked = about(&["cluster", "recover"], &left).failed_with(2);
    assert!(unasked.stderr.contains("--yes") && unasked.stderr.contains("left out: nodes 1, 2"), "{unasked:?}");
    assert_eq!(std::fs::read(left.join("data/identity.json")).unwrap(), before);
    let done = about(&["cluster", "recover", "--yes", "--json"], &left).succeeded();
    assert!(done.stderr.contains("node 3 of cluster") && done.stderr.contains("is lost"), "{done:?}");
    let told = done.json();
    assert_eq!((&told["former_node"], &told["left_out"], &told["node"]), (&json!(3), &json!([1, 2]), &json!(4)));

    // Killed before it has said so in its log, or a moment after, it is the new node.
    let mut killed = vouch();
    killed
        .args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir"])
        .arg(left.join("data"));
    let mut killed = killed.spawn().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let fourth = Member::start(&left, &INSECURE);
    assert_eq!(fourth.status()["voters"], json!([4]));
    assert_eq!(bodies(&fourth, "g", "4"), ["m1", "m2", "m3", "m4"]);
    let listed = fourth.admin(&["transaction", "list", "--state", "open", "--json"]).succeeded().json();
    let id = |listed: &Value| listed["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{listed}")).to_owned();
    assert_eq!(id(&listed)[1..21], open[1..], "its half is there, by whatever name");
    let fifth = join(&fourth, &fourth, &folder.path().join("5"), &[]);
    let sixth = join(&fourth, &fifth, &folder.path().join("6"), &[]);
    voters_are(&[&fourth, &fifth, &sixth], &[4, 5, 6]);
    fourth.kill();
    until("another leads", || fifth.status()["leader"].as_u64().is_some_and(|leader| leader > 4));
    sixth.client(&["message", "send", "t", "--body", "m5"]).succeeded();
    assert_eq!(bodies(&sixth, "others", "5"), ["m1", "m2", "m3", "m4", "m5"]);
    let whole = about(&["cluster", "recover", "--yes"], &folder.path().join("1")).failed_with(1);
    assert!(whole.stderr.contains("is not the data folder"), "{whole:?}");
}

/// A restore that is killed leaves nothing under the name, or all of it.
#[test]
fn a_node_that_was_always_alone_is_restored_as_another_life_of_its_cluster_and_needs_no_recovery() {
    let folder = tempfile::tempdir().unwrap();
    let (place, copy, again) = (folder.path().join("1"), folder.path().join("copy"), folder.path().join("2"));
    let alone = Member::start(&place, &["--segment-size", "4MiB"]);
    alone.admin(&["topic", "create", "t", "--queues", "1"]).succeeded();
    alone.client(&["message", "send", "t", "--body", "m1"]).succeeded();
    let cluster = alone.status()["id"].clone();
    alone.stop();
    let complete = about(&["cluster", "recover", "--yes"], &place).failed_with(1);
    assert!(complete.stderr.contains("is the only one of its cluster that votes"), "{complete:?}");
    about(&["backup", copy.to_str().unwrap()], &place).succeeded();
    std::fs::create_dir_all(&again).unwrap();
    let told = about(&["restore", copy.to_str().unwrap()], &again).succeeded();
    assert!(
        told.stdout.contains("vouch serve --data-dir") && told.stderr.contains("cluster of one, node 2"),
        "{told:?}"
    );
    let restored = Member::start(&again, &[]);
    assert_eq!((restored.status()["id"].clone(), restored.status()["voters"].clone()), (cluster, json!([2])));
    assert_eq!(bodies(&restored, "g", "1"), ["m1"]);
}
