//! Nodes that lack more of the log than the one that leads keeps of it: that come late, were away for long, or lost something.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::cluster::{INSECURE, Member, bodies, until, voters_are};
use support::read;

/// Settings under which the beginning of a log goes soon.
const SHORT: [&str; 6] = ["--snapshot-every", "1MiB", "--retention-every", "100ms", "--catch-up-log", "1MiB"];

fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&INSECURE[..], &SHORT, more].concat()
}

/// A node that keeps 4 MiB of one topic, and three messages of another one for ever.
fn first(folder: &Path) -> Member {
    first_with(folder, &[])
}

fn first_with(folder: &Path, more: &[&str]) -> Member {
    let one = Member::start(folder, &flags(&[&["--segment-size", "4MiB"], more].concat()));
    one.admin(&["topic", "create", "t", "--queues", "1"]).succeeded();
    one.admin(&["topic", "create", "passing", "--queues", "1", "--retention-size", "4MiB"]).succeeded();
    for body in ["m1", "m2", "m3"] {
        one.client(&["message", "send", "t", "--body", body]).succeeded();
    }
    one
}

fn begin_of_log(member: &Member) -> u64 {
    let names = std::fs::read_dir(member.folder.join("data/shards/0/log")).unwrap();
    let segment = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".log")?.parse::<u64>().ok();
    names.filter_map(|name| segment(name.unwrap().file_name())).min().unwrap()
}

/// Sends messages until the log of this node, which leads, begins behind the position.
fn let_go(leader: &Member, position: u64) {
    let body = leader.folder.join("body");
    std::fs::write(&body, vec![b'x'; 1 << 20]).unwrap();
    until("the beginning of the log is released", || {
        leader.client(&["message", "send", "passing", "--file", body.to_str().unwrap()]).succeeded();
        begin_of_log(leader) > position
    });
}

fn join(leader: &Member, folder: &Path) -> Member {
    let token = folder.with_extension("token");
    let token = token.to_str().unwrap();
    leader.admin(&["cluster", "add", "--token-file", token]).succeeded();
    Member::start(folder, &flags(&["--join", leader.at("peer"), "--token-file", token]))
}

/// Bodies of the messages that are kept, by a group that begins.
fn kept(member: &Member, group: &str, count: &str) -> Vec<String> {
    until("one leads", || !member.status()["leader"].is_null());
    bodies(member, group, count)
}

/// Whether the log of a node is as long as what is committed at the one that leads.
fn has_all(leader: &Member, node: u64) -> bool {
    let (of, leads) = (leader.knows_of(node), leader.knows_of(leader.status()["node"].as_u64().unwrap()));
    of["durable"].as_u64() >= leads["committed"].as_u64() && of["durable"].is_u64()
}

fn log_of(folder: &Path) -> String {
    read(&folder.join("node.log"))
}

#[test]
fn nodes_that_join_a_log_whose_beginning_is_gone_take_a_snapshot_and_then_stand_in_for_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let one = first(&folder.path().join("1"));
    let_go(&one, 4 << 20);
    let two = join(&one, &folder.path().join("2"));
    let three = join(&one, &folder.path().join("3"));
    voters_are(&[&one, &two, &three], &[1, 2, 3]);
    assert!(begin_of_log(&two) > 0, "the log of the one that came begins where the other's does");
    assert!(log_of(&two.folder).contains("taking the log from another node"), "{}", log_of(&two.folder));
    one.client(&["message", "send", "t", "--body", "m4"]).succeeded();
    one.kill();
    until("another one leads", || !two.status()["leader"].is_null() && two.status()["leader"] != json!(1));
    assert_eq!(kept(&two, "g2", "4"), ["m1", "m2", "m3", "m4"]);
}

#[test]
fn a_node_that_was_away_or_stood_still_while_the_log_went_on_takes_what_it_lacks_and_serves_again() {
    let folder = tempfile::tempdir().unwrap();
    let one = first(&folder.path().join("1"));
    let two = join(&one, &folder.path().join("2"));
    let three = join(&one, &folder.path().join("3"));
    voters_are(&[&one, &two, &three], &[1, 2, 3]);
    let end = |member: &Member| member.knows_of(member.status()["node"].as_u64().unwrap())["durable"].as_u64().unwrap();
    let (ended, away) = (end(&three), three.folder.clone());
    three.kill();
    let_go(&one, ended);
    let three = Member::start(&away, &flags(&[]));
    until("it has all", || has_all(&one, 3));
    assert!(log_of(&away).contains("taking the log from another node"), "{}", log_of(&away));
    assert!(begin_of_log(&three) > ended, "what it had and nobody has any more is gone here, too");
    // The process goes on, on the ports that it had.
    let (ended, http) = (end(&two), two.at("http").to_owned());
    two.signal("STOP");
    // What was on its way to it is dropped with the connection.
    until("it is missed", || one.knows_of(2)["connected"] == json!(false));
    let_go(&one, ended);
    two.signal("CONT");
    until("it has all", || has_all(&one, 2));
    until("it took it", || log_of(&two.folder).contains("this node has what it lacked of the log"));
    assert_eq!(two.at("http"), http);
    one.kill();
    until("another one leads", || !two.status()["leader"].is_null() && two.status()["leader"] != json!(1));
    for (member, group) in [(&two, "g2"), (&three, "g3")] {
        assert_eq!(kept(member, group, "3"), ["m1", "m2", "m3"]);
    }
}

/// What comes from a node that follows may end before what the one that leads still has, again and again.
#[test]
fn a_node_takes_what_it_lacks_from_the_one_that_leads_and_not_from_the_first_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let one = first(&folder.path().join("1"));
    let two = join(&one, &folder.path().join("2"));
    let three = join(&one, &folder.path().join("3"));
    voters_are(&[&one, &two, &three], &[1, 2, 3]);
    let ended = three.knows_of(3)["durable"].as_u64().unwrap();
    let away = three.folder.clone();
    three.kill();
    until("the second one leads", || {
        one.admin(&["cluster", "transfer-leader", "--to", "2"]);
        two.status()["leader"] == json!(2)
    });
    let_go(&two, ended);
    let three = Member::start(&away, &flags(&[]));
    until("it has all", || has_all(&two, 3));
    assert!(log_of(&three.folder).contains("taking the log from another node"), "{}", log_of(&three.folder));
    let offers = |member: &Member| log_of(&member.folder).contains("offering the log to another node");
    assert_eq!(
        (offers(&one), offers(&two)),
        (false, true),
        "{} {} {}",
        log_of(&one.folder),
        log_of(&two.folder),
        log_of(&away)
    );
}

/// Writes something else where a file has what a node wrote.
fn damage(file: &Path, at: u64) {
    overwrite(file, at, 8192);
}

fn overwrite(file: &Path, at: u64, length: u64) {
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(&vec![0xA5; length as usize], at).unwrap();
}

#[test]
fn a_member_whose_log_or_snapshots_are_damaged_takes_them_from_the_others_and_is_the_same_node() {
    let folder = tempfile::tempdir().unwrap();
    let one = first(&folder.path().join("1"));
    let two = join(&one, &folder.path().join("2"));
    let three = join(&one, &folder.path().join("3"));
    voters_are(&[&one, &two, &three], &[1, 2, 3]);
    let_go(&one, 4 << 20);
    until("it has all", || has_all(&one, 3));
    let away = three.folder.clone();
    let shard = away.join("data/shards/0");
    let mut three = three;
    for what in ["a segment of the log", "a file of the log", "the snapshots"] {
        three.stop();
        let named = |folder: &str, end: &str| {
            let names = std::fs::read_dir(shard.join(folder)).unwrap().map(|name| name.unwrap().path());
            let mut paths: Vec<_> = names.filter(|path| path.to_str().unwrap().contains(end)).collect();
            paths.sort();
            paths
        };
        let segments = named("log", ".log");
        match what {
            "a segment of the log" => {
                // Of segments that a snapshot covers a start reads the headers.
                damage(&segments[segments.len() - 2], 0);
            }
            "a file of the log" => std::fs::remove_file(&segments[segments.len() - 2]).unwrap(),
            _ => named("snapshots", "0").iter().for_each(|path| damage(path, 0)),
        }
        let log_before = log_of(&away).len();
        three = Member::start(&away, &flags(&[]));
        let log = log_of(&away)[log_before..].to_owned();
        assert!(log.contains("it takes what is lost from the others"), "{what}: {log}");
        until("it has all", || has_all(&one, 3));
        assert_eq!(three.status()["node"], json!(3), "{what}");
    }
    one.kill();
    until("another one leads", || !two.status()["leader"].is_null() && two.status()["leader"] != json!(1));
    assert_eq!(kept(&three, "g3", "3"), ["m1", "m2", "m3"]);
}

#[test]
fn a_member_that_finds_damage_while_it_serves_takes_the_segment_from_the_others_and_serves_again() {
    let folder = tempfile::tempdir().unwrap();
    let scrubbed = ["--scrub-rate", "1GiB"];
    let one = Member::start(&folder.path().join("1"), &flags(&[&["--segment-size", "4MiB"], &scrubbed[..]].concat()));
    for topic in ["t", "much"] {
        one.admin(&["topic", "create", topic, "--queues", "1"]).succeeded();
    }
    let join = |id: &str| {
        let token = folder.path().join(format!("{id}.token"));
        let token = token.to_str().unwrap();
        one.admin(&["cluster", "add", "--token-file", token]).succeeded();
        let joins = ["--join", one.at("peer"), "--token-file", token];
        Member::start(&folder.path().join(id), &flags(&[&joins[..], &scrubbed].concat()))
    };
    let (two, three) = (join("2"), join("3"));
    let members = [one, two, three];
    voters_are(&members.each_ref(), &[1, 2, 3]);
    let body = folder.path().join("body");
    std::fs::write(&body, vec![b'x'; 1 << 20]).unwrap();
    // One that mends its log answers with that.
    let leads = |member: &Member| {
        let told = member.admin(&["cluster", "status", "--json"]);
        (told.status == 0).then(|| told.json()).is_some_and(|status| status["leader"] == status["node"])
    };
    let leader = || {
        let mut found = None;
        until("one leads", || {
            found = members.iter().find(|member| leads(member));
            found.is_some()
        });
        found.unwrap()
    };
    // Who stops to mend its log hands over first; what is sent in that moment may fail.
    let send = || leader().client(&["message", "send", "much", "--file", body.to_str().unwrap()]).status == 0;
    for body in ["m1", "m2", "m3"] {
        leader().client(&["message", "send", "t", "--body", body]).succeeded();
    }
    assert!((0..10).all(|_| send()));
    let segment = |member: &Member| member.folder.join(format!("data/shards/0/log/{:020}.log", 4 << 20));
    let whole = std::fs::read(segment(&members[0])).unwrap();
    // One that follows, and the one that leads.
    for id in [3, 1] {
        let member = &members[id - 1];
        until("it is as it should be", || {
            members[0].admin(&["cluster", "transfer-leader", "--to", "1"]);
            leads(&members[0])
        });
        let (http, log_before) = (member.at("http").to_owned(), log_of(&member.folder).len());
        damage(&segment(member), 1 << 20);
        until("it is found and mended", || {
            let log = log_of(&member.folder)[log_before..].to_owned();
            // A scrubber that has read all reads again when there are other segments. Who has just begun to lead lets nobody go yet.
            if !log.contains("the log of this node is damaged") {
                send();
            }
            log.contains("takes what is lost from the others, and serves again")
                && log.contains("this node has what it lacked of the log")
        });
        until("it serves, and has all", || has_all(leader(), id as u64));
        assert_eq!(member.at("http"), http);
        assert!(std::fs::read(segment(member)).unwrap() == whole, "the segment is what the others have");
        let damage = member.admin(&["log", "damage", "--json"]).succeeded().json();
        assert_eq!(damage["repaired_segments"], json!([4 << 20]), "{damage}");
    }
    assert_eq!(bodies(leader(), "g", "3"), ["m1", "m2", "m3"]);
}

/// A start needs what lies behind the newest snapshot, so none of them may stop for what none of them has.
#[test]
fn members_that_all_find_the_same_damage_behind_their_newest_snapshots_serve_on_and_say_what_the_others_said() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--segment-size", "4MiB", "--scrub-rate", "1GiB", "--snapshot-every", "1GiB"];
    let one = Member::start(&folder.path().join("1"), &[&INSECURE[..], &settings].concat());
    for topic in ["t", "much"] {
        one.admin(&["topic", "create", topic, "--queues", "1"]).succeeded();
    }
    let join = |id: &str| {
        let token = folder.path().join(format!("{id}.token"));
        let token = token.to_str().unwrap();
        one.admin(&["cluster", "add", "--token-file", token]).succeeded();
        let joins = ["--join", one.at("peer"), "--token-file", token];
        Member::start(&folder.path().join(id), &[&INSECURE[..], &joins, &settings[2..]].concat())
    };
    let (two, three) = (join("2"), join("3"));
    let members = [&one, &two, &three];
    voters_are(&members, &[1, 2, 3]);
    let body = folder.path().join("body");
    std::fs::write(&body, vec![b'x'; 1 << 20]).unwrap();
    let send = || one.client(&["message", "send", "much", "--file", body.to_str().unwrap()]).succeeded();
    (0..10).for_each(|_| _ = send());
    until("all have all", || has_all(&one, 2) && has_all(&one, 3));
    for member in members {
        damage(&member.folder.join(format!("data/shards/0/log/{:020}.log", 4 << 20)), 1 << 20);
    }
    for member in members {
        until("it finds that, and hears that nobody has it", || {
            // A scrubber that has read all reads again when there are other segments.
            send();
            log_of(&member.folder).contains("none of the others has what is damaged here")
        });
    }
    one.client(&["message", "send", "t", "--body", "m1"]).succeeded();
    assert_eq!(bodies(&one, "g", "1"), ["m1"]);
    for member in members {
        let log = log_of(&member.folder);
        assert!(!log.contains("it takes what is lost from the others, and serves again"), "{log}");
        assert!(log.contains("its own log is damaged, too"), "{log}");
        assert_eq!(member.status()["leader"], json!(1));
    }
}

/// The paths of the files in a folder of a node's shard whose names hold this, in their order.
fn files(member: &Member, folder: &str, named: &str) -> Vec<PathBuf> {
    let names = std::fs::read_dir(member.folder.join("data/shards/0").join(folder)).unwrap();
    let paths = names.map(|name| name.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.to_str().unwrap().contains(named)).collect();
    paths.sort();
    paths
}

/// What the one that was away lacks lies in a segment that the one that leads cannot read any more.
#[test]
fn a_leader_that_cannot_read_what_another_one_lacks_lets_one_lead_that_has_it_and_mends_its_log_from_there() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody looks for damage, and nothing leaves the log.
    let settings = ["--scrub-rate", "0", "--snapshot-every", "1GiB"];
    let start =
        |id: &str, more: &[&str]| Member::start(&folder.path().join(id), &[&INSECURE[..], &settings, more].concat());
    let one = start("1", &["--segment-size", "4MiB"]);
    let join = |id: &str| {
        let token = folder.path().join(format!("{id}.token"));
        let token = token.to_str().unwrap();
        one.admin(&["cluster", "add", "--token-file", token]).succeeded();
        start(id, &["--join", one.at("peer"), "--token-file", token])
    };
    let (two, three) = (join("2"), join("3"));
    voters_are(&[&one, &two, &three], &[1, 2, 3]);
    for topic in ["t", "much"] {
        one.admin(&["topic", "create", topic, "--queues", "1"]).succeeded();
    }
    until("it has all", || has_all(&one, 3));
    three.kill();
    let body = folder.path().join("body");
    std::fs::write(&body, vec![b'x'; 1 << 20]).unwrap();
    for n in 0..10 {
        one.client(&["message", "send", "much", "--file", body.to_str().unwrap()]).succeeded();
        one.client(&["message", "send", "t", "--body", &format!("m{n}")]).succeeded();
    }
    until("the second has all", || has_all(&one, 2));
    let segment = |member: &Member| files(member, "log", ".log")[1].clone();
    let whole = std::fs::read(segment(&one)).unwrap();
    damage(&segment(&one), 2 << 20);
    let three = start("3", &[]);
    until("another one leads", || two.status()["leader"] == json!(2));
    assert!(log_of(&one.folder).contains("node 2 has them, and is to lead"), "{}", log_of(&one.folder));
    until("the third has all", || has_all(&two, 3));
    // Whoever has just begun to lead lets nobody go for some time.
    until("the first has mended its log", || std::fs::read(segment(&one)).unwrap() == whole);
    until("it serves, and has all", || has_all(&two, 1));
    assert_eq!(bodies(&three, "g", "10"), (0..10).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

/// No copy is whole of what says where its messages lie.
#[test]
fn a_member_that_meets_a_part_without_a_whole_copy_takes_it_from_the_others_and_serves_again() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody looks for damage.
    let one = first_with(&folder.path().join("1"), &["--scrub-rate", "0"]);
    let two = join(&one, &folder.path().join("2"));
    let three = join(&one, &folder.path().join("3"));
    voters_are(&[&one, &two, &three], &[1, 2, 3]);
    let body = folder.path().join("body");
    std::fs::write(&body, vec![b'x'; 1 << 20]).unwrap();
    // Its messages are in a part of two snapshots then.
    until("snapshots are made", || {
        one.client(&["message", "send", "passing", "--file", body.to_str().unwrap()]).succeeded();
        files(&one, "snapshots", ".snapshot2").len() == 2
    });
    until("all have all", || has_all(&one, 2) && has_all(&one, 3));
    let parts = files(&one, "snapshots", ".part");
    let log_before = log_of(&one.folder).len();
    for part in &parts {
        let length = std::fs::metadata(part).unwrap().len();
        overwrite(part, 0, length);
    }
    // What is asked of the parts is not answered from what is not there.
    until("it takes them", || {
        one.client(&["message", "receive", "t", "--group", "g1", "--count", "1"]);
        log_of(&one.folder)[log_before..].contains("this node has what it lacked of the log")
    });
    let log = log_of(&one.folder)[log_before..].to_owned();
    assert!(log.contains("is damaged in both copies"), "{log}");
    until("it serves", || one.admin(&["cluster", "status"]).status == 0);
    until("another one leads", || [json!(2), json!(3)].contains(&two.status()["leader"]));
    let leader = if two.status()["leader"] == json!(2) { &two } else { &three };
    until("it has all", || has_all(leader, 1));
    assert_eq!(kept(&one, "g2", "3"), ["m1", "m2", "m3"]);
}

/// Its disk broke, so it was removed; and somebody starts it all the same.
#[test]
fn a_member_that_was_removed_hears_that_where_it_asks_for_what_its_disk_lost_and_starts_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let one = first(&folder.path().join("1"));
    let two = join(&one, &folder.path().join("2"));
    let three = join(&one, &folder.path().join("3"));
    voters_are(&[&one, &two, &three], &[1, 2, 3]);
    let away = three.folder.clone();
    three.stop();
    damage(&away.join(format!("data/shards/0/log/{:020}.log", 0)), 0);
    one.admin(&["cluster", "remove", "3", "--reason", "its disk is broken"]).succeeded();
    voters_are(&[&one, &two], &[1, 2]);
    for _ in 0..2 {
        let refused = Member::refused(&away, &flags(&[]));
        assert!(refused.stderr.contains("was removed from its cluster"), "{}", refused.stderr);
        assert!(away.join("data/removed").exists());
    }
}
