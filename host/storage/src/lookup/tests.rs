//! One file: what is filed is found, and nothing is that is not; the format stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use vouch_broker::{QueueOffset, RecordPosition, TopicId};
use vouch_commitlog::Checkpoint;

use super::LookupFault;
use super::covering::checkpoint_at;
use super::file::LookupFile;
use super::format::{SAMPLE_EVERY, Term};
use super::page::PAGE_LEN;
use super::writer::LookupWriter;

const PART: u64 = 1_000_000;

fn checkpoint() -> Checkpoint {
    checkpoint_at(PART)
}

/// A message as the tests see it: topic, queue, offset, position, time, id, keys.
type Message = (u32, u32, u64, u64, u64, String, Vec<String>);

/// Writes messages that are sorted by topic, queue and offset, without a gap in a queue.
fn write(path: &Path, messages: &[Message], run_max: usize) {
    let mut rows: Vec<(TopicId, u32, QueueOffset, u64)> = Vec::new();
    let mut places = Vec::new();
    for (topic, queue, offset, ..) in messages {
        match rows.last_mut() {
            Some(row) if (row.0.0, row.1) == (*topic, *queue) => row.3 += 1,
            _ => rows.push((TopicId(*topic), *queue, QueueOffset(*offset), 1)),
        }
        places.push((rows.len() as u32 - 1, rows.last().unwrap().3 as u32 - 1));
    }
    let mut writer = LookupWriter::create(path, 0xabcd, checkpoint(), rows, run_max).unwrap();
    for (place, (_, _, _, position, time, id, keys)) in places.into_iter().zip(messages) {
        let terms = std::iter::once(Term::Id(id)).chain(keys.iter().map(|key| Term::Key(key)));
        writer.message(place, RecordPosition(*position), *time, terms).unwrap();
    }
    writer.finish().unwrap();
}

/// Everything that the file has for a term: position, queue, offset.
fn find(file: &LookupFile, topic: u32, term: Term<'_>, below: u64) -> Result<Vec<(u64, u32, u64)>, LookupFault> {
    let mut postings = file.postings(term.hash(TopicId(topic)), RecordPosition(below))?;
    let mut all = Vec::new();
    while let Some(found) = postings.next_found()? {
        assert_eq!(found.topic, TopicId(topic));
        all.push((found.position.0, found.queue, found.offset.0));
    }
    Ok(all)
}

/// The same from the messages, newest first.
fn expected(messages: &[Message], topic: u32, term: Term<'_>, below: u64) -> Vec<(u64, u32, u64)> {
    let fits = |(of, _, _, position, _, id, keys): &&Message| {
        let named = match term {
            Term::Id(wanted) => id == wanted,
            Term::Key(wanted) => keys.iter().any(|key| key == wanted),
        };
        *of == topic && named && *position < below
    };
    let found = messages.iter().filter(fits).map(|message| (message.3, message.1, message.2));
    found.collect::<BTreeSet<_>>().into_iter().rev().collect()
}

/// Two topics; ids that are used twice, and a committed half: older than its neighbours, by place and by time.
fn sample() -> Vec<Message> {
    let mut messages = Vec::new();
    for (topic, queue, first, count) in [(3, 0, 10, 300), (3, 2, 0, 5), (8, 0, 0, 40)] {
        for n in 0..count {
            let place = 64 + (n * 3 + u64::from(queue)) * 100 + u64::from(topic);
            let (position, time) = if n == 200 { (50, 1_000) } else { (place, 5_000 + n * 10) };
            let keys = vec![format!("order-{}", n % 7), format!("topic-{topic}")];
            messages.push((topic, queue, first + n, position, time, format!("id-{}", n % 150), keys));
        }
    }
    messages
}

fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lookup-v1")
}

#[test]
fn a_file_of_version_1_is_read_for_ever_and_equal_messages_make_equal_bytes() {
    let file = LookupFile::open(&fixture(), PART).unwrap();
    check_sample(&file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again");
    write(&path, &sample(), 256);
    assert!(fs::read(path).unwrap() == fs::read(fixture()).unwrap());
}

/// Every answer about the sample is right, or an error.
fn check_sample(file: &LookupFile) -> Result<(), LookupFault> {
    let messages = sample();
    assert!(file.is_of(0xabcd) && file.checkpoint() == checkpoint());
    for n in 0..152 {
        for (topic, below) in [(3, u64::MAX), (3, 50_000), (8, u64::MAX), (4, u64::MAX)] {
            for name in [format!("id-{n}"), format!("order-{n}"), format!("topic-{n}")] {
                for term in [Term::Id(&name), Term::Key(&name)] {
                    assert_eq!(find(file, topic, term, below)?, expected(&messages, topic, term, below));
                }
            }
        }
    }
    let rows: Vec<_> = file.rows_of(TopicId(3))?.iter().map(|row| (row.queue, row.first, row.end())).collect();
    assert_eq!(rows, [(0, QueueOffset(10), QueueOffset(310)), (2, QueueOffset(0), QueueOffset(5))]);
    assert_eq!(file.rows_of(TopicId(5))?, []);
    let row = file.rows_of(TopicId(3))?[0];
    for (since, first) in [(0, 10), (5_000, 10), (5_630, 10), (5_640, 74), (7_990, 266), (7_991, 310)] {
        assert_eq!(file.since(&row, since)?, QueueOffset(first)..QueueOffset(310), "since {since}");
    }
    assert_eq!(file.latest_ms(), 7_990);
    Ok(())
}

#[test]
fn damage_of_any_region_is_an_error_and_never_another_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let whole = fs::read(fixture()).unwrap();
    let mut seen = 0;
    for at in (0..whole.len()).step_by(307).chain((0..whole.len()).filter(|at| at % PAGE_LEN >= PAGE_LEN - 4)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        let looked = LookupFile::open(&path, PART).and_then(|file| check_sample(&file));
        assert!(looked.is_err(), "byte {at}");
        seen += 1;
    }
    assert!(seen > 150);
    for len in [0, 1, PAGE_LEN, whole.len() - PAGE_LEN, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(LookupFile::open(&path, PART).is_err(), "{len} bytes");
    }
    fs::write(&path, [&whole[..], &whole[..PAGE_LEN]].concat()).unwrap();
    assert!(LookupFile::open(&path, PART).is_err(), "a page too many");
    fs::write(&path, &whole).unwrap();
    assert!(LookupFile::open(&path, PART + 1).is_err(), "another part's");
    assert!(LookupFile::open(&folder.path().join("none"), PART).err().unwrap().is_missing());
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let message = (0..3u32, 0..3u32, 0..40u64, 0..60u64, 0..9u8, proptest::collection::vec(0..5u8, 0..4));
    proptest::collection::vec(message, 0..700).prop_map(|drawn| {
        let mut messages: Vec<Message> = drawn
            .into_iter()
            .enumerate()
            .map(|(n, (topic, queue, place, time, id, keys))| {
                // Positions are unique, and in no order.
                let position = 64 + place * 100_000 + n as u64;
                let keys = keys.into_iter().map(|key| format!("k{key}")).collect();
                (topic, queue, 0, position, time, format!("i{id}"), keys)
            })
            .collect();
        messages.sort_by_key(|message| (message.0, message.1));
        let mut next = (0, 0, 5);
        for message in &mut messages {
            let offset = if (next.0, next.1) == (message.0, message.1) { next.2 } else { 5 };
            message.2 = offset;
            next = (message.0, message.1, offset + 1);
        }
        messages
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_filed_is_found_newest_first_and_by_time(messages in messages(), run_max in 1..400usize, below in 0..7_000_000u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        write(&path, &messages, run_max);
        let file = LookupFile::open(&path, PART).unwrap();
        for topic in 0..4 {
            for below in [u64::MAX, below] {
                for n in 0..9 {
                    let (id, key) = (format!("i{n}"), format!("k{n}"));
                    for term in [Term::Id(&id), Term::Key(&key)] {
                        let mut found = find(&file, topic, term, below).unwrap();
                        // A key that a message names twice may lie in two runs.
                        found.dedup();
                        prop_assert_eq!(found, expected(&messages, topic, term, below));
                    }
                }
            }
            for row in file.rows_of(TopicId(topic)).unwrap() {
                let times: Vec<u64> = messages
                    .iter()
                    .filter(|message| (message.0, message.1) == (topic, row.queue))
                    .map(|message| message.4)
                    .collect();
                for since in [0, 1, 30, 59, 60] {
                    let first = times.iter().position(|time| *time >= since).map(|n| row.first.plus(n as u64));
                    let found = file.since(&row, since).unwrap();
                    prop_assert_eq!(found.end, row.end());
                    match first {
                        Some(first) => prop_assert!(found.start <= first && first < found.start.plus(SAMPLE_EVERY)),
                        None => prop_assert!(found.is_empty()),
                    }
                }
            }
        }
    }
}
