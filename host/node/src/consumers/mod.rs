//! Bindings that consume: while this node leads it delivers to their components, and records what they answer.
//!
//! A message is done when the record of its answer is in the log, with all that the component staged: nobody acknowledges
//! earlier (ruling 8). Only the log decides; what is here is begun anew by whoever leads next.

mod answer;
mod consumer;
mod deliver;
mod end;
mod failing;
mod leased;
mod rate;
mod receive;
mod row;
mod span;
mod standing;
mod subscribed;
mod takeover;
mod writing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use vouch_broker::state::BindingEntry;
use vouch_broker::{Millis, NotDone};
use vouch_cluster::NodeId;
use vouch_commitlog::LogReader;
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

use crate::components::BoundComponents;
use crate::effects::Effects;
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use consumer::Consumer;
pub(crate) use end::ConsumersEnd;
pub use standing::ConsumerStanding;
pub(crate) use standing::ConsumerStandings;
pub(crate) use subscribed::{Subscription, lag, subscriptions};

/// The runner looks again after this long even if nothing seems to have changed.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// One that does not lead looks whether it does by now.
const LOOK_WHETHER_IT_LEADS_EVERY: Duration = Duration::from_millis(250);

/// What delivering to components takes.
pub(crate) struct Consumers {
    /// Receives, and takes what was answered.
    pub(crate) shard: Arc<Shard>,
    /// The log's time.
    pub(crate) clock: Arc<Clock>,
    /// Reads the messages.
    pub(crate) log: LogReader,
    /// Components that are bound.
    pub(crate) bound: Arc<BoundComponents>,
    /// What they stage.
    pub(crate) effects: Arc<Effects>,
    /// Where their groups' members are known.
    pub(crate) sessions: Arc<Sessions>,
    /// Counts what became of deliveries.
    pub(crate) metrics: Arc<Metrics>,
    /// What is shown of them.
    pub(crate) standings: Arc<ConsumerStandings>,
    /// A binding changed.
    pub(crate) changed: Arc<Notify>,
    /// Who leads.
    pub(crate) leader: watch::Receiver<Option<NodeId>>,
    /// They end before the shard does.
    pub(crate) end: Arc<ConsumersEnd>,
}

/// A binding that consumes, as it is in the log.
#[derive(Clone)]
struct Wanted {
    /// Its name.
    name: String,
    /// What the last record set, and whether it pauses.
    entry: Arc<BindingEntry>,
}

/// One that runs. Dropped, it ends at once, and its leases run out.
struct Running {
    /// Log position of the record that set it.
    revision: u64,
    /// What its tasks have in common.
    consumer: Arc<Consumer>,
    /// Receives, and the deliveries of each.
    tasks: JoinSet<()>,
}

/// What runs of one leadership.
#[derive(Default)]
struct Leading {
    /// When it began.
    since: Option<Millis>,
    /// By name.
    running: HashMap<String, Running>,
    /// Those that were set anew or deleted: they receive no more, and end what they have.
    ending: JoinSet<()>,
}

impl Leading {
    /// Ends everything at once: whoever leads now takes the leases over, and what still ran here would be answered twice.
    async fn end(&mut self) {
        for (_, Running { mut tasks, .. }) in self.running.drain() {
            tasks.shutdown().await;
        }
        self.ending.shutdown().await;
        self.since = None;
    }
}

/// Delivers until the node stops.
pub(crate) async fn run(consumers: Arc<Consumers>) {
    let (mut leading, mut leader) = (Leading::default(), consumers.leader.clone());
    loop {
        let leads = consumers.look(&mut leading).await;
        while leading.ending.try_join_next().is_some() {}
        let pause = if leads { LOOK_AT_LEAST_EVERY } else { LOOK_WHETHER_IT_LEADS_EVERY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = consumers.changed.notified() => {}
            changed = leader.changed() => if changed.is_err() { return },
            () = consumers.end.is_wanted() => break,
        }
    }
    leading.end().await;
    // A planned stop costs no message an attempt. Whoever leads next finds nothing to take over; if this fails it does.
    if let Ok((_, wanted)) = consumers.wanted().await {
        consumers.take_over(&wanted, false).await;
    }
    consumers.end.is_done();
}

impl Consumers {
    /// Looks who leads and which bindings there are, and lets those run. Returns whether they do.
    async fn look(self: &Arc<Self>, leading: &mut Leading) -> bool {
        let Ok((since, wanted)) = self.wanted().await else {
            leading.end().await;
            self.sessions.set_bound(Vec::new(), BTreeSet::new());
            self.standings.clear();
            return false;
        };
        if leading.since != Some(since) {
            leading.end().await;
            self.standings.clear();
            if !self.take_over(&wanted, self.counts_what_is_taken_over().await).await {
                return false;
            }
            leading.since = Some(since);
        }
        let (members, paused) = subscribed::members(&wanted);
        self.sessions.set_bound(members, paused);
        self.reconcile(leading, wanted);
        true
    }

    /// Whether deliveries count that are taken over. Of a node that is alone they were its own, and it died with them: one of the
    /// messages may be what it died of. Where another one led before, nothing speaks against them.
    async fn counts_what_is_taken_over(&self) -> bool {
        self.shard.read(|state| state.members().all().len() <= 1).await.unwrap_or(false)
    }

    /// The bindings that consume, and since when this node leads.
    ///
    /// # Errors
    /// It does not lead.
    async fn wanted(&self) -> Result<(Millis, Vec<Wanted>), NotDone> {
        self.shard
            .lead(|state, leader| {
                let all = state.plugins().bindings().filter(|(_, entry)| !entry.groups.is_empty());
                let wanted = all.map(|(name, entry)| Wanted { name: name.to_owned(), entry: Arc::new(entry.clone()) });
                (leader.began_at, wanted.collect())
            })
            .await
    }

    /// Lets those run that are wanted and do not pause, as they are now.
    fn reconcile(self: &Arc<Self>, leading: &mut Leading, wanted: Vec<Wanted>) {
        let Leading { running, ending, .. } = leading;
        let mut before = std::mem::take(running);
        self.standings.retain(|name| wanted.iter().any(|each| each.name == name));
        for Wanted { name, entry } in wanted.into_iter().filter(|each| !each.entry.paused) {
            let same = before.remove(&name);
            let same = match same {
                Some(same) if same.revision == entry.revision => Some(same),
                Some(other) => {
                    other.end(ending);
                    None
                }
                None => None,
            };
            let runs = same.unwrap_or_else(|| Running::start(self.clone(), &name, entry));
            running.insert(name, runs);
        }
        before.into_values().for_each(|gone| gone.end(ending));
    }
}

impl Running {
    /// Begins to receive.
    fn start(of: Arc<Consumers>, name: &str, entry: Arc<BindingEntry>) -> Self {
        let revision = entry.revision;
        // Set anew it pauses no more.
        of.standings.succeeded(name);
        let consumer = Arc::new(Consumer::new(of, name, entry));
        let mut tasks = JoinSet::new();
        tasks.spawn(consumer.clone().run());
        Self { revision, consumer, tasks }
    }

    /// Receives no more; what was delivered is answered and recorded.
    fn end(self, ending: &mut JoinSet<()>) {
        let Self { consumer, mut tasks, .. } = self;
        consumer.receive_no_more();
        ending.spawn(async move { while tasks.join_next().await.is_some() {} });
    }
}
