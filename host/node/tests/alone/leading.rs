//! What a node writes of its own: its start is a proposal like all others, and so are the marks of a log that is idle and of
//! one that closes (rulings 17 and 29).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{config, message, receive_now, send, topic};
use vouch_broker::record::{Frame, Record};
use vouch_commitlog::{
    CommitLog, Durable, Entry, EntryHeader, EntryKind, LogConfig, LogFolder, LogPosition, MARK_AFTER,
};
use vouch_node::Node;

const SEGMENT_HEADER: usize = 4096;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn log_dir(data: &Path) -> PathBuf {
    data.join("shards/0/log")
}

/// All that the log of a stopped node holds.
fn entries(data: &Path) -> Vec<Entry> {
    let log = LogFolder::open(&log_dir(data)).unwrap();
    log.entries(LogPosition(0), LogPosition::BEYOND).unwrap().map(Result::unwrap).collect()
}

fn records(entry: &Entry) -> Vec<Record> {
    let (mut records, mut rest) = (Vec::new(), &entry.payload[..]);
    while !rest.is_empty() {
        let (frame, behind) = Frame::split(rest).unwrap();
        records.push(Record::decode(&frame).unwrap());
        rest = behind;
    }
    records
}

/// Each entry has the next index, marks as well; each of so many leaders began a later term with an entry that holds nothing.
fn assert_leaders(entries: &[Entry], leaders: u64) {
    let indexes: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, (1..=entries.len() as u64).collect::<Vec<_>>());
    let begins = |term| entries.iter().find(|entry| entry.term == term).unwrap();
    assert!(entries.is_sorted_by_key(|entry| entry.term));
    for term in 1..=leaders {
        assert!(begins(term).kind == EntryKind::Records && begins(term).payload.is_empty(), "term {term}");
    }
    assert_eq!(entries.last().unwrap().term, leaders);
    assert!(entries.is_sorted_by_key(|entry| entry.leader_time_ms));
}

/// Up to where everything was durable when the last entry was written, and where that is.
fn last_mark(data: &Path) -> (LogPosition, LogPosition) {
    let last = entries(data).pop().unwrap();
    assert_eq!(last.kind, EntryKind::Mark);
    (LogFolder::open(&log_dir(data)).unwrap().segments().unwrap().pop().unwrap().durable_mark, last.position)
}

/// Puts an entry behind the log of a stopped node, as another program left it.
fn append(data: &Path, header: impl FnOnce(u64) -> EntryHeader) {
    let identity = LogFolder::open(&log_dir(data)).unwrap().identity();
    let config = LogConfig {
        segment_size: identity.segment_size,
        ..LogConfig::new(log_dir(data), identity.cluster_id, identity.shard)
    };
    let on_durable = Box::new(|_: Durable| ());
    let (mut log, _, recovery) = CommitLog::open(config, on_durable, &mut |_| Ok::<(), String>(())).unwrap();
    log.append(header(recovery.last_index), &[]).unwrap();
    log.close().unwrap();
}

#[tokio::test]
async fn a_log_begins_with_whose_it_is_and_each_start_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 1..=3 {
        let before = if fs::exists(log_dir(folder.path())).unwrap() { entries(folder.path()) } else { Vec::new() };
        let node = Node::start(config(folder.path())).unwrap();
        let status = node.status.numbers().await.unwrap();
        node.stop().await;
        let said = &entries(folder.path())[before.len()];
        assert!(said.kind == EntryKind::Records && said.end <= status.durable.min(status.applied), "{status:?}");
    }
    let entries = entries(folder.path());
    assert_leaders(&entries, 3);
    let said: Vec<_> = entries.iter().filter(|entry| !entry.payload.is_empty()).collect();
    let first = records(said[0]);
    assert!(matches!(&first[..], [Record::ClusterInit(_), Record::NodeStarted(_)]), "{first:?}");
    let starts: Vec<_> = said[1..].iter().map(|entry| records(entry)).collect();
    assert_eq!(starts.len(), 2);
    assert!(starts.iter().all(|records| matches!(records[..], [Record::NodeStarted(_)])), "{starts:?}");
}

#[tokio::test]
async fn an_idle_log_gets_one_mark_and_one_that_closes_gets_one_if_it_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(config(folder.path())).unwrap();
    let began = Instant::now();
    while entries(folder.path()).len() < 3 {
        assert!(began.elapsed() < PATIENCE, "the idle log gets no mark");
        tokio::time::sleep(MARK_AFTER).await;
    }
    tokio::time::sleep(3 * MARK_AFTER).await;
    node.stop().await;
    let kinds = |entries: &[Entry]| entries.iter().map(|entry| entry.kind).collect::<Vec<_>>();
    let expected = [EntryKind::Records, EntryKind::Records, EntryKind::Mark];
    assert_eq!(kinds(&entries(folder.path())), expected, "the idle log's covers the end");

    let node = Node::start(config(folder.path())).unwrap();
    topic(&node, "t", "{}").await;
    for n in 0..20 {
        send(&node, "t", message(&format!("m{n}"), "body")).await;
    }
    node.stop().await;
    let (durable, mark) = last_mark(folder.path());
    assert_eq!(durable, mark, "the mark of the end covers all that was acknowledged");
    let entries = entries(folder.path());
    assert_leaders(&entries, 2);
    assert_eq!(kinds(&entries[..5])[3..], [EntryKind::Records; 2]);
}

/// What an earlier program left, whose log wrote the mark of its end by itself and repeated the index before it; and a log
/// that another leader wrote before.
#[tokio::test]
async fn a_log_goes_on_behind_marks_of_earlier_programs_and_in_a_later_term() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(config(folder.path())).unwrap();
    topic(&node, "t", "{}").await;
    send(&node, "t", message("kept", "body")).await;
    node.stop().await;
    for (number, term) in [1, 1, 7].into_iter().enumerate() {
        append(folder.path(), |index| EntryHeader { term, index, leader_time_ms: 5, kind: EntryKind::Mark });
        let before = entries(folder.path());
        let node = Node::start(config(folder.path())).unwrap();
        assert_eq!(receive_now(&node, "t", &format!("g{number}")).await.len(), 1);
        node.stop().await;
        let entries = entries(folder.path());
        let last = before.last().unwrap();
        for (entry, index) in entries[before.len()..].iter().zip(last.index + 1..) {
            assert_eq!((entry.term, entry.index), (entries[before.len()].term, index));
        }
        let highest = before.iter().map(|entry| entry.term).max().unwrap();
        assert!(entries[before.len()].term > highest, "terms never sink, whoever wrote meanwhile");
        assert!(entries.len() > before.len() + 1 && entries.last().unwrap().kind == EntryKind::Mark);
    }
}

/// The log's folder after a first start that was killed before its first records were durable, or before anybody noted that
/// they are. Each time the next start goes on with the same identity, and a message is stored and found.
#[tokio::test]
async fn a_first_start_that_is_killed_anywhere_before_its_first_records_are_durable_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let node = Node::start(config(&made)).unwrap();
    node.stop().await;
    // What the term begins with, and what a log begins with.
    let first = entries(&made)[1].clone();
    let segment = format!("shards/0/log/{:020}.log", 0);
    let whole = fs::read(made.join(&segment)).unwrap();
    let (begin, end) = (first.position.0 as usize, first.end.0 as usize);
    assert_eq!(begin, SEGMENT_HEADER + 64);
    let written = |to: usize| -> Vec<u8> {
        whole[..to].iter().copied().chain(std::iter::repeat_n(0, whole.len() - to)).collect()
    };
    let mut states = vec![
        ("a file without a size", Vec::new()),
        ("a file without a header", written(0)),
        ("half a header", written(SEGMENT_HEADER / 2)),
        ("no entry", written(SEGMENT_HEADER)),
        ("a torn entry of a term's beginning", written(SEGMENT_HEADER + 40)),
        ("no more than a term's beginning", written(begin)),
        ("all of the first records", written(end)),
    ];
    for to in [begin + 1, begin + 63, begin + 64, begin + 100, end - 8, end - 1] {
        states.push(("a torn first entry", written(to)));
    }
    let mut lost = written(end);
    lost[begin..begin + 512].fill(0);
    states.push(("the end of the first entry only", lost));
    for (what, bytes) in states {
        let data = folder.path().join("data");
        fs::create_dir_all(log_dir(&data)).unwrap();
        fs::create_dir_all(data.join("shards/0/snapshots")).unwrap();
        fs::copy(made.join("identity.json"), data.join("identity.part")).unwrap();
        fs::write(data.join(&segment), &bytes).unwrap();
        let node = Node::start(config(&data)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(data.join("identity.json").exists() && !data.join("identity.part").exists(), "{what}");
        assert_eq!(fs::read(data.join("identity.json")).unwrap(), fs::read(made.join("identity.json")).unwrap());
        topic(&node, "t", "{}").await;
        send(&node, "t", message("m", "body")).await;
        assert_eq!(receive_now(&node, "t", "g").await.len(), 1, "{what}");
        node.stop().await;
        let entries = entries(&data);
        let leaders = entries.last().unwrap().term;
        assert!(leaders <= 2, "{what}");
        assert_leaders(&entries, leaders);
        let inits = entries.iter().flat_map(records).filter(|record| matches!(record, Record::ClusterInit(_)));
        assert_eq!(inits.count(), 1, "{what}: a log is given its identity once");
        fs::remove_dir_all(&data).unwrap();
    }
}
