//! Snapshots where the log names a position: the same parts and the same bytes everywhere, and a replica that has others is found out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vouch_broker::record::SealedAt;
use vouch_broker::{RecordPosition, State};
use vouch_commitlog::Checkpoint;
use vouch_storage::SealedUnlike;

use crate::common::{Shard, listed};

/// Bytes of each snapshot and part in a folder, by its name.
type Files = BTreeMap<String, Vec<u8>>;

fn files(data: &Path) -> Files {
    let entries = fs::read_dir(data.join("shards/0/snapshots")).unwrap().map(Result::unwrap);
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
    named.filter(|(name, _)| !name.ends_with(".room")).collect()
}

fn last(sealed: &[SealedAt]) -> SealedAt {
    *sealed.last().expect("it was named")
}

/// Two shards with one log, but for whose it is. `between`: what the second does beside what the log says.
fn two(between: impl Fn(&mut Shard)) -> ([Vec<SealedAt>; 2], [Files; 2]) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut shards = folders.each_ref().map(|folder| Shard::start(folder.path()));
    let mut had = [Vec::new(), Vec::new()];
    for round in 0..3 {
        for (n, shard) in shards.iter_mut().enumerate() {
            let topic = shard.topic("t", r#"{"queues": 2}"#);
            for message in 0..20 {
                shard.send(topic, &format!("m{round}-{message}"), 1000);
                if message % 7 == 3 && n == 1 {
                    between(shard);
                }
            }
        }
        for (shard, had) in shards.iter_mut().zip(&mut had) {
            had.extend(shard.name_snapshot(had.clone()).unwrap());
        }
    }
    for shard in shards {
        let messages = listed(&shard.state, &shard.reader, "t").len();
        assert_eq!(messages, 60);
        shard.stop_with(false);
    }
    (had, folders.each_ref().map(|folder| files(folder.path())))
}

/// What two shards had that are not the same cluster's: the identity is the one thing that differs, and so does all that holds it.
fn parts(had: &[SealedAt]) -> Vec<(RecordPosition, u64, Option<u32>)> {
    had.iter().map(|sealed| (sealed.position, sealed.since, sealed.part)).collect()
}

#[test]
fn parts_end_where_the_log_names_a_position_and_have_the_same_bytes_however_many_snapshots_come_between() {
    let ([quiet, busy], [first, second]) = two(Shard::snapshot_between);
    assert_eq!(parts(&quiet), parts(&busy));
    assert!(quiet.iter().all(|sealed| sealed.part.is_some()));
    let parts = |files: &Files| {
        let parts = files.iter().filter(|(name, _)| name.contains("part"));
        parts.map(|(name, bytes)| (name.clone(), bytes.clone())).collect::<Vec<_>>()
    };
    assert_eq!(parts(&first).len(), 6, "three, each in two copies: {:?}", first.keys());
    assert_eq!(parts(&first), parts(&second));
}

#[test]
fn a_replica_that_had_to_make_room_in_between_has_other_parts_and_says_the_same() {
    let ([quiet, pressed], [_, second]) = two(|shard| _ = shard.snapshot());
    assert_ne!(parts(&quiet), parts(&pressed));
    assert!(second.keys().filter(|name| name.contains("part")).count() > 6);
    for (quiet, pressed) in quiet.iter().zip(&pressed) {
        assert_eq!(quiet.position, pressed.position);
        assert_ne!(quiet.since, pressed.since);
        assert_eq!(quiet.differs(&SealedAt { state: quiet.state, ..*pressed }), None);
    }
}

#[test]
fn what_a_leader_had_is_held_against_what_is_here_and_what_differs_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m1", 100);
    let first = shard.name_snapshot(Vec::new()).unwrap();
    shard.send(topic, "m2", 100);
    let second = shard.name_snapshot(first.clone()).unwrap();
    assert_eq!((first.len(), second.len()), (1, 1), "each is had once");
    let (known, told) = (last(&first), last(&second));
    let other = SealedAt { state: !told.state, ..told };
    assert!(shard.name_snapshot(vec![told]).is_ok());
    // What was held against each other is done with; a leader that tells it again tells it of what it has.
    let doubt = shard.name_snapshot(vec![known, other]).unwrap_err();
    assert_eq!(doubt, SealedUnlike { own: told, other, what: "what is known of topics, groups and transactions" });
    assert_eq!(shard.name_snapshot(Vec::new()).unwrap_err(), doubt, "until somebody decides");
    shard.requests.comparison().decided(told.position);
    let other = SealedAt { part: None, ..known };
    let doubt = shard.name_snapshot(vec![other]).unwrap_err();
    assert_eq!(doubt, SealedUnlike { own: known, other, what: "the index of messages" });
    shard.stop_with(false);
}

#[test]
fn a_start_that_reads_the_log_has_what_it_had_at_positions_that_were_named_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m1", 100);
    let first = shard.name_snapshot(Vec::new()).unwrap();
    let files_before = files(folder.path());
    shard.stop_with(false);
    // All of the snapshots are lost: the log says the same again, to the byte.
    for name in files_before.keys() {
        fs::remove_file(folder.path().join("shards/0/snapshots").join(name)).unwrap();
    }
    let mut shard = Shard::start(folder.path());
    let topic = shard.state.topics().named(&vouch_broker::ResourceName::plain("t")).unwrap().id;
    shard.send(topic, "m2", 100);
    let again = shard.name_snapshot(first.clone()).unwrap();
    assert_eq!(again.first(), first.first());
    assert_eq!(again.len(), 2);
    let files = files(folder.path());
    for (name, bytes) in files_before.iter().filter(|(name, _)| name.contains("part")) {
        assert_eq!(files.get(name), Some(bytes), "{name}");
    }
    shard.stop_with(false);
}

#[test]
fn what_is_in_no_part_is_read_back_from_the_snapshot_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m1", 100);
    shard.name_snapshot(Vec::new()).unwrap();
    shard.send(topic, "m2", 100);
    shard.snapshot_between();
    let expected = shard.state.snapshot(RecordPosition(1));
    let newest = shard.snapshots.newest_position().unwrap();
    assert_eq!(shard.state.parts().len(), 1);
    let stored = fs::read(folder.path().join(format!("shards/0/snapshots/{:020}.snapshot", newest.0))).unwrap();
    let named = State::parts_of_snapshot(&stored[Checkpoint::ENCODED_LEN..]).unwrap();
    assert_eq!(named.len(), 1, "the part that the log names, and no other");
    let read = shard.snapshots.load(newest).unwrap().state;
    assert!(read.snapshot(RecordPosition(1)) == expected);
    shard.kill();
    let shard = Shard::start(folder.path());
    assert_eq!(listed(&shard.state, &shard.reader, "t"), ["m1", "m2"]);
    shard.stop_with(false);
}
