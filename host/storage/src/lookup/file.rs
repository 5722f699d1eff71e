//! Looking something up in one file.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vouch_broker::{QueueOffset, RecordPosition, TopicId};
use vouch_commitlog::Checkpoint;

use super::LookupFault;
use super::format::{Posting, QueueStretch, SAMPLE_EVERY};
use super::head::LookupHead;
use super::page::{PAGE_LEN, Pages};
use super::postings::{Postings, RunHead};
use super::section::{Cursor, SearchWindow, Section};

/// How often a hash is aimed at where hashes spread evenly; then the rest is halved, however they spread.
const AIMED: u32 = 4;

/// The messages of one part, by their terms and by their times. It never changes.
///
/// It is open only while something is looked up: a log has more parts than a process may have open files.
pub struct LookupFile {
    path: PathBuf,
    head: LookupHead,
    runs: Vec<Section<Posting>>,
}

impl LookupFile {
    /// Opens the file that should be for this part. Its first page is whole then; the others are verified when they are
    /// read.
    pub(super) fn open(path: &Path, part: u64) -> Result<Self, LookupFault> {
        let pages = Pages::open(File::open(path)?, part)?;
        let head = LookupHead::decode(pages.read(0)?.content(), pages.count())?;
        if head.part != part || head.checkpoint.end.0 != part {
            return Err(LookupFault::Other);
        }
        let mut cursor = Cursor::default();
        let runs = (0..head.runs.items).map(|run| head.runs.get(&pages, &mut cursor, run));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        let fit = runs.iter().all(|run| run.fits(pages.count()));
        if fit { Ok(Self { path: path.to_owned(), head, runs }) } else { Err(LookupFault::Other) }
    }

    /// Opens the file once more. One of another length is not the file whose first page was read.
    fn pages(&self) -> Result<Pages, LookupFault> {
        let pages = Pages::open(File::open(&self.path)?, self.head.part)?;
        if pages.count() == self.head.pages {
            Ok(pages)
        } else {
            Err(LookupFault::Length(pages.count() * PAGE_LEN as u64))
        }
    }

    /// The part whose messages are in it: all of them lie below this position of the log.
    pub fn part(&self) -> u64 {
        self.head.part
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.head.pages * PAGE_LEN as u64
    }

    /// Whether it was made from this part, by its checksum.
    pub(super) fn is_of(&self, part_checksum: u32) -> bool {
        self.head.part_checksum == part_checksum
    }

    /// The last entry of the log that it was made from.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.head.checkpoint
    }

    /// The latest time of a message in it, in milliseconds since 1970.
    pub fn latest_ms(&self) -> u64 {
        self.head.latest_ms
    }

    /// The stretches of a topic's queues that it covers, ascending.
    pub fn rows_of(&self, topic: TopicId) -> Result<Vec<QueueStretch>, LookupFault> {
        let (rows, pages) = (self.head.rows, self.pages()?);
        let mut next = rows.partition_point(&pages, 0..rows.items, SearchWindow::middle, |row| row.topic < topic)?;
        let (mut found, mut cursor) = (Vec::new(), Cursor::default());
        while next < rows.items {
            let row = rows.get(&pages, &mut cursor, next)?;
            if row.topic != topic {
                break;
            }
            found.push(row);
            next += 1;
        }
        Ok(found)
    }

    /// Offsets of a row from which on messages may be as late as a time; none before them is. Empty if none is.
    pub fn since(&self, row: &QueueStretch, since_ms: u64) -> Result<Range<QueueOffset>, LookupFault> {
        let samples = row.sample..row.sample.saturating_add(row.samples());
        if samples.end > self.head.samples.items {
            return Err(LookupFault::Other);
        }
        let earlier = |sample: &super::format::Sample| sample.0 < since_ms;
        let found =
            self.head.samples.partition_point(&self.pages()?, samples.clone(), SearchWindow::middle, earlier)?;
        let from = row.first.0.saturating_add((found - samples.start) * SAMPLE_EVERY);
        Ok(QueueOffset(from).min(row.end())..row.end())
    }

    /// Messages filed under a hash at positions below `below`, newest first.
    pub fn postings(&self, hash: u64, below: RecordPosition) -> Result<Postings, LookupFault> {
        let before = |posting: &Posting| posting.hash < hash || (posting.hash == hash && posting.position >= below);
        let pages = self.pages()?;
        let mut heads = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let mut aimed = 0;
            let aim = |window: &SearchWindow<Posting>| {
                aimed += 1;
                if aimed > AIMED { window.middle() } else { even(window, hash) }
            };
            let next = run.partition_point(&pages, 0..run.items, aim, before)?;
            heads.push(RunHead { run: *run, next, cursor: Cursor::default(), posting: None });
        }
        let mut postings = Postings { pages, hash, heads, rows: self.head.rows, cursor: Cursor::default() };
        (0..postings.heads.len()).try_for_each(|head| postings.fill(head))?;
        Ok(postings)
    }
}

/// Where a hash lies if hashes spread evenly between those that are known.
fn even(window: &SearchWindow<Posting>, hash: u64) -> u64 {
    let low = window.below.map_or(0, |posting| posting.hash);
    let high = window.above.map_or(u64::MAX, |posting| posting.hash);
    let span = u128::from(high.saturating_sub(low)) + 1;
    let share = u128::from(hash.saturating_sub(low)) * u128::from(window.items.end - window.items.start) / span;
    window.items.start.saturating_add(share as u64)
}
