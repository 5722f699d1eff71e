//! A member of a group that follows: what it takes, what it applies, and what it tells those who ask it for something.

use vouch_broker::record::{ClusterInit, TopicPut};
use vouch_broker::testing::cluster_init;
use vouch_broker::{NotDone, NothingStored, ResourceName, State, TopicConfig};
use vouch_commitlog::simulated::{Image, SimDisk, Steps, open};
use vouch_commitlog::{EntryHeader, EntryKind, LogConfig};
use vouch_consensus::{Append, AppendAnswer, EntryId, EntryRole, Said};

use super::bench::Bench;
use crate::core::{Claim, LeaderEntry};

/// Node 2 leads, and has these payloads in its log, one an entry, all of this term.
pub(super) fn entries(term: u64, payloads: &[Vec<u8>]) -> Vec<LeaderEntry> {
    let disk = SimDisk::new(Image::new());
    let config = LogConfig { segment_size: 1 << 20, zero_ahead: 16 << 10, ..LogConfig::new("log", [1; 16], 0) };
    let (mut appender, reader, _) = open(&disk, &config, drop, &mut |_| Ok(())).unwrap();
    let mut end = reader.end();
    let spans = (1..).zip(payloads).map(|(index, payload)| {
        let header = EntryHeader { term, index, leader_time_ms: 1_000_000 + index, kind: EntryKind::Records };
        let appended = appender.append(header, &[payload]).unwrap();
        Steps::fill(&appender);
        let span = reader.span(std::mem::replace(&mut end, appended.end), appended.end).unwrap();
        LeaderEntry(span)
    });
    spans.collect()
}

pub(super) fn records(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut records = Vec::new();
    encode(&mut records);
    records
}

/// What a cluster begins with, and a topic.
fn beginning() -> Vec<Vec<u8>> {
    let init: ClusterInit = cluster_init();
    let put = TopicPut { name: ResourceName::plain("t"), config: TopicConfig::default(), expected_revision: None };
    vec![Vec::new(), records(|out| _ = init.encode(out)), records(|out| _ = put.encode(out))]
}

/// The leader gives these entries, behind the one before the first of them.
pub(super) fn append(term: u64, commit: u64, entries: &[LeaderEntry]) -> Said {
    let ids = entries.iter().map(|LeaderEntry(span)| EntryId { index: span.index(), term: span.term() });
    let ids: Vec<_> = ids.map(|id| (id, EntryRole::Ordinary)).collect();
    let before = ids.first().map_or(0, |(id, _)| id.index - 1);
    let previous = EntryId { index: before, term: if before == 0 { 0 } else { term } };
    Said::Append(Append { previous, commit, entries: ids })
}

fn has_topic(state: &State) -> bool {
    state.topics().named(&ResourceName::plain("t")).is_ok()
}

/// Up to which index it said that it has the leader's entries.
fn acknowledged(bench: &mut Bench) -> Vec<u64> {
    let sent = bench.take_sent().into_iter().filter_map(|message| match message.body {
        Said::Appended(AppendAnswer { index, rejected: None, .. }) => Some(index),
        _ => None,
    });
    sent.collect()
}

#[test]
fn what_a_leader_gives_is_acknowledged_when_it_is_durable_and_applied_when_it_is_committed() {
    let mut bench = Bench::member();
    let entries = entries(1, &beginning());
    bench.say(2, 1, append(1, 0, &entries), entries);
    assert!(bench.trace.iter().filter(|line| line.starts_with("append entry")).count() == 3);
    assert!(acknowledged(&mut bench).is_empty(), "nothing is durable");
    bench.sync();
    assert_eq!(acknowledged(&mut bench), [3]);
    assert!(!has_topic(bench.core.state()) && bench.applied == 0, "nothing is committed");
    bench.say(2, 1, Said::Heartbeat { commit: 2 }, Vec::new());
    assert!(bench.core.state().cluster().init.is_some() && !has_topic(bench.core.state()));
    bench.say(2, 1, Said::Heartbeat { commit: 3 }, Vec::new());
    assert!(has_topic(bench.core.state()));
}

#[test]
fn what_is_committed_and_not_yet_durable_here_is_not_applied() {
    let mut bench = Bench::member();
    let entries = entries(1, &beginning());
    bench.say(2, 1, append(1, 3, &entries), entries);
    assert!(!has_topic(bench.core.state()));
    bench.sync();
    assert!(has_topic(bench.core.state()));
}

#[test]
fn whoever_asks_a_follower_for_something_hears_who_leads_and_that_nothing_was_stored() {
    let mut bench = Bench::member();
    let entries = entries(1, &beginning());
    bench.say(2, 1, append(1, 3, &entries), entries);
    bench.sync();
    let topic = bench.core.state().topics().named(&ResourceName::plain("t")).unwrap().id;
    let (send, mut outcomes) = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::Room);
    let (receive, caller) = bench.receive(1, 1_000, 1_000);
    bench.turn(vec![send, receive]);
    let why = NotDone::NothingStored(NothingStored::NotLeading { leader: Some(2) });
    assert_eq!(outcomes.try_recv().unwrap(), Err(why.clone()));
    assert_eq!(caller.heard().unwrap().unwrap_err(), why);
    assert_eq!(bench.entries(), [], "a follower writes no entry of its own");
}

#[test]
fn a_follower_writes_no_mark_when_it_is_idle_nor_when_it_stops() {
    let mut bench = Bench::member();
    let entries = entries(1, &beginning());
    bench.say(2, 1, append(1, 3, &entries), entries);
    bench.sync();
    bench.idle();
    bench.cover_end();
    assert_eq!(bench.entries(), []);
    assert!(!bench.core.waits_for_the_log(), "what others decide is not waited for");
}

#[test]
fn a_log_without_room_takes_no_entries_and_hears_that_their_leader_lives() {
    let mut bench = Bench::member();
    let entries = entries(1, &beginning());
    bench.nearly_fill();
    bench.say(2, 1, append(1, 0, &entries), entries);
    assert!(!bench.trace.iter().any(|line| line.starts_with("append entry")));
    assert_eq!(acknowledged(&mut bench), [0]);
}

#[test]
fn what_another_leader_has_otherwise_is_cut_off_and_what_follows_is_applied() {
    let mut bench = Bench::member();
    let first = entries(1, &[Vec::new(), vec![], vec![]]);
    bench.say(2, 1, append(1, 1, &first), first);
    bench.sync();
    let second = entries(1, &beginning());
    let LeaderEntry(before) = &second[0];
    let previous = EntryId { index: before.index(), term: before.term() };
    let others = {
        let mut others = entries(3, &beginning());
        others.remove(0);
        others
    };
    let Said::Append(given) = append(3, 3, &others) else { panic!("it is one") };
    bench.say(3, 3, Said::Append(Append { previous, ..given }), others);
    assert!(bench.trace.iter().any(|line| line.starts_with("cut behind EntryId { index: 1, term: 1 }")));
    bench.sync();
    assert!(has_topic(bench.core.state()));
}

#[test]
fn after_its_log_failed_a_replica_says_nothing_more_and_takes_nothing() {
    let mut bench = Bench::member();
    let entries = entries(1, &beginning());
    bench.fail();
    bench.take_sent();
    bench.say(2, 1, append(1, 0, &entries), entries);
    bench.say(2, 1, Said::Heartbeat { commit: 0 }, Vec::new());
    let ask =
        Said::AskVote { pre: false, last: EntryId { index: 9, term: 1 }, commit: EntryId::default(), transfer: false };
    bench.say(3, 2, ask, Vec::new());
    assert_eq!(bench.take_sent(), []);
    assert!(!bench.trace.iter().any(|line| line.starts_with("save") || line.starts_with("append entry")));
}
