//! Sessions of other nodes, as a leader knows them.

use std::collections::BTreeSet;

use vouch_broker::Generation;
use vouch_cluster::NodeId;

use super::*;

const THERE: NodeId = NodeId(2);

/// What a node tells whose sessions these are, and the leader hears; streams are recorders.
fn tell(from: &Sessions, leader: &Sessions, all: bool, now: Instant) -> Arc<Recorder> {
    let stream = Arc::new(Recorder { there: AtomicBool::new(true), ..Recorder::default() });
    let changes = if all { from.everything(now) } else { from.changes(now) };
    leader.reported(THERE, changes, now, |_| stream.clone());
    stream
}

fn leading(now: Instant) -> Sessions {
    let leader = Sessions::default();
    leader.begin_leading(7, BTreeSet::from([THERE]), now);
    leader
}

#[test]
fn a_leader_asks_the_clients_of_another_node_until_their_streams_close_there() {
    let now = Instant::now();
    let (there, leader) = (Sessions::default(), leading(now));
    there.keep_changes();
    there.declare("a", producer("orders"), now).unwrap();
    let own = open();
    there.attach("a", own.clone());
    let stream = tell(&there, &leader, false, now);
    assert_eq!(asked_client(&leader, "gone").as_deref(), Some("a"));
    assert_eq!(stream.asked(), 1);
    close(&there, "a", &own, now);
    tell(&there, &leader, false, now);
    assert_eq!(asked_client(&leader, "gone"), None);
    assert_eq!(leader.count(), (1, 0), "its session lives on");
}

#[test]
fn only_what_changed_is_told_and_that_a_client_was_heard() {
    let now = Instant::now();
    let there = Sessions::default();
    there.declare("before", producer("orders"), now).unwrap();
    there.keep_changes();
    there.declare("a", producer("orders"), now).unwrap();
    assert!(there.has_changes());
    assert_eq!(there.changes(now).clients.len(), 1);
    assert!(!there.has_changes());
    there.heard("before", now);
    assert!(!there.has_changes(), "that can wait");
    let changes = there.changes(now + MS * 5);
    assert_eq!((changes.clients.len(), changes.heard), (0, vec![("before".to_owned(), 5)]));
    there.close("a", now);
    assert_eq!(there.changes(now).gone, ["a"]);
    assert_eq!(there.everything(now).clients.len(), 1);
}

#[test]
fn what_is_newer_holds_and_what_is_older_adds_what_is_missing() {
    let now = Instant::now();
    let (there, leader) = (Sessions::default(), leading(now));
    there.declare("a", consumer("g", "first"), now).unwrap();
    // The same client in its receives, which come before that is told.
    leader.declare("a", consumer("h", "other group"), now).unwrap();
    leader.declare("b", consumer("g", "b"), now).unwrap();
    there.declare("b", producer("orders"), now).unwrap();
    let wants = |sessions: &Sessions, name: &str, tag: &str| {
        let subscription = (&topic(name), &TagFilter::tags([tag]));
        sessions.note_receive("c", &topic("g"), subscription, true, now).unwrap();
    };
    wants(&there, "orders", "x");
    wants(&there, "payments", "y");
    wants(&leader, "orders", "x");
    tell(&there, &leader, true, now);
    let on =
        |group: &str, name: &str, tag: &str| leader.has_filter((&topic(group), &topic(name), &TagFilter::tags([tag])));
    assert!(on("g", "orders", "x") && on("g", "payments", "y"), "nothing is passed over");
    assert!(on("h", "orders", "other group") && !on("g", "orders", "first"), "of another group nothing is added");
    assert!(on("g", "orders", "b"), "nor of another role");
    there.declare("a", consumer("g", "newest"), now + TOLD_WITHIN * 2).unwrap();
    tell(&there, &leader, true, now + TOLD_WITHIN * 2);
    assert!(on("g", "orders", "newest") && !on("h", "orders", "other group"));
}

#[test]
fn what_is_told_is_cut_into_small_parts_and_all_of_it_is_told() {
    let now = Instant::now();
    let there = Sessions::default();
    for client in ["a", "b", "c"] {
        there.declare(client, producer("orders"), now).unwrap();
    }
    let all = there.everything(now);
    let parts = all.clone().in_parts(1);
    assert_eq!(parts.len(), 3);
    let again: Vec<_> = parts.into_iter().flat_map(|part| part.clients).collect();
    assert_eq!(again, all.clients);
    assert_eq!(all.in_parts(1 << 20).len(), 1);
    assert_eq!(SessionChanges::default().in_parts(1), [SessionChanges::default()], "also that there are none is told");
}

#[test]
fn a_client_that_left_leaves_no_stream_behind_and_one_that_ended_here_is_told_of_again() {
    let now = Instant::now();
    let (there, leader) = (Sessions::default(), leading(now));
    there.keep_changes();
    there.declare("a", producer("orders"), now).unwrap();
    there.attach("a", open());
    tell(&there, &leader, false, now);
    there.close("a", now);
    tell(&there, &leader, false, now);
    assert_eq!(leader.table().producers.early_streams(), 0);
    assert!(leader.table().there.nodes().is_empty());
    // It comes back; here its session ends by silence, and there it is heard.
    there.declare("a", producer("orders"), now).unwrap();
    there.attach("a", open());
    tell(&there, &leader, false, now);
    leader.expire(now + SESSION_LIMIT + MS);
    there.heard("a", now + SESSION_LIMIT);
    let changes = there.changes(now + SESSION_LIMIT);
    assert!(!leader.reported(THERE, changes, now + SESSION_LIMIT, |_| unreachable!()));
    tell(&there, &leader, true, now + SESSION_LIMIT + MS);
    assert_eq!(asked_client(&leader, "gone").as_deref(), Some("a"));
}

#[test]
fn leases_of_unknown_consumers_live_until_all_nodes_have_told_or_the_time_is_over() {
    let now = Instant::now();
    let leader = leading(now);
    assert!(leader.keeps_leases("unknown", now));
    assert!(!leader.keeps_leases("unknown", now + Duration::from_secs(150)));
    assert!(!leader.knows_all_of(THERE));
    leader.set_known(THERE, true);
    assert!(leader.knows_all_of(THERE) && !leader.keeps_leases("unknown", now));
    leader.end_leading(now);
    assert!(!leader.keeps_leases("unknown", now));
    assert!(!Sessions::default().keeps_leases("unknown", now), "a node alone waits for nobody");
}

#[test]
fn a_node_that_is_lost_takes_its_streams_along_and_not_its_sessions() {
    let now = Instant::now();
    let (there, leader) = (Sessions::default(), leading(now));
    there.declare("a", producer("orders"), now).unwrap();
    there.attach("a", open());
    tell(&there, &leader, true, now);
    assert!(leader.has_producer(&topic("orders"), ""));
    leader.lost(THERE, now);
    assert!(!leader.has_producer(&topic("orders"), "") && leader.count() == (1, 0));
}

#[test]
fn what_another_leader_leased_is_doubted_until_a_node_tells_that_it_came_and_what_a_lost_node_was_given_too() {
    let now = Instant::now();
    let leader = leading(now);
    let (old, new) = (Generation(5), Generation(9));
    assert!(leader.may_be_lost(old, true) && !leader.may_be_lost(old, false));
    assert_eq!(leader.all_that_came(now), None, "one has not told yet");
    leader.came(vec![old], now);
    leader.set_known(THERE, true);
    assert_eq!(leader.all_that_came(now), Some(([old].into(), Duration::MAX)));
    let second = Duration::from_secs(1);
    for remembers in [9, 3, 7] {
        leader.remembers(remembers * second, now);
    }
    assert_eq!(leader.all_that_came(now), Some(([old].into(), 3 * second)), "of before nobody knows all");
    assert!(!leader.may_be_lost(old, true));
    leader.doubt(vec![old, new], now);
    assert!(leader.may_be_lost(new, false), "the node that was given it is lost, or begins anew and does not know it");
    assert!(leader.may_be_lost(old, false), "it came to a node that is lost, and nobody knows whether any further");
    leader.came(vec![old, new], now);
    assert!(!leader.may_be_lost(old, true) && !leader.may_be_lost(new, false), "it was there all the time, and tells");
    leader.doubt(vec![Generation(10)], now);
    leader.doubt(Vec::new(), now + Duration::from_secs(3 * 60 * 60));
    assert!(!leader.may_be_lost(Generation(10), false), "no lease lives for so long");
    leader.end_leading(now);
    assert!(!leader.may_be_lost(new, true), "who does not lead extends nothing");
    assert!(!Sessions::default().may_be_lost(new, true), "nor does a node alone doubt anything");
}
