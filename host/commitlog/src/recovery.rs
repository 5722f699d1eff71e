//! From the files of a stopped log to its certain content: one pass over the entries, then the question of ruling 17,
//! *tail or damage*, then the cut.

mod checkpoint;
mod cut;
mod headers;
mod leftover;
mod unfinished;

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use self::headers::FoundSegment;
use self::leftover::Remains;
use crate::appender::Tail;
use crate::disk::Mapping;
use crate::factory::SegmentFactory;
use crate::format::{
    ENTRY_HEADER_LEN, EntryFault, EntryKind, StoredHeader, StoredKind, checksum_seed, padded, verify_entry,
};
use crate::horizon;
use crate::reader::Entry;
use crate::segment::{WriteSegment, file_name};
use crate::{Checkpoint, Cut, LogConfig, LogPosition, OpenError};

/// Bytes asked for at once while scanning, and how far ahead of the scan.
const READ_STEP: u64 = 4 << 20;
const READ_AHEAD: u64 = 32 << 20;

/// What an open found and did (RC-10).
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Entries that were handed over, marks included.
    pub entries: u64,
    /// First position of the log: 0 unless older segments were removed.
    pub start: LogPosition,
    /// Where the next entry goes; everything before is durable.
    pub end: LogPosition,
    /// Index of the last entry; 0 in an empty log.
    pub last_index: u64,
    /// Term of the last entry; 0 in an empty log.
    pub last_term: u64,
    /// Leader time of the last entry, milliseconds since 1970; 0 in an empty log.
    pub last_leader_time_ms: u64,
    /// The torn tail that was cut, if there was one.
    pub cut: Option<Cut>,
    /// Whether the log ended with a mark that covers all before it, as that of a leader who stopped in good order does.
    pub clean: bool,
    /// The last entry, marks included: what a snapshot of everything that was handed over covers. `None` in an empty
    /// log.
    pub checkpoint: Option<Checkpoint>,
    /// Bytes of entries that were read and verified: without [`LogConfig::checkpoint`] all of the log, with it only
    /// what follows.
    pub scanned_bytes: u64,
    /// Bytes of prepared space behind the end that were searched for what a power cut left.
    pub searched_bytes: u64,
    /// How long all of it took.
    pub duration: Duration,
}

/// Takes an entry while the log is being recovered.
pub(crate) type OnEntry<'a> = dyn FnMut(Entry) -> Result<(), Box<dyn Error + Send + Sync>> + 'a;

/// What recovery leaves to go on with.
pub(crate) struct Recovered {
    pub(crate) segment: Arc<WriteSegment>,
    /// Start of the first segment, and the mappings of all.
    pub(crate) start: u64,
    pub(crate) mappings: Vec<Arc<dyn Mapping>>,
    pub(crate) tail: Tail,
    /// How far the last segment is known to be prepared.
    pub(crate) prepared_to: u64,
    pub(crate) report: Recovery,
}

/// Recovers the log of `config` on the factory's disk.
pub(crate) fn recover(
    factory: &SegmentFactory,
    config: &LogConfig,
    on_entry: &mut OnEntry<'_>,
) -> Result<Recovered, OpenError> {
    let started = Instant::now();
    let mut recovery = Scan::begin(factory, config)?;
    recovery.finish_cut()?;
    recovery.walk(on_entry)?;
    let remains = recovery.look_behind_the_end()?;
    recovery.refuse_damage(&remains)?;
    #[cfg(any(test, feature = "simulated-disk"))]
    if crate::bugs::CUT_NOT_SYNCED.injected() {
        recovery.sync_what_was_read()?;
        recovery.cut(&remains)?;
        return recovery.finish(&remains, started);
    }
    recovery.cut(&remains)?;
    recovery.sync_what_was_read()?;
    recovery.finish(&remains, started)
}

/// Why and where the chain of sound entries ends.
struct ChainEnd {
    fault: EntryFault,
    /// The end is the end of a segment that a filler closed: the next one must exist.
    after_filler: bool,
}

struct Scan<'a> {
    factory: &'a SegmentFactory,
    config: &'a LogConfig,
    seed: u32,
    /// Nothing in a recycled segment was written from here on; `None` where nothing is known.
    horizon: Option<u64>,
    found: Vec<FoundSegment>,
    /// Index in `found` of the segment in which `tail.end` lies.
    at: usize,
    tail: Tail,
    /// The chain's checksum is known: not at the first entry of a log whose head was removed.
    chained: bool,
    last_kind: Option<(EntryKind, bool)>,
    /// Memory of the last payload that was handed over, if nobody kept it.
    copy: BytesMut,
    end: ChainEnd,
    report: Recovery,
}

impl<'a> Scan<'a> {
    fn begin(factory: &'a SegmentFactory, config: &'a LogConfig) -> Result<Self, OpenError> {
        let seed = checksum_seed(&config.cluster_id, config.shard);
        let mut scan = Self {
            factory,
            config,
            seed,
            horizon: horizon::read(&*factory.disk, seed),
            found: Vec::new(),
            at: 0,
            tail: Tail { end: 0, previous: 0, term: 0, index: 0, leader_time_ms: 0, mark: 0, records_end: 0 },
            chained: false,
            last_kind: None,
            copy: BytesMut::new(),
            end: ChainEnd { fault: EntryFault::Nothing, after_filler: false },
            report: Recovery {
                entries: 0,
                start: LogPosition(0),
                end: LogPosition(0),
                last_index: 0,
                last_term: 0,
                last_leader_time_ms: 0,
                cut: None,
                clean: true,
                checkpoint: None,
                scanned_bytes: 0,
                searched_bytes: 0,
                duration: Duration::ZERO,
            },
        };
        scan.find_segments()?;
        Ok(scan)
    }

    fn path(&self, start: u64) -> PathBuf {
        self.factory.disk.path(&file_name(start))
    }

    fn io(&self, action: &'static str, start: u64) -> impl FnOnce(io::Error) -> OpenError + use<> {
        let file = self.path(start);
        move |source| OpenError::Io { action, file, source }
    }

    /// The pass: verifies every entry behind the checkpoint and hands it over.
    ///
    /// An entry may be handed over at once, because no later finding takes it back: a cut begins at the first entry
    /// that is not sound, and everything before that is kept. Only the whole open may still be refused.
    fn walk(&mut self, on_entry: &mut OnEntry<'_>) -> Result<(), OpenError> {
        if !self.begin_walk()? {
            return Ok(());
        }
        loop {
            self.walk_segment(on_entry)?;
            let full = self.tail.end == self.found[self.at].start + self.config.segment_size;
            match self.found.get(self.at + 1) {
                Some(next) if full && next.sound => {
                    self.tail.end = self.factory.first_entry(next.start);
                    self.at += 1;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Walks one segment up to its end or to the first entry that is not sound.
    fn walk_segment(&mut self, on_entry: &mut OnEntry<'_>) -> Result<(), OpenError> {
        let segment_start = self.found[self.at].start;
        let segment_end = segment_start + self.config.segment_size;
        let mut ahead = ReadAhead { asked: self.tail.end - segment_start, populated: self.tail.end - segment_start };
        self.end.after_filler = false;
        while self.tail.end < segment_end {
            match self.check(&mut ahead, segment_start)? {
                Ok((header, crc, payload)) => self.take(&header, crc, payload, on_entry)?,
                Err(fault) => {
                    self.end = ChainEnd { fault, after_filler: false };
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Checks the entry at the end of the chain so far. A sound header of an unknown version or kind refuses the open.
    ///
    /// The payload is a copy: whether the entry was durable, or somebody's to cut off, is not known before a later one says
    /// so (ruling 28).
    #[allow(clippy::type_complexity, reason = "an I/O error is not a fault of the entry")]
    fn check(
        &mut self,
        ahead: &mut ReadAhead,
        segment_start: u64,
    ) -> Result<Result<(StoredHeader, u32, Bytes), EntryFault>, OpenError> {
        let found = &self.found[self.at];
        let offset = self.tail.end - segment_start;
        if offset + ENTRY_HEADER_LEN > found.size {
            return Ok(Err(EntryFault::Header));
        }
        ahead.to(found, offset + ENTRY_HEADER_LEN).map_err(self.io("read", segment_start))?;
        let mut bytes = [0; ENTRY_HEADER_LEN as usize];
        found.mapping.copy(offset, &mut bytes);
        let header = match StoredHeader::decode(self.seed, &bytes, self.tail.end) {
            Ok(header) => header,
            Err(EntryFault::Version(version)) => {
                return Err(OpenError::UnknownFormat { file: self.path(segment_start), offset, version });
            }
            Err(EntryFault::Kind(kind)) => {
                return Err(OpenError::UnknownKind { file: self.path(segment_start), offset, kind });
            }
            #[cfg(any(test, feature = "simulated-disk"))]
            Err(EntryFault::Misplaced) if crate::bugs::POSITION_IGNORED.injected() => {
                StoredHeader::decode_anywhere(self.seed, &bytes, self.tail.end)
            }
            Err(fault) => return Ok(Err(fault)),
        };
        let payload_len = padded(header.payload_len.into());
        let payload_at = offset + ENTRY_HEADER_LEN;
        if payload_at + payload_len > found.size {
            return Ok(Err(EntryFault::Header));
        }
        ahead.to(found, payload_at + payload_len).map_err(self.io("read", segment_start))?;
        let mut copy = std::mem::take(&mut self.copy);
        copy.resize(payload_len as usize, 0);
        found.mapping.copy(payload_at, &mut copy);
        let payload = copy.freeze();
        Ok(match verify_entry(self.seed, &bytes, &payload) {
            Ok(_) if self.chained && header.previous != self.tail.previous => Err(EntryFault::Chain),
            Ok(crc) => Ok((header, crc, payload)),
            Err(fault) => Err(fault),
        })
    }

    /// Adds a sound entry to the chain and hands it over.
    fn take(
        &mut self,
        header: &StoredHeader,
        crc: u32,
        payload: Bytes,
        on_entry: &mut OnEntry<'_>,
    ) -> Result<(), OpenError> {
        let covers_all = header.durable_mark >= self.tail.records_end;
        self.chained = true;
        self.tail.previous = crc;
        self.tail.end = header.end();
        self.tail.mark = self.tail.mark.max(header.durable_mark);
        (self.tail.term, self.tail.index) = (header.term, header.index);
        self.tail.leader_time_ms = header.leader_time_ms;
        self.report.scanned_bytes += header.end() - header.position;
        self.end.after_filler = header.kind == StoredKind::Filler;
        let StoredKind::Entry(kind) = header.kind else { return Ok(()) };
        self.last_kind = Some((kind, covers_all));
        self.report.checkpoint = Some(Checkpoint::new(header, crc));
        if kind.holds_records() {
            self.tail.records_end = header.end();
        }
        self.report.entries += 1;
        on_entry(Entry::new(header, kind, payload.slice(..header.payload_len as usize)))
            .map_err(|source| OpenError::Entry { position: LogPosition(header.position), source })?;
        self.copy = payload.try_into_mut().unwrap_or_default();
        Ok(())
    }

    /// Collects what lies behind the chain's end.
    fn look_behind_the_end(&self) -> Result<Remains, OpenError> {
        let mut remains = Remains::new(self.seed, self.certain(), self.config.trusts_marks());
        for (number, found) in self.found.iter().enumerate().skip(self.at) {
            let from = self.tail.end.max(self.factory.first_entry(found.start));
            remains.look(found, from, self.written_to(found)).map_err(self.io("read", found.start))?;
            if number == self.at {
                remains.last_byte_here = remains.last_byte;
            }
        }
        Ok(remains)
    }

    /// Offset in a segment from which on nothing was ever written. A horizon below the end of the chain is not the one
    /// that this log was written under.
    fn written_to(&self, found: &FoundSegment) -> u64 {
        match self.horizon.filter(|horizon| found.recycled && *horizon >= self.tail.end) {
            Some(horizon) => horizon.saturating_sub(found.start).min(found.size),
            None => found.size,
        }
    }

    /// Ruling 17: what is missing or unsound below the highest durable mark is damage, and never cut.
    fn refuse_damage(&mut self, remains: &Remains) -> Result<(), OpenError> {
        let last = self.found.last().filter(|found| !found.sound);
        if let Some(unsound) = last {
            // Header and size are durable before the first entry is written and before a filler leads here.
            let needed = self.end.after_filler || remains.durable > unsound.start;
            if needed || remains.last_header.is_some_and(|position| position >= unsound.start) {
                return Err(self.unsound(unsound, remains.durable));
            }
        }
        let segment_start = self.factory.segment_start(self.tail.end);
        if self.end.after_filler && self.found.get(self.at).is_none_or(|found| found.start != segment_start) {
            return Err(OpenError::SegmentMissing { file: self.path(segment_start) });
        }
        let lost = remains.durable > self.tail.end;
        #[cfg(any(test, feature = "simulated-disk"))]
        let lost = lost || crate::bugs::LOST_GROUP_IS_DAMAGE.injected() && remains.last_header > Some(self.tail.end);
        #[cfg(any(test, feature = "simulated-disk"))]
        let lost = lost && !crate::bugs::DAMAGE_TAKEN_FOR_TAIL.injected();
        if !lost {
            return Ok(());
        }
        if self.found.get(self.at).is_none_or(|found| found.start != segment_start) {
            return Err(OpenError::SegmentMissing { file: self.path(segment_start) });
        }
        Err(OpenError::Damaged {
            file: self.path(segment_start),
            offset: self.tail.end - segment_start,
            position: LogPosition(self.tail.end),
            reason: self.end.fault.to_string(),
            durable: LogPosition(remains.durable),
        })
    }

    fn finish(mut self, remains: &Remains, started: Instant) -> Result<Recovered, OpenError> {
        if self.found.is_empty() {
            let created = self.factory.create(0).map_err(self.io("create", 0))?;
            self.tail.end = self.factory.first_entry(0);
            return Ok(self.recovered(Arc::new(created), Vec::new(), started, None));
        }
        let last = self.found.len() - 1;
        let FoundSegment { start, recycled, .. } = self.found[last];
        let opened = self.factory.open(start, self.found[last].file.clone(), recycled);
        let segment = Arc::new(opened.map_err(self.io("open", start))?);
        self.report.searched_bytes = remains.searched;
        let prepared_to = match recycled {
            // The horizon that was read may not be durable.
            true => self.tail.end,
            false => {
                // Behind the end there are only zeros or holes: up to the first hole the zeros are on disk.
                let offset = self.tail.end - start;
                let hole = segment.file.next_hole(offset.min(self.config.segment_size - 1));
                start + hole.map_err(self.io("look at", start))?
            }
        };
        let clean = self.report.cut.is_none()
            && (self.tail.records_end == 0 || self.last_kind == Some((EntryKind::Mark, true)))
            && remains.last_byte.is_none();
        self.report.clean = clean;
        let mappings = self.found[..last].iter().map(|found| found.mapping.clone()).collect();
        Ok(self.recovered(segment, mappings, started, Some(prepared_to)))
    }

    fn recovered(
        mut self,
        segment: Arc<WriteSegment>,
        mut mappings: Vec<Arc<dyn Mapping>>,
        started: Instant,
        prepared_to: Option<u64>,
    ) -> Recovered {
        mappings.push(segment.mapping.clone());
        let start = self.found.first().map_or(segment.start, |found| found.start);
        self.report.start = LogPosition(start);
        self.report.end = LogPosition(self.tail.end);
        self.report.last_index = self.tail.index;
        self.report.last_term = self.tail.term;
        self.report.last_leader_time_ms = self.tail.leader_time_ms;
        self.report.duration = started.elapsed();
        let prepared_to = prepared_to.unwrap_or(self.tail.end).max(self.tail.end);
        #[cfg(any(test, feature = "simulated-disk"))]
        let prepared_to = match crate::bugs::PREPARED_ANEW.injected() {
            true => segment.start + crate::format::SEGMENT_HEADER_LEN,
            false => prepared_to,
        };
        Recovered { segment, start, mappings, tail: self.tail, prepared_to, report: self.report }
    }
}

/// Keeps large reads under way ahead of the scan.
struct ReadAhead {
    asked: u64,
    populated: u64,
}

impl ReadAhead {
    /// Sees to it that the file is in memory up to `offset`; a sector that cannot be read is an error here.
    fn to(&mut self, found: &FoundSegment, offset: u64) -> io::Result<()> {
        if offset <= self.populated {
            return Ok(());
        }
        let until = offset.next_multiple_of(READ_STEP).min(found.size);
        if offset > found.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let ahead = (until + READ_AHEAD).min(found.size);
        if ahead > self.asked {
            found.file.will_need(self.asked, ahead - self.asked);
            self.asked = ahead;
        }
        found.mapping.populate(self.populated, (until - self.populated) as usize)?;
        self.populated = until;
        Ok(())
    }
}
