//! A cluster that begins anew: of a backup, and of what is left when a majority is lost. Whatever cuts that short, the folder is that of
//! the node that it was, or that of the new one.

use std::fs;
use std::path::Path;

use vouch_broker::{ResourceName, ShardId, TransactionId};
use vouch_cluster::{ClusterIncarnation, GroupMembers, NodeId};
use vouch_commitlog::{EntryKind, LogFolder, LogPosition, NoteFile};
use vouch_storage::{
    BackupError, Committed, HeldRemains, Known, LogName, OpenedLog, RemainsError, ReplicaFile, StartError, backup,
    restore,
};

use crate::common::{Shard, config, copy_tree, files, ids, open, refused, stopped};

fn taken(data: &Path, target: &Path) {
    backup(data, target, &mut |_| ()).unwrap();
}

fn put_back(from: &Path, to: &Path) -> (NodeId, ClusterIncarnation) {
    let restored = restore(from, to, &mut |_| ()).unwrap();
    (restored.node, restored.incarnation)
}

/// A member of three, killed: one message that it knows to be committed, and two behind that with which its log ends.
fn killed_member(data: &Path) {
    let mut shard = Shard::start(data);
    shard.three(NodeId(2), 9);
    let topic = shard.topic("t", r#"{"queues": 1, "type": "mixed"}"#);
    shard.send(topic, "m000", 1000);
    shard.half(topic, "committed");
    let (position, index) = (shard.appender.durable(), shard.last_index());
    shard.replica.durable(position, Committed { index, position }).unwrap();
    shard.send(topic, "m001", 1000);
    shard.half(topic, "undecided");
    shard.kill();
}

/// The transactions that are open, as clients know them.
fn transactions(shard: &Shard) -> Vec<TransactionId> {
    let lives = shard.state.incarnations();
    shard.state.open_transactions().iter(None).map(|(half, _)| lives.transaction_id(half)).collect()
}

/// How often the log says that its cluster begins anew.
fn lives_in_the_log(data: &Path) -> usize {
    let log = LogFolder::open(&data.join("shards/0/log")).unwrap();
    let known = Known::of_log(data, log.identity()).unwrap();
    let log = known.look_at(log);
    let entries = log.entries(LogPosition(0), LogPosition::BEYOND).unwrap();
    entries.filter_map(Result::ok).filter(|entry| entry.kind == EntryKind::Members).count()
}

#[test]
fn two_restores_of_one_backup_are_two_clusters_of_one_and_the_original_is_a_third() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("backup"));
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1, "type": "mixed"}"#);
    let before = shard.half(topic, "before");
    shard.stop();
    taken(&data, &copy);
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let lives = [put_back(&copy, &one), put_back(&copy, &other)];
    assert_ne!(lives[0].1, lives[1].1);
    let mut found = Vec::new();
    for (place, (node, life)) in
        [(&data, (NodeId::FIRST, ClusterIncarnation::FIRST)), (&one, lives[0]), (&other, lives[1])]
    {
        let mut shard = Shard::start(place);
        assert_eq!(shard.state.members(), &GroupMembers::voters([node]));
        assert_eq!((shard.replica.note().node, shard.replica.note().member), (node, false));
        assert_eq!(shard.state.incarnations().current(), life);
        let topic = shard.state.topics().named(&ResourceName::plain("t")).unwrap().id;
        let after = shard.half(topic, "after");
        let of_before = TransactionId::of_first_life(ShardId::FIRST, before);
        let ids = transactions(&shard);
        assert_eq!(ids[0], of_before, "what was given before the backup means the same everywhere");
        assert_eq!((ids[1].half, ids[1].incarnation), (after, life));
        let key = shard.state.cluster().init.as_ref().unwrap().handle_key;
        found.push((ids[1], key, shard.state.incarnations().clone()));
        shard.stop();
        // It goes on as what it is.
        let again = Shard::start(place);
        assert_eq!(
            (again.state.incarnations().current(), lives_in_the_log(place)),
            (life, usize::from(!life.is_first()))
        );
        again.kill();
    }
    for (at, (id, key, _)) in found.iter().enumerate() {
        for (other, (_, other_key, lives)) in found.iter().enumerate() {
            assert_eq!(lives.half_of(*id).is_ok(), at == other, "{id}");
            assert_eq!(key == other_key, at == other);
        }
    }
}

#[test]
fn what_is_left_of_a_cluster_goes_on_as_one_node_with_all_that_its_log_holds() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    killed_member(data);
    let remains = HeldRemains::look(data).unwrap();
    let found = remains.found.clone();
    assert_eq!((found.node, found.others.clone(), found.term), (NodeId(2), vec![NodeId(1), NodeId(3)], 9));
    assert_eq!((found.undecided, found.new_node), (2, NodeId(4)));
    assert!(found.committed_to < found.log_end);
    // Nobody else has the folder meanwhile, and nothing is changed by looking.
    assert!(matches!(refused(&config(data)), StartError::Locked { .. }));
    drop(remains);
    let before = fs::read(data.join("identity.json")).unwrap();
    let done = HeldRemains::look(data).unwrap().begin_anew().unwrap();
    assert_ne!(fs::read(data.join("identity.json")).unwrap(), before);
    let shard = Shard::start(data);
    assert_eq!(shard.listed("t"), ids(0..2));
    assert_eq!(shard.state.members(), &GroupMembers::voters([NodeId(4)]));
    let note = shard.replica.note();
    assert_eq!((note.node, note.member, note.vote), (NodeId(4), false, None));
    assert!(note.term > 9, "{note:?}");
    // What the lost ones may have otherwise is named anew.
    let lives: Vec<_> = transactions(&shard).iter().map(|id| id.incarnation).collect();
    assert_eq!(lives, [ClusterIncarnation::FIRST, done.incarnation]);
    shard.stop();
    let alone = HeldRemains::look(data).err().expect("nothing is missing");
    assert!(matches!(alone, RemainsError::Complete { node: NodeId(4), .. }), "{alone}");
}

/// Between any two steps of the first start the process may be killed.
#[test]
fn a_first_start_that_is_cut_short_is_made_again_and_says_once_that_the_cluster_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let [data, former, untold, half] = ["data", "former", "untold", "half"].map(|name| folder.path().join(name));
    killed_member(&data);
    copy_tree(&data, &former);
    let note = fs::read(data.join("shards/0/replica")).unwrap();
    let done = HeldRemains::look(&data).unwrap().begin_anew().unwrap();
    assert_eq!(fs::read(data.join("shards/0/replica")).unwrap(), note, "log and note are as they were");
    [&untold, &half].into_iter().for_each(|place| copy_tree(&data, place));
    let shard = Shard::start(&data);
    let term = shard.replica.note().term;
    shard.kill();
    let lives = lives_in_the_log(&data);
    // The log says so, and the note is still that of the node that it was.
    let opened = open(&config(&former)).unwrap();
    let OpenedLog::Whole { recovery, .. } = opened.log else { panic!("the log is damaged") };
    let log = LogFolder::open(&half.join("shards/0/log")).unwrap().identity();
    let name = LogName { cluster_id: log.cluster_id, shard: ShardId::FIRST };
    let file = NoteFile::open(&half.join("shards/0"), "replica").unwrap();
    ReplicaFile::begin(file, name, &recovery).unwrap().term_and_vote(term, None).unwrap();
    fs::remove_dir_all(half.join("shards/0/log")).unwrap();
    copy_tree(&data.join("shards/0/log"), &half.join("shards/0/log"));
    for place in [&data, &untold, &half] {
        for _ in 0..2 {
            let shard = Shard::start(place);
            assert_eq!((shard.replica.note().node, shard.replica.note().member), (NodeId(4), false));
            assert_eq!(shard.state.incarnations().current(), done.incarnation);
            assert_eq!((shard.listed("t"), lives_in_the_log(place)), (ids(0..2), lives));
            shard.kill();
        }
    }
}

/// The note is made before the log says anything: a folder that was restored has none.
#[test]
fn a_restored_folder_whose_first_start_is_cut_short_behind_its_note_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let [data, copy, restored] = ["data", "copy", "restored"].map(|name| folder.path().join(name));
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m000", 1000);
    shard.stop();
    taken(&data, &copy);
    let (node, life) = put_back(&copy, &restored);
    let opened = open(&config(&data)).unwrap();
    let OpenedLog::Whole { recovery, .. } = opened.log else { panic!("the log is damaged") };
    let log = LogFolder::open(&restored.join("shards/0/log")).unwrap().identity();
    let name = LogName { cluster_id: log.cluster_id, shard: ShardId::FIRST };
    let file = NoteFile::open(&restored.join("shards/0"), "replica").unwrap();
    let mut note = ReplicaFile::begin(file, name, &recovery).unwrap();
    assert_ne!(note.note().node, node, "it is the new node when its log says so");
    note.term_and_vote(recovery.last_term + 1, None).unwrap();
    drop(note);
    for _ in 0..2 {
        let shard = Shard::start(&restored);
        assert_eq!((shard.replica.note().node, shard.state.incarnations().current()), (node, life));
        assert_eq!((shard.listed("t"), lives_in_the_log(&restored)), (ids(0..1), 1));
        shard.kill();
    }
}

#[test]
fn a_cluster_may_begin_anew_more_than_once_and_the_folder_of_another_life_is_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy, again) = (folder.path().join("data"), folder.path().join("backup"), folder.path().join("again"));
    killed_member(&data);
    HeldRemains::look(&data).unwrap().begin_anew().unwrap();
    let early = backup(&data, &copy, &mut |_| ()).unwrap_err();
    assert!(matches!(&early, BackupError::NotBegun(_)), "{early}");
    Shard::start(&data).stop();
    taken(&data, &copy);
    let (node, life) = put_back(&copy, &again);
    // Nor has this one started, and the log of its backup says all.
    let once_more = folder.path().join("once more");
    taken(&again, &once_more);
    let shard = Shard::start(&again);
    assert_eq!((shard.listed("t"), node), (ids(0..2), NodeId(5)));
    assert_eq!(shard.state.incarnations().current(), life);
    // What may be another message elsewhere is called what it was called in the life before.
    let lives: Vec<_> = transactions(&shard).iter().map(|id| id.incarnation).collect();
    assert!(lives[0].is_first() && !lives[1].is_first() && lives[1] != life, "{lives:?}");
    shard.stop();
    // Somebody puts files of two lives together.
    fs::copy(data.join("identity.json"), again.join("identity.json")).unwrap();
    let mixed = refused(&config(&again));
    assert!(matches!(&mixed, StartError::OfAnotherLife(_)), "{mixed}");
}

#[test]
fn what_is_whole_or_nobodys_or_held_or_damaged_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(HeldRemains::look(&empty), Err(RemainsError::NotANode(_))));
    assert_eq!(files(&empty).len(), 0);
    let alone = stopped(folder.path());
    assert!(matches!(HeldRemains::look(&alone), Err(RemainsError::Complete { node: NodeId::FIRST, .. })));
    let member = folder.path().join("member");
    killed_member(&member);
    let shard = Shard::start(&member);
    let held = HeldRemains::look(&member).err().expect("it is held");
    assert!(matches!(&held, RemainsError::Start(StartError::Locked { .. })), "{held}");
    shard.kill();
    crate::common::damage(&member, "m000");
    let damaged = HeldRemains::look(&member).err().expect("it is damaged");
    assert!(matches!(&damaged, RemainsError::Damaged { .. }), "{damaged}");
}

/// Others may cut off what is not known to be committed; where nobody else votes, all is.
#[test]
fn a_backup_of_a_stopped_member_ends_with_what_it_knew_to_be_committed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    killed_member(&data);
    let committed = HeldRemains::look(&data).unwrap().found.committed_to;
    let taken = backup(&data, &folder.path().join("of-three"), &mut |_| ()).unwrap();
    assert_eq!((taken.log_end, taken.of_several), (committed, true));
    let restored = folder.path().join("restored");
    put_back(&folder.path().join("of-three"), &restored);
    let shard = Shard::start(&restored);
    assert_eq!(shard.listed("t"), ids(0..1));
    shard.kill();

    let alone = folder.path().join("alone");
    let mut shard = Shard::start(&alone);
    shard.three(NodeId(1), 9);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.vote_from_now(&[1]);
    let (position, index) = (shard.appender.durable(), shard.last_index());
    shard.replica.durable(position, Committed { index, position }).unwrap();
    shard.send(topic, "m000", 1000);
    shard.kill();
    let taken = backup(&alone, &folder.path().join("of-one"), &mut |_| ()).unwrap();
    assert!(taken.log_end > position && !taken.of_several, "{taken:?}");
}

/// As where a log was put back beside snapshots of another history.
#[test]
fn what_is_left_is_not_read_from_a_snapshot_of_another_log() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    killed_member(&data);
    let expected = HeldRemains::look(&data).unwrap().found;
    let mut shard = Shard::start(&other);
    shard.topic("of-another-log", r#"{"queues": 1}"#);
    shard.snapshot();
    shard.kill();
    for file in fs::read_dir(other.join("shards/0/snapshots")).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&file, data.join("shards/0/snapshots").join(file.file_name().unwrap())).unwrap();
    }
    let found = HeldRemains::look(&data).unwrap().found;
    assert_eq!(
        (found.log_end, found.committed_to, found.undecided, found.others, found.node),
        (expected.log_end, expected.committed_to, expected.undecided, expected.others, expected.node)
    );
}
