//! What a shard holds of its folder, what is put back, and what fences it.

use std::fs;
use std::path::Path;
use vouch_broker::HalfPosition;
use vouch_broker::RecordPosition;

use vouch_commitlog::EntryKind;
use vouch_storage::{StartError, StoredError, message, record, record_len, transaction_at};

use crate::common::{Shard, body, config, open, read_only, refused, stopped};

#[test]
fn what_was_removed_is_put_back_and_what_was_replaced_fences() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let mut opened = open(&config(&data)).unwrap();
    let (lock, identity) = (data.join("lock"), data.join("identity.json"));
    let was = fs::read(&identity).unwrap();
    opened.folders.look().unwrap();
    for removed in [&lock, &identity] {
        fs::remove_file(removed).unwrap();
        assert!(matches!(refused(&config(&data)), StartError::Locked { .. }), "the other locks hold");
        opened.folders.look().unwrap();
        assert!(removed.exists());
        assert!(matches!(refused(&config(&data)), StartError::Locked { .. }));
    }
    assert_eq!(fs::read(&identity).unwrap(), was);
    // The same again in its place is the same; something else is not.
    fs::remove_file(&identity).unwrap();
    fs::write(&identity, &was).unwrap();
    opened.folders.look().unwrap();
    fs::remove_file(&identity).unwrap();
    fs::write(&identity, "another's").unwrap();
    let why = opened.folders.look().unwrap_err();
    assert!(why.contains("was replaced by another") && why.contains("stop this node"), "{why}");
    fs::write(&identity, &was).unwrap();
}

#[test]
fn a_folder_that_is_moved_away_fences_and_the_one_in_its_place_is_left_alone() {
    type Move = fn(&Path);
    let moves: [(&str, Move); 2] = [
        ("the data folder", |data| fs::rename(data, data.with_extension("away")).unwrap()),
        ("the folder of the log", |data| fs::rename(data.join("shards/0/log"), data.join("log")).unwrap()),
    ];
    for (what, moves) in moves {
        let folder = tempfile::tempdir().unwrap();
        let data = stopped(folder.path());
        let mut opened = open(&config(&data)).unwrap();
        moves(&data);
        let why = opened.folders.look().unwrap_err();
        assert!(why.contains("was moved, removed or replaced"), "{what}: {why}");
        // Whoever comes next gets the place, where it is free.
        if !data.exists() {
            Shard::start(&data).stop();
            let why = opened.folders.look().unwrap_err();
            assert!(why.contains("was moved, removed or replaced"), "{what}: {why}");
        }
    }
}

#[test]
fn whose_log_it_is_stays_the_same_over_starts_and_is_another_one_in_each_folder() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = |data: &Path| open(&config(data)).unwrap().folders.cluster_id().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    Shard::start(&first).stop();
    Shard::start(&second).stop();
    assert_eq!(cluster(&first), cluster(&first));
    assert_ne!(cluster(&first), cluster(&second));
}

#[test]
fn a_record_is_read_by_its_place_and_nothing_else_passes_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let t = shard.topic("t", r#"{"queues": 1}"#);
    let x = shard.topic("x", r#"{"queues": 1, "type": "transaction", "transaction": {"immunity": "1h"}}"#);
    let place = RecordPosition(shard.send(t, "m1", 5000));
    let transaction = shard.half(x, "h1");
    let half = transaction.first_place();
    let log = &shard.reader;
    let (head, stored) = message(log, place).unwrap();
    assert_eq!((head.topic, head.queue, stored.message.message_id.as_str()), (t, 0, "m1"));
    assert_eq!(stored.message.body, body("m1", 5000).as_bytes());
    let bytes = record(log, place).unwrap();
    assert_eq!(record_len(log, place).unwrap() as usize, bytes.len());
    assert!(bytes.len() > 5000);
    assert_eq!(message(log, half).unwrap().1.message.message_id, "h1");
    // A half that was never carried lies where it lay.
    assert_eq!(transaction_at(log, half), transaction);
    for nonsense in [place.plus(1), RecordPosition(place.0 - 1), half.plus(8)] {
        let error = message(log, nonsense).unwrap_err();
        assert!(error.to_string().contains(&nonsense.to_string()), "{error}");
    }
    let behind = RecordPosition(log.end().0 + (1 << 20));
    assert!(matches!(record(log, behind), Err(StoredError::Log(at, _)) if at == behind));
    assert!(matches!(record_len(log, behind), Err(StoredError::Log(..))));
    assert_eq!(transaction_at(log, behind), HalfPosition::of(behind), "nobody knows better");
    shard.stop();
}

#[test]
fn an_entry_that_this_version_cannot_read_is_refused_either_way_and_left_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m1", 10);
    shard.append(EntryKind::Records, b"words of a later version").unwrap();
    shard.kill();
    let before = crate::common::contents(folder.path());
    for settings in [config(folder.path()), read_only(folder.path())] {
        let error = refused(&settings).to_string();
        assert!(error.contains("cannot be read") && error.contains("written by Vouch"), "{error}");
    }
    assert!(crate::common::contents(folder.path()) == before, "nothing is cut for it");
}

#[test]
fn a_log_of_another_format_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    // The version in the header of every segment, with a checksum that no longer fits, and the same with the magic.
    for at in [0, 8] {
        let before = crate::common::contents(&data);
        crate::common::flip(&crate::common::segment(&data, 8 << 20), at);
        let error = refused(&config(&data)).to_string();
        assert!(error.contains("00000000000008388608.log"), "{error}");
        crate::common::flip(&crate::common::segment(&data, 8 << 20), at);
        assert!(crate::common::contents(&data) == before);
    }
    Shard::start(&data).stop();
}
