//! What a replica notes of itself: who makes the file, what is judged by it, and who leaves it alone.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use vouch_broker::ShardId;
use vouch_commitlog::{LogFolder, LogPosition, NoteFile};
use vouch_consensus::NodeId;
use vouch_storage::{
    BackupError, Committed, Known, LogName, OpenedLog, ReplicaFile, ReplicaNote, ShardFolder, StartError,
    StorageConfig, backup, check_start, restore,
};

use crate::common::{
    Damaged, SEGMENT, Shard, config, contents, damage, files, log_folder, open, refused, segment, snapshot_folder,
};

fn file(data: &Path) -> PathBuf {
    data.join("shards/0/replica")
}

fn log_of(data: &Path) -> LogFolder {
    LogFolder::open(&log_folder(data)).unwrap()
}

fn noted(data: &Path) -> Option<ReplicaNote> {
    let log = log_of(data).identity();
    let log = LogName { cluster_id: log.cluster_id, shard: ShardId::FIRST };
    ReplicaFile::look(&ShardFolder::of(data, ShardId::FIRST), log).unwrap()
}

/// All that was written is durable, and known to be committed.
fn note_all(shard: &mut Shard) -> LogPosition {
    let end = shard.appender.durable();
    shard.replica.durable(end, Committed { index: shard.replica.note().commit.index + 1, position: end }).unwrap();
    end
}

/// A killed shard with three messages, of which no mark covers the last; where the log ended.
fn killed(data: &Path, note: bool) -> LogPosition {
    let mut shard = Shard::start(data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    for id in ["m000", "m001", "m002"] {
        shard.send(topic, id, 1000);
    }
    let end = if note { note_all(&mut shard) } else { shard.appender.durable() };
    shard.kill();
    end
}

#[test]
fn each_start_begins_an_incarnation_and_one_that_only_reads_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    for incarnation in 1..4 {
        let shard = Shard::start(data);
        let note = shard.replica.note().clone();
        assert_eq!((note.incarnation, note.node, note.member, note.vote), (incarnation, NodeId::FIRST, false, None));
        assert_eq!((note.durable, note.term), (shard.recovery.end, shard.recovery.last_term));
        assert_eq!(note.commit, Committed { index: shard.recovery.last_index, position: shard.recovery.end });
        assert_eq!(noted(data).as_ref(), Some(&note));
        shard.stop_with(false);
    }
    assert_eq!(fs::metadata(file(data)).unwrap().permissions().mode() & 0o777, 0o600);
    let mut shard = Shard::start(data);
    let topic = shard.topic("t", "{}");
    shard.send(topic, "lost", 1000);
    shard.send(topic, "kept", 1000);
    shard.stop_with(false);
    damage(data, "lost");
    let before = (contents(data), fs::read(file(data)).unwrap());
    drop(Damaged::open(data).unwrap());
    assert!((contents(data), fs::read(file(data)).unwrap()) == before, "reading changes nothing");
}

#[test]
fn what_the_replica_noted_as_durable_is_damage_where_it_is_lost_and_no_torn_tail() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let end = killed(&data, true);
    damage(&data, "m002");
    let before = contents(&data);
    let error = refused(&config(&data));
    assert!(matches!(error, StartError::Damaged(_)) && error.to_string().contains(&end.to_string()), "{error}");
    let known = Known::of_log(&data, log_of(&data).identity()).unwrap();
    assert_eq!((known.durable, known.marks_prove), (end, true));
    let found = known.look_at(log_of(&data)).verify(known.durable, &mut |_| ()).unwrap();
    assert_eq!((found.damage.len(), found.durable), (1, end));
    let refused = backup(&data, &folder.path().join("backup"), &mut |_| ()).unwrap_err();
    assert!(matches!(refused, BackupError::SourceDamaged(_)), "{refused}");
    let read = Damaged::open(&data).unwrap();
    assert_eq!(read.listed("t"), ["m000", "m001"]);
    drop(read);
    assert!(contents(&data) == before, "nothing was cut");
    // Nobody else knows that it was durable.
    fs::remove_file(file(&data)).unwrap();
    let shard = Shard::start(&data);
    assert_eq!((shard.listed("t").len(), shard.recovery.cut.is_some()), (2, true));
    shard.stop();
}

#[test]
fn a_backup_of_a_running_node_goes_to_what_the_replica_noted_and_takes_no_vote_along() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m000", 1000);
    shard.send(topic, "m001", 1000);
    let taken = |name: &str| {
        let (target, restored) = (folder.path().join(name), folder.path().join(format!("restored-{name}")));
        let taken = backup(&data, &target, &mut |_| ()).unwrap();
        restore(&target, &restored, &mut |_| ()).unwrap();
        assert!(taken.node_was_running && !file(&target).exists() && !file(&restored).exists());
        let shard = Shard::start(&restored);
        assert_eq!((shard.replica.note().incarnation, shard.replica.note().vote), (2, None));
        (taken.log_end, shard.listed("t").len())
    };
    let (marked, messages) = taken("marked");
    assert_eq!(messages, 1, "no mark covers the second one yet");
    shard.replica.term_and_vote(9, Some(NodeId::FIRST)).unwrap();
    let end = note_all(&mut shard);
    assert!(end > marked);
    assert_eq!(taken("noted"), (end, 2));
    shard.stop();
}

#[test]
fn a_backup_of_one_of_several_that_runs_ends_with_what_is_committed_and_one_that_is_cutting_before_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m000", 1000);
    let committed = shard.appender.durable();
    shard.replica.is_member(NodeId::FIRST).unwrap();
    let commit = Committed { index: shard.replica.note().commit.index + 3, position: committed };
    shard.replica.durable(committed, commit).unwrap();
    shard.send(topic, "m001", 1000);
    let to = shard.appender.durable();
    shard.send(topic, "m002", 1000);
    let end = shard.appender.durable();
    shard.replica.durable(end, commit).unwrap();
    let log_end = |name: &str| backup(&data, &folder.path().join(name), &mut |_| ()).unwrap().log_end;
    assert_eq!(log_end("running"), committed, "the rest may still be cut off");
    let known = Known::of_log(&data, log_of(&data).identity()).unwrap();
    assert_eq!((known.durable, known.marks_prove), (committed, false));
    shard.replica.cut_begins(vouch_storage::NotedCut { to, end }).unwrap();
    shard.kill();
    assert_eq!(log_end("cutting"), to);
    assert_eq!(Known::of_log(&data, log_of(&data).identity()).unwrap().durable, to);
}

#[test]
fn a_folder_of_an_earlier_release_gets_the_file_and_one_that_such_a_release_wrote_meanwhile_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let end = killed(data, true);
    // As an earlier release leaves the folder: it knows no such file, and does not touch one that is there.
    let aside = data.join("aside");
    fs::rename(file(data), &aside).unwrap();
    let mut shard = Shard::start(data);
    assert_eq!(shard.replica.note().incarnation, 1);
    let topic = shard.topic("u", r#"{"queues": 1}"#);
    shard.send(topic, "later", 1000);
    shard.stop();
    fs::rename(&aside, file(data)).unwrap();
    assert_eq!(noted(data).unwrap().durable, end);
    let shard = Shard::start(data);
    assert_eq!((shard.listed("t").len(), shard.listed("u").len()), (3, 1));
    let note = shard.replica.note();
    assert_eq!((note.incarnation, note.durable), (2, shard.recovery.end));
    assert!(note.durable > end);
    shard.stop();
}

/// What releases before this file looked at in a folder, by name: whatever else lies in the shard's folder they leave alone.
#[test]
fn an_earlier_release_finds_nothing_in_the_folder_that_it_would_refuse() {
    const OURS: [&str; 11] = [
        "identity.json",
        "identity.part",
        "identity.again",
        "lock",
        "endpoints.json",
        "endpoints.json.new",
        "last-backup.json",
        "last-backup.json.new",
        "tls",
        "plugins",
        "shards",
    ];
    let names = |folder: &Path| {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    // A first start that ended before its log had a record.
    drop(open(&config(data)).map(drop));
    for begun in [false, true] {
        if begun {
            Shard::start(data).stop();
        }
        assert!(names(data).iter().all(|name| OURS.contains(&name.as_str())), "{:?}", names(data));
        assert_eq!(names(&data.join("shards")), ["0"]);
        assert_eq!(names(&data.join("shards/0")), ["log", "replica", "snapshots"]);
        // In these two it went by the ends of the names.
        for path in [log_folder(data), snapshot_folder(data)].iter().flat_map(|folder| files(folder)) {
            let end = path.extension().map_or("", |end| end.to_str().unwrap());
            assert!(["log", "snapshot", "snapshot2", "part", "part2", "room"].contains(&end), "{}", path.display());
        }
    }
}

#[test]
fn a_log_that_is_made_anew_is_not_judged_by_the_file_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let opened = open(&config(data)).map(|opened| opened.log);
    let Ok(OpenedLog::Whole { replica, .. }) = opened else { panic!("it opens") };
    assert_eq!(replica.note().incarnation, 1);
    drop(replica);
    // Nothing was written, and a segment of another size is what helps where the disk was too full.
    let other = StorageConfig { segment_size: Some(2 * SEGMENT), ..config(data) };
    let shard = Shard::start_with(&other).unwrap();
    assert_eq!((shard.replica.note().incarnation, fs::metadata(segment(data, 0)).unwrap().len()), (1, 2 * SEGMENT));
    shard.stop();
}

#[test]
fn a_file_that_cannot_be_gone_by_is_refused_by_all_who_judge_by_it_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    killed(&data, true);
    let good = fs::read(file(&data)).unwrap();
    let of = |note: &[u8]| {
        fs::remove_file(file(&data)).unwrap();
        NoteFile::open(&data.join("shards/0"), "replica").unwrap().write(note).unwrap();
    };
    let note = NoteFile::read(&data.join("shards/0"), "replica").unwrap().unwrap();
    let with = |at: usize, byte: u8| {
        let mut note = note.clone();
        note[at] = byte;
        note
    };
    let spoils: [(&str, &dyn Fn()); 5] = [
        ("is damaged: neither of its two slots", &|| fs::write(file(&data), "").unwrap()),
        ("move the file", &|| File::options().write(true).open(file(&data)).unwrap().set_len(100).unwrap()),
        ("does not say what a replica notes", &|| of(&with(4, 1))),
        ("has version 2", &|| of(&with(0, 2))),
        ("the log of another cluster", &|| of(&with(8, note[8] ^ 1))),
    ];
    for (words, spoil) in spoils {
        spoil();
        let before = (contents(&data), fs::read(file(&data)).unwrap());
        let said = [
            refused(&config(&data)).to_string(),
            check_start(&config(&data)).unwrap_err().to_string(),
            Known::of_log(&data, log_of(&data).identity()).unwrap_err().to_string(),
            backup(&data, &folder.path().join("backup"), &mut |_| ()).unwrap_err().to_string(),
        ];
        assert!(said.iter().all(|said| said.contains(words)), "{words}: {said:#?}");
        assert!((contents(&data), fs::read(file(&data)).unwrap()) == before, "{words}");
    }
    fs::write(file(&data), good).unwrap();
    Shard::start(&data).stop();
}
