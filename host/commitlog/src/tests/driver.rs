//! Runs a log on the simulated disk, one step at a time and without threads, so that a seed decides everything:
//! in particular which sync begins, ends and is counted when.

use crate::simulated::{self, DiskEvent, Image, Rng, SimDisk, Steps};
use crate::{
    AppendError, AppendSpanError, Appended, Appender, Checkpoint, CutError, Entry, EntryHeader, EntryKind, EntrySpan,
    LogConfig, LogPosition, LogReader, OpenError, Recovery, Settles, UnfinishedCut,
};

pub(super) const SEGMENT: u64 = 16 << 10;

pub(super) fn config() -> LogConfig {
    LogConfig {
        segment_size: SEGMENT,
        zero_ahead: 4 << 10,
        shard: 3,
        syncs_in_flight: 3,
        ..LogConfig::new("sim", *b"cluster-of-tests", 3)
    }
}

/// That of a replica: what is durable may be cut off until the caller says otherwise, and marks prove nothing.
pub(super) fn replica() -> LogConfig {
    LogConfig { marks_prove: false, settles: Settles::ByCaller { from: LogPosition(0) }, ..config() }
}

/// A log that is open on a simulated disk, and what it handed over.
pub(super) struct Opened {
    pub(super) disk: SimDisk,
    pub(super) appender: Appender,
    pub(super) reader: LogReader,
    pub(super) recovery: Recovery,
    pub(super) entries: Vec<Entry>,
}

pub(super) fn open(image: Image) -> Result<Opened, OpenError> {
    open_disk(SimDisk::new(image), &config())
}

pub(super) fn open_disk(disk: SimDisk, config: &LogConfig) -> Result<Opened, OpenError> {
    let mut entries = Vec::new();
    let (appender, reader, recovery) = simulated::open(&disk, config, drop, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(Opened { disk, appender, reader, recovery, entries })
}

/// An entry that was given to the log, and how many events had happened when it was written.
#[derive(Clone)]
pub(super) struct Submitted {
    pub(super) entry: Entry,
    pub(super) checkpoint: Checkpoint,
    pub(super) written_at: usize,
}

/// A cut of the log's end.
pub(super) struct CutDone {
    /// How many events had happened when it was noted, and when the note was taken back.
    pub(super) began: usize,
    pub(super) ended: usize,
    pub(super) note: UnfinishedCut,
    /// What there was before it.
    pub(super) before: Vec<Submitted>,
}

pub(super) struct Run {
    pub(super) log: Opened,
    pub(super) rng: Rng,
    pub(super) submitted: Vec<Submitted>,
    pub(super) cuts: Vec<CutDone>,
    pub(super) config: LogConfig,
    /// How many events had happened when it was open.
    pub(super) opened_at: usize,
    steps: Steps,
}

impl Run {
    pub(super) fn new(image: Image, rng: Rng) -> Self {
        Self::with(SimDisk::new(image), &config(), rng)
    }

    pub(super) fn with(disk: SimDisk, config: &LogConfig, rng: Rng) -> Self {
        let log = open_disk(disk, config).unwrap();
        let steps = Steps::new(config.syncs_in_flight);
        let checkpoint = |entry: &Entry| log.reader.checkpoint_at(entry.position).unwrap();
        let at = |entry: &Entry| Submitted { entry: entry.clone(), checkpoint: checkpoint(entry), written_at: 0 };
        let submitted = log.entries.iter().map(at).collect();
        let opened_at = log.disk.events();
        Self { log, rng, submitted, steps, cuts: Vec::new(), config: config.clone(), opened_at }
    }

    /// The next entry's header and payload: a function of its number alone, so that a lost entry that is appended
    /// again has the same bytes.
    pub(super) fn append(&mut self, kind: EntryKind, len: usize) -> Result<(), AppendError> {
        self.append_in(0, kind, len)
    }

    /// The same for one of several leaders: each writes other bytes.
    pub(super) fn append_in(&mut self, leader: u64, kind: EntryKind, len: usize) -> Result<(), AppendError> {
        let number = self.submitted.last().map_or(1, |last| last.entry.index + 1);
        let first = leader * 53 + number * 37;
        let payload: Vec<u8> = (0..len as u64).map(|at| (first + at * 11 + at / 256) as u8 | 1).collect();
        let header = EntryHeader { term: 1 + leader + number / 50, index: number, leader_time_ms: 1_000_000, kind };
        let (one, two) = payload.split_at(len / 3);
        let appended = self.log.appender.append(header, &[one, two])?;
        let entry = Entry {
            position: appended.position,
            payload_position: appended.payload_position,
            end: appended.end,
            term: header.term,
            index: header.index,
            leader_time_ms: header.leader_time_ms,
            kind,
            payload: payload.into(),
        };
        self.submit(entry, appended);
        Ok(())
    }

    /// What another replica sent.
    pub(super) fn append_span(&mut self, span: &EntrySpan) -> Result<(), AppendSpanError> {
        let appended = self.log.appender.append_span(span)?;
        self.submit(span.entry(), appended);
        Ok(())
    }

    fn submit(&mut self, entry: Entry, appended: Appended) {
        let (checkpoint, written_at) = (appended.checkpoint, self.log.disk.events());
        assert_eq!((entry.position, entry.end), (appended.position, appended.end));
        self.submitted.push(Submitted { entry, checkpoint, written_at });
    }

    /// Cuts off all but the first `kept` entries that are there, at least one, as a caller does who notes it.
    pub(super) fn cut(&mut self, kept: usize) -> Result<(), CutError> {
        let last = self.submitted[kept - 1].checkpoint;
        let note = UnfinishedCut { to: last.end, end: self.log.appender.appended() };
        self.log.disk.record(DiskEvent::Cut { to: last.end.0 });
        let began = self.log.disk.events();
        self.log.appender.cut(&last)?;
        self.log.disk.record(DiskEvent::Cut { to: last.end.0 });
        let before = self.submitted.clone();
        self.submitted.truncate(kept);
        self.cuts.push(CutDone { began, ended: self.log.disk.events(), note, before });
        Ok(())
    }

    /// A length that is usually small, sometimes large, and sometimes ends a segment to the byte.
    pub(super) fn length(&mut self) -> usize {
        let left = (SEGMENT - self.log.appender.appended().0 % SEGMENT) as usize;
        match self.rng.below(12) {
            0 if (64..=12_000).contains(&left) => left - 64,
            1 => self.rng.below(5000) as usize,
            2 => 0,
            _ => self.rng.below(600) as usize,
        }
    }

    /// Does one random thing.
    pub(super) fn step(&mut self) -> Result<(), AppendError> {
        match self.rng.below(10) {
            0..=3 => {
                let len = self.length();
                self.append(EntryKind::Records, len)?;
            }
            4 if self.rng.chance(4) => self.append(EntryKind::Mark, 0)?,
            5 => self.fill(),
            6 if self.rng.chance(3) => drop(self.log.appender.sync_here()?),
            6 => self.release(),
            _ => {
                let slot = self.rng.below(self.steps.slots() as u64) as usize;
                self.step_sync(slot);
            }
        }
        Ok(())
    }

    /// Does one random thing that only a replica of a group does: what others wrote comes, what is committed settles,
    /// and what is not is cut off.
    pub(super) fn step_of_a_replica(&mut self) {
        match self.rng.below(8) {
            0 if self.submitted.len() > 1 => {
                let kept = self.submitted.len() - self.rng.below(self.submitted.len().min(12) as u64) as usize;
                if self.submitted[kept - 1].entry.end >= self.log.reader.settled() {
                    self.cut(kept).unwrap();
                }
            }
            1..=3 => {
                let spans = self.of_another_leader();
                for span in spans {
                    self.append_span(&span).unwrap();
                }
            }
            4 => {
                let durable = self.log.appender.durable().0;
                let settled = self.log.reader.settled().0;
                let committed = settled + self.rng.below(durable.saturating_sub(settled) / 2 + 1);
                self.log.appender.settle(LogPosition(committed));
            }
            _ => self.step().unwrap(),
        }
    }

    /// What a leader sends that has the same log up to here, and goes on with bytes of its own.
    fn of_another_leader(&mut self) -> Vec<EntrySpan> {
        let disk = self.log.disk.fork(self.log.disk.events());
        let mut leader = Self::with(disk, &replica(), Rng::new(self.rng.next()));
        let own = leader.submitted.len();
        let mut begins = leader.log.appender.appended();
        for _ in 0..1 + leader.rng.below(4) {
            let len = leader.length();
            leader.append_in(1 + self.rng.below(3), EntryKind::Records, len).unwrap();
        }
        let ends = leader.submitted[own..].iter().map(|submitted| submitted.entry.end);
        ends.map(|end| leader.log.reader.span(std::mem::replace(&mut begins, end), end).unwrap()).collect()
    }

    /// What had been given to the log and not been cut off when so many events had happened, and the note of a cut that
    /// was under way.
    pub(super) fn history(&self, events: usize) -> (&[Submitted], Option<UnfinishedCut>) {
        let under_way = self.cuts.iter().find(|cut| cut.began <= events && events < cut.ended).map(|cut| cut.note);
        let later = self.cuts.iter().find(|cut| events < cut.began);
        let there = later.map_or(&self.submitted, |cut| &cut.before);
        // What was cut off then, or is being cut off, is in no list of a later time.
        let kept = under_way
            .map_or(usize::MAX, |note| there.iter().take_while(|submitted| submitted.entry.end <= note.to).count());
        (&there[..kept.min(there.len())], under_way)
    }

    /// Releases what a snapshot that ends with some durable entry does not need. What the log says about it is
    /// recorded; where it refuses, it is poisoned.
    fn release(&mut self) {
        let durable = self.log.appender.durable();
        let durable = self.submitted.iter().filter(|submitted| submitted.entry.end <= durable).count();
        if durable == 0 {
            return;
        }
        // A reader may look at any entry meanwhile.
        let read = self.rng.below(durable as u64) as usize;
        let held = self.rng.chance(3).then(|| self.log.reader.entry_at(self.submitted[read].entry.position));
        let before = self.submitted[self.rng.below(durable as u64) as usize].entry.position;
        self.log.disk.record(DiskEvent::ReleaseAsked { before: before.0 });
        if let Ok(released) = self.log.appender.housekeeping().release_before(before) {
            assert_eq!(released.start, self.log.reader.start());
            self.log.disk.record(DiskEvent::Released { start: released.start.0 });
        }
        drop(held);
    }

    /// One step of what the filling thread does.
    pub(super) fn fill(&mut self) {
        Steps::fill(&self.log.appender);
    }

    /// Takes the sync of a slot one step on: begin, run, complete.
    pub(super) fn step_sync(&mut self, slot: usize) {
        self.steps.sync(&self.log.appender, slot);
    }

    /// Makes everything durable.
    pub(super) fn settle(&mut self) {
        self.steps.settle(&self.log.appender);
        assert_eq!(self.log.appender.durable(), self.log.appender.appended());
    }

    /// An orderly stop; gives what is on the disk.
    pub(super) fn close(mut self) -> Image {
        self.settle();
        if self.log.appender.durable() > LogPosition(0) {
            self.append(EntryKind::Mark, 0).unwrap();
            self.settle();
        }
        let events = self.log.disk.events();
        self.log.disk.after_power_cut(events, simulated::PowerLoss::All, &mut self.rng)
    }
}
