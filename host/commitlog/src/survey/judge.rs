//! Tail or damage (ruling 17), over everything that was found: the same answer that recovery gives.

use super::count_entry;
use super::files::Files;
use super::report::{DamagedRange, SegmentInfo, Verification};
use super::walker::BrokenRange;
use crate::format::{EntryFault, SEGMENT_HEADER_LEN, StoredHeader, StoredKind};
use crate::{Cut, LogPosition};

/// Why a range holds nothing whole.
#[derive(Clone, Debug)]
pub(crate) enum RangeFault {
    Entry(EntryFault),
    Unreadable(String),
    SegmentHeader,
    SegmentLength { found: u64, expected: u64 },
    Missing,
    Misnamed(u64),
}

impl std::fmt::Display for RangeFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entry(fault) => fault.fmt(f),
            Self::Unreadable(why) => write!(f, "the disk cannot read it: {why}"),
            Self::SegmentHeader => f.write_str("the segment header does not match its checksum"),
            Self::SegmentLength { found, expected } => write!(f, "the file has {found} bytes instead of {expected}"),
            Self::Missing => f.write_str("the file is missing"),
            Self::Misnamed(other) => write!(f, "the file holds the segment that starts at {other}"),
        }
    }
}

/// A range without a whole entry.
#[derive(Clone, Debug)]
pub(crate) struct Hole {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) fault: RangeFault,
    pub(crate) headers: u64,
}

#[derive(Clone)]
struct Noted {
    hole: Hole,
    /// Damage, whatever was durable.
    certain: bool,
    /// Index of the entries around it.
    before: Option<u64>,
    after: Option<u64>,
    /// Whole entries before it, marks included.
    entries_before: u64,
    /// Of the file's header or size: in the last file it counts only if the file was needed.
    of_file: bool,
    /// Start of the segment that was looked at.
    file: u64,
    /// A filler led right to it.
    after_filler: bool,
}

/// Everything that was found so far, by position.
#[derive(Clone)]
pub(crate) struct Findings {
    pub(crate) start: Option<u64>,
    segments: Vec<SegmentInfo>,
    holes: Vec<Noted>,
    /// Highest position that anything says is durable that counts.
    durable: u64,
    marks_prove: bool,
    /// Whole entries, marks included, and the index of the last.
    entries: u64,
    last_index: Option<u64>,
    /// Where the next entry must be, and which checksum it must continue.
    end: u64,
    previous: Option<u32>,
    after_filler: bool,
    /// Position of the last sound header, and of the last byte that is not zero, of whatever was found.
    last_header: Option<u64>,
    last_byte: Option<u64>,
}

impl Findings {
    pub(crate) fn new(durable: u64, marks_prove: bool) -> Self {
        Self {
            start: None,
            segments: Vec::new(),
            holes: Vec::new(),
            durable,
            marks_prove,
            entries: 0,
            last_index: None,
            end: 0,
            previous: None,
            after_filler: false,
            last_header: None,
            last_byte: None,
        }
    }

    /// `sound`: header and size are as they must be before the first entry is written.
    pub(crate) fn begin_segment(&mut self, start: u64, sound: bool, info: SegmentInfo) {
        if self.start.is_none() {
            self.start = Some(start);
            // The very first entry continues nothing; that of a log whose head was released cannot be told.
            self.previous = (start == 0).then_some(0);
        }
        // Otherwise the end stays where it was: a creation that was cut short changes nothing.
        if sound {
            self.end = start + SEGMENT_HEADER_LEN;
            self.after_filler = false;
        }
        self.segments.push(info);
    }

    /// Where the last hole ends.
    pub(crate) fn last_hole_to(&self) -> Option<u64> {
        self.holes.last().map(|noted| noted.hole.to)
    }

    pub(crate) fn segment(&mut self) -> &mut SegmentInfo {
        self.segments.last_mut().expect("a segment is begun before anything is found in it")
    }

    pub(crate) fn note_entry(&mut self, header: &StoredHeader, crc: u32) {
        if self.previous.is_some_and(|previous| previous != header.previous) {
            let fault = RangeFault::Entry(EntryFault::Chain);
            self.note_hole(Hole { from: header.position, to: header.position, fault, headers: 0 }, false);
        }
        count_entry(self.segment(), header);
        self.previous = Some(crc);
        self.end = header.end();
        self.note_mark(header.durable_mark);
        self.last_header = Some(header.position);
        self.last_byte = Some(header.end() - 1);
        self.after_filler = header.kind == StoredKind::Filler;
        if self.after_filler {
            return;
        }
        self.entries += 1;
        self.last_index = Some(header.index);
        for noted in self.holes.iter_mut().rev().take_while(|noted| noted.after.is_none()) {
            noted.after = Some(header.index);
        }
    }

    fn note_mark(&mut self, mark: u64) {
        if self.marks_prove {
            self.durable = self.durable.max(mark);
        }
    }

    pub(crate) fn note_gap(&mut self, gap: &BrokenRange) {
        self.note_mark(gap.durable);
        self.last_header = self.last_header.max(gap.last_header);
        self.last_byte = self.last_byte.max(gap.last_byte);
        let fault = match &gap.unreadable {
            Some(why) => RangeFault::Unreadable(why.clone()),
            None => RangeFault::Entry(gap.fault),
        };
        // What the disk cannot read is damage wherever it is: nobody knows what it held.
        self.note_hole(Hole { from: gap.from, to: gap.to, fault, headers: gap.headers }, gap.unreadable.is_some());
    }

    pub(crate) fn note_hole(&mut self, hole: Hole, certain: bool) {
        let of_file = matches!(hole.fault, RangeFault::SegmentHeader | RangeFault::SegmentLength { .. });
        self.previous = None;
        self.holes.push(Noted {
            hole,
            certain,
            before: self.last_index,
            after: None,
            entries_before: self.entries,
            of_file,
            file: self.segments.last().map_or(0, |info| info.start.0),
            after_filler: self.after_filler,
        });
    }

    /// Whether a hole is damage: what was durable is gone, or a file that must be whole is not.
    fn is_damage(&self, noted: &Noted, last_start: u64) -> bool {
        if !noted.of_file {
            return noted.certain || self.durable > noted.hole.from;
        }
        // Header and size are durable before the first entry is written and before a filler leads to the file.
        let file = noted.file;
        let needed = noted.after_filler && !self.ends_before(file) || self.durable > file;
        file != last_start || needed || self.last_header.is_some_and(|position| position >= file)
    }

    /// Whether the chain of what counts ends below `position`: a filler behind that end proves nothing.
    fn ends_before(&self, position: u64) -> bool {
        let ends = |noted: &&Noted| !noted.of_file && !noted.certain && self.durable <= noted.hole.from;
        self.holes.iter().find(ends).is_some_and(|noted| noted.hole.from < position)
    }

    pub(crate) fn judge(mut self, files: &Files) -> Verification {
        let size = files.identity.segment_size;
        let last_start = self.segments.last().map_or(0, |info| info.start.0);
        if self.after_filler && self.end.is_multiple_of(size) && !self.ends_before(self.end) {
            // A filler leads to a file that existed before the filler was written.
            let hole = Hole { from: self.end, to: self.end + size, fault: RangeFault::Missing, headers: 0 };
            self.note_hole(hole, true);
        } else if self.durable > self.end && self.end.is_multiple_of(size) {
            let hole = Hole { from: self.end, to: self.durable, fault: RangeFault::Missing, headers: 0 };
            self.note_hole(hole, true);
        }
        let (damage, harmless): (Vec<&Noted>, Vec<&Noted>) =
            self.holes.iter().partition(|noted| self.is_damage(noted, last_start));
        // From the first harmless one on nothing was ever acknowledged, whatever is whole in it.
        let begins = |noted: &&&Noted| if noted.of_file { noted.file } else { noted.hole.from };
        let (end, entries, tail) = match harmless.iter().min_by_key(begins) {
            Some(noted) => {
                let end = begins(&noted);
                let bytes = self.last_byte.filter(|byte| *byte >= end).map(|byte| byte + 1 - end);
                let reason = noted.hole.fault.to_string();
                (end, noted.entries_before, bytes.map(|bytes| Cut { at: LogPosition(end), bytes, reason }))
            }
            // Where the durable end is damaged it is still the end.
            None => (self.end.max(self.durable.min(last_start + size)), self.entries, None),
        };
        let damage = damage.into_iter().map(|noted| Self::report(noted, end, files)).collect();
        Verification {
            identity: files.identity,
            start: LogPosition(self.start.unwrap_or(0)),
            end: LogPosition(end),
            durable: LogPosition(self.durable),
            entries,
            damage,
            tail,
            segments: self.segments,
        }
    }

    fn report(noted: &Noted, end: u64, files: &Files) -> DamagedRange {
        let Hole { from, to, fault, headers } = &noted.hole;
        // Behind the last whole entry only what was durable is lost; the rest was prepared space.
        let to = if *from < end { (*to).min(end) } else { *to };
        let size = files.identity.segment_size;
        // A range that ends where a file does belongs to that file, and one that begins there to the next.
        let start = match *from < to || !from.is_multiple_of(size) || *from == 0 {
            true => from - from % size,
            false => from - size,
        };
        DamagedRange {
            file: files.path(start),
            offset: from - start,
            length: to - from,
            from: LogPosition(*from),
            to: LogPosition(to),
            reason: fault.to_string(),
            headers: *headers,
            index_before: noted.before,
            index_after: noted.after,
        }
    }
}
