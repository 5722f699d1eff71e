//! A member that takes what it lacks from the folder of another node, while that one writes.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use vouch_commitlog::LogPosition;
use vouch_consensus::NodeId;
use vouch_storage::{
    Committed, MissingFile, OfferedBy, PullError, PullOffer, PullStage, StartProgress, open_offered, unsound_segments,
};

use crate::common::{MIB, SEGMENT, Shard, config, copy_tree, segment};

fn names(n: std::ops::Range<usize>) -> Vec<String> {
    n.map(|n| format!("m{n:03}")).collect()
}

/// A node that writes, with a log of several segments, and the folder of a member that has the beginning of it: everything it has is
/// noted as committed.
struct Two {
    source: Shard,
    topic: vouch_broker::TopicId,
    source_dir: tempfile::TempDir,
    member_dir: tempfile::TempDir,
    member_had: LogPosition,
}

impl Two {
    fn begin() -> Self {
        let (source_dir, member_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut source = Shard::start(source_dir.path());
        let topic = source.topic("t", r#"{"queues": 1}"#);
        names(0..10).iter().for_each(|id| _ = source.send(topic, id, MIB));
        source.kill();
        copy_tree(source_dir.path(), member_dir.path());
        let mut member = Shard::start(member_dir.path());
        member.replica.is_member(NodeId(2)).unwrap();
        member.replica.term_and_vote(7, Some(NodeId(3))).unwrap();
        let (position, index) = (member.appender.durable(), member.last_index());
        member.replica.durable(position, Committed { index, position }).unwrap();
        member.kill();
        let mut source = Shard::start(source_dir.path());
        // What the member wrote besides is nobody else's: its log ends earlier for the other.
        names(10..14).iter().for_each(|id| _ = source.send(topic, id, MIB));
        source.snapshot();
        names(14..20).iter().for_each(|id| _ = source.send(topic, id, MIB));
        source.mark();
        Self { source, topic, source_dir, member_dir, member_had: position }
    }

    fn offer(&self) -> PullOffer {
        let mut offer = PullOffer::of_folder(self.source_dir.path()).unwrap();
        // The mark says of what is before it that it is durable, and not of itself.
        let last_index = self.source.last_index() - 1;
        offer.by = OfferedBy { term: 7, leads: true, last_index, written_index: last_index };
        offer
    }

    fn stage(&self, damaged: &[LogPosition]) -> PullStage {
        PullStage::of_folder(&config(self.member_dir.path()), damaged, &StartProgress::default()).unwrap()
    }

    /// So many bytes of each file that is missing, at most.
    fn fetch(&self, stage: &mut PullStage, missing: &[MissingFile], most: u64) {
        for file in missing {
            let mut source = open_offered(self.source_dir.path(), file.source()).unwrap();
            source.seek(SeekFrom::Start(file.from)).unwrap();
            let mut bytes = Vec::new();
            source.take((file.end() - file.from).min(most)).read_to_end(&mut bytes).unwrap();
            stage.append(file, &bytes).unwrap();
        }
    }

    fn has_all(self, count: usize) {
        self.source.kill();
        let member = Shard::start(self.member_dir.path());
        assert_eq!(member.listed("t"), names(0..count));
        let note = member.replica.note();
        assert_eq!((note.node, note.member), (NodeId(2), true));
        member.kill();
    }
}

fn finish(stage: &mut PullStage, offer: &PullOffer) -> Result<(), PullError> {
    stage.finish(offer, &StartProgress::default())
}

#[test]
fn a_member_gets_what_it_lacks_keeps_what_it_has_and_stays_who_it_was() {
    let two = Two::begin();
    let offer = two.offer();
    let mut stage = two.stage(&[]);
    let missing = stage.take(&offer).unwrap();
    let asked: Vec<&str> = missing.iter().map(MissingFile::source).collect();
    let own = format!("log/{:020}.log", 0);
    assert!(!asked.contains(&own.as_str()), "a segment that it has as a whole is not asked for: {asked:?}");
    assert!(asked.iter().any(|name| name.ends_with(".snapshot") || name.ends_with(".snapshot2")), "{asked:?}");
    two.fetch(&mut stage, &missing, u64::MAX);
    finish(&mut stage, &offer).unwrap();
    stage.end();
    let cluster_id = u128::from_str_radix(&offer.cluster_id, 16).unwrap().to_be_bytes();
    let shard = vouch_storage::ShardFolder::of(two.member_dir.path(), vouch_broker::ShardId::FIRST);
    let note = vouch_storage::ReplicaFile::look(
        &shard,
        vouch_storage::LogName { cluster_id, shard: vouch_broker::ShardId::FIRST },
    );
    let note = note.unwrap().unwrap();
    assert_eq!((note.term, note.vote), (7, Some(NodeId(3))), "it may not vote twice in a term");
    assert_eq!((note.durable, note.commit.position), (LogPosition(offer.log_end), LogPosition(offer.log_end)));
    assert_eq!(fs::metadata(segment(two.member_dir.path(), 0)).unwrap().nlink(), 1);
    two.has_all(20);
}

#[test]
fn a_pull_that_was_cut_short_goes_on_with_what_it_has_of_segments_and_with_another_offer() {
    let mut two = Two::begin();
    let first = two.offer();
    let mut stage = two.stage(&[]);
    let missing = stage.take(&first).unwrap();
    two.fetch(&mut stage, &missing, 100_000);
    stage.end();
    let topic = two.topic;
    names(20..26).iter().for_each(|id| _ = two.source.send(topic, id, MIB));
    two.source.snapshot();
    two.source.mark();
    let offer = two.offer();
    assert!(offer.log_end > first.log_end);
    let mut stage = two.stage(&[]);
    let missing = stage.take(&offer).unwrap();
    let goes_on = |file: &&MissingFile| file.source().starts_with("log/") && file.from == 100_000;
    assert!(missing.iter().filter(goes_on).count() > 0, "{missing:?}");
    let whole = missing.iter().filter(|file| file.source().starts_with("snapshots/"));
    assert!(
        whole.clone().count() > 0 && whole.clone().all(|file| file.from == 0),
        "another snapshot has another one's name"
    );
    two.fetch(&mut stage, &missing, u64::MAX);
    finish(&mut stage, &offer).unwrap();
    stage.end();
    two.has_all(26);
}

/// Of what is missing, all but for one bit in the middle of what is to come of a segment that begins here.
fn fetch_damaged(two: &Two, stage: &mut PullStage, missing: &[MissingFile], start: u64) {
    let name = name(start);
    for file in missing {
        let mut source = open_offered(two.source_dir.path(), file.source()).unwrap();
        source.seek(SeekFrom::Start(file.from)).unwrap();
        let mut bytes = Vec::new();
        source.take(file.end() - file.from).read_to_end(&mut bytes).unwrap();
        if file.source() == name {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        stage.append(file, &bytes).unwrap();
    }
}

fn segments_of(missing: &[MissingFile]) -> Vec<&str> {
    missing.iter().map(MissingFile::source).filter(|name| name.starts_with("log/")).collect()
}

fn name(start: u64) -> String {
    format!("log/{start:020}.log")
}

/// Where the segment begins in which what is offered ends. It was filled up with zeros, so it comes again whatever was wrong.
fn last_of(offer: &PullOffer) -> u64 {
    offer.log_end / SEGMENT * SEGMENT
}

fn is_unsound(finished: Result<(), PullError>) -> bool {
    matches!(finished, Err(PullError::Unsound(_)))
}

#[test]
fn a_segment_that_is_not_what_was_offered_is_thrown_away_and_the_member_has_what_it_had() {
    let two = Two::begin();
    let offer = two.offer();
    let mut stage = two.stage(&[]);
    let missing = stage.take(&offer).unwrap();
    let last = last_of(&offer);
    fetch_damaged(&two, &mut stage, &missing, last);
    assert!(is_unsound(finish(&mut stage, &offer)) && stage.blames_other());
    let missing = stage.take(&offer).unwrap();
    assert_eq!(segments_of(&missing), [name(last)]);
    assert!(missing.iter().all(|file| file.from == 0));
    stage.end();
    assert_eq!(Shard::start(two.member_dir.path()).listed("t").len(), 10);
}

/// Neither of the two has all of the log, and nobody knows that yet; both together have it.
#[test]
fn what_one_node_has_lost_comes_from_another_one_that_has_lost_something_else() {
    let two = Two::begin();
    let offer = two.offer();
    let own = [0, SEGMENT, 2 * SEGMENT].map(LogPosition);
    let mut stage = two.stage(&own);
    let missing = stage.take(&offer).unwrap();
    assert_eq!(missing.len(), offer.files.len(), "nothing of its own is whole");
    fetch_damaged(&two, &mut stage, &missing, SEGMENT);
    assert!(is_unsound(finish(&mut stage, &offer)) && stage.blames_other());
    let missing = stage.take(&offer).unwrap();
    assert_eq!(segments_of(&missing), [name(SEGMENT), name(last_of(&offer))]);
    fetch_damaged(&two, &mut stage, &missing, 2 * SEGMENT);
    finish(&mut stage, &offer).unwrap();
    stage.end();
    two.has_all(20);
}

#[test]
fn a_segment_of_its_own_that_is_not_whole_is_asked_for_then_and_nobody_is_blamed() {
    let two = Two::begin();
    let own = segment(two.member_dir.path(), SEGMENT);
    let mut bytes = fs::read(&own).unwrap();
    bytes[SEGMENT as usize / 2] ^= 1;
    fs::write(&own, bytes).unwrap();
    let offer = two.offer();
    let mut stage = two.stage(&[]);
    let missing = stage.take(&offer).unwrap();
    assert!(!segments_of(&missing).contains(&name(SEGMENT).as_str()), "nobody knows that it is damaged");
    two.fetch(&mut stage, &missing, u64::MAX);
    assert!(is_unsound(finish(&mut stage, &offer)) && !stage.blames_other());
    let missing = stage.take(&offer).unwrap();
    assert_eq!(segments_of(&missing), [name(SEGMENT), name(last_of(&offer))]);
    two.fetch(&mut stage, &missing, u64::MAX);
    finish(&mut stage, &offer).unwrap();
    stage.end();
    two.has_all(20);
}

/// What is said to be wrong may be right, and stand beside what is wrong.
#[test]
fn a_segment_that_comes_no_better_takes_all_others_with_it() {
    let two = Two::begin();
    let offer = two.offer();
    let mut stage = two.stage(&[]);
    let last = last_of(&offer);
    for _ in 0..3 {
        let missing = stage.take(&offer).unwrap();
        assert!(missing.len() < offer.files.len());
        fetch_damaged(&two, &mut stage, &missing, last);
        assert!(is_unsound(finish(&mut stage, &offer)));
    }
    assert_eq!(stage.take(&offer).unwrap().len(), offer.files.len(), "not even its own are believed any more");
}

#[test]
fn what_is_whole_and_ends_too_early_is_all_thrown_away() {
    let two = Two::begin();
    let mut offer = two.offer();
    (offer.by.last_index, offer.by.written_index) = (offer.by.last_index + 1, offer.by.written_index + 1);
    let mut stage = two.stage(&[]);
    let missing = stage.take(&offer).unwrap();
    two.fetch(&mut stage, &missing, u64::MAX);
    assert!(is_unsound(finish(&mut stage, &offer)) && !stage.blames_other(), "it may have been a file of its own");
    let missing = stage.take(&offer).unwrap();
    assert_eq!(missing.len(), offer.files.len(), "nothing is believed any more, not even its own");
    assert!(missing.iter().all(|file| file.from == 0));
    two.fetch(&mut stage, &missing, u64::MAX);
    assert!(is_unsound(finish(&mut stage, &offer)) && stage.blames_other());
}

/// A file that lies on `/dev/full` stands for one on a disk that is just then full.
#[test]
fn a_disk_that_fills_while_files_come_ends_nothing_and_the_pull_goes_on_when_there_is_room() {
    let two = Two::begin();
    let offer = two.offer();
    let mut stage = two.stage(&[]);
    let missing = stage.take(&offer).unwrap();
    let (last, others) = missing.split_last().unwrap();
    two.fetch(&mut stage, others, u64::MAX);
    let place = two.member_dir.path().join("shards/0.pulled").join(last.source());
    symlink("/dev/full", &place).unwrap();
    let full = stage.append(last, b"some of it").unwrap_err();
    assert!(matches!(full, PullError::Short { .. }) && full.to_string().contains("free some space"), "{full}");
    fs::remove_file(&place).unwrap();
    let missing = stage.take(&offer).unwrap();
    assert!(missing.iter().any(|file| file.source() == last.source() && file.from == 0), "{missing:?}");
    let is_kept = |file: &MissingFile| !missing.iter().any(|missing| missing.source() == file.source());
    assert!(others.iter().filter(|file| file.source().starts_with("log/")).all(is_kept), "what came of the log stays");
    two.fetch(&mut stage, &missing, u64::MAX);
    finish(&mut stage, &offer).unwrap();
    stage.end();
    two.has_all(20);
}

/// The system may say of such a file the next time that all of it is on the disk.
#[test]
fn a_file_that_could_not_be_made_durable_comes_again() {
    let two = Two::begin();
    let offer = two.offer();
    let mut stage = two.stage(&[]);
    let missing = stage.take(&offer).unwrap();
    two.fetch(&mut stage, &missing, u64::MAX);
    let last = missing.last().unwrap();
    let place = two.member_dir.path().join("shards/0.pulled").join(last.source());
    fs::remove_file(&place).unwrap();
    symlink("/dev/full", &place).unwrap();
    finish(&mut stage, &offer).unwrap_err();
    assert!(fs::symlink_metadata(&place).is_err(), "nothing of it is believed");
    let missing = stage.take(&offer).unwrap();
    assert!(missing.iter().any(|file| file.source() == last.source() && file.from == 0), "{missing:?}");
    two.fetch(&mut stage, &missing, u64::MAX);
    finish(&mut stage, &offer).unwrap();
    stage.end();
    two.has_all(20);
}

/// A start looks at the folder before it takes it: there, too, what a crash left is no folder that lost its log.
#[test]
fn a_start_goes_on_where_a_crash_came_while_one_log_took_the_place_of_another() {
    let two = Two::begin();
    let offer = two.offer();
    let mut stage = two.stage(&[]);
    let missing = stage.take(&offer).unwrap();
    two.fetch(&mut stage, &missing, u64::MAX);
    let shards = two.member_dir.path().join("shards");
    let old = shards.join("old");
    copy_tree(&shards.join("0"), &old);
    finish(&mut stage, &offer).unwrap();
    stage.end();
    // As it was between the two renames.
    fs::rename(shards.join("0"), shards.join("0.pulled")).unwrap();
    fs::write(shards.join("0.pulled/complete"), "").unwrap();
    fs::rename(&old, shards.join("0.before")).unwrap();
    vouch_storage::check_start(&config(two.member_dir.path())).unwrap();
    two.has_all(20);
}

#[test]
fn a_segment_that_is_damaged_is_asked_for_and_the_others_are_not() {
    let two = Two::begin();
    let member = two.member_dir.path();
    fs::write(segment(member, SEGMENT), vec![7; SEGMENT as usize]).unwrap();
    let damaged = unsound_segments(&config(member), &StartProgress::default()).unwrap().unwrap();
    assert!(damaged.contains(&LogPosition(SEGMENT)) && !damaged.contains(&LogPosition(0)), "{damaged:?}");
    assert!(two.member_had.0 > 2 * SEGMENT);
    let offer = two.offer();
    let mut stage = two.stage(&damaged);
    let missing = stage.take(&offer).unwrap();
    let asked: Vec<&str> = missing.iter().map(MissingFile::source).collect();
    assert!(asked.contains(&name(SEGMENT).as_str()) && !asked.contains(&name(0).as_str()), "{asked:?}");
    two.fetch(&mut stage, &missing, u64::MAX);
    finish(&mut stage, &offer).unwrap();
    stage.end();
    two.has_all(20);
}

/// The member cannot tell how far its own log went, and the node that leads has a damaged one: what that says of itself counts, and the
/// files are those of a third.
#[test]
fn a_node_whose_log_is_damaged_offers_its_word_and_that_is_enough_to_take_the_log_from_another_one() {
    let mut two = Two::begin();
    two.source.mark();
    let third = tempfile::tempdir().unwrap();
    copy_tree(two.source_dir.path(), third.path());
    let log_of = |folder: &Path| PullOffer::or_word_of_folder(folder).unwrap();
    let last_index = two.offer().by.last_index;
    let last = segment(two.source_dir.path(), log_of(third.path()).log_end / SEGMENT * SEGMENT);
    let mut bytes = fs::read(&last).unwrap();
    bytes[5000] ^= 1;
    fs::write(&last, bytes).unwrap();
    let mut word = log_of(two.source_dir.path());
    assert!(word.is_word());
    word.by = OfferedBy { term: 7, leads: true, last_index: 0, written_index: last_index };
    let word = PullOffer::decode(&word.encode()).unwrap();
    let member = two.member_dir.path();
    let end = two.member_had.0 / SEGMENT * SEGMENT;
    fs::write(segment(member, end), vec![7; SEGMENT as usize]).unwrap();
    let damaged = unsound_segments(&config(member), &StartProgress::default()).unwrap().unwrap();
    let mut stage = two.stage(&damaged);
    let mut offer = log_of(third.path());
    offer.by = OfferedBy { term: 7, leads: false, last_index, written_index: last_index };
    assert!(matches!(stage.take(&offer), Err(PullError::TooShort { .. })), "nobody knows yet how far its own log went");
    assert!(matches!(stage.take(&word), Err(PullError::TooShort { .. })));
    assert!(!stage.take(&offer).unwrap().is_empty());
}

#[test]
fn a_node_that_was_never_one_of_several_has_nobody_to_take_anything_from() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m000", 1000);
    shard.kill();
    assert_eq!(unsound_segments(&config(folder.path()), &StartProgress::default()).unwrap(), None);
    assert!(PullStage::of_folder(&config(folder.path()), &[], &StartProgress::default()).is_err());
}
