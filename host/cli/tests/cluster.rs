//! Nodes of one cluster as operators run them: processes that are started, joined, handed over, killed and removed by commands.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::cluster::{INSECURE, Member, bodies, first, join, three, until, voters_are};
use support::{Ran, read, run, vouch};

fn leader_of(members: &[&Member]) -> Option<u64> {
    let leaders: Vec<Value> = members.iter().map(|member| member.status()["leader"].clone()).collect();
    leaders.iter().all(|leader| *leader == leaders[0]).then(|| leaders[0].as_u64())?
}

#[test]
fn a_node_with_its_messages_becomes_one_of_three_and_one_of_those_takes_over_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] = three(folder.path());
    let table = one.admin(&["cluster", "status"]).succeeded().stdout;
    assert!(table.contains("node 1 leads in term"), "{table}");
    assert!(table.contains("2 of the 3 voters (1, 2, 3) must be there to decide"), "{table}");
    let line = |node: &str| table.lines().find(|line| line.starts_with(node)).unwrap().to_owned();
    assert!(line("1 ").contains("leader") && line("1 ").ends_with("this node"), "{table}");
    assert!(line("2 ").contains(two.at("peer")) && line("2 ").contains(two.at("grpc")), "{table}");
    until("who leads hears both", || [2, 3].iter().all(|node| one.knows_of(*node)["heard"] == true));
    until("both have all of the log", || [2, 3].iter().all(|node| one.knows_of(*node)["lag_bytes"] == 0));
    let told = two.admin(&["cluster", "status"]).succeeded().stdout;
    assert!(told.contains("only node 1, which leads, knows how far the others are"), "{told}");
    assert!(two.knows_of(3)["durable"].is_null() && two.knows_of(2)["durable"].is_u64());
    metrics_tell_of_the_others(&one, &two);

    let led = one.admin(&["cluster", "transfer-leader", "--to", "2"]).succeeded();
    assert_eq!(led.stdout, "node 2 leads\n");
    until("all know that", || leader_of(&[&one, &two, &three]) == Some(2));
    two.client(&["message", "send", "t", "--body", "m4"]).succeeded();

    two.kill();
    let killed = Instant::now();
    until("another leads", || leader_of(&[&one, &three]).is_some_and(|leader| leader != 2));
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    let leader = if leader_of(&[&one, &three]) == Some(1) { &one } else { &three };
    leader.client(&["message", "send", "t", "--body", "m5"]).succeeded();
    assert_eq!(bodies(leader, "g", "5"), ["m1", "m2", "m3", "m4", "m5"]);
    until("who leads says why it does not reach the other", || {
        leader.knows_of(2)["heard"] == false && leader.knows_of(2)["unreachable"].is_string()
    });

    // A member is what it is: it needs no token, and one that was used does no harm.
    let again = folder.path().join("2");
    let two = Member::start(&again, &INSECURE);
    until("it follows", || two.status()["leader"] == leader.status()["leader"]);
    two.stop();
    let token = folder.path().join("2.token");
    let used = ["--join", one.at("peer"), "--token-file", token.to_str().unwrap()];
    let two = Member::start(&again, &[&INSECURE[..], &used].concat());
    until("it has all of the log", || leader.knows_of(2)["lag_bytes"] == 0);
    assert!(read(&again.join("node.log")).contains("join and token_file are not used"));
    // A node that runs has joined: that its token is gone keeps nobody from reloading what can be.
    std::fs::remove_file(&token).unwrap();
    two.signal("HUP");
    until("it reloaded", || read(&again.join("node.log")).contains("reloaded certificate and key"));
    two.stop();
}

/// Its disk was wiped while its service still starts with the token of once: it must not vote, since it did, and had acknowledged what
/// it lacks now.
#[test]
fn a_voter_whose_folder_was_wiped_and_is_started_with_its_used_token_votes_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let at = |id: &str| folder.path().join(id);
    let one = Member::start(&at("1"), &[&INSECURE[..], &["--segment-size", "4MiB"]].concat());
    one.admin(&["topic", "create", "t", "--queues", "1"]).succeeded();
    let (two, three) = (join(&one, &one, &at("2"), &[]), join(&one, &one, &at("3"), &[]));
    voters_are(&[&one, &two, &three], &[1, 2, 3]);
    let of = |member: &Member| member.at("peer").to_owned();
    let (two_at, three_at) = (of(&two), of(&three));
    one.admin(&["cluster", "transfer-leader", "--to", "2"]).succeeded();
    until("node 2 leads", || leader_of(&[&one, &two, &three]) == Some(2));
    one.stop();
    for body in ["m1", "m2", "m3"] {
        two.client(&["message", "send", "t", "--body", body]).succeeded();
    }
    three.stop();
    two.stop();
    std::fs::remove_dir_all(at("3").join("data")).unwrap();

    let one = Member::start(&at("1"), &INSECURE);
    let (ended, ends) = std::sync::mpsc::channel();
    let (wiped, token, asks) = (at("3"), at("3").with_extension("token"), of(&one));
    std::thread::spawn(move || {
        let token = token.to_str().unwrap();
        let flags = ["--peer-insecure", "--peer-addr", &three_at, "--join", &asks, "--token-file", token];
        let _ = ended.send(Member::refused(&wiped, &flags));
    });
    // Longer than an election takes, of which there would be one if it voted.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(leader_of(&[&one]), None, "it lacks what was acknowledged");
    }
    let two = Member::start(&at("2"), &["--peer-insecure", "--peer-addr", &two_at]);
    let refused = ends.recv_timeout(Duration::from_secs(60)).expect("it is refused");
    assert!(refused.stderr.contains("the token for node 3 was used"), "{}", refused.stderr);
    until("one of the others leads", || leader_of(&[&one, &two]).is_some());
    assert_eq!(bodies(&two, "g", "3"), ["m1", "m2", "m3"]);

    // Its leftovers are no member either.
    let refused = Member::refused(&at("3"), &INSECURE);
    assert!(refused.stderr.contains("has nothing of its cluster's log"), "{}", refused.stderr);
}

/// Samples of other nodes are labelled as the document says; only who leads tells how far they are.
fn metrics_tell_of_the_others(leader: &Member, other: &Member) {
    let (status, told) = leader.get("/metrics");
    assert_eq!(status, 200, "{told}");
    for sample in [
        "vouch_cluster_leads 1",
        "vouch_cluster_leader 1",
        "vouch_cluster_voters 3",
        "vouch_cluster_follower_lag_bytes{node=\"2\"} ",
        "vouch_cluster_follower_heard{node=\"3\"} 1",
        "vouch_cluster_peer_connected{node=\"2\"} 1",
    ] {
        assert!(told.contains(&format!("\n{sample}")), "{sample}: {told}");
    }
    let (status, told) = other.get("/metrics");
    assert_eq!(status, 200, "{told}");
    assert!(told.contains("\nvouch_cluster_leads 0") && told.contains("\nvouch_cluster_leader 1"), "{told}");
    assert!(told.contains("\nvouch_ready 1") && !told.contains("follower_lag_bytes{"), "{told}");
}

/// What is in the log any node shows, and says how far it is; what only the leader knows it is asked for.
#[test]
fn a_binding_that_consumes_is_set_paused_and_looked_at_by_any_node() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] = three(folder.path());
    let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/stock.wasm");
    two.admin(&["plugin", "push", "stock:1.0", component]).succeeded();
    two.admin(&["topic", "create", "goods"]).succeeded();
    let set =
        ["binding", "set", "stock", "--plugin", "stock:1.0", "--group", "stock", "--subscribe", "goods", "--state"];
    two.admin(&set).succeeded();
    three.client(&["message", "send", "goods", "--body", "{\"sku\": \"cup\", \"quantity\": 7}"]).succeeded();
    let shown = |member: &Member| member.admin(&["binding", "show", "stock", "--json"]).succeeded().json();
    let keys = |member: &Member| member.admin(&["binding", "state", "stock", "list", "--json"]).succeeded().json();
    until("each knows what is kept", || {
        [&one, &two, &three].iter().all(|member| keys(member)["items"][0]["value"] == "7")
    });
    for member in [&one, &two] {
        assert_eq!(shown(member)["standing"]["consumer"]["in_flight"], 0, "the leader alone knows");
    }
    let listed = three.admin(&["binding", "list", "--json"]).succeeded().json();
    assert_eq!(listed["items"][0]["standing"]["consumer"]["in_flight"], 0, "{listed}");
    let applied = |member: &Member| {
        let answer = ureq::get(format!("http://{}/v1/bindings/stock/state", member.at("http"))).call().unwrap();
        answer.headers().contains_key("vouch-applied")
    };
    assert!(applied(&two) && !applied(&one), "who does not lead says how far it is");

    three.admin(&["binding", "pause", "stock"]).succeeded();
    assert_eq!(shown(&two)["paused"], true);
    until("each tells so", || {
        let tells = |member: &&Member| member.get("/metrics").1.contains("vouch_binding_paused{binding=\"stock\"} 1");
        [&one, &two, &three].iter().all(tells)
    });
    two.admin(&["binding", "state", "stock", "delete", "--all"]).succeeded();
    assert_eq!(keys(&two)["items"], json!([]), "it has what it was answered");
    two.admin(&["binding", "state", "stock", "get", "stock:cup"]).failed_with(1);
    three.admin(&["binding", "resume", "stock"]).succeeded();
    assert_eq!(shown(&one)["paused"], false);
}

#[test]
fn a_node_is_removed_unless_nothing_could_be_decided_then() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] = three(folder.path());
    three.stop();
    until("who leads does not hear it any more", || one.knows_of(3)["heard"] == false);
    let refused = one.admin(&["cluster", "remove", "2"]).failed_with(1);
    assert!(refused.stderr.contains("2 of the 2 voters that are left (1, 3) must be there"), "{refused:?}");
    assert!(
        refused.stderr.contains("node 3 was not heard of lately") && refused.stderr.contains("--force"),
        "{refused:?}"
    );
    assert_eq!(one.status()["voters"], json!([1, 2, 3]));

    let removed = one.admin(&["cluster", "remove", "3", "--reason", "its disk is gone", "--by", "ann"]).succeeded();
    assert_eq!(
        removed.stdout,
        "node 3 leaves the cluster; 2 of the 2 voters (1, 2) must be there to decide without it\n"
    );
    voters_are(&[&one, &two], &[1, 2]);
    until("it is gone", || one.knows_of(3).is_null());
    let unknown = one.admin(&["cluster", "remove", "3"]).failed_with(1);
    assert!(unknown.stderr.contains("the cluster has no node 3"), "{unknown:?}");

    // It hears of it when it is back, and never starts again.
    let place = folder.path().join("3");
    let back = Member::refused(&place, &INSECURE).succeeded();
    assert!(back.stderr.contains("this node was removed from its cluster"), "{back:?}");
    let again = Member::refused(&place, &INSECURE).failed_with(1);
    assert!(again.stderr.contains("was removed from its cluster, and does not start again"), "{again:?}");
    assert!(again.stderr.contains("vouch cluster add"), "{again:?}");

    // Who leads hands over first, and ends; who is left leads alone.
    one.admin(&["cluster", "remove", "1", "--json"]).succeeded();
    let log = one.ends();
    assert!(log.contains("another node is to lead before this one stops") || log.contains("leads no more"), "{log}");
    let place = folder.path().join("1/data").to_str().unwrap().to_owned();
    let checked = run(&["config", "check", "--data-dir", &place]).failed_with(1);
    assert!(checked.stderr.contains("does not start again"), "{checked:?}");
    until("the other leads alone", || two.status()["voters"] == json!([2]) && two.status()["leader"] == 2);
    let last = two.admin(&["cluster", "remove", "2"]).failed_with(1);
    assert!(last.stderr.contains("node 2 is the last that votes"), "{last:?}");
    assert_eq!(bodies(&two, "g", "3"), ["m1", "m2", "m3"]);
}

#[test]
fn a_node_that_is_gone_for_good_is_replaced_by_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] = three(folder.path());
    two.kill();
    let token = folder.path().join("4.token");
    let token = token.to_str().unwrap();
    let replace = ["cluster", "replace", "2", "--token-file", token, "--reason", "its disk is gone"];
    let told = one.admin(&replace).succeeded().stdout;
    assert!(told.contains("it takes the place of node 2") && told.contains("voters (1, 3, 4)"), "{told}");
    assert_eq!(one.knows_of(4)["replaces"], 2);
    let table = one.admin(&["cluster", "status"]).succeeded().stdout;
    let line = table.lines().find(|line| line.starts_with("4 ")).unwrap();
    assert!(line.contains("invited") && line.ends_with("; replaces node 2"), "{table}");
    let again = one.admin(&["cluster", "replace", "2", "--token-file", &format!("{token}.2")]).failed_with(1);
    assert!(again.stderr.contains("node 4 is to take the place of node 2 already"), "{again:?}");
    let join = ["--join", three.at("peer"), "--token-file", token];
    let four = Member::start(&folder.path().join("4"), &[&INSECURE[..], &join].concat());
    voters_are(&[&one, &three, &four], &[1, 3, 4]);
    until("the old one is gone", || one.knows_of(2).is_null() && one.knows_of(4)["replaces"].is_null());
    let back = Member::refused(&folder.path().join("2"), &INSECURE).succeeded();
    assert!(back.stderr.contains("this node was removed from its cluster"), "{back:?}");
    assert_eq!(bodies(&four, "g", "3"), ["m1", "m2", "m3"]);
}

#[test]
fn a_member_without_a_leader_is_ready_through_an_election_and_not_after() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] = three(folder.path());
    assert_eq!(one.get("/readyz").0, 200);
    assert_eq!(two.get("/readyz").0, 200, "a follower takes requests, too");
    let killed = Instant::now();
    two.kill();
    three.kill();
    let mut answer = (200, String::new());
    until("it says that nobody leads", || {
        answer = one.get("/readyz");
        answer.0 != 200
    });
    assert!(killed.elapsed() > Duration::from_secs(5), "{:?}", killed.elapsed());
    assert_eq!(answer.0, 503);
    assert!(answer.1.contains("urn:vouch:error:no-leader") && answer.1.contains("vouch cluster status"), "{answer:?}");
    let told = one.admin(&["cluster", "status"]).succeeded().stdout;
    assert!(told.contains("no node is known to lead"), "{told}");
    assert!(one.get("/metrics").1.contains("\nvouch_ready 0"));
    // With one more of them there is a majority, also where it is somewhere else now: it says so itself.
    let two = Member::start(&folder.path().join("2"), &["--peer-addr", "127.0.0.1:0", "--peer-insecure"]);
    until("it is ready again", || one.get("/readyz").0 == 200 && two.get("/readyz").0 == 200);
}

#[test]
fn a_node_that_does_not_vote_notices_that_nobody_leads_and_that_somebody_does_again() {
    let folder = tempfile::tempdir().unwrap();
    let one = first(&folder.path().join("1"));
    let two = join(&one, &one, &folder.path().join("2"), &[]);
    until("the second learns", || two.status()["learners"] == json!([2]));
    until("it knows who leads", || two.status()["leader"] == 1);
    one.kill();
    until("it says that nobody leads", || two.get("/readyz").0 == 503);
    assert!(two.get("/readyz").1.contains("urn:vouch:error:no-leader"));
    assert_eq!(two.status()["leader"], Value::Null);
    let unsent = two.client(&["message", "send", "t", "--body", "m9"]).failed_with(1);
    assert!(unsent.stderr.contains("no node is known to lead"), "{unsent:?}");
    let _one = Member::start(&folder.path().join("1"), &INSECURE);
    until("it is ready again", || two.get("/readyz").0 == 200);
    two.client(&["message", "send", "t", "--body", "m4"]).succeeded();
}

/// Issues a certificate, and returns the flags that use it.
fn certified(folder: &Path, node: u64, which: &[&str]) -> Vec<String> {
    let ca = folder.join("ca");
    let node = node.to_string();
    let mut make = vouch();
    make.args(["cluster", "certificates", "--json", "--address", "127.0.0.1,localhost", "--node", &node]);
    let made = Ran::of(&make.arg("--ca-dir").arg(ca).args(which).output().unwrap()).succeeded().json();
    let mut flags = vec!["--peer-addr=127.0.0.1:0".to_owned()];
    for name in ["peer_certificate", "peer_key", "peer_ca"] {
        let file = made[name].as_str().unwrap();
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        flags.push(format!("--{}={file}", name.replace('_', "-")));
    }
    flags
}

#[test]
fn nodes_that_know_each_other_by_certificates_are_one_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("1");
    let alone = Member::start(&place, &["--segment-size", "4MiB"]);
    // The first node says which cluster it is.
    let flags = certified(folder.path(), 1, &["--http", alone.at("http")]);
    let cluster = alone.status()["id"].as_str().unwrap().to_owned();
    alone.stop();
    let with = |flags: &[String], more: &[&str], place: &Path| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Member::start(place, &flags)
    };
    let one = with(&flags, &[], &place);
    one.admin(&["topic", "create", "t", "--queues", "1"]).succeeded();
    one.client(&["message", "send", "t", "--body", "m1"]).succeeded();

    let token = folder.path().join("2.token");
    let token = token.to_str().unwrap();
    let added = one.admin(&["cluster", "add", "--two-voters", "--token-file", token]).succeeded().stdout;
    assert!(
        added.contains("When it has the log it votes: 2 of the 2 voters (1, 2) must be there to decide"),
        "{added}"
    );
    let advised = added.lines().find(|line| line.contains("vouch cluster certificates")).unwrap();
    assert!(advised.contains(&format!("--node 2 --address HOST --cluster {cluster}")), "{added}");
    assert_eq!(std::fs::metadata(token).unwrap().permissions().mode() & 0o777, 0o600);
    let join = ["--join", one.at("peer"), "--token-file", token];
    // Who has another node's certificate is told so before it asks anybody.
    let strangers = certified(folder.path(), 7, &["--cluster", &cluster]);
    let stranger: Vec<&str> = strangers.iter().map(String::as_str).chain(join).collect();
    let mut tries = vouch();
    tries
        .args(["serve", "--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("7"));
    let refused = Ran::of(&tries.args(&stranger).output().unwrap()).failed_with(1);
    assert!(
        refused.stderr.contains("its certificate is that of vouch://")
            && refused.stderr.contains("/node/7, and this node is"),
        "{refused:?}"
    );

    let flags = certified(folder.path(), 2, &["--cluster", &cluster]);
    let two = with(&flags, &join, &folder.path().join("2"));
    voters_are(&[&one, &two], &[1, 2]);
    one.admin(&["cluster", "transfer-leader"]).succeeded();
    until("the other leads", || leader_of(&[&one, &two]) == Some(2));
    assert_eq!(bodies(&two, "g", "1"), ["m1"]);

    // While it runs: its own that was issued anew is taken over, and another node's is not.
    let file = |flag: &String| flag.split_once('=').unwrap().1.to_owned();
    let replace_by = |others: &[String]| {
        for (old, new) in flags.iter().zip(others).skip(1) {
            std::fs::copy(file(new), file(old)).unwrap();
        }
        two.signal("HUP");
    };
    let log = || read(&folder.path().join("2/node.log"));
    let out = folder.path().join("anew");
    let ends = |node: &Member| metric(node, "vouch_cluster_certificate_end_seconds");
    assert!(ends(&two) > 1.7e9, "{}", ends(&two));
    replace_by(&certified(folder.path(), 2, &["--cluster", &cluster, "--out", out.to_str().unwrap()]));
    until("it is taken over", || log().contains("certificate for other nodes"));
    replace_by(&strangers);
    until("it is refused", || log().contains("nothing is reloaded") && log().contains("/node/7, and this node is"));
    two.client(&["message", "send", "t", "--body", "m2"]).succeeded();
}

/// What a node says of one number.
fn metric(node: &Member, name: &str) -> f64 {
    let (_, told) = node.get("/metrics");
    let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {told}")).parse().unwrap()
}

#[test]
fn settings_of_nodes_that_do_not_fit_each_other_are_refused_alike_by_both_commands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some");
    std::fs::write(&file, "no token, and no certificate").unwrap();
    let (some, data) = (file.to_str().unwrap(), folder.path().join("data"));
    let data = data.to_str().unwrap();
    let files =
        [&format!("--peer-certificate={some}")[..], &format!("--peer-key={some}"), &format!("--peer-ca={some}")];
    let addr = "--peer-addr=127.0.0.1:0";
    let cases: [(&[&str], i32, &str); 15] = [
        (&["--peer-advertise=h:1"], 2, "peer_advertise is set without peer_addr"),
        (&["--grpc-advertise=h:1"], 2, "grpc_advertise is set without peer_addr"),
        (&["--routes-to-leader"], 2, "routes_to_leader is set without peer_addr"),
        (&["--peer-insecure"], 2, "peer_insecure is set without peer_addr"),
        (&files, 2, "peer_certificate, peer_key or peer_ca is set without peer_addr"),
        (&["--join=h:1", "--token-file=f"], 2, "join is set without peer_addr"),
        (&["--peer-addr=0.0.0.0:0", "--peer-insecure"], 2, "say where other nodes reach it with peer_advertise"),
        (&[addr], 2, "nothing says how nodes know each other"),
        (&[addr, files[0], files[1]], 2, "peer_ca is not set; TLS between nodes takes"),
        (&[addr, "--peer-insecure", files[0]], 2, "are both set; leave one out"),
        (&[addr, "--peer-insecure", "--join=h:1"], 2, "join is set without token_file"),
        (&[addr, "--peer-insecure", "--token-file=f"], 2, "token_file is set without join"),
        (&[addr, "--peer-insecure", "--peer-advertise=here"], 2, "write HOST:PORT"),
        (&[addr, files[0], files[1], files[2]], 1, "cannot read the authority from"),
        (&[addr, "--peer-insecure", "--join=h:1", &format!("--token-file={some}")], 1, "holds no token"),
    ];
    for (flags, status, sentence) in cases {
        let own = ["--data-dir", data, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
        let serve = run(&[&["serve"], &own[..], flags].concat()).failed_with(status);
        let check = run(&[&["config", "check"], &own[..], flags].concat()).failed_with(status);
        assert!(serve.stderr.contains(sentence), "{flags:?}: {serve:?}");
        assert_eq!(serve.stderr, check.stderr, "{flags:?}");
        assert_eq!(serve.stderr.lines().count(), 1, "{serve:?}");
    }
    assert!(!Path::new(data).exists(), "nothing is made");
    let fits = ["config", "check", "--data-dir", data, addr, "--peer-insecure", "--peer-advertise", "h:1", "--json"];
    let shown = run(&fits).succeeded().json();
    assert_eq!(shown["peer_addr"], json!({"value": "127.0.0.1:0", "source": "flag"}));
}

#[test]
fn a_node_that_has_no_others_says_how_it_gets_them_and_what_does_not_exist_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let alone = Member::start(folder.path(), &["--segment-size", "4MiB"]);
    let table = alone.admin(&["cluster", "status"]).succeeded().stdout;
    assert!(table.contains("node 1 leads in term") && table.contains("node 1 alone decides"), "{table}");
    let token = folder.path().join("token");
    let refused = alone.admin(&["cluster", "add", "--token-file", token.to_str().unwrap()]).failed_with(1);
    assert!(refused.stderr.contains("start it with --peer-addr") && !token.exists(), "{refused:?}");
    let nobody = alone.admin(&["cluster", "transfer-leader", "--json"]).failed_with(1);
    assert_eq!(nobody.json()["type"], "urn:vouch:error:conflict");
    for (wrong, sentence) in [
        (&["cluster", "remove", "two"][..], "invalid"),
        (&["cluster", "add"], "--token-file"),
        (&["cluster", "certificates", "--ca-dir", "x", "--node", "0", "--address", "h"], "0 is not in 1.."),
        (
            &["cluster", "certificates", "--ca-dir", "x", "--node", "1", "--address", "h", "--cluster", "7"],
            "32 hexadecimal",
        ),
    ] {
        let ran = run(wrong).failed_with(2);
        assert!(ran.stderr.contains(sentence), "{wrong:?}: {ran:?}");
    }
    let other = Member::refused(&folder.path().join("other"), &["--peer-addr=127.0.0.1:0"]).failed_with(2);
    assert!(other.stderr.contains("--peer-insecure"), "{other:?}");
}
