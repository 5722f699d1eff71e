//! What leaves the log: messages past their retention, then the segments that nobody needs.
//!
//! The order is what makes it safe. A record lets queues begin later; it is durable before anything follows from it. Two
//! snapshots are kept, and a segment goes only when neither refers to anything in it: then every start, from either, finds
//! all that its state speaks of. What is still needed in a segment that is otherwise free (messages that are kept longer,
//! halves of open transactions, pieces of components) is written again at the log's other end first.

mod carry;
mod expire;
mod groups;
mod hurry;
mod measure;
mod release;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_broker::{GroupId, NotDone, NothingStored};
use vouch_commitlog::{LogPosition, LogReader};
use vouch_storage::{DiskUse, Requests};

use crate::served::Upkeep;
use crate::sessions::Sessions;
use crate::stopping::Stopping;
use crate::writable::Writable;
use release::release;
pub use report::RetentionReport;
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

/// How often the disk is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What retention works with.
pub(crate) struct Retention {
    pub(crate) shard: Arc<Shard>,
    pub(crate) log: LogReader,
    /// Snapshots and segments.
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) clock: Arc<Clock>,
    /// Which groups live.
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) writable: Writable,
    /// Who wants snapshots.
    pub(crate) snapshots: Arc<Requests>,
    /// What it did, for metrics.
    pub(crate) report: Arc<RetentionReport>,
    /// What it measures, for those who are refused by it.
    pub(crate) disk: Arc<DiskUse>,
    pub(crate) segment_size: u64,
    /// The folder whose disk is measured.
    pub(crate) data_dir: PathBuf,
    /// Bytes that the log may take; `None` for the whole disk.
    pub(crate) disk_limit: Option<u64>,
    /// Between two passes.
    pub(crate) every: Duration,
    pub(crate) stopping: Arc<Stopping>,
}

impl Retention {
    /// Everything before this position is applied.
    async fn applied(&self) -> Result<LogPosition, NotDone> {
        Ok(self.shard.standing().await?.applied)
    }
}

/// What the task remembers between two passes.
struct Keeper {
    of: Retention,
    /// Why the last pass did not end: told once, not with every pass.
    trouble: Option<&'static str>,
    /// Log position behind the last record that let something go or carried something, and since when it waits to be in
    /// both snapshots.
    changed: Option<(LogPosition, Instant)>,
    /// Where groups are looked at next.
    after_group: Option<GroupId>,
    /// What the newest snapshot covers, and since when that is known.
    newest: Option<(Option<LogPosition>, Instant)>,
    /// What the newest snapshot covered when the log was last made to go on for the next one.
    nudged: Option<LogPosition>,
    /// What the newest snapshot covered when a position was last asked to be named, and when that was.
    asked: Option<(Option<LogPosition>, Instant)>,
    /// The first segment, what the newest snapshot covered, and whether the disk was full, when it was last looked at what
    /// is needed of that segment, and when: nothing new is known until one of them changes. On a full disk no snapshot need
    /// come, so it is looked again after a while.
    looked: Option<((LogPosition, LogPosition, bool), Instant)>,
    /// The first segment, of which little is needed, and where the log ended when that was found.
    mostly_free: Option<(LogPosition, LogPosition)>,
}

/// Measures the disk once a second, and makes a pass when one is due, until the node stops. A pass that does not end is
/// told once and begins anew: each step is safe to repeat.
pub(crate) async fn run(retention: Retention) {
    let mut keeper = Keeper::new(retention);
    let (mut next, mut was_full) = (Instant::now(), false);
    loop {
        let full = keeper.measure().await;
        if Instant::now() >= next || full || was_full {
            next = Instant::now() + keeper.of.every;
            let passed = keeper.pass(full).await;
            keeper.tell(passed.err());
        }
        was_full = full;
        tokio::select! {
            () = tokio::time::sleep(MEASURE_EVERY.min(keeper.of.every)) => {}
            () = keeper.of.stopping.cancelled() => return,
        }
    }
}

impl Keeper {
    fn new(of: Retention) -> Self {
        Self {
            of,
            trouble: None,
            changed: None,
            after_group: None,
            newest: None,
            nudged: None,
            asked: None,
            looked: None,
            mostly_free: None,
        }
    }

    /// Tells why a pass did not end, if that is news. That the node stops, that nothing can be written, or that another one leads, is
    /// told elsewhere.
    fn tell(&mut self, refusal: Option<NotDone>) {
        let refusal = refusal.filter(|refusal| {
            !matches!(
                refusal,
                NotDone::NothingStored(
                    NothingStored::Stopping | NothingStored::Poisoned(_) | NothingStored::NotLeading { .. }
                )
            )
        });
        let trouble = refusal.as_ref().map(|refusal| vouch_protocol::code::outcome(refusal).urn);
        if trouble != self.trouble
            && let Some(refusal) = refusal
        {
            tracing::warn!(%refusal, "a pass of retention did not end; the next ones go on until one does");
        }
        self.trouble = trouble;
    }

    /// One pass. Its order is what makes it safe; see the top of this module.
    async fn pass(&mut self, full: bool) -> Result<(), NotDone> {
        if self.of.writable.closed().is_some() {
            return Ok(());
        }
        let bounds = self.of.upkeep.snapshotter.bounds();
        // First, because it is all that still can be done when nothing can be written.
        if let Some(bounds) = bounds {
            release(&self.of, bounds).await?;
        }
        if_it_leads(self.look_at_groups().await)?;
        if_it_leads(self.expire().await)?;
        let carried = match bounds {
            Some(bounds) => if_it_leads(self.carry(bounds.newer, full).await),
            None => Ok(()),
        };
        // Also if nothing could be carried: on a full disk it is snapshots that make room for it.
        self.hurry(bounds, full).await?;
        carried
    }

    /// Something was let go or carried: it is worth a snapshot.
    async fn note_change(&mut self) -> Result<(), NotDone> {
        let applied = self.of.applied().await?;
        self.changed = Some((applied, self.changed.map_or_else(Instant::now, |(_, since)| since)));
        Ok(())
    }
}

/// What a leader's records let go, goes on all nodes. Where another one leads there is nothing to do for it.
fn if_it_leads(done: Result<(), NotDone>) -> Result<(), NotDone> {
    match done {
        Err(NotDone::NothingStored(NothingStored::NotLeading { .. })) => Ok(()),
        done => done,
    }
}
