//! Positions that the log names for snapshots: who names one, when, and what is told with it.

use vouch_broker::record::{FEATURE_LEVEL, Frame, LevelRaised, NodeStarted, Record, SealedAt, SnapshotNamed};
use vouch_broker::testing::cluster_init;
use vouch_broker::{NothingStored, RecordPosition};
use vouch_consensus::Said;
use vouch_storage::VERSION;

use super::bench::Bench;
use super::following::{append, entries, records};
use crate::bugs::{Lapse, inject};
use crate::core::Request;

fn at(position: u64) -> SealedAt {
    SealedAt { position: RecordPosition(position), since: 0, part: None, state: position * 7 }
}

/// Snapshots that were to be made, in words.
fn named(bench: &Bench) -> Vec<&String> {
    bench.trace.iter().filter(|line| line.starts_with("snapshot at")).collect()
}

fn sync_all(bench: &mut Bench) {
    for _ in 0..3 {
        bench.sync();
    }
}

#[test]
fn a_leader_names_the_end_of_the_entry_that_says_so_and_tells_once_what_it_had_before() {
    let mut bench = Bench::new();
    sync_all(&mut bench);
    bench.turn(vec![Request::Sealed(vec![at(10), at(20)]), Request::NameSnapshot]);
    assert!(named(&bench).is_empty(), "it is not durable yet");
    sync_all(&mut bench);
    let end = bench.applied;
    let told = format!("snapshot at {end} {:?}", [at(10), at(20)]);
    assert_eq!(named(&bench), [&told]);
    bench.pass(10_000);
    bench.idle();
    sync_all(&mut bench);
    assert_eq!(named(&bench).len(), 1, "nothing is due");
    bench.turn(vec![Request::Sealed(vec![at(end)]), Request::NameSnapshot, Request::NameSnapshot]);
    sync_all(&mut bench);
    let told = format!("snapshot at {} {:?}", bench.applied, [at(end)]);
    assert_eq!(named(&bench).last(), Some(&&told), "once");
    assert_eq!(named(&bench).len(), 2, "one for both who asked");
}

#[test]
fn what_was_named_and_did_not_get_into_the_log_is_named_again() {
    let mut bench = Bench::new();
    sync_all(&mut bench);
    bench.fill(true);
    bench.turn(vec![Request::NameSnapshot]);
    bench.fill(false);
    bench.pass(4_000);
    bench.idle();
    sync_all(&mut bench);
    assert!(named(&bench).is_empty(), "it may still come");
    bench.pass(2_000);
    bench.idle();
    sync_all(&mut bench);
    assert_eq!(named(&bench).len(), 1);
}

#[test]
fn nothing_is_named_in_a_log_that_others_may_read_who_do_not_know_it() {
    let mut bench = Bench::before_a_start();
    bench.may_lead_knowing(1);
    bench.turn(vec![Request::NameSnapshot]);
    bench.pass(10_000);
    bench.idle();
    sync_all(&mut bench);
    assert!(named(&bench).is_empty());
    let raised = LevelRaised { level: FEATURE_LEVEL, by: "ann".to_owned(), written_by: "9.9.9".to_owned() };
    bench.happen(|out| _ = raised.encode(out)).unwrap();
    bench.pass(2_000);
    bench.idle();
    sync_all(&mut bench);
    assert_eq!(named(&bench).len(), 1, "it was due all the time");
}

/// A follower to which a leader of this version gave a log that names a position, with this told of an earlier one.
fn follower(version: &str, told: Vec<SealedAt>) -> Bench {
    let mut bench = Bench::member();
    let init = vouch_broker::record::ClusterInit { feature_level: FEATURE_LEVEL, ..cluster_init() };
    let naming = records(|out| _ = SnapshotNamed { sealed: told.clone() }.encode(out));
    let begins = records(|out| {
        init.encode(out);
        NodeStarted { version: version.to_owned() }.encode(out);
    });
    let payloads = [Vec::new(), begins, naming];
    let entries = entries(1, &payloads);
    bench.turn(vec![Request::NameSnapshot]);
    bench.say(2, 1, append(1, 3, &entries), entries);
    bench.sync();
    bench.say(2, 1, Said::Heartbeat { commit: 3 }, Vec::new());
    bench.sync();
    bench
}

#[test]
fn a_follower_names_nothing_and_makes_a_snapshot_where_its_leader_named_a_position() {
    let bench = follower(VERSION, vec![at(10)]);
    let told = format!("snapshot at {} {:?}", bench.applied, [at(10)]);
    assert_eq!(named(&bench), [&told]);
    let appends = bench.trace.iter().filter(|line| line.starts_with("append ")).count();
    assert_eq!(appends, 3, "what the leader gave, and nothing else: {:?}", bench.trace);
}

/// What is wrong with a replica that had something else than a majority, if anything.
fn differing(mistake: Option<Lapse>) -> Result<(), String> {
    let mut bench = follower(VERSION, Vec::new());
    inject(mistake);
    let what = "at position 10 the index of messages is not what nodes 2, 3 had there";
    bench.turn(vec![Request::Differs(what.to_owned())]);
    inject(None);
    let Some(NothingStored::Poisoned(why)) = &bench.closed else { return Err("it goes on".to_owned()) };
    assert!(why.contains("at position 10") && why.contains("vouch cluster replace"), "{why}");
    bench.take_sent();
    bench.say(2, 1, Said::Heartbeat { commit: 3 }, Vec::new());
    if bench.take_sent().is_empty() { Ok(()) } else { Err("it acknowledges".to_owned()) }
}

#[test]
fn a_replica_that_had_something_else_than_a_majority_takes_part_in_nothing_more_and_says_so() {
    assert_eq!(differing(None), Ok(()));
    assert_eq!(differing(Some(Lapse::DifferenceIgnored)), Err("it goes on".to_owned()));
}

#[test]
fn what_a_leader_of_another_version_had_is_held_against_nothing() {
    let bench = follower("9.9.9", vec![at(10)]);
    let told: [SealedAt; 0] = [];
    assert_eq!(named(&bench), [&format!("snapshot at {} {told:?}", bench.applied)], "it makes one there all the same");
}

#[test]
fn the_bytes_that_are_named_read_back() {
    let named = SnapshotNamed { sealed: vec![at(1), at(2)] };
    let bytes = records(|out| _ = named.encode(out));
    let (frame, rest) = Frame::split(&bytes).unwrap();
    assert!(rest.is_empty());
    assert_eq!(Record::decode(&frame).unwrap(), Record::SnapshotNamed(named));
}
