//! One binding that consumes: what its receives and deliveries have in common.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as TurnOf, Notify, watch};
use vouch_broker::state::BindingEntry;

use super::rate::Rate;
use super::row::FailureRow;
use super::writing::Writing;
use super::{Consumers, subscriptions};
use crate::components::consumer_limits;
use crate::effects::Settler;

/// How long one receive waits for messages.
const WAIT: Duration = Duration::from_secs(20);
/// And one of more subscriptions than deliveries at once.
const CROWDED_WAIT: Duration = Duration::from_millis(25);

/// One binding that consumes, as it was set by one record.
pub(super) struct Consumer {
    /// What delivering takes.
    pub(super) of: Arc<Consumers>,
    /// Its name.
    pub(super) name: String,
    /// As that record set it.
    pub(super) entry: Arc<BindingEntry>,
    /// Who it is in the record of an answer.
    pub(super) settler: Settler,
    /// Whose fault failures are.
    pub(super) row: Mutex<FailureRow>,
    /// Turns, where deliveries have a rate.
    pub(super) rate: Mutex<Rate>,
    /// Deliveries that are under way.
    pub(super) under_way: AtomicUsize,
    /// What its answers put into the log.
    pub(super) writing: Mutex<Writing>,
    /// A delivery succeeded: it pauses no more.
    pub(super) goes_on: Notify,
    /// While it pauses, one receive at a time probes.
    pub(super) probing: TurnOf<()>,
    /// When the next probe is made, while it pauses.
    pub(super) probe_at: Mutex<Instant>,
    /// When it was last said that it pauses.
    pub(super) said: Mutex<Instant>,
    /// When it was last said that it waits for what its answers put into the log, if it was.
    pub(super) said_it_waits: Mutex<Option<Instant>>,
    /// How long one receive waits.
    pub(super) wait: Duration,
    /// It receives no more.
    pub(super) ends: watch::Sender<bool>,
}

impl Consumer {
    /// It neither receives nor pauses yet.
    pub(super) fn new(of: Arc<Consumers>, name: &str, entry: Arc<BindingEntry>) -> Self {
        let settler = Settler::of(name, &entry);
        let (ends, row) = (watch::Sender::new(false), Mutex::default());
        let (goes_on, probing, now) = (Notify::new(), TurnOf::new(()), Instant::now());
        let (probe_at, said) = (Mutex::new(now), Mutex::new(now));
        let limits = consumer_limits(&entry.spec).unwrap_or_default();
        // Where there are more subscriptions than deliveries at once, who waits for messages lets others look soon.
        let crowded = subscriptions(&entry).is_ok_and(|all| all.len() > limits.concurrency);
        let wait = if crowded { CROWDED_WAIT } else { WAIT };
        Self {
            of,
            name: name.to_owned(),
            entry,
            settler,
            row,
            rate: Mutex::new(Rate::new(limits.rate)),
            under_way: AtomicUsize::new(0),
            writing: Mutex::new(Writing::new(limits.effects_rate.0)),
            goes_on,
            probing,
            probe_at,
            said,
            said_it_waits: Mutex::default(),
            wait,
            ends,
        }
    }

    /// The row, for a moment: nobody waits while he has it.
    pub(super) fn row(&self) -> MutexGuard<'_, FailureRow> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives no more; what it has goes on to its end.
    pub(super) fn receive_no_more(&self) {
        self.ends.send_replace(true);
    }

    /// A delivery succeeded; said where it ends a pause. What failed in that is due now.
    pub(super) async fn succeeded(&self) {
        let waits = self.row().succeeded();
        self.of.standings.succeeded(&self.name);
        self.goes_on.notify_waiters();
        if let Some(waits) = waits {
            tracing::info!(binding = self.name, "deliveries succeed again: the binding goes on");
            self.wake(waits).await;
        }
    }
}
