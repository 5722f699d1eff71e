//! What a replica noted is there, whatever happens to the machine, and what must not happen ends it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use vouch_broker::ShardId;
use vouch_commitlog::simulated::{Image, LOSSES, Rng, SimDisk, SimFault, open_note};

use super::*;

const LOG: LogName = LogName { cluster_id: [7; 16], shard: ShardId::FIRST };

/// What a recovery found.
fn recovered(term: u64, index: u64, end: u64) -> Recovery {
    Recovery {
        entries: index,
        start: LogPosition(0),
        end: LogPosition(end),
        last_index: index,
        last_term: term,
        last_leader_time_ms: 0,
        cut: None,
        clean: true,
        checkpoint: None,
        scanned_bytes: 0,
        searched_bytes: 0,
        duration: Duration::ZERO,
    }
}

fn begin(disk: &SimDisk, recovery: &Recovery) -> Result<ReplicaFile, ReplicaError> {
    ReplicaFile::begin(open_note(disk, REPLICA)?, LOG, recovery)
}

fn disk() -> SimDisk {
    SimDisk::new(Image::new())
}

fn committed(index: u64, position: u64) -> Committed {
    Committed { index, position: LogPosition(position) }
}

fn cut(to: u64, end: u64) -> NotedCut {
    NotedCut { to: LogPosition(to), end: LogPosition(end) }
}

/// A replica of three in term 3, durable up to 9000, of which 8000 are committed.
fn member(disk: &SimDisk) -> ReplicaFile {
    let mut replica = begin(disk, &recovered(2, 5, 5000)).unwrap();
    replica.is_member(NodeId(4)).unwrap();
    replica.term_and_vote(3, Some(NodeId(2))).unwrap();
    replica.durable(LogPosition(9000), committed(8, 8000)).unwrap();
    replica
}

#[test]
fn a_folder_without_the_file_is_that_of_a_node_that_is_alone() {
    let disk = disk();
    assert!(ReplicaFile::noted(&open_note(&disk, REPLICA).unwrap(), LOG).unwrap().is_none());
    let replica = begin(&disk, &recovered(3, 12, 7000)).unwrap();
    let expected = ReplicaNote {
        incarnation: 1,
        term: 3,
        commit: committed(12, 7000),
        durable: LogPosition(7000),
        ..ReplicaNote::of_one(NodeId::FIRST)
    };
    assert_eq!((replica.note(), expected.member), (&expected, false));
    assert_eq!(ReplicaFile::noted(&open_note(&disk, REPLICA).unwrap(), LOG).unwrap(), Some(expected));
}

#[test]
fn a_node_that_is_alone_goes_on_from_what_an_older_release_wrote_meanwhile() {
    let disk = disk();
    let mut replica = begin(&disk, &recovered(3, 12, 7000)).unwrap();
    replica.term_and_vote(4, Some(NodeId::FIRST)).unwrap();
    // It goes on in the term of the last entry, which may be the one before.
    let mut replica = begin(&disk, &recovered(3, 20, 9000)).unwrap();
    let note = replica.note();
    assert_eq!((note.term, note.vote, note.incarnation), (4, Some(NodeId::FIRST), 2));
    assert_eq!((note.commit, note.durable), (committed(20, 9000), LogPosition(9000)));
    replica.term_and_vote(5, Some(NodeId::FIRST)).unwrap();
    let replica = begin(&disk, &recovered(6, 21, 9500)).unwrap();
    assert_eq!((replica.note().term, replica.note().vote), (6, None), "a vote counts in its term only");
}

#[test]
fn a_member_begins_with_what_it_noted_and_its_commit_is_not_what_it_has() {
    let disk = disk();
    drop(member(&disk));
    let replica = begin(&disk, &recovered(3, 10, 9900)).unwrap();
    let expected = ReplicaNote {
        node: NodeId(4),
        incarnation: 2,
        member: true,
        term: 3,
        vote: Some(NodeId(2)),
        commit: committed(8, 8000),
        durable: LogPosition(9900),
        cut: None,
    };
    assert_eq!(replica.note(), &expected);
}

#[test]
fn a_members_file_that_is_older_than_its_log_is_refused() {
    let disk = disk();
    drop(member(&disk));
    let refused = begin(&disk, &recovered(4, 10, 9900)).err().unwrap();
    let told = refused.to_string();
    assert!(matches!(refused, ReplicaError::Lost { .. }), "{told}");
    assert!(told.contains("term is 3") && told.contains("entries of term 4"), "{told}");
    assert_eq!(begin(&disk, &recovered(3, 10, 9900)).unwrap().note().incarnation, 2, "nothing was noted");
}

#[test]
fn a_cut_takes_the_durable_position_back_and_is_known_until_it_ended() {
    let disk = disk();
    let mut replica = member(&disk);
    replica.cut_begins(cut(8500, 9600)).unwrap();
    assert_eq!((replica.note().durable, replica.note().cut), (LogPosition(8500), Some(cut(8500, 9600))));
    replica.durable(LogPosition(8500), committed(9, 8500)).unwrap();
    assert_eq!(replica.note().cut, Some(cut(8500, 9600)));
    replica.cut_ended().unwrap();
    assert_eq!(replica.note().cut, None);
    replica.durable(LogPosition(8600), committed(9, 8500)).unwrap();
    // One that ends above what is durable takes nothing back.
    replica.cut_begins(cut(9000, 9600)).unwrap();
    assert_eq!(replica.note().durable, LogPosition(8600));
    // The start went on with it.
    let replica = begin(&disk, &recovered(3, 10, 9000)).unwrap();
    assert_eq!((replica.note().durable, replica.note().cut), (LogPosition(9000), None));
}

#[test]
fn what_must_not_happen_ends_it_and_nothing_is_noted() {
    type Wrong = fn(&mut ReplicaFile) -> io::Result<()>;
    let wrong: [(&str, Wrong); 10] = [
        ("does not sink", |replica| replica.term_and_vote(2, None)),
        ("the vote of term 3", |replica| replica.term_and_vote(3, Some(NodeId(1)))),
        ("the vote of term 3", |replica| replica.term_and_vote(3, None)),
        ("durable up to", |replica| replica.durable(LogPosition(8999), committed(8, 8000))),
        ("not taken back", |replica| replica.durable(LogPosition(9000), committed(7, 8000))),
        ("not taken back", |replica| replica.durable(LogPosition(9000), committed(8, 7999))),
        ("committed", |replica| replica.cut_begins(cut(7999, 9000))),
        ("committed", |replica| replica.cut_begins(cut(9000, 8999))),
        ("does not become", |replica| replica.is_member(NodeId(5))),
        ("is another cut", |replica| {
            replica.cut_begins(cut(8800, 9000))?;
            replica.cut_begins(cut(8700, 8800))
        }),
    ];
    for (words, wrong) in wrong {
        let disk = disk();
        let mut replica = member(&disk);
        let panicked = catch_unwind(AssertUnwindSafe(|| wrong(&mut replica))).expect_err(words);
        let told = panicked.downcast_ref::<String>().unwrap();
        assert!(told.contains(words), "{words}: {told}");
        let noted = ReplicaFile::noted(&open_note(&disk, REPLICA).unwrap(), LOG).unwrap();
        assert_eq!(noted.as_ref(), Some(replica.note()), "{words}");
    }
    let mut cutting = member(&disk());
    cutting.cut_begins(cut(8500, 9000)).unwrap();
    let ahead = catch_unwind(AssertUnwindSafe(|| cutting.durable(LogPosition(8501), committed(8, 8000))));
    assert!(ahead.is_err(), "what is cut is not durable");
    let shorter = || begin(&disk(), &recovered(1, 1, 100)).map(drop);
    assert!(shorter().is_ok());
    let disk = disk();
    drop(member(&disk));
    assert!(catch_unwind(AssertUnwindSafe(|| begin(&disk, &recovered(3, 8, 8999)).map(drop))).is_err());
}

#[test]
fn what_is_noted_already_is_not_written_again() {
    let disk = disk();
    let mut replica = member(&disk);
    let events = disk.events();
    replica.term_and_vote(3, Some(NodeId(2))).unwrap();
    replica.durable(LogPosition(9000), committed(8, 8000)).unwrap();
    replica.is_member(NodeId(4)).unwrap();
    replica.cut_ended().unwrap();
    assert_eq!(disk.events(), events);
}

#[test]
fn after_an_error_every_call_gives_it_whatever_it_asks_for() {
    let disk = disk();
    let mut replica = member(&disk);
    disk.inject(SimFault::Sync);
    let first = replica.term_and_vote(4, Some(NodeId(4))).unwrap_err().to_string();
    let events = disk.events();
    for again in [
        replica.term_and_vote(4, Some(NodeId(3))),
        replica.term_and_vote(3, Some(NodeId(2))),
        replica.durable(LogPosition(9000), committed(8, 8000)),
        replica.cut_ended(),
    ] {
        assert_eq!(again.unwrap_err().to_string(), first);
    }
    assert_eq!((disk.events(), replica.note().term), (events, 3));
}

#[test]
fn a_file_of_another_log_or_of_a_newer_release_or_without_sense_is_refused_with_what_to_do() {
    let elsewhere = LogName { cluster_id: [8; 16], ..LOG };
    let newer = [&[2], &ReplicaNote::of_one(NodeId::FIRST).encode(LOG)[1..]].concat();
    for (noted, words) in [
        (ReplicaNote::of_one(NodeId::FIRST).encode(elsewhere), "two data folders were put together"),
        (newer, "has version 2, which this version of Vouch cannot read"),
        (b"\x01vote".to_vec(), "move the file sim/replica away"),
    ] {
        let disk = disk();
        open_note(&disk, REPLICA).unwrap().write(&noted).unwrap();
        let told = begin(&disk, &recovered(1, 1, 5000)).err().unwrap().to_string();
        assert!(told.contains(words), "{told}");
    }
    let disk = SimDisk::new(Image::from([(REPLICA.to_owned(), vec![0; 8192])]));
    let told = begin(&disk, &recovered(1, 1, 5000)).err().unwrap();
    assert!(
        matches!(&told, ReplicaError::Lost { .. }) && told.to_string().contains("for whom this node voted"),
        "{told}"
    );
}

/// Power cuts everywhere in two lives: the note is one that was there when the last call returned, or the one that was being
/// written, and no incarnation comes twice.
#[test]
fn whatever_a_power_cut_does_a_vote_that_was_told_stands_and_no_incarnation_comes_twice() {
    let mut rng = Rng::new(5);
    let first = disk();
    let mut notes = vec![(None, 0)];
    let mut replica = begin(&first, &recovered(0, 0, 4096)).unwrap();
    notes.push((Some(replica.note().clone()), first.events()));
    let steps: [fn(&mut ReplicaFile) -> io::Result<()>; 6] = [
        |replica| replica.is_member(NodeId(3)),
        |replica| replica.term_and_vote(1, Some(NodeId(2))),
        |replica| replica.durable(LogPosition(6000), committed(4, 5000)),
        |replica| replica.term_and_vote(2, None),
        |replica| replica.cut_begins(cut(5500, 6000)),
        |replica| replica.cut_ended(),
    ];
    for step in steps {
        step(&mut replica).unwrap();
        notes.push((Some(replica.note().clone()), first.events()));
    }
    for at in 0..=first.events() {
        let returned = notes.partition_point(|(_, returned)| *returned <= at) - 1;
        let possible = &notes[returned..notes.len().min(returned + 2)];
        for loss in LOSSES.repeat(3) {
            for disk in [SimDisk::new(first.after_power_cut(at, loss, &mut rng)), first.fork(at)] {
                let found = ReplicaFile::noted(&open_note(&disk, REPLICA).unwrap(), LOG).unwrap();
                assert!(possible.iter().any(|(note, _)| *note == found), "after event {at}, {loss:?}: {found:?}");
                let incarnation = begin(&disk, &recovered(0, 0, 6000)).unwrap().note().incarnation;
                assert_eq!(incarnation, found.map_or(1, |found| found.incarnation + 1));
                let left = SimDisk::new(disk.after_power_cut(disk.events(), loss, &mut rng));
                assert_eq!(begin(&left, &recovered(0, 0, 6000)).unwrap().note().incarnation, incarnation + 1);
            }
        }
    }
}

#[test]
fn a_full_disk_keeps_nobody_who_is_alone_from_starting_and_the_file_is_made_when_there_is_room() {
    let disk = disk();
    disk.inject(SimFault::NoSpace);
    let mut replica = begin(&disk, &recovered(2, 5, 5000)).unwrap();
    // A member's promises are worth no less for it.
    assert!(replica.is_member(NodeId(4)).is_err());
    replica.term_and_vote(3, Some(NodeId::FIRST)).unwrap();
    assert!(!disk.image().contains_key(REPLICA));
    disk.clear_faults();
    replica.durable(LogPosition(6000), committed(6, 6000)).unwrap();
    let noted = ReplicaFile::noted(&open_note(&disk, REPLICA).unwrap(), LOG).unwrap().unwrap();
    assert_eq!((noted.term, noted.durable), (3, LogPosition(6000)));
}
