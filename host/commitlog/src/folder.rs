//! For tools: the log in a folder, of a stopped or a running node, looked at without a lock and without a change.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, File, RealDisk};
use crate::format::{ENTRY_HEADER_LEN, SEGMENT_HEADER_LEN, StoredHeader, StoredKind, verify_entry};
use crate::reader::Entry;
use crate::segment::parse_file_name;
use crate::survey::files::{Files, HeaderState};
use crate::survey::walker::{BrokenRange, Finding, Walker, entries_limit, stored_len};
use crate::survey::window::{READ_STEP, ReadWindow};
use crate::survey::{SurveyBounds, survey};
use crate::{DamagedRange, DumpError, LogIdentity, LogPosition, OpenError, SegmentInfo, SurveyProgress, Verification};

/// From where to where entries lie in the segment files of a folder, by the names and sizes of the files. Nothing is opened, so
/// this is quick, and the end is one that the entries do not go beyond: what is prepared behind them counts as well.
///
/// # Errors
/// The folder cannot be listed.
pub fn segments_span(directory: &Path) -> io::Result<Range<LogPosition>> {
    /// What a file has on the disk is counted so.
    const BLOCK: u64 = 512;
    let mut span: Option<Range<u64>> = None;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(start) = entry.file_name().to_str().and_then(parse_file_name) else { continue };
        // One that is gone meanwhile was released.
        let Ok(file) = entry.metadata() else { continue };
        let end = start.saturating_add(file.len().min(file.blocks().saturating_mul(BLOCK)));
        span = Some(span.map_or(start..end, |span| span.start.min(start)..span.end.max(end)));
    }
    let Range { start, end } = span.unwrap_or_default();
    Ok(LogPosition(start)..LogPosition(end))
}

/// A folder of segment files. Everything is read by copies, so nothing a running node does to its files is a danger:
/// what it writes meanwhile is seen or not, what it releases meanwhile is left out.
pub struct LogFolder {
    files: Files,
    marks_prove: bool,
}

impl LogFolder {
    /// Looks at a folder; the first sound segment header in it tells which log it is.
    ///
    /// # Errors
    /// There is no folder or no segment with a sound header in it, or a newer program wrote it.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealDisk::read_only(directory)), directory)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, OpenError> {
        Ok(Self { files: Files::of_folder(disk, directory.to_path_buf())?, marks_prove: true })
    }

    /// Whether the durable marks in entries prove anything of this disk, as [`crate::LogConfig::marks_prove`] says of a
    /// start; they do where nobody says otherwise.
    #[must_use]
    pub fn marks_prove(self, marks_prove: bool) -> Self {
        Self { marks_prove, ..self }
    }

    /// Which log it is.
    pub fn identity(&self) -> LogIdentity {
        self.files.identity
    }

    /// What the segments hold, by the headers of their entries: quick, because payloads are not read, and therefore
    /// no proof that they are whole.
    ///
    /// # Errors
    /// A file belongs to another log, a newer program wrote it, or it cannot be read.
    pub fn segments(&self) -> Result<Vec<SegmentInfo>, OpenError> {
        let known = SurveyBounds { durable: 0, marks_prove: self.marks_prove, from: 0, headers_only: true };
        Ok(survey(&self.files, known, &mut |_| ())?.segments)
    }

    /// Reads and verifies everything, and tells damage from a torn tail as a start would. `known_durable` is a position
    /// that is known to be durable from elsewhere, the end of a snapshot's checkpoint for example; 0 if nothing is.
    ///
    /// On the log of a running node the tail is what is being written.
    ///
    /// # Errors
    /// A file belongs to another log, a newer program wrote it, or it cannot be read. Damage is no error here.
    pub fn verify(
        &self,
        known_durable: LogPosition,
        progress: &mut dyn FnMut(SurveyProgress),
    ) -> Result<Verification, OpenError> {
        self.verify_from(LogPosition(0), known_durable, progress)
    }

    /// As [`Self::verify`], without the segments that end at or before `from`: what a snapshot makes unnecessary. What
    /// they hold, and whether one of them is missing, is not looked at; [`Verification::start`] is where the look began.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_from(
        &self,
        from: LogPosition,
        known_durable: LogPosition,
        progress: &mut dyn FnMut(SurveyProgress),
    ) -> Result<Verification, OpenError> {
        let Self { files, marks_prove } = self;
        let known =
            SurveyBounds { durable: known_durable.0, marks_prove: *marks_prove, from: from.0, headers_only: false };
        survey(files, known, progress)
    }

    /// Every whole entry that ends above `from` and begins below `to`, marks included, verified and copied. Damage in
    /// between is an item of its own; behind the last whole entry the iterator ends, whatever is there
    /// ([`Self::verify`] tells).
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn entries(&self, from: LogPosition, to: LogPosition) -> Result<FolderEntries<'_>, OpenError> {
        let size = self.files.identity.segment_size;
        let next = self.files.starts()?.into_iter().filter(|start| start + size > from.0 && *start < to.0).collect();
        Ok(FolderEntries {
            files: &self.files,
            from: from.0,
            to: to.0,
            next,
            open: None,
            held: None,
            ready: None,
            last: None,
        })
    }
}

/// A segment that is being walked.
struct OpenSegment {
    start: u64,
    limit: u64,
    file: Arc<dyn File>,
    walker: Walker,
}

/// Iterator over the entries of a folder; see [`LogFolder::entries`].
pub struct FolderEntries<'a> {
    files: &'a Files,
    from: u64,
    to: u64,
    /// Starts of the segments that come next.
    next: VecDeque<u64>,
    open: Option<OpenSegment>,
    /// Damage that is given only if a whole entry follows.
    held: Option<DamagedRange>,
    /// The entry that follows the damage.
    ready: Option<Entry>,
    /// Index of the last entry, and where the next file must begin.
    last: Option<(Option<u64>, u64)>,
}

impl FolderEntries<'_> {
    fn advance(&mut self) -> Result<Option<Entry>, OpenError> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(start) = self.next.pop_front() else { return Ok(None) };
                self.begin(start)?;
                continue;
            };
            let start = open.start;
            let found = open.walker.next(&mut { u64::MAX }).map_err(self.files.io("read", start))?;
            match found {
                Finding::Entry(header, _) if header.position >= self.to => return Ok(None),
                Finding::Entry(header, _) => {
                    if self.has_grown(start)? {
                        continue;
                    }
                    if let Some(entry) = self.read(&header)? {
                        return Ok(Some(entry));
                    }
                }
                Finding::Gap(gap) => self.gap(&gap)?,
                Finding::End | Finding::Pause => {
                    self.open = None;
                    self.more_segments(start)?;
                }
            }
        }
    }

    fn begin(&mut self, start: u64) -> Result<(), OpenError> {
        let size = self.files.identity.segment_size;
        if let Some((index, expected)) = self.last.filter(|(_, expected)| *expected < start)
            && self.files.is_missing(expected)?
        {
            self.hold(expected, start, "the file is missing".to_owned(), 0, index);
        }
        self.last = Some((self.last.and_then(|(index, _)| index), start + size));
        let Some(segment) = self.files.open(start)? else { return Ok(()) };
        if let HeaderState::Of(other) = segment.header {
            if !self.files.exists(start)? {
                // Released meanwhile, and made another segment.
                return Ok(());
            }
            let reason = format!("the file holds the segment that starts at {other}");
            self.hold(start, start + size, reason, 0, self.last_index());
            return Ok(());
        }
        if segment.size > SEGMENT_HEADER_LEN {
            let limit = entries_limit(segment.size, size);
            let window = ReadWindow::new(segment.file.clone(), limit, READ_STEP);
            let walker = Walker::new(window, self.files.seed, start, SEGMENT_HEADER_LEN);
            self.open = Some(OpenSegment { start, limit, file: segment.file, walker });
        }
        Ok(())
    }

    fn last_index(&self) -> Option<u64> {
        self.last.and_then(|(index, _)| index)
    }

    /// A running node may have gone on in another file.
    fn more_segments(&mut self, walked: u64) -> Result<(), OpenError> {
        if self.next.is_empty() {
            let to = self.to;
            self.next = self.files.starts()?.into_iter().filter(|start| *start > walked && *start < to).collect();
        }
        Ok(())
    }

    /// The payload of an entry that was found whole just now; `None` where there is nothing to give.
    fn read(&mut self, header: &StoredHeader) -> Result<Option<Entry>, OpenError> {
        let Some(open) = &self.open else { return Ok(None) };
        let StoredKind::Entry(kind) = header.kind else { return Ok(None) };
        self.last = self.last.map(|(_, expected)| (Some(header.index), expected));
        if header.end() <= self.from {
            self.held = None;
            return Ok(None);
        }
        let mut bytes = vec![0; stored_len(header) as usize];
        let mut window = ReadWindow::new(open.file.clone(), open.limit, READ_STEP);
        let io = self.files.io("read", open.start);
        if !window.copy(header.position - open.start, &mut bytes).map_err(io)? {
            return Ok(None);
        }
        let (head, payload) = bytes.split_at(ENTRY_HEADER_LEN as usize);
        let head: &[u8; ENTRY_HEADER_LEN as usize] = head.try_into().expect("it was split there");
        if verify_entry(self.files.seed, head, payload).is_err() {
            // The node released the file between the two reads and uses it again.
            self.open = None;
            return Ok(None);
        }
        let from = ENTRY_HEADER_LEN as usize;
        let payload = Bytes::from(bytes).slice(from..from + header.payload_len as usize);
        Ok(Some(Entry::new(header, kind, payload)))
    }

    /// Whether a running node has gone on where the last entry was, before it came to this segment. Then the walk goes
    /// back there.
    fn has_grown(&mut self, start: u64) -> Result<bool, OpenError> {
        let Some(end) = self.held.as_ref().map(|range| range.from.0).filter(|end| *end < start) else {
            return Ok(false);
        };
        let size = self.files.identity.segment_size;
        if end.is_multiple_of(size) || !self.files.is_whole_by_now(end)? {
            return Ok(false);
        }
        self.held = None;
        self.next.push_front(start);
        let grown = end - end % size;
        self.last = self.last.map(|(index, _)| (index, grown));
        self.begin(grown)?;
        if let Some(open) = &mut self.open {
            open.walker.again(end);
        }
        Ok(true)
    }

    fn gap(&mut self, gap: &BrokenRange) -> Result<(), OpenError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let start = open.start;
        if !self.files.exists(start)? {
            // Released meanwhile.
            (self.open, self.held) = (None, None);
            return self.more_segments(start);
        }
        if self.files.is_whole_by_now(gap.from)? {
            open.walker.again(gap.from);
            return Ok(());
        }
        let reason = gap.unreadable.clone().unwrap_or_else(|| gap.fault.to_string());
        self.hold(gap.from, gap.to, reason, gap.headers, self.last_index());
        Ok(())
    }

    /// Keeps a damaged range until it is known whether anything whole follows; one that follows another joins it.
    fn hold(&mut self, from: u64, to: u64, reason: String, headers: u64, index_before: Option<u64>) {
        if to <= self.from || self.held.is_some() {
            return;
        }
        let start = from - from % self.files.identity.segment_size;
        self.held = Some(DamagedRange {
            file: self.files.path(start),
            offset: from - start,
            length: to - from,
            from: LogPosition(from),
            to: LogPosition(to),
            reason,
            headers,
            index_before,
            index_after: None,
        });
    }
}

impl Iterator for FolderEntries<'_> {
    type Item = Result<Entry, DumpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.ready.take() {
            return Some(Ok(entry));
        }
        match self.advance() {
            Ok(None) => None,
            Ok(Some(entry)) => {
                let Some(mut range) = self.held.take() else { return Some(Ok(entry)) };
                range.index_after = Some(entry.index);
                self.ready = Some(entry);
                Some(Err(DumpError::Damaged(range)))
            }
            Err(error) => {
                self.open = None;
                self.next.clear();
                Some(Err(error.into()))
            }
        }
    }
}
