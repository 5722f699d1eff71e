//! Bindings that consume: while this node leads it delivers to their components, and records what they answer.
//!
//! A message is done when the record of its answer is in the log, with all that the component staged: nobody acknowledges
//! earlier (ruling 8). Only the log decides; what is here is begun anew by whoever leads next.

mod answer;
mod deliver;
mod failing;
mod rate;
mod receive;
mod row;
mod standing;
mod subscribed;
mod takeover;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use vouch_broker::state::BindingEntry;
use vouch_broker::{Millis, NotDone};
use vouch_commitlog::LogReader;
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

use crate::components::BoundComponents;
use crate::effects::Effects;
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::stopping::Stopping;
use receive::Consumer;
pub use standing::ConsumerStanding;
pub(crate) use standing::ConsumerStandings;
pub(crate) use subscribed::{Subscription, lag, subscriptions};

/// The runner looks again after this long even if nothing seems to have changed.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// One that does not lead looks whether it does by now.
const LOOK_WHETHER_IT_LEADS_EVERY: Duration = Duration::from_millis(250);

/// What delivering to components takes.
pub(crate) struct Consumers {
    pub(crate) shard: Arc<Shard>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) log: LogReader,
    /// Components that are bound.
    pub(crate) bound: Arc<BoundComponents>,
    /// What they stage.
    pub(crate) effects: Arc<Effects>,
    /// Where their groups' members are known.
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) metrics: Arc<Metrics>,
    /// What is shown of them.
    pub(crate) standings: Arc<ConsumerStandings>,
    /// A binding changed.
    pub(crate) changed: Arc<Notify>,
    pub(crate) stopping: Arc<Stopping>,
}

/// A binding that consumes, as it is in the log.
#[derive(Clone)]
struct Wanted {
    name: String,
    entry: Arc<BindingEntry>,
}

/// One that runs. Dropped, it ends at once, and its leases run out.
struct Running {
    revision: u64,
    consumer: Arc<Consumer>,
    tasks: JoinSet<()>,
}

/// Delivers until the node stops.
pub(crate) async fn run(consumers: Arc<Consumers>) {
    // Those of this leadership, by name; when that began.
    let (mut running, mut began): (HashMap<String, Running>, Option<Millis>) = (HashMap::new(), None);
    // Those that were set anew or deleted: they receive no more, and end what they have.
    let mut ending = JoinSet::new();
    loop {
        let leads = match consumers.wanted().await {
            Ok((since, wanted)) => {
                if began != Some(since) {
                    running.clear();
                    began = consumers.take_over(&wanted).await.then_some(since);
                }
                if began.is_some() {
                    consumers.sessions.set_bound(subscribed::members(&wanted));
                    consumers.reconcile(&mut running, wanted, &mut ending);
                }
                true
            }
            // Whoever leads now takes their leases over: what still runs here would be answered twice.
            Err(_) => {
                running.clear();
                ending.abort_all();
                began = None;
                consumers.sessions.set_bound(Vec::new());
                consumers.standings.clear();
                false
            }
        };
        while ending.try_join_next().is_some() {}
        let pause = if leads && began.is_some() { LOOK_AT_LEAST_EVERY } else { LOOK_WHETHER_IT_LEADS_EVERY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = consumers.changed.notified() => {}
            () = consumers.stopping.cancelled() => return,
        }
    }
}

impl Consumers {
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
    fn reconcile(
        self: &Arc<Self>,
        running: &mut HashMap<String, Running>,
        wanted: Vec<Wanted>,
        ending: &mut JoinSet<()>,
    ) {
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
    fn start(of: Arc<Consumers>, name: &str, entry: Arc<BindingEntry>) -> Self {
        let revision = entry.revision;
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
