//! Starts from snapshots: what they read, and what happens when a snapshot is damaged or is not this log's.

use std::fs;
use std::path::Path;

use vouch_broker::record::{End, EndedBy};
use vouch_broker::{HalfPosition, TransactionOutcome};
use vouch_commitlog::LogFolder;
use vouch_storage::{Known, StartError, StartProgress, StartStep, verify_snapshots};

use crate::common::{
    MIB, Shard, config, contents, copy_tree, flip, ids, log_folder, named, number, open, refused, segment,
    snapshot_folder, stopped,
};

/// Ten mebibytes of messages, and transactions in every state.
fn fill(shard: &mut Shard) -> Vec<HalfPosition> {
    let t = shard.topic("t", r#"{"queues": 1}"#);
    let x = shard
        .topic("x", r#"{"queues": 1, "type": "transaction", "transaction": {"immunity": "1h", "interval": "1h"}}"#);
    let mut transactions = Vec::new();
    for n in 0..20 {
        shard.send(t, &format!("m{n:03}"), MIB / 2);
        transactions.push(shard.half(x, &format!("h{n}")));
    }
    end(shard, transactions[3], TransactionOutcome::Committed);
    end(shard, transactions[4], TransactionOutcome::RolledBack);
    transactions
}

fn end(shard: &mut Shard, transaction: HalfPosition, outcome: TransactionOutcome) {
    let (by, mut records) = (EndedBy::Operator { name: "test".to_owned() }, Vec::new());
    End { transaction, outcome, queue: 0, by, reason: String::new() }.encode(&mut records);
    shard.write(&records);
}

/// A stopped shard with what [`fill`] writes, and its state as a snapshot gives it.
fn filled(data: &Path) -> Vec<u8> {
    let mut shard = Shard::start(data);
    fill(&mut shard);
    shard.name(Vec::new());
    let state = content(&shard);
    shard.stop();
    state
}

/// All that a state says but how often it was started.
fn content(shard: &Shard) -> Vec<u8> {
    let (t, x) = (shard.listed("t"), shard.listed("x"));
    format!("{t:?} {x:?} {:?}", shard.state.needed_from()).into_bytes()
}

fn remove_snapshots(data: &Path) {
    fs::remove_dir_all(snapshot_folder(data)).unwrap();
    fs::create_dir(snapshot_folder(data)).unwrap();
}

#[test]
fn after_a_stop_the_next_start_reads_the_snapshot_and_almost_nothing_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let before = filled(folder.path());
    assert_eq!((named(folder.path(), "snapshot").len(), named(folder.path(), "part").len()), (1, 1));
    let shard = Shard::start(folder.path());
    assert!(shard.recovery.scanned_bytes < 4096, "{} bytes were read", shard.recovery.scanned_bytes);
    assert_eq!((shard.snapshot, shard.passed_over), (number(&named(folder.path(), "snapshot")[0]), false));
    assert!(content(&shard) == before);
    shard.stop();
}

#[test]
fn a_stop_makes_no_snapshot_of_a_little_log_and_a_killed_process_none_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..2);
    shard.stop();
    assert!(named(folder.path(), "snapshot").is_empty(), "it is cheaper to replay");
    let mut shard = Shard::start(folder.path());
    shard.fill(topic, 2..22);
    shard.kill();
    assert!(named(folder.path(), "snapshot").is_empty());
    let shard = Shard::start(folder.path());
    assert!(shard.recovery.scanned_bytes > 11 * MIB as u64 && !shard.recovery.clean);
    assert_eq!(shard.listed("t"), ids(0..22), "what was durable is there");
    shard.stop();
}

#[test]
fn a_start_that_is_given_up_says_how_far_it_was_and_changes_nothing_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let before = filled(folder.path());
    // So that there is something to replay.
    remove_snapshots(folder.path());
    let log = contents(folder.path());
    let progress = StartProgress::default();
    progress.give_up();
    let refused = vouch_storage::open(&config(folder.path()), &|_| (), &progress).err().unwrap();
    assert!(matches!(refused, StartError::GivenUp), "{refused}");
    let StartStep::Replaying { replayed_bytes: 0, total_bytes } = progress.step() else { panic!("{progress:?}") };
    // Segments of 4 MiB.
    assert!((10 << 20..20 << 20).contains(&total_bytes), "{total_bytes}");
    assert!(contents(folder.path()) == log);
    let progress = StartProgress::default();
    drop(vouch_storage::open(&config(folder.path()), &|_| (), &progress).unwrap());
    assert_eq!(progress.step(), StartStep::Beginning);
    let shard = Shard::start(folder.path());
    assert!(content(&shard) == before);
    shard.stop();
}

#[test]
fn a_damaged_snapshot_or_part_is_passed_over_and_the_log_is_read_instead() {
    for extension in ["snapshot", "part"] {
        let folder = tempfile::tempdir().unwrap();
        let before = filled(folder.path());
        // Both copies.
        for extension in [extension.to_owned(), format!("{extension}2")] {
            let [file] = named(folder.path(), &extension).try_into().unwrap();
            let middle = fs::metadata(&file).unwrap().len() / 2;
            flip(&file, middle);
        }
        let shard = Shard::start(folder.path());
        assert!(shard.recovery.scanned_bytes > 10 * MIB as u64, "{extension}: the whole log was read");
        assert_eq!((shard.snapshot, shard.passed_over), (0, true), "{extension}");
        assert!(content(&shard) == before, "{extension}");
        shard.stop();
    }
}

#[test]
fn a_newer_snapshot_takes_the_place_of_those_before_it_and_two_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    assert_eq!(shard.snapshotter.bounds(), None, "this process made none");
    let mut made = Vec::new();
    for n in 0..5 {
        shard.fill(topic, n..n + 1);
        made.push(shard.snapshot());
        let bounds = shard.snapshotter.bounds().unwrap();
        assert_eq!(bounds.newer.covers.0, made[n as usize]);
        assert_eq!(bounds.older.map(|older| older.covers.0), made.iter().rev().nth(1).copied());
    }
    let there: Vec<u64> = named(folder.path(), "snapshot").iter().map(|file| number(file)).collect();
    assert_eq!(there, made[3..]);
    assert_eq!(there, named(folder.path(), "snapshot2").iter().map(|file| number(file)).collect::<Vec<_>>());
    // Each is a part of its own, and the state reads from all of them.
    assert_eq!(named(folder.path(), "part").iter().map(|file| number(file)).collect::<Vec<_>>(), made);
    assert_eq!((shard.state.parts(), shard.listed("t")), (made, ids(0..5)));
    shard.stop();
}

#[test]
fn a_start_goes_on_from_the_older_snapshot_where_the_newer_one_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..3);
    let older = shard.snapshot();
    shard.fill(topic, 3..6);
    let newer = shard.snapshot();
    shard.kill();
    for extension in ["snapshot", "snapshot2"] {
        flip(&snapshot_folder(folder.path()).join(format!("{newer:020}.{extension}")), 60);
    }
    let shard = Shard::start(folder.path());
    assert_eq!((shard.snapshot, shard.passed_over, shard.listed("t")), (older, true, ids(0..6)));
    shard.stop();
}

#[test]
fn what_a_crash_left_unfinished_is_taken_away_and_what_is_somebody_elses_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    stopped(folder.path());
    let data = folder.path().join("data");
    let whole = contents(&data);
    for name in ["00000000000000000007.part.unfinished", "00000000000099999999.snapshot2.unfinished"] {
        fs::write(snapshot_folder(&data).join(name), "half").unwrap();
    }
    fs::write(snapshot_folder(&data).join("notes.txt"), "mine").unwrap();
    Shard::start(&data).stop();
    assert_eq!(fs::read_to_string(snapshot_folder(&data).join("notes.txt")).unwrap(), "mine");
    fs::remove_file(snapshot_folder(&data).join("notes.txt")).unwrap();
    let snapshots = |all: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| -> Vec<_> {
        all.iter().filter(|(path, _)| path.starts_with(snapshot_folder(&data))).map(|(path, _)| path.clone()).collect()
    };
    assert_eq!(snapshots(&contents(&data)), snapshots(&whole));
}

#[test]
fn a_snapshot_of_another_log_is_passed_over() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(other.path());
    let mut shard = Shard::start(folder.path());
    fill(&mut shard);
    // So that this log does not end before what the other one's snapshot covers.
    let topic = shard.topic("more", r#"{"queues": 1}"#);
    shard.fill(topic, 0..10);
    let before = content(&shard);
    shard.stop();
    remove_snapshots(folder.path());
    for extension in ["snapshot", "part"] {
        for file in named(other.path(), extension) {
            fs::copy(&file, snapshot_folder(folder.path()).join(file.file_name().unwrap())).unwrap();
        }
    }
    let shard = Shard::start(folder.path());
    assert_eq!((shard.snapshot, shard.passed_over), (0, true));
    assert!(content(&shard) == before);
    shard.stop();
}

#[test]
fn a_log_that_lost_what_its_snapshot_covers_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "early", 1);
    shard.stop();
    let (log, old) = (log_folder(folder.path()), folder.path().join("old-log"));
    copy_tree(&log, &old);
    let mut shard = Shard::start(folder.path());
    shard.fill(topic, 0..20);
    let end = shard.reader.end().0;
    shard.stop();
    // What the replica noted would tell, too.
    fs::remove_file(folder.path().join("shards/0/replica")).unwrap();
    let known_durable = || {
        let log = LogFolder::open(&log_folder(folder.path())).unwrap().identity();
        Known::of_log(folder.path(), log).unwrap().durable.0
    };
    let known = known_durable();
    assert!(known >= end, "the snapshots say that the log was durable up to {end}: {known}");
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&old, &log).unwrap();
    let error = refused(&config(folder.path())).to_string();
    assert!(error.contains("durable") || error.contains("missing"), "{error}");
    // Also where nothing but the head of one copy can be read.
    for extension in ["snapshot2", "part", "part2"] {
        named(folder.path(), extension).iter().for_each(|file| fs::remove_file(file).unwrap());
    }
    let [last] = named(folder.path(), "snapshot").try_into().unwrap();
    fs::File::options().write(true).open(&last).unwrap().set_len(100).unwrap();
    assert_eq!(known_durable(), known);
    let error = refused(&config(folder.path())).to_string();
    assert!(error.contains("durable") || error.contains("missing"), "{error}");
}

/// A log that was put back without its snapshots may have another history up to where they end.
#[test]
fn a_snapshot_of_another_history_is_never_gone_on_from() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut shard = Shard::start(other.path());
    let t = shard.topic("t", r#"{"queues": 1}"#);
    let x = shard
        .topic("x", r#"{"queues": 1, "type": "transaction", "transaction": {"immunity": "1h", "interval": "1h"}}"#);
    let transaction = shard.half(x, "h");
    shard.stop();
    let here = folder.path().join("data");
    copy_tree(other.path(), &here);

    // Two histories of the same length: committed there, rolled back here.
    let mut ends = Vec::new();
    for (data, outcome) in [(other.path(), TransactionOutcome::Committed), (&here, TransactionOutcome::RolledBack)] {
        let mut shard = Shard::start(data);
        end(&mut shard, transaction, outcome);
        shard.fill(t, 0..20);
        ends.push(shard.reader.end().0);
        shard.stop();
    }
    assert_eq!(ends[0], ends[1]);
    // This one is longer, so that there is something to go on with.
    let mut shard = Shard::start(&here);
    shard.fill(t, 20..40);
    shard.stop();
    fs::remove_dir_all(snapshot_folder(&here)).unwrap();
    copy_tree(&snapshot_folder(other.path()), &snapshot_folder(&here));

    let rolled_back = |shard: &Shard| shard.listed("x").is_empty();
    for round in 0..3 {
        let mut shard = Shard::start(&here);
        assert!(rolled_back(&shard), "start {round}");
        // Enough for another snapshot on the stop.
        shard.fill(t, 100 + 20 * round..120 + 20 * round);
        shard.stop();
        assert!(named(&here, "snapshot").len() <= 2, "the other history's is gone");
    }
    let shard = Shard::start(&here);
    assert!(shard.recovery.scanned_bytes < 4096, "there is a snapshot of this history");
    assert!(rolled_back(&shard));
    shard.stop();
}

/// The log's beginning goes only below what both kept snapshots need, and comes back from neither.
#[test]
fn without_the_beginning_of_its_log_a_shard_starts_from_either_snapshot_and_from_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = released(folder.path());
    let [older, newer] = named(&data, "snapshot").try_into().unwrap();
    assert!(!segment(&data, 0).exists());
    let whole = tempfile::tempdir().unwrap();
    copy_tree(&data, whole.path());
    let reset = || {
        fs::remove_dir_all(&data).unwrap();
        copy_tree(whole.path(), &data);
    };
    for (lost, from) in [(None, &newer), (Some(&newer), &older)] {
        reset();
        for file in lost.into_iter().flat_map(|file| [file.clone(), file.with_extension("snapshot2")]) {
            flip(&file, 60);
        }
        let shard = Shard::start(&data);
        assert_eq!((shard.snapshot, shard.listed("t")), (number(from), ids(20..32)));
        shard.kill();
    }
    reset();
    for extension in ["snapshot", "snapshot2"] {
        named(&data, extension).iter().for_each(|file| flip(file, 60));
    }
    let before = contents(&data);
    let error = refused(&config(&data));
    assert!(matches!(error, StartError::NoSnapshot { .. }), "{error}");
    assert!(error.to_string().contains("no snapshot in") && error.to_string().contains("log verify"), "{error}");
    assert!(contents(&data) == before, "a refused start changes nothing");
    let found = verify_snapshots(&data, vouch_commitlog::LogPosition(4 << 20), &mut |_| ()).unwrap();
    assert_eq!(found.damage.len(), 4, "{found:?}");
}

/// A stopped shard whose log begins with its second segment or later, and which has two snapshots. The last part but one
/// holds the messages 20 to 23, the last one 24 to 27; what came before them is in a part of its own.
pub(crate) fn released(folder: &Path) -> std::path::PathBuf {
    let data = folder.join("data");
    let mut shard = Shard::start(&data);
    let old = shard.topic("old", r#"{"queues": 1}"#);
    shard.fill(old, 0..20);
    shard.delete("old");
    shard.snapshot();
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 20..24);
    shard.snapshot();
    shard.fill(topic, 24..28);
    shard.snapshot();
    shard.fill(topic, 28..32);
    assert!(shard.release() >= 4 << 20, "the log's beginning is released");
    shard.stop();
    data
}

#[test]
fn a_part_that_lies_in_memory_still_says_the_same_as_one_that_was_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..6);
    assert_eq!(shard.listed("t"), ids(0..6));
    shard.snapshot();
    assert_eq!(shard.listed("t"), ids(0..6), "adopted while it runs");
    shard.kill();
    let opened = open(&config(folder.path())).unwrap();
    assert_eq!(opened.state.parts().len(), 1);
    assert_eq!(crate::common::listed(&opened.state, &opened.reader, "t"), ids(0..6), "read back by a start");
}
