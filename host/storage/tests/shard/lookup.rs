//! The lookup index over several parts: what is filed is found where it lies, whatever state the files are in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use std::{fs, io};

use bytes::Bytes;
use vouch_broker::testing::message;
use vouch_broker::{NewMessage, QueueOffset, RecordPosition, TopicId};
use vouch_storage::{LookupFault, Lookups, Posted, Term};

use crate::common::{PATIENCE, SEGMENT, Shard, body, config, damage};

const PAGE: usize = 4096;
/// Messages in each part.
const EACH: u32 = 8;
const PARTS: u32 = 4;

fn lookup_folder(data: &Path) -> PathBuf {
    data.join("shards/0/lookup")
}

/// Names and bytes of the files of the index.
/// Files of the index with what they hold. One that goes meanwhile is not there.
fn files(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = fs::read_dir(lookup_folder(data)).unwrap().map(|entry| entry.unwrap().path());
    let content = |path: PathBuf| match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some((path, read.unwrap())),
    };
    all.filter_map(content).collect()
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Acquire)
}

/// The index of a shard. `kept`: files that are missing are made.
fn started(shard: &Shard, data: &Path, kept: bool) -> Lookups {
    let (parts, log) = (shard.state.named_parts(), shard.reader.clone());
    Lookups::of_shard(&config(data).folder(), log, SEGMENT, parts, kept).unwrap()
}

/// Waits until every part has its file.
fn indexed(lookups: &Lookups) {
    until("every part has its file", || read(&lookups.report().missing) == 0);
}

fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "it never comes true that {what}");
        std::thread::yield_now();
    }
}

fn with_keys(n: u32) -> NewMessage {
    let keys = vec![format!("even-{}", n % 2), "all".to_owned(), format!("own-{n}")];
    NewMessage { keys, body: Bytes::from(body(&format!("m{n}"), 1000)), ..message(&format!("m{n}")) }
}

/// Messages of two topics in four parts, three queues each, and some behind them that are in no part yet.
fn filled(data: &Path) -> (Shard, TopicId, TopicId) {
    let mut shard = Shard::start(data);
    let t = shard.topic("t", r#"{"queues": 3}"#);
    let other = shard.topic("other", r#"{"queues": 1}"#);
    for n in 0..PARTS * EACH {
        shard.send_to(t, n % 3, with_keys(n));
        shard.send_to(other, 0, with_keys(n));
        if (n + 1) % EACH == 0 {
            shard.snapshot();
        }
    }
    shard.send_to(t, 0, with_keys(PARTS * EACH));
    (shard, t, other)
}

/// Everything that the index has for a term, newest first, or what is wrong with a file.
fn find(lookups: &Lookups, topic: TopicId, term: Term<'_>) -> Result<Vec<Posted>, LookupFault> {
    let mut all = Vec::new();
    for file in lookups.ready().iter().rev() {
        let mut postings = file.postings(term.hash(topic), RecordPosition::BEYOND)?;
        while let Some(found) = postings.next_found()? {
            assert!(found.position.0 < file.part(), "a file covers what lies before its part's end");
            all.push(found);
        }
    }
    Ok(all)
}

/// Ids of the messages to which the index points for a term.
fn found(shard: &Shard, lookups: &Lookups, topic: TopicId, term: Term<'_>) -> Vec<String> {
    let found = find(lookups, topic, term).unwrap();
    let at = |posted: &Posted| vouch_storage::message(&shard.reader, posted.position).unwrap().1.message.message_id;
    found.iter().map(at).collect()
}

/// Everything that [`filled`] sent and that lies in a part is found, newest first, and nothing else.
fn check(shard: &Shard, lookups: &Lookups, topics: [TopicId; 2]) {
    let newest = |step: usize, from: u32| -> Vec<String> {
        (from..PARTS * EACH).step_by(step).map(|n| format!("m{n}")).rev().collect()
    };
    for topic in topics {
        assert_eq!(found(shard, lookups, topic, Term::Key("all")), newest(1, 0));
        assert_eq!(found(shard, lookups, topic, Term::Key("even-1")), newest(2, 1));
        for n in 0..PARTS * EACH {
            let (id, own) = (format!("m{n}"), format!("own-{n}"));
            assert_eq!(found(shard, lookups, topic, Term::Id(&id)), std::slice::from_ref(&id));
            assert_eq!(found(shard, lookups, topic, Term::Key(&own)), [id]);
        }
        let behind = format!("m{}", PARTS * EACH);
        for term in [Term::Id(&behind), Term::Id("all"), Term::Key("m1"), Term::Key("none")] {
            assert_eq!(found(shard, lookups, topic, term), [""; 0], "{term:?}");
        }
    }
}

#[test]
fn what_lies_in_parts_is_found_by_id_and_key_in_all_of_them_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, t, other) = filled(folder.path());
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    check(&shard, &lookups, [t, other]);
    let report = lookups.report();
    assert_eq!((read(&report.files), read(&report.builds), read(&report.damaged)), (4, 4, 0));
    let before = files(folder.path());
    assert_eq!(read(&report.bytes), before.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    let parts: Vec<u64> = lookups.ready().iter().map(|file| file.part()).collect();
    assert_eq!(parts, shard.state.parts(), "ascending, one for each part");
    lookups.stop();
    shard.stop();

    let shard = Shard::start(folder.path());
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    check(&shard, &lookups, [t, other]);
    assert_eq!((read(&lookups.report().files), read(&lookups.report().builds)), (4, 0), "what is there is used");
    assert!(files(folder.path()) == before, "and does not change");
    lookups.stop();
    shard.stop();
}

#[test]
fn each_place_that_is_found_is_the_one_in_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, t, _) = filled(folder.path());
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    for n in 0..PARTS * EACH {
        let [posted] = find(&lookups, t, Term::Id(&format!("m{n}"))).unwrap().try_into().unwrap();
        assert_eq!((posted.topic, posted.queue, posted.offset), (t, n % 3, QueueOffset(u64::from(n / 3))));
        let topic = shard.state.topics().get(t).unwrap();
        assert_eq!(topic.entry(posted.queue, posted.offset).unwrap().position, posted.position);
    }
    lookups.stop();
    shard.stop();
}

#[test]
fn the_parts_together_cover_each_queue_without_a_gap_and_know_the_times() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, t, other) = filled(folder.path());
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    for (topic, queues) in [(t, 3), (other, 1)] {
        for queue in 0..queues {
            let mut next = QueueOffset::FIRST;
            for file in lookups.ready().iter() {
                let rows = file.rows_of(topic).unwrap();
                assert!(rows.is_sorted_by_key(|row| row.queue));
                let row = rows.iter().find(|row| row.queue == queue).expect("each part has messages of each queue");
                assert_eq!(row.first, next);
                next = row.end();
                // All of them are that late, and none is later than the latest.
                assert_eq!(file.since(row, 0).unwrap(), row.first..row.end());
                assert!(file.since(row, file.latest_ms() + 1).unwrap().is_empty());
            }
            let sent = (0..PARTS * EACH).filter(|n| queues == 1 || n % 3 == queue).count() as u64;
            assert_eq!(next.0, sent);
        }
    }
    let latest: Vec<u64> = lookups.ready().iter().map(|file| file.latest_ms()).collect();
    assert!(latest.is_sorted() && latest[0] > 1_000_000, "{latest:?}");
    assert!(lookups.ready()[0].rows_of(TopicId(99)).unwrap().is_empty());
    lookups.stop();
    shard.stop();
}

#[test]
fn missing_files_are_made_again_as_they_were_and_strange_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, t, other) = filled(folder.path());
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    lookups.stop();
    let before = files(folder.path());
    fs::remove_dir_all(lookup_folder(folder.path())).unwrap();
    fs::create_dir(lookup_folder(folder.path())).unwrap();
    for stray in ["00000000000000000005.lookup", "00000000000000000009.unfinished"] {
        fs::write(lookup_folder(folder.path()).join(stray), b"left over").unwrap();
    }
    fs::write(lookup_folder(folder.path()).join("notes.txt"), b"mine").unwrap();
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    check(&shard, &lookups, [t, other]);
    assert_eq!(read(&lookups.report().builds), before.len() as u64);
    lookups.stop();
    fs::remove_file(lookup_folder(folder.path()).join("notes.txt")).expect("somebody else's file stays");
    assert!(files(folder.path()) == before, "the same files, byte for byte");
    shard.stop();
}

/// One page of one file at a time.
#[test]
fn a_damaged_file_is_never_believed_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, t, other) = filled(folder.path());
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    lookups.stop();
    let whole = files(folder.path());
    let (path, bytes) = whole.iter().nth(1).unwrap();
    for page in 0..bytes.len() / PAGE {
        let mut damaged = bytes.clone();
        damaged[page * PAGE + 40] ^= 4;
        fs::write(path, damaged).unwrap();
        let lookups = started(&shard, folder.path(), true);
        indexed(&lookups);
        // Its first pages are read when it is opened, the others when they are asked for.
        while let Err(fault) = find(&lookups, t, Term::Key("all")).and_then(|_| rows(&lookups, t)) {
            assert!(matches!(fault, LookupFault::Page(_)), "{fault}");
            let ready = lookups.ready();
            let file = ready.iter().find(|file| path.ends_with(format!("{:020}.lookup", file.part()))).unwrap();
            lookups.give_up(file, &fault);
            // Who had it in hand, too, says it once more.
            lookups.give_up(file, &fault);
            indexed(&lookups);
        }
        check(&shard, &lookups, [t, other]);
        assert_eq!((page, read(&lookups.report().damaged), read(&lookups.report().builds)), (page, 1, 1));
        lookups.stop();
        assert!(files(folder.path()) == whole, "page {page} is as it was");
    }
    shard.stop();
}

/// Reads what tells the times of all rows.
fn rows(lookups: &Lookups, topic: TopicId) -> Result<(), LookupFault> {
    for file in lookups.ready().iter() {
        for row in file.rows_of(topic)? {
            file.since(&row, 1)?;
        }
    }
    Ok(())
}

/// Recomputes the checksum of a file's first page, as somebody would who puts files of another log there.
fn sign(bytes: &mut [u8]) {
    let part: [u8; 8] = bytes[16..24].try_into().unwrap();
    let place = crc32c::crc32c_append(crc32c::crc32c(&part), &0u64.to_le_bytes());
    let checksum = crc32c::crc32c_append(place, &bytes[..PAGE - 4]);
    bytes[PAGE - 4..PAGE].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn a_file_of_another_log_part_or_version_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, t, other) = filled(folder.path());
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    lookups.stop();
    let whole = files(folder.path());
    let (path, bytes) = whole.iter().next_back().unwrap();
    let change = |change: &dyn Fn(&mut [u8])| {
        let mut changed = bytes.clone();
        change(&mut changed);
        sign(&mut changed);
        changed
    };
    let of_another_log = |bytes: &mut [u8]| {
        // The checksum of the log's entry, and that of the checkpoint.
        bytes[24 + 12] ^= 1;
        let checksum = crc32c::crc32c(&bytes[24..72][8..]);
        bytes[24 + 4..24 + 8].copy_from_slice(&checksum.to_le_bytes());
    };
    let another = [
        ("version", change(&|bytes| bytes[8] = 2)),
        ("part", change(&|bytes| bytes[12] ^= 1)),
        ("log", change(&of_another_log)),
        ("neighbour", whole.values().next().unwrap().clone()),
    ];
    assert!(change(&|_| ()) == *bytes, "this is how it is signed");
    for (what, changed) in another {
        fs::write(path, changed).unwrap();
        // Where nothing may be made it is left out, and left as it is.
        let before = files(folder.path());
        let lookups = started(&shard, folder.path(), false);
        assert_eq!((what, read(&lookups.report().files), read(&lookups.report().missing)), (what, 3, 1));
        lookups.stop();
        assert!(files(folder.path()) == before, "{what}");
        let lookups = started(&shard, folder.path(), true);
        indexed(&lookups);
        assert_eq!((what, read(&lookups.report().damaged), read(&lookups.report().builds)), (what, 1, 1));
        check(&shard, &lookups, [t, other]);
        lookups.stop();
        assert!(files(folder.path()) == whole);
    }
    shard.stop();
}

#[test]
fn of_a_log_that_is_only_read_the_files_are_used_as_they_are_and_a_damaged_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, t, _) = filled(folder.path());
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    lookups.stop();
    let path = files(folder.path()).keys().next().unwrap().clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[PAGE..].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&path, bytes).unwrap();
    let before = files(folder.path());
    let lookups = started(&shard, folder.path(), false);
    // What is behind the first page shows when it is asked for; the run of the terms lies there.
    let usable = lookups.ready();
    if let Some(file) = usable.iter().find(|file| path.ends_with(format!("{:020}.lookup", file.part()))) {
        lookups.give_up(file, &LookupFault::Page(1));
    }
    assert_eq!(read(&lookups.report().files), 3);
    assert_eq!(find(&lookups, t, Term::Key("all")).unwrap().len() as u32, (PARTS - 1) * EACH);
    lookups.stop();
    assert!(files(folder.path()) == before, "nothing is made, and nothing removed");
    shard.stop();
}

#[test]
fn a_part_that_is_sealed_gets_its_file_and_one_that_goes_takes_it_along() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shard, t, _) = filled(folder.path());
    let lookups = started(&shard, folder.path(), true);
    let announce = lookups.announcer();
    indexed(&lookups);
    let behind = format!("m{}", PARTS * EACH);
    assert!(find(&lookups, t, Term::Id(&behind)).unwrap().is_empty());
    shard.snapshot();
    announce(&shard.state.parts());
    indexed(&lookups);
    assert_eq!(found(&shard, &lookups, t, Term::Id(&behind)), std::slice::from_ref(&behind));
    assert_eq!(read(&lookups.report().files), 5);
    // Somebody still reads from a file that goes.
    let held = lookups.ready();
    let last = &shard.state.parts()[3..];
    announce(last);
    assert_eq!(lookups.ready().iter().map(|file| file.part()).collect::<Vec<_>>(), last);
    assert_eq!(held.len(), 5);
    until("the files of the parts that are gone go, too", || files(folder.path()).len() == 2);
    lookups.stop();
    shard.stop();
}

#[test]
fn nobody_looks_for_what_the_log_has_released() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let old = shard.topic("old", r#"{"queues": 1}"#);
    shard.fill(old, 0..7);
    shard.snapshot();
    shard.fill(old, 7..10);
    shard.delete("old");
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    for n in [10, 14] {
        shard.fill(topic, n..n + 4);
        shard.snapshot();
    }
    let parts = shard.state.parts();
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    lookups.stop();
    assert!(files(folder.path()).len() == parts.len() && parts.len() == 3);
    let start = shard.release();
    assert!(parts[0] < start && start < parts[1], "the first part tells of released log alone: {parts:?}, {start}");
    let lookups = started(&shard, folder.path(), true);
    indexed(&lookups);
    assert_eq!(lookups.ready().iter().map(|file| file.part()).collect::<Vec<_>>(), parts[1..]);
    assert_eq!((read(&lookups.report().builds), files(folder.path()).len()), (0, 2), "its file is gone");
    lookups.stop();
    shard.stop();
}

#[test]
fn a_part_of_which_the_log_is_damaged_gets_no_file_until_the_log_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, t, other) = filled(folder.path());
    shard.stop();
    damage(folder.path(), "m3");
    // The state comes from the snapshot, so a start does not read it.
    let shard = Shard::start(folder.path());
    let lookups = started(&shard, folder.path(), true);
    let announce = lookups.announcer();
    until("the others have theirs", || read(&lookups.report().files) == 3);
    assert_eq!(found(&shard, &lookups, t, Term::Key("all")).len() as u32, (PARTS - 1) * EACH);
    assert_eq!(find(&lookups, t, Term::Id("m2")).unwrap().len(), 0, "it is looked through, one by one");
    damage(folder.path(), "m3");
    // With the next one that is sealed it is tried again.
    announce(&shard.state.parts());
    indexed(&lookups);
    check(&shard, &lookups, [t, other]);
    lookups.stop();
    shard.kill();
}

#[test]
fn a_folder_that_cannot_be_made_keeps_the_index_from_starting_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, ..) = filled(folder.path());
    fs::write(lookup_folder(folder.path()), "in the way").unwrap();
    let (parts, log) = (shard.state.named_parts(), shard.reader.clone());
    let error = Lookups::of_shard(&config(folder.path()).folder(), log, SEGMENT, parts, true).err().unwrap();
    assert!(error.to_string().contains("cannot prepare") && error.to_string().contains("lookup"), "{error}");
    shard.stop();
}
