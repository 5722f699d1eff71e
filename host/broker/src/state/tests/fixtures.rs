//! Snapshots and parts as each version wrote them: read for ever, and written so again for as long as nothing new is said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;

use vouch_cluster::{ClusterIncarnation, NodeAddresses, NodeId};

use super::replay::canonical;
use super::secrets;
use super::snapshots::{full, full_at};
use crate::check::CheckOverrides;
use crate::record::{
    BindingPaused, BindingPut, Carried, ClusterBegunAnew, ComponentFailed, End, EndedBy, Expire, FilterNoted,
    GroupMade, Join, KeepGrant, KeptAccess, KeyExpiry, KeyWrite, Leapt, MessagePlace, NodeInvited, NodeJoined,
    NodeReplaced, Outbox, PluginChunk, Queued, Record, Settled, SettledHead, encode_message,
};
use crate::state::seal::sections;
use crate::state::snapshot::layouts;
use crate::state::{Applied, Namespace, PIN_MS, SNAPSHOT_BYTES_SINCE};
use crate::testing::{RecordLog, SnapshotFixture, ack, fixtures_folder, lease, message, snapshot_fixtures, whole};
use crate::{
    GroupConfig, MessageKind, NewMessage, QueueOffset, RecordPosition, ResourceName, State, TagFilter,
    TransactionOutcome,
};

/// What the fixtures say, from the first on. One that holds something new goes to the end, and [`write_the_newest`] writes it once.
const STATES: [fn() -> State; 8] =
    [before_retention, before_retention, fuller, fullest, with_secrets, with_kept, begun_anew, with_a_replacement];

/// The first that is written today as it was then. Those before are of versions that nobody runs any more; what comes after stays
/// so, since a section is written in the oldest layout that has room for it.
const WRITTEN_SINCE: usize = SNAPSHOT_BYTES_SINCE as usize;

/// Where each of them ends, and its part.
const END: u64 = 4711;

#[test]
fn every_fixture_is_read_as_what_it_was_written_of() {
    let fixtures = snapshot_fixtures();
    let numbers: Vec<usize> = fixtures.iter().map(|fixture| fixture.number).collect();
    assert!(numbers.into_iter().eq(1..=STATES.len()), "each state has a fixture: run `write_the_newest`, once");
    for (SnapshotFixture { number, snapshot, parts }, state) in fixtures.into_iter().zip(STATES) {
        State::check_snapshot(&snapshot).unwrap();
        let (position, read) = parts.read(&snapshot).unwrap();
        assert_eq!((position, read.parts()), (RecordPosition(END), parts.0.keys().copied().collect()), "{number}");
        let mut written = state();
        if number < 3 {
            // Their parts have no marks yet.
            assert!(canonical(&read, &parts) == written.snapshot(RecordPosition(7)), "{number}");
            continue;
        }
        assert!(written.seal(END).as_ref() == parts.0.get(&END), "{number}: its part is another one");
        let again = written.snapshot(position);
        assert!(read.snapshot(position) == again, "{number}: it says something else");
        if number >= WRITTEN_SINCE {
            assert!(again == snapshot, "{number}: it is written in another layout, though it says nothing new");
        }
    }
}

/// Without this nobody would notice something new that no fixture holds: it would be read as whatever it was written, for ever.
#[test]
fn the_newest_layout_of_each_section_is_in_a_fixture() {
    let fixtures = snapshot_fixtures();
    let written: BTreeSet<(u16, u8)> = fixtures.iter().flat_map(|fixture| layouts(&fixture.snapshot)).collect();
    for section in sections() {
        let (section, newest) = (section.section, section.newest);
        assert!(
            written.contains(&(section, newest)),
            "no fixture has section {section} in layout {newest}: add a state with what is new to `STATES`, and run `write_the_newest`"
        );
    }
}

/// Writes the fixture of the last of [`STATES`], and its part, if no other one has that. What is there never changes.
#[test]
#[ignore = "writes a fixture"]
fn write_the_newest() {
    let (number, mut state) = (STATES.len(), STATES[STATES.len() - 1]());
    let part = state.seal(END).unwrap();
    let path = fixtures_folder().join(format!("snapshot-v{number}"));
    let is_there = snapshot_fixtures().iter().any(|fixture| fixture.parts.0.get(&END) == Some(&part));
    let mut file = File::create_new(&path).unwrap();
    file.write_all(&state.snapshot(RecordPosition(END))).unwrap();
    if !is_there {
        fs::write(path.with_extension(format!("part-{END}")), part).unwrap();
    }
}

/// What the first two versions knew of a state in which every section holds something.
fn before_retention() -> State {
    let mut state = full().state;
    state.forget_retention();
    state
}

/// A state with gaps and carried records besides.
fn fuller() -> State {
    let mut log = full();
    let topic = log.topic_id("t");
    let (mut half, mut piece) = (Vec::new(), Vec::new());
    let plain = &message("m");
    let message = NewMessage { kind: MessageKind::Transaction, ..message("h") };
    let place = MessagePlace { topic, queue: 0, stored_at: log.now };
    encode_message(&mut half, place, "client", &message, CheckOverrides::default());
    let (from, _) = log.state.open_transactions().iter(None).next().unwrap();
    log.apply(Record::Carried(Carried { from: from.first_place(), queued: None, record: half })).unwrap();
    let digest = [1; 32];
    let (from, offset) = log.state.plugins().artifact(&digest).unwrap().chunks[0];
    PluginChunk { digest, offset, total: 3, data: vec![1; 3] }.encode(&mut piece);
    log.apply(Record::Carried(Carried { from, queued: None, record: piece })).unwrap();
    let (queued, mut record) = (Some(Queued { topic, queue: 0, offset: QueueOffset(3) }), Vec::new());
    encode_message(&mut record, place, "client", plain, CheckOverrides::default());
    log.apply(Record::Carried(Carried { from: RecordPosition(4), queued, record })).unwrap();
    log.pass_ms(PIN_MS + 1);
    let Applied::Expired { messages, missed } =
        log.apply(Record::Expire(Expire { topic, starts: vec![(0, QueueOffset(2))] })).unwrap()
    else {
        unreachable!()
    };
    assert_eq!((messages, missed), (2, 1));
    log.state
}

/// A state with filters and groups that receives made besides: one that was used, and one that was not. A transaction on
/// which its component failed, and a leap of the time.
fn fullest() -> State {
    let mut log = full();
    let topic = log.topic_id("t");
    let made = |name: &str| GroupMade { name: ResourceName::plain(name), config: GroupConfig::default() };
    for name in ["used", "unused"] {
        log.apply(Record::GroupMade(made(name))).unwrap();
        let group = log.state.groups().named(&ResourceName::plain(name)).unwrap().id;
        log.apply(Record::Join(Join { group, topic, at_end: false })).unwrap();
        for filter in [TagFilter::tags(["b", "a"]), TagFilter::All] {
            log.apply(Record::FilterNoted(FilterNoted { group, topic, filter })).unwrap();
        }
        log.apply(lease(&log, group, topic, 1, whole(0, 0, 1))).unwrap();
        if name == "used" {
            log.apply(ack(group, topic, 0, 1)).unwrap();
        }
    }
    let binding_revision = log.state.plugins().binding("b").unwrap().revision;
    let failed = ComponentFailed {
        transaction: log.state.open_transactions().iter(None).next().unwrap().0,
        check_number: 1,
        binding_revision,
        failures: 10,
        by: EndedBy::Component { binding: "b".to_owned(), digest: "d".to_owned() },
        error: "unreachable".to_owned(),
        trace: "0: check".to_owned(),
    };
    assert_eq!(log.apply(Record::ComponentFailed(failed)), Ok(Applied::Counted { parked: true }));
    let from = log.now;
    log.pass_ms(61_000);
    log.apply(Record::Leapt(Leapt { from, doubted: true })).unwrap();
    log.state
}

/// A state with secrets, of which a binding names one.
fn with_secrets() -> State {
    let mut log = full();
    for (name, value) in [("orders-db", 1), ("unused", 2)] {
        log.apply(secrets::set(name, value)).unwrap();
    }
    log.apply(secrets::bind("with-secret", ["orders-db"])).unwrap();
    log.state
}

/// A state with bindings that keep something, one of which pauses.
fn with_kept() -> State {
    let mut log = full();
    log.apply(secrets::set("orders-db", 1)).unwrap();
    let Record::BindingPut(bound) = secrets::bind("keeps", ["orders-db"]) else { unreachable!("it is one") };
    let keeps = Some(KeepGrant { namespace: "orders".to_owned(), quota: 10_000 });
    for _ in 0..2 {
        // Set again it is not created again.
        log.apply(Record::BindingPut(BindingPut { keeps: keeps.clone(), names_life: true, ..bound.clone() })).unwrap();
    }
    let created = log.state.plugins().binding("keeps").unwrap().created;
    log.apply(Record::BindingPaused(BindingPaused { name: "keeps".to_owned(), paused: true })).unwrap();
    let topic = log.topic_id("t");
    let transaction = log.half(topic);
    let by = EndedBy::Component { binding: "keeps".to_owned(), digest: "d".to_owned() };
    let outcome = TransactionOutcome::RolledBack;
    let head = SettledHead::End(End { transaction, outcome, queue: 0, by, reason: String::new() });
    let write = |expires| KeyWrite { value: Some(vec![7]), expires };
    let writes = [("k".to_owned(), write(KeyExpiry::Never)), ("l".to_owned(), write(KeyExpiry::AfterMs(9)))].into();
    let kept = Some(KeptAccess { namespace: "orders".to_owned(), reads: BTreeMap::new(), writes });
    let settled = Settled { outbox: Outbox::default(), head, binding: "keeps".to_owned(), created, kept };
    log.apply(Record::Settled(settled)).unwrap();
    assert_eq!(log.state.kept().namespace("orders").map(Namespace::len), Some(2));
    log.state
}

/// A state of a cluster that began anew twice.
fn begun_anew() -> State {
    let mut log = full();
    for (incarnation, node) in [(0xabcd, 2), (0xef01, 3)] {
        log.pass_ms(1);
        let incarnation = ClusterIncarnation(incarnation);
        let (since, written_by) = (RecordPosition(u64::MAX), "0.2.0".to_owned());
        let anew = ClusterBegunAnew { incarnation, node: NodeId(node), since, handle_key: [3; 32], written_by };
        log.apply(Record::ClusterBegunAnew(anew)).unwrap();
    }
    log.state
}

/// A state of a cluster in which a node is to take the place of another one.
fn with_a_replacement() -> State {
    let mut log = full_at(2);
    let invited = |log: &RecordLog, old: Option<u64>| {
        let replaces = old.map(|old| NodeReplaced { node: NodeId(old), by: "op".to_owned(), reason: "old".to_owned() });
        Record::NodeInvited(NodeInvited {
            token: [7; 32],
            until: log.now.plus_ms(60_000),
            votes_at_once: false,
            replaces,
        })
    };
    for old in [None, Some(1), Some(2)] {
        let record = invited(&log, old);
        log.apply(record).unwrap();
        if old.is_none() {
            let addresses = NodeAddresses { peer: "n2:7000".to_owned(), grpc: String::new() };
            log.apply(Record::NodeJoined(NodeJoined { node: NodeId(2), token: [7; 32], addresses })).unwrap();
        }
    }
    log.state
}
