//! Reading: ranges of the mapped segments, and entries one after the other; without a copy where the bytes will never
//! change ([`crate::settled`]), as copies above that.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::disk::{Mapping, bytes_of};
use crate::format::{
    ENTRY_HEADER_LEN, EntryKind, SEGMENT_HEADER_LEN, StoredHeader, StoredKind, checksum_seed, padded, verify_entry,
};
use crate::segment::file_name;
use crate::settled::Settled;
use crate::{Checkpoint, LogIdentity, LogPosition, ReadError};

/// One entry as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its header starts.
    pub position: LogPosition,
    /// Where the payload's first byte lies: [`Self::position`] plus the header.
    pub payload_position: LogPosition,
    /// First position after it, padding included.
    pub end: LogPosition,
    /// Term of the leader that wrote it.
    pub term: u64,
    /// Index in the replicated log.
    pub index: u64,
    /// The leader's time, milliseconds since 1970.
    pub leader_time_ms: u64,
    /// What it is.
    pub kind: EntryKind,
    /// The bytes that were appended. They never change, whatever becomes of the log.
    pub payload: Bytes,
}

impl Entry {
    pub(crate) fn new(header: &StoredHeader, kind: EntryKind, payload: Bytes) -> Self {
        Self {
            position: LogPosition(header.position),
            payload_position: LogPosition(header.position + ENTRY_HEADER_LEN),
            end: LogPosition(header.end()),
            term: header.term,
            index: header.index,
            leader_time_ms: header.leader_time_ms,
            kind,
            payload,
        }
    }
}

/// What readers share with the appender.
pub(crate) struct View {
    pub(crate) segment_size: u64,
    pub(crate) seed: u32,
    appended: AtomicU64,
    /// What lies above is handed out as copies.
    settled: Arc<Settled>,
    segments: RwLock<Segments>,
    /// Ranges that are not served, in order; only in a log that is open for reading only.
    damage: Vec<(u64, u64)>,
}

/// Mappings of consecutive segments.
struct Segments {
    start: u64,
    /// `None` where the file is missing.
    mappings: VecDeque<Option<Arc<dyn Mapping>>>,
}

impl View {
    /// `mappings` are consecutive segments, the first of which starts at `start`.
    pub(crate) fn new(
        segment_size: u64,
        seed: u32,
        start: u64,
        mappings: Vec<Arc<dyn Mapping>>,
        end: u64,
        settled: Arc<Settled>,
    ) -> Self {
        let mappings = mappings.into_iter().map(Some).collect();
        let segments = RwLock::new(Segments { start, mappings });
        Self { segment_size, seed, appended: AtomicU64::new(end), settled, segments, damage: Vec::new() }
    }

    /// The same of a damaged log, in which some files and some ranges are not served, and which was durable up to
    /// `durable`.
    pub(crate) fn damaged(
        identity: &LogIdentity,
        (start, end): (u64, u64),
        durable: u64,
        mappings: VecDeque<Option<Arc<dyn Mapping>>>,
        damage: Vec<(u64, u64)>,
    ) -> Self {
        let seed = checksum_seed(&identity.cluster_id, identity.shard);
        let segments = RwLock::new(Segments { start, mappings });
        let (appended, settled) = (AtomicU64::new(end), Arc::new(Settled::at(durable.min(end))));
        Self { segment_size: identity.segment_size, seed, appended, settled, segments, damage }
    }

    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// Bytes below `end` are written.
    pub(crate) fn publish(&self, end: u64) {
        self.appended.store(end, Ordering::Release);
    }

    pub(crate) fn add_segment(&self, mapping: Arc<dyn Mapping>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).mappings.push_back(Some(mapping));
    }

    /// Takes the first segment out if it lies entirely below `before` and a later one holds an entry below `durable`.
    pub(crate) fn release_first(&self, before: u64, durable: u64) -> Option<(u64, Arc<dyn Mapping>)> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = (segments.start, segments.start + self.segment_size);
        if end > before || durable <= end + SEGMENT_HEADER_LEN {
            return None;
        }
        let mapping = segments.mappings.pop_front().flatten()?;
        segments.start = end;
        Some((start, mapping))
    }

    pub(crate) fn start(&self) -> u64 {
        self.extent().0
    }

    /// Start of the first segment, and how many there are.
    pub(crate) fn extent(&self) -> (u64, u64) {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        (segments.start, segments.mappings.len() as u64)
    }

    /// The mapping of the segment that holds the whole range, and the range's offset in it.
    fn locate(&self, position: u64, len: u64) -> Result<(Arc<dyn Mapping>, u64), ReadError> {
        let end = self.appended();
        let at = LogPosition(position);
        let offset = position % self.segment_size;
        if position.checked_add(len).is_none_or(|range_end| range_end > end) {
            return Err(ReadError::BeyondEnd { position: at, len, end: LogPosition(end) });
        }
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        if position < segments.start {
            return Err(ReadError::BeforeStart { position: at, start: LogPosition(segments.start) });
        }
        if let Some((_, to)) = self.damage.iter().find(|(from, to)| *from < position + len.max(1) && position < *to) {
            return Err(ReadError::Damaged { position: at, resume: LogPosition(*to) });
        }
        if offset < SEGMENT_HEADER_LEN || offset + len > self.segment_size {
            return Err(ReadError::OutsideEntries { position: at, len });
        }
        let number = (position - segments.start) / self.segment_size;
        let mapping = segments.mappings.get(number as usize).cloned().flatten();
        // Only a range of length 0 at the very end can be in a segment that is not there yet.
        mapping.map(|mapping| (mapping, offset)).ok_or(ReadError::OutsideEntries { position: at, len })
    }

    /// The entry that starts at `position`, verified; a filler gives `None` for its entry. Returns the end, too.
    fn entry(&self, position: u64) -> Result<(Option<Entry>, u64), ReadError> {
        let (header, _, payload) = self.stored(position)?;
        let entry = match header.kind {
            StoredKind::Filler => None,
            StoredKind::Entry(kind) => Some(Entry::new(&header, kind, payload)),
        };
        Ok((entry, header.end()))
    }

    /// Header, checksum and payload of what is stored at `position`, verified.
    fn stored(&self, position: u64) -> Result<(StoredHeader, u32, Bytes), ReadError> {
        let (mapping, offset) = self.locate(position, ENTRY_HEADER_LEN)?;
        let mut bytes = [0; ENTRY_HEADER_LEN as usize];
        mapping.copy(offset, &mut bytes);
        let header =
            StoredHeader::decode(self.seed, &bytes, position).map_err(|fault| self.not_an_entry(position, fault))?;
        let payload_len = padded(header.payload_len.into());
        let (mapping, offset) = self.locate(position, ENTRY_HEADER_LEN + payload_len)?;
        let payload = bytes_of(
            mapping,
            &self.settled,
            position + ENTRY_HEADER_LEN,
            offset + ENTRY_HEADER_LEN,
            payload_len as usize,
        );
        let crc = verify_entry(self.seed, &bytes, &payload).map_err(|fault| self.not_an_entry(position, fault))?;
        Ok((header, crc, payload.slice(..header.payload_len as usize)))
    }

    fn not_an_entry(&self, position: u64, fault: crate::format::EntryFault) -> ReadError {
        ReadError::NotAnEntry {
            position: LogPosition(position),
            segment: file_name(position - position % self.segment_size),
            offset: position % self.segment_size,
            reason: fault.to_string(),
        }
    }
}

/// Reads what was appended, durable or not. Cheap to clone; every thread may have one.
///
/// Bytes handed out never change. Those that were durable share the mapped segment and keep it alive. They are the page
/// cache itself: a sector that the disk cannot read any more ends the process with a signal, as with any mapped file;
/// whoever must not risk that reads a copy of the log. What may still be cut off is handed out as a copy (ruling 28).
#[derive(Clone)]
pub struct LogReader {
    view: Arc<View>,
}

impl LogReader {
    pub(crate) fn new(view: Arc<View>) -> Self {
        Self { view }
    }

    /// The same log without what lies before this position. For a log that is only read: the new reader would not see it
    /// grow.
    pub(crate) fn without_before(&self, position: LogPosition) -> Self {
        let View { segment_size, seed, .. } = *self.view;
        let segments = self.view.segments.read().unwrap_or_else(PoisonError::into_inner);
        let (start, mappings) = (segments.start, segments.mappings.clone());
        let behind = self.view.damage.iter().filter(|(_, to)| *to > position.0).copied();
        let damage = std::iter::once((start, position.0)).chain(behind).collect();
        let appended = AtomicU64::new(self.view.appended());
        Self::new(Arc::new(View {
            segment_size,
            seed,
            appended,
            settled: self.view.settled.clone(),
            segments: RwLock::new(Segments { start, mappings }),
            damage,
        }))
    }

    /// First position that the segments cover.
    pub fn start(&self) -> LogPosition {
        LogPosition(self.view.start())
    }

    /// First position that is not appended yet.
    pub fn end(&self) -> LogPosition {
        LogPosition(self.view.appended())
    }

    /// The `len` bytes from `position` on, without a copy if they are durable, and without a check against the checksum (that
    /// covers whole entries: see [`Self::entries_from`]).
    ///
    /// # Errors
    /// The range is not inside the appended entries of one segment.
    pub fn read(&self, position: LogPosition, len: usize) -> Result<Bytes, ReadError> {
        match self.view.locate(position.0, len as u64) {
            Ok((mapping, offset)) => Ok(bytes_of(mapping, &self.view.settled, position.0, offset, len)),
            // An empty payload may lie at the very end of a segment.
            Err(ReadError::OutsideEntries { .. }) if len == 0 => Ok(Bytes::new()),
            Err(error) => Err(error),
        }
    }

    /// The entry that starts at `position`, verified.
    ///
    /// # Errors
    /// No sound entry starts there.
    pub fn entry_at(&self, position: LogPosition) -> Result<Entry, ReadError> {
        match self.view.entry(position.0)? {
            (Some(entry), _) => Ok(entry),
            (None, _) => Err(ReadError::OutsideEntries { position, len: 0 }),
        }
    }

    /// What to store with a snapshot whose last entry is the one that starts at `position`. The entry is read and
    /// verified; [`crate::Appended::checkpoint`] and [`crate::Recovery::checkpoint`] cost nothing.
    ///
    /// # Errors
    /// No sound entry starts there.
    pub fn checkpoint_at(&self, position: LogPosition) -> Result<Checkpoint, ReadError> {
        match self.view.stored(position.0)? {
            (header, crc, _) if header.kind != StoredKind::Filler => Ok(Checkpoint::new(&header, crc)),
            _ => Err(ReadError::OutsideEntries { position, len: 0 }),
        }
    }

    /// Every entry from `position` on, marks included, each verified, until the end of the log at the time of each
    /// call. `position` is an entry's position or end, or a segment's start. After an error the iterator ends.
    pub fn entries_from(&self, position: LogPosition) -> Entries {
        Entries { view: self.view.clone(), position: position.0, failed: false }
    }
}

/// Iterator over entries; see [`LogReader::entries_from`].
pub struct Entries {
    view: Arc<View>,
    position: u64,
    failed: bool,
}

impl Entries {
    /// Where the next entry will be looked for. An iterator that has reached the end goes on when the log has grown.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.position)
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            if self.position.is_multiple_of(self.view.segment_size) && self.position < self.view.appended() {
                self.position += SEGMENT_HEADER_LEN;
            }
            if self.position >= self.view.appended() {
                return None;
            }
            match self.view.entry(self.position) {
                Ok((entry, end)) => {
                    self.position = end;
                    if let Some(entry) = entry {
                        return Some(Ok(entry));
                    }
                }
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
