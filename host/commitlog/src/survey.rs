//! A look at a whole log that changes nothing: every entry is verified, damage is stepped over, and the end is judged
//! as a start would judge it. The log may be that of a running node.

pub(crate) mod files;
mod judge;
pub(crate) mod report;
pub(crate) mod walker;
pub(crate) mod window;

use std::collections::VecDeque;

use self::files::{Files, HeaderState, SegmentFile};
use self::judge::{Findings, Hole, RangeFault};
use self::report::{SegmentInfo, SurveyProgress, Verification};
use self::walker::{BrokenRange, Finding, Walker, entries_limit, stored_len};
use self::window::{READ_STEP, ReadWindow};
use crate::format::{ALIGNMENT, EntryFault, SEGMENT_HEADER_LEN, StoredHeader, StoredKind};
use crate::{LogPosition, OpenError};

/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 8 << 20;

/// What a look takes for granted, and where it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SurveyBounds {
    /// Durable for certain.
    pub(crate) durable: u64,
    /// Durable marks in entries say what else is.
    pub(crate) marks_prove: bool,
    /// Segments that end at or before this position are left out.
    pub(crate) from: u64,
    /// Only headers are looked at: quick, and says nothing about payloads.
    pub(crate) headers_only: bool,
}

/// Looks at a log.
pub(crate) fn survey(
    files: &Files,
    known: SurveyBounds,
    progress: &mut dyn FnMut(SurveyProgress),
) -> Result<Verification, OpenError> {
    let (findings, next) = (Findings::new(known.durable, known.marks_prove), VecDeque::new());
    let mut survey = Survey { files, known, progress, findings, next, total_bytes: 0, open_end: None };
    survey.walk()?;
    Ok(survey.findings.judge(files))
}

struct Survey<'a> {
    files: &'a Files,
    known: SurveyBounds,
    progress: &'a mut dyn FnMut(SurveyProgress),
    findings: Findings,
    /// Segments that are there and not looked at yet.
    next: VecDeque<u64>,
    total_bytes: u64,
    /// Where the entries of a segment ended, and what had been found by then. If entries are found in a later segment,
    /// a running node may have written here, too, meanwhile: then this is where to go on.
    open_end: Option<(u64, Findings)>,
}

/// How the look at a segment ended.
enum Walked {
    ToItsEnd,
    /// The file is gone: it was released.
    Released,
    /// Its log has grown at this position, which was its end.
    Grown(u64),
}

impl Survey<'_> {
    fn size(&self) -> u64 {
        self.files.identity.segment_size
    }

    fn list(&mut self, from: u64) -> Result<(), OpenError> {
        let size = self.size();
        self.next = self.files.starts()?.into_iter().filter(|start| start + size > from).collect();
        Ok(())
    }

    fn is_sound(&self, segment: &SegmentFile) -> bool {
        segment.header == HeaderState::Sound && segment.size == self.size()
    }

    fn report(&mut self, done_to: u64) {
        let done_bytes = done_to.saturating_sub(self.findings.start.unwrap_or(done_to));
        (self.progress)(SurveyProgress { done_bytes, total_bytes: self.total_bytes.max(done_bytes) });
    }

    fn walk(&mut self) -> Result<(), OpenError> {
        self.list(self.known.from)?;
        self.total_bytes = self.next.len() as u64 * self.size();
        let mut expected = self.next.front().copied();
        let mut resume = None;
        while let Some(start) = self.next.pop_front() {
            self.report(start);
            if let Some(missing) = expected.filter(|expected| *expected < start)
                && !self.miss(missing, start)?
            {
                expected = self.begin_anew(missing)?;
                continue;
            }
            let (resume_at, before) = (resume.take(), self.findings.clone());
            let (walked, sound) = match self.files.open(start)? {
                Some(segment) => (self.walk_segment(start, &segment, resume_at)?, self.is_sound(&segment)),
                None => (Walked::Released, false),
            };
            let now = if sound { None } else { self.files.open(start)? };
            // A running node may just have been creating it.
            if now.as_ref().is_some_and(|segment| self.is_sound(segment)) {
                self.findings = before;
                self.next.push_front(start);
                expected = Some(start);
                continue;
            }
            // Or it released the file meanwhile and gave it another header.
            let walked = if sound || now.is_some() { walked } else { Walked::Released };
            match walked {
                Walked::ToItsEnd => expected = Some(start + self.size()),
                Walked::Released => expected = self.begin_anew(start)?,
                Walked::Grown(position) => {
                    self.next.push_front(start);
                    let grown = position - position % self.size();
                    self.next.push_front(grown);
                    (expected, resume) = (Some(grown), Some(position));
                }
            }
            // A running node may have gone on in another file.
            if self.next.is_empty() {
                self.list(start + self.size())?;
                self.next.retain(|next| *next > start);
            }
        }
        self.report(expected.unwrap_or(0));
        Ok(())
    }

    /// The segment at `released` left the log while it was looked at, and all before it: what was found is gone. Gives
    /// the first segment that is still there.
    fn begin_anew(&mut self, released: u64) -> Result<Option<u64>, OpenError> {
        self.findings = Findings::new(self.known.durable, self.known.marks_prove);
        self.open_end = None;
        self.list(released + self.size())?;
        Ok(self.next.front().copied())
    }

    /// Notes the segments from `expected` to `start` as missing; `false` if they were released.
    fn miss(&mut self, mut expected: u64, start: u64) -> Result<bool, OpenError> {
        while expected < start {
            // The first one tells: the others are behind it.
            let first = self.findings.last_hole_to() != Some(expected);
            if first && !self.files.is_missing(expected)? {
                return Ok(false);
            }
            let hole = Hole { from: expected, to: expected + self.size(), fault: RangeFault::Missing, headers: 0 };
            self.findings.note_hole(hole, true);
            expected += self.size();
        }
        Ok(true)
    }
    /// Looks at one segment, from its beginning or from where its end was before.
    fn walk_segment(&mut self, start: u64, segment: &SegmentFile, resume: Option<u64>) -> Result<Walked, OpenError> {
        let SegmentFile { size, header, .. } = segment;
        if let Some(position) = resume {
            let walked = self.walk_entries(start, position, segment)?;
            self.measure(start, segment)?;
            return Ok(walked);
        }
        let info = SegmentInfo {
            file: self.files.path(start),
            start: LogPosition(start),
            size: *size,
            header_sound: *header == HeaderState::Sound,
            entries: 0,
            first_index: None,
            last_index: None,
            used_bytes: 0,
            prepared_bytes: 0,
            durable_mark: LogPosition(0),
        };
        self.findings.begin_segment(start, self.is_sound(segment), info);
        if let HeaderState::Of(other) = header {
            let hole = Hole { from: start, to: start + self.size(), fault: RangeFault::Misnamed(*other), headers: 0 };
            self.findings.note_hole(hole, true);
            return Ok(Walked::ToItsEnd);
        }
        if *header == HeaderState::Damaged && *size >= SEGMENT_HEADER_LEN {
            let hole =
                Hole { from: start, to: start + SEGMENT_HEADER_LEN, fault: RangeFault::SegmentHeader, headers: 0 };
            self.findings.note_hole(hole, false);
        }
        if *size >= SEGMENT_HEADER_LEN {
            let walked = self.walk_entries(start, start + SEGMENT_HEADER_LEN, segment)?;
            if !matches!(walked, Walked::ToItsEnd) {
                return Ok(walked);
            }
        }
        if *size != self.size() {
            let (found, expected) = (*size, self.size());
            let from = start + found.min(expected) / ALIGNMENT * ALIGNMENT;
            let fault = RangeFault::SegmentLength { found, expected };
            self.findings.note_hole(Hole { from, to: start + expected, fault, headers: 0 }, false);
        }
        self.measure(start, segment)?;
        Ok(Walked::ToItsEnd)
    }

    /// Fills in what of the file is used, and what of the rest is prepared.
    fn measure(&mut self, start: u64, segment: &SegmentFile) -> Result<(), OpenError> {
        let SegmentFile { file, size, .. } = segment;
        let used = self.findings.segment().used_bytes.max(SEGMENT_HEADER_LEN.min(*size));
        let hole = file.next_hole(used.min(size.saturating_sub(1))).map_err(self.files.io("look at", start))?;
        let info = self.findings.segment();
        (info.used_bytes, info.prepared_bytes) = (used, hole.saturating_sub(used));
        Ok(())
    }

    fn walk_entries(&mut self, start: u64, position: u64, segment: &SegmentFile) -> Result<Walked, OpenError> {
        let limit = entries_limit(segment.size, self.size());
        let step = if self.known.headers_only { 64 << 10 } else { READ_STEP };
        let window = ReadWindow::new(segment.file.clone(), limit, step);
        let mut walker = Walker::new(window, self.files.seed, start, position - start);
        if self.known.headers_only {
            walker = walker.headers_only();
        }
        if segment.recycled {
            walker = walker.over_old_bytes();
        }
        let mut budget = REPORT_EVERY;
        loop {
            let found = walker.next(&mut budget).map_err(self.files.io("read", start))?;
            let entries_follow = match &found {
                Finding::Entry(..) => true,
                Finding::Gap(gap) => gap.last_header.is_some(),
                _ => false,
            };
            if entries_follow
                && let Some((end, findings)) = self.open_end.take()
                && self.files.is_whole_by_now(end)?
            {
                self.findings = findings;
                return Ok(Walked::Grown(end));
            }
            match found {
                Finding::Pause => {
                    budget = REPORT_EVERY;
                    self.report(start + walker.offset());
                }
                Finding::Entry(header, crc) => self.findings.note_entry(&header, crc),
                Finding::Gap(gap) => {
                    if !self.files.exists(start)? {
                        return Ok(Walked::Released);
                    }
                    if self.files.is_whole_by_now(gap.from)? {
                        walker.again(gap.from);
                        continue;
                    }
                    self.refuse_newer(start, &gap)?;
                    if gap.to == start + limit {
                        self.open_end = Some((gap.from, self.findings.clone()));
                    }
                    self.findings.note_gap(&gap);
                }
                Finding::End => return Ok(Walked::ToItsEnd),
            }
        }
    }

    /// A sound header of an unknown version or kind is no damage, and nothing can be said about what follows it.
    fn refuse_newer(&self, start: u64, gap: &BrokenRange) -> Result<(), OpenError> {
        let (file, offset) = (self.files.path(start), gap.from - start);
        match gap.fault {
            EntryFault::Version(version) => Err(OpenError::UnknownFormat { file, offset, version }),
            EntryFault::Kind(kind) => Err(OpenError::UnknownKind { file, offset, kind }),
            _ => Ok(()),
        }
    }
}

/// Adds a whole entry to what is known of its segment.
fn count_entry(info: &mut SegmentInfo, header: &StoredHeader) {
    info.used_bytes = header.position + stored_len(header) - info.start.0;
    info.durable_mark = info.durable_mark.max(LogPosition(header.durable_mark));
    if header.kind != StoredKind::Filler {
        info.entries += 1;
        info.first_index = info.first_index.or(Some(header.index));
        info.last_index = Some(header.index);
    }
}
