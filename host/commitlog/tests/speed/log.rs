//! The log, driven as the broker drives it: one thread appends what the writers that are not waiting want to store.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use vouch_commitlog::{
    Appender, CommitLog, Durable, Entry, EntryHeader, EntryKind, LogConfig, LogPosition, LogReader, Recovery,
};

use super::cpu;
use super::raw::Figure;

pub(super) const SEGMENT: u64 = 256 << 20;
pub(super) const SYNCS_IN_FLIGHT: usize = 2;
/// Most bytes of records in one entry, as a broker bounds its batches.
const MAX_BATCH: usize = 8 << 20;

pub(super) fn records(index: u64) -> EntryHeader {
    EntryHeader { term: 1, index, leader_time_ms: 0, kind: EntryKind::Records }
}

pub(super) type Opened = (Appender, LogReader, Recovery, Receiver<(Durable, Instant)>);

/// Opens a log; what becomes durable comes with the time when it was told.
pub(super) fn open(config: LogConfig, mut each: impl FnMut(Entry)) -> Opened {
    let (send, durable) = channel();
    let on_durable = Box::new(move |news| drop(send.send((news, Instant::now()))));
    let (appender, reader, recovery) = CommitLog::open(config, on_durable, &mut |entry| {
        each(entry);
        Ok::<(), Infallible>(())
    })
    .unwrap();
    (appender, reader, recovery, durable)
}

/// A log that is written to.
pub(super) struct Log {
    pub(super) appender: Appender,
    pub(super) reader: LogReader,
    durable: Receiver<(Durable, Instant)>,
    reached: LogPosition,
    index: u64,
}

impl Log {
    /// One in new files.
    pub(super) fn new(folder: &Path) -> Self {
        let config = LogConfig {
            segment_size: SEGMENT,
            syncs_in_flight: SYNCS_IN_FLIGHT,
            ..LogConfig::new(folder.join("log"), [1; 16], 0)
        };
        let (appender, reader, _, durable) = open(config, |_| ());
        Self { appender, reader, durable, reached: LogPosition(0), index: 0 }
    }

    /// One that goes on in files of released segments, as it does from then on if [`Self::release`] is called in time.
    pub(super) fn in_used_files(folder: &Path) -> Self {
        let mut log = Self::new(folder);
        // What is prepared ahead is of new files still: go beyond.
        while log.appender.appended().0 < 6 * SEGMENT {
            log.append(&vec![7; 1 << 20], 1);
            if log.appender.appended().0 % SEGMENT < 2 << 20 {
                log.release();
            }
        }
        log.release();
        log
    }

    /// Waits until all is durable, and releases what can be.
    pub(super) fn release(&mut self) {
        while self.reached < self.appender.appended() {
            self.wait();
        }
        self.appender.housekeeping().release_before(self.reached).unwrap();
    }

    /// Appends one entry with that many records.
    pub(super) fn append(&mut self, record: &[u8], count: usize) -> LogPosition {
        self.index += 1;
        self.appender.append(records(self.index), &vec![record; count]).unwrap().end
    }

    /// Waits for the next report; tells when it was made.
    pub(super) fn wait(&mut self) -> Instant {
        let (Durable::Up { to }, at) = self.durable.recv().unwrap() else { panic!("poisoned") };
        self.reached = to;
        at
    }

    /// Writers with one record outstanding each. Those whose records became durable write again at once; at most half
    /// of all in one go, so that two syncs can be in flight.
    pub(super) fn closed_loop(&mut self, writers: usize, record: usize, time: Duration, bytes: u64) -> Figure {
        let body = vec![7; record];
        let at_once = writers.div_ceil(SYNCS_IN_FLIGHT).min((MAX_BATCH / record).max(1));
        let (mut free, mut outstanding) = (writers, VecDeque::new());
        let (started, cpu_before, begin) = (Instant::now(), cpu(), self.appender.appended());
        let (mut groups, mut entries) = (0, 0);
        while started.elapsed() < time && self.appender.appended().0 - begin.0 < bytes {
            while free > 0 {
                let count = free.min(at_once);
                outstanding.push_back((self.append(&body, count), count));
                entries += 1;
                free -= count;
            }
            self.wait();
            groups += 1;
            while let Some((_, count)) = outstanding.pop_front_if(|(end, _)| *end <= self.reached) {
                free += count;
            }
        }
        while self.reached < self.appender.appended() {
            self.wait();
            groups += 1;
        }
        let bytes = self.appender.appended().0 - begin.0;
        let in_flight = groups as f64 * writers.div_ceil(at_once) as f64 / f64::from(entries);
        let in_flight = in_flight.clamp(1.0, SYNCS_IN_FLIGHT as f64);
        Figure { groups, bytes, in_flight, took: started.elapsed(), cpu: cpu() - cpu_before }
    }

    /// Entries at a fixed rate, whether or not those before are durable; gives the time from when each was due.
    pub(super) fn open_loop(&mut self, record: usize, every: Duration, count: u32) -> Vec<Duration> {
        let (body, started) = (vec![7; record], Instant::now() + every);
        let (mut latencies, mut outstanding, mut next) = (Vec::new(), VecDeque::new(), 0);
        while latencies.len() < count as usize {
            let due = started + every * next;
            let news = match next < count {
                true => self.durable.recv_timeout(due.saturating_duration_since(Instant::now())).ok(),
                false => self.durable.recv().ok(),
            };
            if let Some((Durable::Up { to }, at)) = news {
                self.reached = to;
                while let Some((_, due)) = outstanding.pop_front_if(|(end, _)| *end <= to) {
                    latencies.push(at.saturating_duration_since(due));
                }
            }
            while next < count && started + every * next <= Instant::now() {
                outstanding.push_back((self.append(&body, 1), started + every * next));
                next += 1;
            }
        }
        latencies
    }
}
