//! Going through what is filed under one hash.

use vouch_broker::{QueueOffset, RecordPosition, TopicId};

use super::LookupFault;
use super::format::{Posting, QueueStretch};
use super::page::Pages;
use super::section::{Cursor, Section};

/// How far one run was gone through. A hash may be filed in every run of a file, newest first in each.
pub(super) struct RunHead {
    pub(super) run: Section<Posting>,
    pub(super) next: u64,
    pub(super) cursor: Cursor,
    /// The one before `next`, if it has the hash.
    pub(super) posting: Option<Posting>,
}

/// Goes through the postings of a hash, newest first.
pub struct Postings {
    pub(super) pages: Pages,
    pub(super) hash: u64,
    pub(super) heads: Vec<RunHead>,
    pub(super) rows: Section<QueueStretch>,
    /// In the rows.
    pub(super) cursor: Cursor,
}

impl Postings {
    /// Goes on in one run: to its next posting of the hash, or to its end.
    pub(super) fn fill(&mut self, head: usize) -> Result<(), LookupFault> {
        let head = &mut self.heads[head];
        head.posting = None;
        if head.next < head.run.items {
            let posting = head.run.get(&self.pages, &mut head.cursor, head.next)?;
            head.posting = Some(posting).filter(|posting| posting.hash == self.hash);
            head.next += 1;
        }
        Ok(())
    }

    /// The next one: its position, topic, queue and offset.
    pub fn next_found(&mut self) -> Result<Option<Posted>, LookupFault> {
        let newest = (0..self.heads.len()).max_by_key(|head| self.heads[*head].posting.map(|posting| posting.position));
        let Some((head, posting)) = newest.and_then(|head| Some((head, self.heads[head].posting?))) else {
            return Ok(None);
        };
        self.fill(head)?;
        if u64::from(posting.row) >= self.rows.items {
            return Err(LookupFault::Other);
        }
        let row = self.rows.get(&self.pages, &mut self.cursor, posting.row.into())?;
        let offset = QueueOffset(row.first.0.saturating_add(posting.index.into()));
        Ok(Some(Posted { position: posting.position, topic: row.topic, queue: row.queue, offset }))
    }
}

/// Where a message lies that may have a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Log position of the message.
    pub position: RecordPosition,
    /// Its topic.
    pub topic: TopicId,
    /// Its queue.
    pub queue: u32,
    /// Its offset in the queue.
    pub offset: QueueOffset,
}
