//! What `/metrics` shows of each group and topic: made when somebody asks, at most once a second, in small pieces.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use vouch_broker::{Millis, NotDone, RecordPosition};
use vouch_commitlog::LogReader;
use vouch_leader::OTHER;

use super::walk::{Hints, PairRow, TopicRow, Walk};
use vouch_shard::Shard;
use vouch_shard::clock::Clock;
use vouch_storage as storage;

/// Whoever asks earlier gets what was made.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// A group on a topic, or the sum of those without a series of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupLag {
    /// Name of the group; [`OTHER`] for the rest.
    pub group: String,
    /// Name of the topic; [`OTHER`] for the rest.
    pub topic: String,
    /// Messages that are not done: ready and in flight.
    pub lag: u64,
    /// Handed out, not done.
    pub in_flight: u64,
    /// Age of the oldest message that is not done, 0 without one; `None` for the rest, and where it cannot be read.
    pub lag_seconds: Option<f64>,
}

/// A topic with transactions, or the sum of those without a series of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicTransactions {
    /// Name of the topic; [`OTHER`] for the rest.
    pub topic: String,
    /// Open ones, parked ones included.
    pub open: u64,
    /// Those that are no longer asked about.
    pub parked: u64,
    /// Age of the oldest open one, 0 without one; `None` for the rest, and for some seconds where hundreds of thousands have
    /// to be looked through.
    pub oldest_seconds: Option<f64>,
}

/// What groups and topics have, at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesView {
    /// Groups on topics.
    pub groups: Vec<GroupLag>,
    /// Topics for transactions.
    pub topics: Vec<TopicTransactions>,
    /// Messages that went to the dead letters since the node started, by group; groups without any are not listed.
    pub dead_letters: Vec<(String, u64)>,
}

#[derive(Default)]
struct KeptView {
    made: Option<(Instant, Arc<SeriesView>)>,
    hints: Hints,
    /// When messages were stored that were the oldest in the last look, by log position.
    times: HashMap<RecordPosition, Millis>,
}

/// Makes views, and keeps the last one with what makes the next one cheaper.
pub(crate) struct Views {
    shard: Arc<Shard>,
    clock: Arc<Clock>,
    log: LogReader,
    kept: Mutex<KeptView>,
}

impl Views {
    /// Nothing is made before somebody asks.
    pub(crate) fn new(shard: Arc<Shard>, clock: Arc<Clock>, log: LogReader) -> Self {
        Self { shard, clock, log, kept: Mutex::default() }
    }

    /// A view that is not older than a second.
    ///
    /// The executor looks at a bounded number of things in each of its turns. What lies on a disk is read elsewhere.
    pub(crate) async fn get(&self) -> Result<Arc<SeriesView>, NotDone> {
        let mut kept = self.kept.lock().await;
        if let Some((_, view)) = kept.made.as_ref().filter(|(at, _)| at.elapsed() < FRESH_FOR) {
            return Ok(view.clone());
        }
        let now = self.clock.now();
        let mut walk = Walk::new(now, std::mem::take(&mut kept.hints));
        loop {
            let turn = self.shard.show(move |state, leader| {
                let done = walk.turn(state, leader);
                (walk, done)
            });
            let (walked, done) = turn.await?;
            walk = walked;
            if done {
                break;
            }
        }
        kept.hints = walk.take_hints();
        let (log, times) = (self.log.clone(), std::mem::take(&mut kept.times));
        let read = tokio::task::spawn_blocking(move || view(walk, now, &log, &times));
        let (view, times) = read.await.map_err(|error| NotDone::internal(error.to_string()))?;
        let view = Arc::new(view);
        kept.times = times;
        kept.made = Some((Instant::now(), view.clone()));
        Ok(view)
    }
}

fn seconds_since(at: Millis, now: Millis) -> f64 {
    now.ms_since(at) as f64 / 1000.0
}

/// Makes a view of a walk. Reads the times of messages that were not known before from the log: up to one for each
/// group and topic. Also returns the times that are worth remembering.
fn view(
    walk: Walk,
    now: Millis,
    log: &LogReader,
    known: &HashMap<RecordPosition, Millis>,
) -> (SeriesView, HashMap<RecordPosition, Millis>) {
    let mut times = HashMap::new();
    let mut view = SeriesView::default();
    for PairRow { group, topic, lag, in_flight, oldest } in walk.pairs {
        let position = if lag == 0 { None } else { oldest.position() };
        let stored_at = position.and_then(|position| {
            let at = known.get(&position).copied().or_else(|| {
                let record = storage::record(log, position).ok()?;
                vouch_broker::record::stored_at(&record).ok()
            })?;
            times.insert(position, at);
            Some(at)
        });
        let lag_seconds = if lag == 0 { Some(0.0) } else { stored_at.map(|at| seconds_since(at, now)) };
        view.groups.push(GroupLag { group, topic, lag, in_flight, lag_seconds });
    }
    if let Some((lag, in_flight)) = walk.other_pairs {
        let (group, topic) = (OTHER.to_owned(), OTHER.to_owned());
        view.groups.push(GroupLag { group, topic, lag, in_flight, lag_seconds: None });
    }
    for (_, topic, TopicRow { open, parked, opened_at }) in walk.topics {
        let oldest_seconds = if open == 0 { Some(0.0) } else { opened_at.map(|at| seconds_since(at, now)) };
        view.topics.push(TopicTransactions { topic, open, parked, oldest_seconds });
    }
    if let Some(TopicRow { open, parked, .. }) = walk.other_topics {
        view.topics.push(TopicTransactions { topic: OTHER.to_owned(), open, parked, oldest_seconds: None });
    }
    view.dead_letters = walk.dead_letters;
    view.dead_letters.extend(walk.other_dead_letters.map(|count| (OTHER.to_owned(), count)));
    (view, times)
}
