//! Writing one file.

use std::io;
use std::path::Path;

use vouch_broker::{QueueOffset, RecordPosition, TopicId};
use vouch_commitlog::Checkpoint;

use super::format::{Posting, QueueStretch, SAMPLE_EVERY, Sample, Term};
use super::head::LookupHead;
use super::page_writer::PageWriter;
use super::section::Section;
use vouch_files::create;

/// Postings that are sorted at once: 24 MiB of memory. What is more makes further runs.
pub(super) const RUN_MAX: usize = 1 << 20;

/// Takes the messages of a part in any order and writes their lookup file.
pub(super) struct LookupWriter {
    pages: PageWriter,
    part: u64,
    part_checksum: u32,
    checkpoint: Checkpoint,
    rows: Vec<QueueStretch>,
    /// The latest time of each group of messages.
    latest: Vec<u64>,
    postings: Vec<Posting>,
    run_max: usize,
    runs: Vec<Section<Posting>>,
}

impl LookupWriter {
    /// Writes into a new file. `rows`: topic, queue, first offset and number of messages, ascending by topic and queue.
    pub(super) fn create(
        path: &Path,
        part_checksum: u32,
        checkpoint: Checkpoint,
        rows: impl IntoIterator<Item = (TopicId, u32, QueueOffset, u64)>,
        run_max: usize,
    ) -> io::Result<Self> {
        let part = checkpoint.end.0;
        let pages = PageWriter::new(create(path)?, part)?;
        let mut sample = 0;
        let mut placed = Vec::new();
        for (topic, queue, first, count) in rows {
            let row = QueueStretch { topic, queue, first, count, sample };
            sample += row.samples();
            placed.push(row);
        }
        let latest = vec![0; usize::try_from(sample).map_err(io::Error::other)?];
        let (postings, runs) = (Vec::new(), Vec::new());
        Ok(Self { pages, part, part_checksum, checkpoint, rows: placed, latest, postings, run_max, runs })
    }

    /// Files a message of a row.
    pub(super) fn message<'a>(
        &mut self,
        (row, index): (u32, u32),
        position: RecordPosition,
        stored_at_ms: u64,
        terms: impl IntoIterator<Item = Term<'a>>,
    ) -> io::Result<()> {
        let QueueStretch { topic, sample, .. } = self.rows[row as usize];
        let latest = &mut self.latest[(sample + u64::from(index) / SAMPLE_EVERY) as usize];
        *latest = stored_at_ms.max(*latest);
        for term in terms {
            self.postings.push(Posting { hash: term.hash(topic), position, row, index });
            if self.postings.len() == self.run_max {
                self.end_run()?;
            }
        }
        Ok(())
    }

    /// Sorts the postings that were gathered and writes them as a run.
    fn end_run(&mut self) -> io::Result<()> {
        self.postings.sort_unstable_by_key(Posting::order);
        // A message may name a key twice.
        self.postings.dedup();
        self.runs.push(self.pages.section(self.postings.drain(..))?);
        Ok(())
    }

    /// Writes the rest.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.postings.is_empty() {
            self.end_run()?;
        }
        for row in &self.rows {
            let groups = row.sample as usize..(row.sample + row.samples()) as usize;
            let mut before = 0;
            for latest in &mut self.latest[groups] {
                before = before.max(*latest);
                *latest = before;
            }
        }
        let latest_ms = self.latest.iter().copied().max().unwrap_or(0);
        let head = LookupHead {
            part: self.part,
            part_checksum: self.part_checksum,
            checkpoint: self.checkpoint,
            latest_ms,
            rows: self.pages.section(self.rows)?,
            samples: self.pages.section(self.latest.into_iter().map(Sample))?,
            runs: self.pages.section(self.runs)?,
            pages: self.pages.pages(),
        };
        self.pages.finish(head.encode())
    }
}
