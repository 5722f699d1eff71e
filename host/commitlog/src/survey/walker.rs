//! From entry to entry of one segment file, over whatever is damaged, and no further than a budget of bytes allows.

use std::io;
use std::sync::Arc;

use super::window::ReadWindow;
use crate::disk::File;
use crate::format::{
    ALIGNMENT, ENTRY_HEADER_LEN, EntryFault, SEGMENT_HEADER_LEN, StoredHeader, entry_checksum, may_start_entry, padded,
};

const HEADER: usize = ENTRY_HEADER_LEN as usize;

/// What is found next.
#[derive(Debug)]
pub(crate) enum Finding {
    /// A whole entry, fillers included, and its checksum. It need not follow the one before it.
    Entry(StoredHeader, u32),
    /// A range without a whole entry.
    Gap(BrokenRange),
    /// The end of what there is to see.
    End,
    /// The budget is used up: go on with another.
    Pause,
}

/// A range in which no entry is whole. Positions, not offsets.
#[derive(Clone, Debug)]
pub(crate) struct BrokenRange {
    pub(crate) from: u64,
    /// Start of the next whole entry, or the end of the file.
    pub(crate) to: u64,
    pub(crate) fault: EntryFault,
    /// What the system said, where the bytes could not be read.
    pub(crate) unreadable: Option<String>,
    /// Headers in it that are sound though their payload is not.
    pub(crate) headers: u64,
    /// Highest durable mark in those.
    pub(crate) durable: u64,
    /// Position of the last sound header, of whatever version or kind.
    pub(crate) last_header: Option<u64>,
    /// Position of the last byte that is not zero; over old bytes, of the last that belongs to a sound header.
    pub(crate) last_byte: Option<u64>,
}

enum State {
    Header,
    Payload { header: StoredHeader, stored: u32, crc: u32, next: u64 },
    Search,
    Ended,
}

/// Walks one file.
pub(crate) struct Walker {
    window: ReadWindow,
    seed: u32,
    segment_start: u64,
    /// Offset of the next header to look at, or from which to search.
    at: u64,
    state: State,
    gap: Option<BrokenRange>,
    /// The entry that ended a gap.
    ready: Option<(StoredHeader, u32)>,
    /// Payloads are not looked at.
    headers_only: bool,
    /// What is not an entry may be of the file's earlier life.
    old_bytes: bool,
}

impl Walker {
    /// Walks the entries from `offset` on, which must be the place of an entry.
    pub(crate) fn new(window: ReadWindow, seed: u32, segment_start: u64, offset: u64) -> Self {
        let (state, gap, ready) = (State::Header, None, None);
        Self { window, seed, segment_start, at: offset, state, gap, ready, headers_only: false, old_bytes: false }
    }

    pub(crate) fn headers_only(self) -> Self {
        Self { headers_only: true, ..self }
    }

    /// For a segment made of a used file.
    pub(crate) fn over_old_bytes(self) -> Self {
        Self { old_bytes: true, ..self }
    }

    /// Goes back to `position` and reads anew.
    pub(crate) fn again(&mut self, position: u64) {
        self.window.forget();
        (self.at, self.state) = (position - self.segment_start, State::Header);
        (self.gap, self.ready) = (None, None);
    }

    /// Offset in the file up to which all was looked at.
    pub(crate) fn offset(&self) -> u64 {
        self.at
    }

    /// Bytes read from the file so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.window.bytes_read
    }

    /// The next finding. `budget` is a number of bytes to read from the file, and is counted down.
    pub(crate) fn next(&mut self, budget: &mut u64) -> io::Result<Finding> {
        if let Some((header, crc)) = self.ready.take() {
            return Ok(Finding::Entry(header, crc));
        }
        loop {
            if *budget == 0 {
                return Ok(Finding::Pause);
            }
            let before = self.window.bytes_read;
            let found = match std::mem::replace(&mut self.state, State::Header) {
                State::Header => self.look_at_header()?,
                State::Payload { header, stored, crc, next } => self.read_payload(header, stored, crc, next)?,
                State::Search => self.search()?,
                State::Ended => {
                    self.state = State::Ended;
                    return Ok(Finding::End);
                }
            };
            *budget = budget.saturating_sub(self.window.bytes_read - before);
            if let Some((header, crc)) = found {
                let Some(gap) = self.gap.take() else { return Ok(Finding::Entry(header, crc)) };
                self.ready = Some((header, crc));
                return Ok(Finding::Gap(BrokenRange { to: header.position, ..gap }));
            }
            if matches!(self.state, State::Ended)
                && let Some(gap) = self.gap.take()
            {
                return Ok(Finding::Gap(BrokenRange { to: self.segment_start + self.window.limit(), ..gap }));
            }
        }
    }

    fn position(&self) -> u64 {
        self.segment_start + self.at
    }

    fn look_at_header(&mut self) -> io::Result<Option<(StoredHeader, u32)>> {
        let mut bytes = [0; HEADER];
        if self.at >= self.window.limit() {
            self.state = State::Ended;
            return Ok(None);
        }
        if !self.window.copy(self.at, &mut bytes)? {
            return Ok(self.begin_gap(EntryFault::Header));
        }
        match StoredHeader::decode(self.seed, &bytes, self.position()) {
            Ok(header) if self.fits(&header) => Ok(self.begin_payload(header, &bytes)),
            Ok(_) => Ok(self.begin_gap(EntryFault::Header)),
            Err(fault) => Ok(self.begin_gap(fault)),
        }
    }

    fn fits(&self, header: &StoredHeader) -> bool {
        header.end() - self.segment_start <= self.window.limit()
    }

    fn begin_payload(&mut self, header: StoredHeader, bytes: &[u8; HEADER]) -> Option<(StoredHeader, u32)> {
        let (stored, crc) = entry_checksum(self.seed, bytes);
        if self.headers_only {
            (self.at, self.state) = (header.end() - self.segment_start, State::Header);
            return Some((header, stored));
        }
        self.state = State::Payload { header, stored, crc, next: self.at + ENTRY_HEADER_LEN };
        None
    }

    /// Reads what is in memory of the payload; at its end the checksum tells.
    fn read_payload(
        &mut self,
        header: StoredHeader,
        stored: u32,
        crc: u32,
        next: u64,
    ) -> io::Result<Option<(StoredHeader, u32)>> {
        let end = header.end() - self.segment_start;
        let bytes = self.window.at(next)?;
        let len = bytes.len().min((end - next) as usize);
        let crc = crc32c::crc32c_append(crc, &bytes[..len]);
        let next = next + len as u64;
        if next < end {
            self.state = State::Payload { header, stored, crc, next };
            return Ok(None);
        }
        let from = self.at;
        let unreadable = self.window.unreadable(from, end).map(str::to_owned);
        if crc == stored && unreadable.is_none() {
            self.at = end;
            return Ok(Some((header, stored)));
        }
        self.begin_gap(EntryFault::Payload);
        // A sound header is trusted about its length, so that nothing inside a message body is taken for an entry.
        self.at = end;
        if let Some(gap) = &mut self.gap {
            gap.headers += 1;
            gap.unreadable = gap.unreadable.take().or(unreadable);
            gap.durable = gap.durable.max(header.durable_mark);
            gap.last_header = Some(header.position);
            gap.last_byte = Some(header.end() - 1);
        }
        Ok(None)
    }

    /// Opens a gap, unless one is open, and goes on searching.
    fn begin_gap(&mut self, fault: EntryFault) -> Option<(StoredHeader, u32)> {
        self.state = State::Search;
        if self.gap.is_none() {
            let unreadable = self.window.unreadable(self.at, self.at + ENTRY_HEADER_LEN).map(str::to_owned);
            let from = self.position();
            let (headers, durable, last_header, last_byte) = (0, 0, None, None);
            self.gap =
                Some(BrokenRange { from, to: from, fault, unreadable, headers, durable, last_header, last_byte });
        }
        None
    }

    /// Looks through what is in memory for the next header.
    fn search(&mut self) -> io::Result<Option<(StoredHeader, u32)>> {
        self.state = State::Search;
        let from = self.window.next_data(self.at)? / ALIGNMENT * ALIGNMENT;
        self.at = from.max(self.at);
        let bytes = self.window.at(self.at)?;
        if (bytes.len() as u64) < ALIGNMENT {
            self.state = State::Ended;
            self.at = self.window.limit();
            return Ok(None);
        }
        let (words, _) = bytes.as_chunks::<{ ALIGNMENT as usize }>();
        let (mut last, mut candidate) = (None, None);
        for (number, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            if word == 0 {
                continue;
            }
            let at = self.at + number as u64 * ALIGNMENT;
            if may_start_entry(word) {
                candidate = Some(at);
                break;
            }
            last = Some(at + u64::from(7 - word.leading_zeros() / 8));
        }
        let searched_to = self.at + words.len() as u64 * ALIGNMENT;
        let start = self.segment_start;
        let unreadable = self.window.unreadable(self.at, searched_to).map(str::to_owned);
        let Some(gap) = &mut self.gap else { return Ok(None) };
        if !self.old_bytes {
            gap.last_byte = gap.last_byte.max(last.map(|last| start + last));
        }
        if gap.unreadable.is_none() {
            gap.unreadable = unreadable;
        }
        let Some(at) = candidate else {
            self.at = searched_to;
            return Ok(None);
        };
        if !self.old_bytes {
            gap.last_byte = gap.last_byte.max(Some(start + at + 3));
        }
        self.at = at;
        let mut bytes = [0; HEADER];
        if self.window.copy(at, &mut bytes)? {
            match StoredHeader::decode(self.seed, &bytes, start + at) {
                Ok(header) if self.fits(&header) => return Ok(self.begin_payload(header, &bytes)),
                // Proof that the file held entries, though this program cannot say which.
                found @ (Err(EntryFault::Version(_) | EntryFault::Kind(_)) | Ok(_)) => {
                    if let Some(gap) = &mut self.gap {
                        gap.durable = gap.durable.max(found.map_or(0, |header| header.durable_mark));
                        gap.last_header = Some(start + at);
                        gap.last_byte = gap.last_byte.max(Some(start + at + ENTRY_HEADER_LEN - 1));
                    }
                }
                Err(_) => {}
            }
        }
        self.at += ALIGNMENT;
        Ok(None)
    }
}

/// Whether a whole entry starts at `position`, read anew.
pub(crate) fn whole_entry_at(file: Arc<dyn File>, limit: u64, seed: u32, position: u64, start: u64) -> bool {
    let mut walker = Walker::new(ReadWindow::new(file, limit, 64 << 10), seed, start, position - start);
    loop {
        match walker.state {
            State::Header | State::Payload { .. } => {}
            State::Search | State::Ended => return false,
        }
        let step = match std::mem::replace(&mut walker.state, State::Header) {
            State::Payload { header, stored, crc, next } => walker.read_payload(header, stored, crc, next),
            _ => walker.look_at_header(),
        };
        match step {
            Ok(Some(_)) => return true,
            Ok(None) => {}
            Err(_) => return false,
        }
    }
}

/// Bytes of a file of `size` bytes in which entries can lie.
pub(crate) fn entries_limit(size: u64, segment_size: u64) -> u64 {
    (size.min(segment_size) / ALIGNMENT * ALIGNMENT).max(SEGMENT_HEADER_LEN)
}

/// Length of the payload as stored.
pub(crate) fn stored_len(header: &StoredHeader) -> u64 {
    ENTRY_HEADER_LEN + padded(header.payload_len.into())
}
