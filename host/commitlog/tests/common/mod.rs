//! A log on a real folder, for the suites beside this folder.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "helpers of tests, not all used by each"
)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use vouch_commitlog::{
    Appender, CommitLog, Durable, Entry, EntryHeader, EntryKind, LogConfig, LogPosition, LogReader, OpenError, Recovery,
};

pub const CLUSTER: [u8; 16] = *b"cluster-of-tests";
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Open {
    pub appender: Appender,
    pub reader: LogReader,
    pub recovery: Recovery,
    pub durable: Receiver<Durable>,
    pub entries: Vec<Entry>,
}

pub fn config(directory: &Path) -> LogConfig {
    LogConfig { segment_size: 4 << 20, zero_ahead: 1 << 20, ..LogConfig::new(directory, CLUSTER, 0) }
}

pub fn open(config: LogConfig) -> Result<Open, OpenError> {
    let (send, durable) = channel();
    let mut entries = Vec::new();
    let on_durable = Box::new(move |news| drop(send.send(news)));
    let (appender, reader, recovery) = CommitLog::open(config, on_durable, &mut |entry| {
        entries.push(entry);
        Ok::<(), Infallible>(())
    })?;
    Ok(Open { appender, reader, recovery, durable, entries })
}

pub fn records(index: u64) -> EntryHeader {
    EntryHeader { term: 1, index, leader_time_ms: 1_700_000_000_000 + index, kind: EntryKind::Records }
}

/// As whoever leads stops: with a mark behind the last entry, whose index was `index`.
pub fn close(mut appender: Appender, index: u64) {
    while appender.durable() < appender.appended() {
        appender.sync_here().unwrap();
        std::thread::yield_now();
    }
    appender.append(EntryHeader { kind: EntryKind::Mark, ..records(index + 1) }, &[]).unwrap();
    assert!(appender.is_covered());
    appender.close().unwrap();
}

pub fn wait_durable(durable: &Receiver<Durable>, end: LogPosition) {
    loop {
        match durable.recv_timeout(PATIENCE).expect("the log reports durability") {
            Durable::Up { to } if to >= end => return,
            Durable::Up { .. } => {}
            Durable::Poisoned(report) => panic!("{report}"),
        }
    }
}

pub fn body(index: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (index as usize * 31 + at * 7) as u8).collect()
}

pub fn first_segment(folder: &Path) -> PathBuf {
    folder.join("00000000000000000000.log")
}

/// A log with two groups of which only the first is covered by a mark; gives the start and end of the second.
pub fn two_groups(folder: &Path) -> (LogPosition, LogPosition) {
    let mut log = open(config(folder)).unwrap();
    let first = log.appender.append(records(1), &[&body(1, 1000)]).unwrap();
    wait_durable(&log.durable, first.end);
    let second = log.appender.append(records(2), &[&body(2, 1000)]).unwrap();
    wait_durable(&log.durable, second.end);
    (second.position, second.end)
}

/// Fills three segments; gives their files.
pub fn three_segments(folder: &Path) -> Vec<PathBuf> {
    let mut log = open(config(folder)).unwrap();
    while log.appender.appended() < LogPosition(9 << 20) {
        let end = log.appender.append(records(1), &[&body(1, 600_000)]).unwrap().end;
        wait_durable(&log.durable, end);
    }
    close(log.appender, 1);
    [0, 4 << 20, 8 << 20].map(|start: u64| folder.join(format!("{start:020}.log"))).to_vec()
}
