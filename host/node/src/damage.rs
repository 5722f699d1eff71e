//! What of the log is damaged, and what was in it.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use vouch_broker::state::{Body, QueueGap};
use vouch_broker::{NotDone, State, TopicId};
use vouch_commitlog::DamagedRange;
use vouch_storage::{LostFile, LostParts, is_break};

use crate::node::{Inner, LogDamage};
use crate::served::ServedLog;

/// Most stretches that are told one by one, and most rows for each.
const STRETCHES_MAX: usize = 100;
const ROWS_MAX: usize = 1000;
/// Halves and pieces of components that are looked at in a stretch.
const BODIES_MAX: usize = 10_000;

/// What of a node's log is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The node serves read-only: everything before this log position is applied, and nothing behind it.
    pub served_to: Option<u64>,
    /// End of the log.
    pub log_end: u64,
    /// Whole bytes behind `served_to`. What they would mean depends on what was lost before them; `vouch log dump` shows
    /// them.
    pub not_served_bytes: u64,
    /// By position: what the start found of a log that is served read-only; of another, what the scrubber found since the
    /// node started, and files that are missing at the beginning.
    pub stretches: Vec<DamagedStretch>,
    /// Stretches beyond those.
    pub omitted: u64,
}

/// A stretch of the log without a whole entry, or with whole ones that may not belong there; or one of which a part of the
/// snapshots told where messages lie, which is lost: what is in it is whole, and cannot be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedStretch {
    /// The file of the segment, or of the part, which may be missing.
    pub file: PathBuf,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Bytes of it. 0 where whole entries meet that do not follow one another.
    pub length: u64,
    /// First log position of it.
    pub from: u64,
    /// First log position after it.
    pub to: u64,
    /// What does not hold at its beginning.
    pub reason: String,
    /// Entries that were lost, as far as those around them tell.
    pub entries_lost: Option<u64>,
    /// What was in it. `None` where nobody knows: the state does not reach so far, or whole entries meet that do not follow
    /// one another.
    pub known: Option<Known>,
}

/// What is still needed and was in a damaged stretch. What had expired or ended is not missed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Messages of queues, by topic, queue and offset.
    pub messages: Vec<LostMessages>,
    /// Open transactions whose half lay there.
    pub transactions: Vec<u64>,
    /// Pieces of components that lay there: upload these again.
    pub component_pieces: u64,
    /// Rows of messages and transactions beyond those; at least so many.
    pub omitted: u64,
}

/// Neighbouring messages of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostMessages {
    /// Name of the topic.
    pub topic: String,
    /// The queue.
    pub queue: u32,
    /// Offsets from the first to the last.
    pub offsets: RangeInclusive<QueueOffset>,
}

impl LogDamage {
    /// What of the log is damaged, as far as it is known, and what was in it. Looks through the indexes of all queues, in
    /// steps.
    pub async fn report(&self) -> Result<Damage, NotDone> {
        let inner = &self.0;
        let _turn = inner.searches.take().await?;
        let (mut stretches, served_to, not_served_bytes) = match &*inner.log {
            ServedLog::Damaged(log) => {
                let stretches = log.found.damage.iter().map(stretch).chain(inner.doubtful(log.doubtful_to));
                let mut stretches: Vec<_> = stretches.collect();
                if let Some(lost) = &log.lost {
                    stretches.push(inner.without_parts(lost).await?);
                }
                (stretches, Some(log.served_to), log.not_served_bytes())
            }
            ServedLog::Kept(_) => {
                let mut stretches: Vec<_> = inner.scrub.found().iter().map(stretch).collect();
                for file in inner.scrub.lost() {
                    stretches.push(inner.lost_file(file).await?);
                }
                (stretches, None, 0)
            }
        };
        stretches.extend(inner.missing_head());
        stretches.sort_by_key(|stretch| stretch.from);
        let omitted = stretches.len().saturating_sub(STRETCHES_MAX) as u64;
        stretches.truncate(STRETCHES_MAX);
        inner.find_what_was_there(&mut stretches, served_to.unwrap_or(u64::MAX)).await?;
        Ok(Damage { served_to, log_end: inner.reader.end().0, not_served_bytes, stretches, omitted })
    }
}

fn stretch(range: &DamagedRange) -> DamagedStretch {
    let DamagedRange { file, offset, length, from, to, reason, .. } = range.clone();
    let mut reason = reason;
    if is_break(range) {
        reason.push_str("; what lies on one side of it is of another history");
    }
    let entries_lost = range.entries_lost().filter(|_| !is_break(range));
    DamagedStretch { file, offset, length, from: from.0, to: to.0, reason, entries_lost, known: None }
}

/// A stretch of the log in which messages are whole and cannot be found.
fn unfindable(file: PathBuf, stretch: Range<u64>, reason: String, known: Known) -> DamagedStretch {
    let length = std::fs::metadata(&file).map_or(0, |file| file.len());
    let Range { start: from, end: to } = stretch;
    DamagedStretch { file, offset: 0, length, from, to, reason, entries_lost: None, known: Some(known) }
}

impl Inner {
    fn segment_file(&self, position: u64) -> PathBuf {
        let start = position - position % self.segment_size;
        self.config.storage().folder().segment(start)
    }

    fn whole_stretch(&self, Range { start, end }: Range<u64>, reason: &str) -> DamagedStretch {
        DamagedStretch {
            file: self.segment_file(start),
            offset: start % self.segment_size,
            length: end - start,
            from: start,
            to: end,
            reason: reason.to_owned(),
            entries_lost: None,
            known: None,
        }
    }

    /// Files before the first one that is there, of which something is needed.
    fn missing_head(&self) -> Option<DamagedStretch> {
        let missing = self.missing.clone()?;
        Some(self.whole_stretch(missing, "this file and those behind it up to the first one of the log are missing"))
    }

    /// What is whole and not read, for it may be of another history.
    fn doubtful(&self, doubtful_to: u64) -> Option<DamagedStretch> {
        let stretch = self.reader.start().0..doubtful_to;
        (!stretch.is_empty()).then(|| self.whole_stretch(stretch, "it may be of another history, and is not read"))
    }

    /// What cannot be found without parts that a start did without.
    async fn without_parts(&self, lost: &LostParts) -> Result<DamagedStretch, NotDone> {
        let file = lost.files.first().cloned().unwrap_or_default();
        let known = self.known(lost.gaps.queues.clone()).await?;
        Ok(unfindable(file, lost.stretch.clone(), lost.to_string(), known))
    }

    /// What a start would not find without a file of which both copies are damaged.
    async fn lost_file(&self, LostFile { file, part, reason }: LostFile) -> Result<DamagedStretch, NotDone> {
        let Some(part) = part else {
            let reason = format!("both copies of this snapshot are damaged: {reason}; the next one takes its place");
            return Ok(unfindable(file, 0..0, reason, Known::default()));
        };
        let look = move |state: &State| {
            let before = state.parts().into_iter().rfind(|other| *other < part);
            (before.unwrap_or(0)..part, state.messages_of_part(part))
        };
        let (stretch, messages) = self.shard.read(look).await?;
        let reason = format!("both copies of this part are damaged, and a start will not find its messages: {reason}");
        Ok(unfindable(file, stretch, reason, self.known(messages).await?))
    }

    /// Messages of queues, by the names of their topics.
    async fn known(&self, gaps: Vec<QueueGap>) -> Result<Known, NotDone> {
        let mut known = Known { omitted: gaps.len().saturating_sub(ROWS_MAX) as u64, ..Known::default() };
        let mut names = HashMap::new();
        for QueueGap { topic, queue, offsets } in gaps.into_iter().take(ROWS_MAX) {
            let topic = self.name_of(topic, &mut names).await?;
            known.messages.push(LostMessages { topic, queue, offsets: offsets.start..=QueueOffset(offsets.end.0 - 1) });
        }
        Ok(known)
    }

    /// Fills in what the state, which is that of `served_to`, refers to in these stretches.
    async fn find_what_was_there(&self, stretches: &mut [DamagedStretch], served_to: u64) -> Result<(), NotDone> {
        let mut found: Vec<Found> = Vec::new();
        for (n, stretch) in stretches.iter().enumerate() {
            if stretch.length > 0 && stretch.from < served_to && stretch.known.is_none() {
                let range = stretch.from..stretch.to;
                let look_in = range.clone();
                let look = move |state: &State| state.bodies_in(look_in, BODIES_MAX);
                found.push(Found::new(n, range, self.shard.read(look).await?));
            }
        }
        let first = found.iter().map(|found| found.range.start).min().unwrap_or(0);
        let hull = first..found.iter().map(|found| found.range.end).max().unwrap_or(first);
        let mut from = None;
        while !hull.is_empty() {
            let look_in = hull.clone();
            let look = move |state: &State| state.messages_in(&look_in, from);
            let (bodies, next) = self.shard.read(look).await?;
            for body in bodies {
                found.iter_mut().for_each(|found| found.add(&body));
            }
            let Some(next) = next else { break };
            from = Some(next);
        }
        let mut names = HashMap::new();
        for Found { stretch, mut known, rows, .. } in found {
            for (topic, queue, offsets) in rows {
                let topic = self.name_of(topic, &mut names).await?;
                known.messages.push(LostMessages { topic, queue, offsets });
            }
            stretches[stretch].known = Some(known);
        }
        Ok(())
    }

    async fn name_of(&self, topic: TopicId, names: &mut HashMap<TopicId, String>) -> Result<String, NotDone> {
        if let Some(name) = names.get(&topic) {
            return Ok(name.clone());
        }
        let name = self.routes.topic_name(topic).await?.to_string();
        names.insert(topic, name.clone());
        Ok(name)
    }
}

/// What was found of one stretch.
struct Found {
    /// Which one.
    stretch: usize,
    range: Range<u64>,
    known: Known,
    /// Messages, gathered to runs of neighbours.
    rows: Vec<(TopicId, u32, RangeInclusive<QueueOffset>)>,
}

impl Found {
    fn new(stretch: usize, range: Range<u64>, bodies: Vec<Body>) -> Self {
        let mut known = Known { omitted: u64::from(bodies.len() == BODIES_MAX), ..Known::default() };
        for body in bodies {
            match body.transaction {
                None => known.component_pieces += 1,
                Some(_) if known.transactions.len() == ROWS_MAX => known.omitted += 1,
                Some(transaction) => known.transactions.push(transaction),
            }
        }
        Self { stretch, range, known, rows: Vec::new() }
    }

    fn add(&mut self, body: &Body) {
        let Some(queued) = body.queued.filter(|_| self.range.contains(&body.position)) else { return };
        let (topic, queue, offset) = (queued.topic, queued.queue, queued.offset);
        if let Some((last_topic, last_queue, offsets)) = self.rows.last_mut()
            && (*last_topic, *last_queue, offsets.end().next()) == (topic, queue, offset)
        {
            *offsets = *offsets.start()..=offset;
        } else if self.rows.len() == ROWS_MAX {
            self.known.omitted += 1;
        } else {
            self.rows.push((topic, queue, offset..=offset));
        }
    }
}
