//! The log on a real folder, with its threads.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use vouch_commitlog::{
    Appender, CommitLog, Durable, Entry, EntryHeader, EntryKind, LogConfig, LogPosition, LogReader, OpenError, Recovery,
};

const CLUSTER: [u8; 16] = *b"cluster-of-tests";
const PATIENCE: Duration = Duration::from_secs(30);

struct Open {
    appender: Appender,
    reader: LogReader,
    recovery: Recovery,
    durable: Receiver<Durable>,
    entries: Vec<Entry>,
}

fn config(directory: &std::path::Path) -> LogConfig {
    LogConfig { segment_size: 4 << 20, zero_ahead: 1 << 20, ..LogConfig::new(directory, CLUSTER) }
}

fn open(config: LogConfig) -> Result<Open, OpenError> {
    let (send, durable) = channel();
    let mut entries = Vec::new();
    let on_durable = Box::new(move |news| drop(send.send(news)));
    let (appender, reader, recovery) = CommitLog::open(config, on_durable, &mut |entry| {
        entries.push(entry);
        Ok::<(), Infallible>(())
    })?;
    Ok(Open { appender, reader, recovery, durable, entries })
}

fn records(index: u64) -> EntryHeader {
    EntryHeader { term: 1, index, leader_time_ms: 1_700_000_000_000 + index, kind: EntryKind::Records }
}

fn wait_durable(durable: &Receiver<Durable>, end: LogPosition) {
    loop {
        match durable.recv_timeout(PATIENCE).expect("the log reports durability") {
            Durable::Up { to } if to >= end => return,
            Durable::Up { .. } => {}
            Durable::Poisoned(report) => panic!("{report}"),
        }
    }
}

fn body(index: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (index as usize * 31 + at * 7) as u8).collect()
}

#[test]
fn entries_survive_a_clean_stop_over_several_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    assert!(log.entries.is_empty() && log.recovery.clean && log.recovery.cut.is_none());
    let mut placed = Vec::new();
    for index in 1..=40 {
        let payload = body(index, 300_000 + index as usize);
        let (head, rest) = payload.split_at(1000);
        let expected = log.appender.next_payload_position(payload.len());
        let appended = log.appender.append(records(index), &[head, rest]).unwrap();
        assert_eq!(appended.payload_position, expected);
        assert_eq!(log.reader.read(appended.payload_position, payload.len()).unwrap(), payload);
        placed.push(appended);
    }
    wait_durable(&log.durable, placed[39].end);
    assert!(log.appender.appended() > LogPosition(2 * (4 << 20)));
    log.appender.close().unwrap();

    let log = open(config(folder.path())).unwrap();
    assert!(log.recovery.clean, "{:?}", log.recovery);
    assert_eq!(log.recovery.entries, 41);
    assert_eq!((log.recovery.last_index, log.recovery.last_term), (40, 1));
    assert_eq!(log.entries[40].kind, EntryKind::Mark);
    for (entry, (index, placed)) in log.entries.iter().zip((1..).zip(&placed)) {
        assert_eq!(
            (entry.position, entry.payload_position, entry.end),
            (placed.position, placed.payload_position, placed.end)
        );
        assert_eq!(entry.index, index);
        assert_eq!(entry.payload, body(index, 300_000 + index as usize));
    }
    let read: Vec<Entry> = log.reader.entries_from(LogPosition(0)).map(Result::unwrap).collect();
    assert_eq!(read, log.entries);
}
