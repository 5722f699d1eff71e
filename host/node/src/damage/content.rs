//! What was in damaged stretches of the log, as far as the state tells.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use vouch_commitlog::LogPosition;

use vouch_broker::state::{Body, QueueGap};
use vouch_broker::{NotDone, QueueOffset, RecordPosition, State, TopicId};

use vouch_shard::Signals;

use super::{DamagedStretch, LogDamage, LostContent, LostMessages};

/// Most rows that are told for each stretch.
const ROWS_MAX: usize = 1000;
/// Halves and pieces of components that are looked at in a stretch.
const BODIES_MAX: usize = 10_000;

impl LogDamage {
    /// Messages of queues, by the names of their topics.
    pub(super) async fn known(&self, gaps: Vec<QueueGap>) -> Result<LostContent, NotDone> {
        let mut known = LostContent { omitted: gaps.len().saturating_sub(ROWS_MAX) as u64, ..LostContent::default() };
        let mut names = HashMap::new();
        for QueueGap { topic, queue, offsets } in gaps.into_iter().take(ROWS_MAX) {
            let topic = self.name_of(topic, &mut names).await?;
            known.messages.push(LostMessages { topic, queue, offsets: offsets.start..=QueueOffset(offsets.end.0 - 1) });
        }
        Ok(known)
    }

    /// Fills in what the state, which is that of `served_to`, refers to in these stretches.
    pub(super) async fn find_what_was_there(
        &self,
        stretches: &mut [DamagedStretch],
        served_to: LogPosition,
    ) -> Result<(), NotDone> {
        let mut found: Vec<StretchSearch> = Vec::new();
        for (n, stretch) in stretches.iter().enumerate() {
            if stretch.length > 0 && stretch.from < served_to && stretch.known.is_none() {
                let range = vouch_storage::records_in(&(stretch.from..stretch.to));
                let look_in = range.clone();
                let look = move |state: &State| state.bodies_in(look_in, BODIES_MAX);
                found.push(StretchSearch::new(n, range, self.shard.read(look).await?, self.shard.signals()));
            }
        }
        let first = found.iter().map(|found| found.range.start).min().unwrap_or(RecordPosition::START);
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
        for StretchSearch { stretch, mut known, rows, .. } in found {
            for (topic, queue, offsets) in rows {
                let topic = self.name_of(topic, &mut names).await?;
                known.messages.push(LostMessages { topic, queue, offsets });
            }
            stretches[stretch].known = Some(known);
        }
        Ok(())
    }

    /// The name of a topic, asked for once in a report.
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
struct StretchSearch {
    /// Which one.
    stretch: usize,
    range: Range<RecordPosition>,
    known: LostContent,
    /// Messages, gathered to runs of neighbours.
    rows: Vec<(TopicId, u32, RangeInclusive<QueueOffset>)>,
}

impl StretchSearch {
    /// Begins with what is known without looking through the queues.
    fn new(stretch: usize, range: Range<RecordPosition>, bodies: Vec<Body>, signals: &Signals) -> Self {
        let mut known = LostContent { omitted: u64::from(bodies.len() == BODIES_MAX), ..LostContent::default() };
        for body in bodies {
            match body.transaction {
                None => known.component_pieces += 1,
                Some(_) if known.transactions.len() == ROWS_MAX => known.omitted += 1,
                Some(transaction) => known.transactions.push(signals.transaction_id(transaction)),
            }
        }
        Self { stretch, range, known, rows: Vec::new() }
    }

    /// Takes a message of a queue if it lay in the stretch.
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
