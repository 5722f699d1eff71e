//! The state over a log whose power is cut, on a simulated disk: what is found again is what was written, up to some
//! record behind everything that was reported durable, and makes the very state that it made before.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{Frame, GroupPut, Join, MessagePlace, Record, TopicPut, encode_message};
use vouch_broker::state::RecordAt;
use vouch_broker::testing::{START, cluster_init, message, replay};
use vouch_broker::{GroupConfig, RecordPosition, ResourceName, State, TopicConfig};
use vouch_commitlog::simulated::{Image, LOSSES, Rng, SimDisk, Steps, open};
use vouch_commitlog::{Appender, Entry, EntryHeader, EntryKind, LogConfig, Recovery};

const RECORDS: u64 = 120;
const SEEDS: u64 = 25;

fn config() -> LogConfig {
    LogConfig { segment_size: 16 << 10, zero_ahead: 4 << 10, syncs_in_flight: 2, ..LogConfig::new("log", [1; 16], 0) }
}

/// Opens the log on this disk, and says what it holds.
fn recover(disk: &SimDisk) -> (Appender, Recovery, Vec<(RecordAt, Record)>) {
    let mut found = Vec::new();
    let (appender, _, recovery) = open(disk, &config(), drop, &mut |entry: Entry| {
        let (frame, rest) = Frame::split(&entry.payload)?;
        assert!(rest.is_empty());
        found.push((
            RecordAt { position: RecordPosition(entry.payload_position.0), time: START },
            Record::decode(&frame)?,
        ));
        Ok(())
    })
    .unwrap();
    (appender, recovery, found)
}

/// The bytes of the record with this number, counted from 1, behind those that made the state.
fn record(number: u64, state: &State) -> Vec<u8> {
    let (orders, shop) = (ResourceName::plain("orders"), ResourceName::plain("shop"));
    let (topic, group) = (state.topics().named(&orders).ok(), state.groups().named(&shop).ok());
    let record = match (number, topic, group) {
        (1, ..) => Record::ClusterInit(cluster_init()),
        (_, None, _) => {
            Record::TopicPut(TopicPut { name: orders, config: TopicConfig::default(), expected_revision: None })
        }
        (_, _, None) => {
            Record::GroupPut(GroupPut { name: shop, config: GroupConfig::default(), expected_revision: None })
        }
        (4, Some(topic), Some(group)) => Record::Join(Join { group: group.id, topic: topic.id, at_end: false }),
        (_, Some(topic), _) => {
            let place = MessagePlace { topic: topic.id, queue: (number % 4) as u32, stored_at: START };
            let (mut bytes, id) = (Vec::new(), format!("message-{number}"));
            encode_message(&mut bytes, place, "producer", &message(&id), CheckOverrides::default());
            return bytes;
        }
    };
    let mut bytes = Vec::new();
    assert!(record.encode(&mut bytes));
    bytes
}

#[test]
fn what_a_power_cut_leaves_makes_the_state_that_it_made_before() {
    let mut cut_short: u64 = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(Image::new());
        let (mut appender, ..) = recover(&disk);
        let mut steps = Steps::new(config().syncs_in_flight);
        let (mut state, mut written, mut effects) = (State::default(), Vec::new(), Vec::new());
        for index in 1..=RECORDS {
            let bytes = record(index, &state);
            let header = EntryHeader { term: 1, index, leader_time_ms: START.0, kind: EntryKind::Records };
            let appended = appender.append(header, &[&bytes]).unwrap();
            let at = RecordAt { position: RecordPosition(appended.payload_position.0), time: START };
            let record = Record::decode(&Frame::split(&bytes).unwrap().0).unwrap();
            state.apply(at, &record, &mut effects).unwrap();
            written.push((at, record));
            for _ in 0..rng.below(4) {
                steps.sync(&appender, rng.below(2) as usize);
            }
            if rng.chance(5) {
                Steps::fill(&appender);
            }
        }
        for loss in LOSSES {
            let events = rng.below(disk.events() as u64 + 1) as usize;
            let left = SimDisk::new(disk.after_power_cut(events, loss, &mut rng));
            let (_, recovery, found) = recover(&left);
            let context = format!("seed {seed}, {loss:?}, cut after {events} events");
            assert!(recovery.end.0 >= disk.reported(events), "{context}: what was durable is gone");
            assert!(found.len() <= written.len() && found == written[..found.len()], "{context}");
            cut_short += u64::from(found.len() < written.len());
            let (now, before) = (replay(State::default(), &found), replay(State::default(), &written[..found.len()]));
            assert!(now.snapshot(RecordPosition(0)) == before.snapshot(RecordPosition(0)), "{context}");
        }
        assert!(
            state.snapshot(RecordPosition(0)) == replay(State::default(), &written).snapshot(RecordPosition(0)),
            "seed {seed}"
        );
    }
    assert!(cut_short > SEEDS, "most cuts lose something: {cut_short}");
}
