//! What readers share with the appender: which segments there are, and how far they are written.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::Entry;
use crate::disk::{Mapping, bytes_of};
use crate::format::{
    ENTRY_HEADER_LEN, EntryFault, SEGMENT_HEADER_LEN, Stored, StoredHeader, StoredKind, checksum_seed, entry_checksum,
    padded, verify_entry,
};
use crate::segment::file_name;
use crate::settled::SettledEnd;
use crate::{LogIdentity, LogPosition, ReadError};

/// What readers share with the appender.
pub(crate) struct View {
    pub(crate) segment_size: u64,
    pub(crate) seed: u32,
    pub(super) appended: AtomicU64,
    /// What lies above is handed out as copies.
    pub(super) settled: Arc<SettledEnd>,
    pub(super) segments: RwLock<Segments>,
    /// Ranges that are not served, in order; only in a log that is open for reading only.
    pub(super) damage: Vec<(u64, u64)>,
}

/// Mappings of consecutive segments.
pub(super) struct Segments {
    pub(super) start: u64,
    /// `None` where the file is missing.
    pub(super) mappings: VecDeque<Option<Arc<dyn Mapping>>>,
}

impl View {
    /// `mappings` are consecutive segments, the first of which starts at `start`.
    pub(crate) fn new(
        segment_size: u64,
        seed: u32,
        start: u64,
        mappings: Vec<Arc<dyn Mapping>>,
        end: u64,
        settled: Arc<SettledEnd>,
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
        let (appended, settled) = (AtomicU64::new(end), Arc::new(SettledEnd::at(durable.min(end))));
        Self { segment_size: identity.segment_size, seed, appended, settled, segments, damage }
    }

    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// Bytes below `end` are written.
    pub(crate) fn publish(&self, end: u64) {
        self.appended.store(end, Ordering::Release);
    }

    /// What lies at or behind `to`, which is above all that is settled, is no part of the log any more. Readers that
    /// hold bytes of it hold copies.
    pub(crate) fn cut(&self, to: u64) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        self.appended.store(to, Ordering::Release);
        let left = to.saturating_sub(segments.start).div_ceil(self.segment_size);
        segments.mappings.truncate(left as usize);
    }

    /// The mapping of the segment that starts at `start`, if it is there.
    pub(crate) fn mapping(&self, start: u64) -> Option<Arc<dyn Mapping>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let number = start.checked_sub(segments.start)? / self.segment_size;
        segments.mappings.get(number as usize).cloned().flatten()
    }

    /// What lies below stays as it is.
    pub(crate) fn settled(&self) -> &SettledEnd {
        &self.settled
    }

    pub(crate) fn add_segment(&self, mapping: Arc<dyn Mapping>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).mappings.push_back(Some(mapping));
    }

    /// Takes the first segment out if it lies entirely below `before` and a later one holds an entry below `kept`.
    pub(crate) fn release_first(&self, before: u64, kept: u64) -> Option<(u64, Arc<dyn Mapping>)> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = (segments.start, segments.start + self.segment_size);
        if end > before || kept <= end + SEGMENT_HEADER_LEN {
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
    pub(super) fn locate(&self, position: u64, len: u64) -> Result<(Arc<dyn Mapping>, u64), ReadError> {
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
    pub(super) fn entry(&self, position: u64) -> Result<(Option<Entry>, u64), ReadError> {
        let (Stored { header, .. }, payload) = self.stored(position)?;
        let entry = match header.kind {
            StoredKind::Filler => None,
            StoredKind::Entry(kind) => Some(Entry::new(&header, kind, payload)),
        };
        Ok((entry, header.end()))
    }

    /// Header and payload of what is stored at `position`, verified.
    pub(crate) fn stored(&self, position: u64) -> Result<(Stored, Bytes), ReadError> {
        let stored = self.header(position)?;
        let payload_len = padded(stored.header.payload_len.into());
        let (mapping, offset) = self.locate(position, ENTRY_HEADER_LEN + payload_len)?;
        let payload = bytes_of(
            mapping,
            &self.settled,
            position + ENTRY_HEADER_LEN,
            offset + ENTRY_HEADER_LEN,
            payload_len as usize,
        );
        let verified = verify_entry(self.seed, &stored.bytes, &payload);
        #[cfg(any(test, feature = "simulated-disk"))]
        let verified = if crate::bugs::READ_UNVERIFIED.injected() { Ok(stored.checksum) } else { verified };
        verified.map_err(|fault| self.not_an_entry(position, fault))?;
        Ok((stored, payload.slice(..stored.header.payload_len as usize)))
    }

    /// The header that is stored at `position`; what follows it is not looked at.
    pub(super) fn header(&self, position: u64) -> Result<Stored, ReadError> {
        let (mapping, offset) = self.locate(position, ENTRY_HEADER_LEN)?;
        let mut bytes = [0; ENTRY_HEADER_LEN as usize];
        mapping.copy(offset, &mut bytes);
        let decoded = StoredHeader::decode(self.seed, &bytes, position);
        let header = decoded.map_err(|fault| self.not_an_entry(position, fault))?;
        Ok(Stored { header, checksum: entry_checksum(self.seed, &bytes).0, bytes })
    }

    /// Where the entry begins that an iterator which has come to `position` gives next; `None` at the end of the log.
    pub(super) fn next_entry(&self, position: u64) -> Option<u64> {
        let end = self.appended();
        let position = match position.is_multiple_of(self.segment_size) && position < end {
            true => position + SEGMENT_HEADER_LEN,
            false => position,
        };
        (position < end).then_some(position)
    }

    pub(super) fn not_an_entry(&self, position: u64, fault: EntryFault) -> ReadError {
        ReadError::NotAnEntry {
            position: LogPosition(position),
            segment: file_name(position - position % self.segment_size),
            offset: position % self.segment_size,
            reason: fault.to_string(),
        }
    }
}
