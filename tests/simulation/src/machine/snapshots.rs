//! Snapshots of a machine's state, and the segments that leave its log when two of them cover what is in them.
//!
//! A snapshot is durable at once and never damaged: how its files are written and read back, the suites of `vouch-storage` test.
//! Nor is one pulled by who lacks the log that it covers: nothing leaves a log that a machine may need which may come back.

use vouch_broker::State;
use vouch_broker::testing::read_snapshot;
use vouch_commitlog::simulated::{LOSSES, Rng};
use vouch_commitlog::{Checkpoint, LogPosition};
use vouch_shard::core::Request;
use vouch_storage::{log_position, record_position};

use super::{Machine, SEGMENT};
use crate::trace::Trace;

/// One snapshot.
struct Kept {
    /// The last entry that it covers.
    checkpoint: Checkpoint,
    bytes: Vec<u8>,
    /// Nothing before this is needed for a start from it.
    log_from: LogPosition,
}

/// What a machine keeps of its state: two snapshots, the older one first.
pub(crate) struct Snapshots {
    kept: Vec<Kept>,
    /// The next is taken behind this entry.
    due: u64,
    /// What every machine has as committed that may come back.
    all_have: u64,
    /// The power may go while a segment leaves the log, or comes to be.
    pub(crate) cuts: bool,
    rng: Rng,
}

impl Snapshots {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { kept: Vec::new(), due: 0, all_have: 0, cuts: true, rng }
    }

    /// The disk was replaced, and they with it.
    pub(crate) fn lost(&mut self) {
        self.kept.clear();
    }

    /// Everything before this was durable.
    pub(crate) fn durable(&self) -> LogPosition {
        self.kept.last().map_or(LogPosition::START, |newest| newest.checkpoint.end)
    }

    /// The older one, from which on others find what they may need. A single one that covers more is none: all of the log is there.
    pub(crate) fn before(&self) -> Option<Checkpoint> {
        self.kept.first().map(|older| older.checkpoint).filter(|older| older.index <= self.all_have)
    }

    /// What a start goes on from: the newer one, or the older one, as if the newer could not be read.
    pub(crate) fn read(&mut self) -> Result<Option<(Checkpoint, State)>, String> {
        let older = self.rng.chance(4);
        let Some(kept) = (if older { self.kept.first() } else { self.kept.last() }) else { return Ok(None) };
        let (_, state) = read_snapshot(&kept.bytes).map_err(|error| format!("a snapshot cannot be read: {error}"))?;
        Ok(Some((kept.checkpoint, state)))
    }

    /// One more; the older one goes, unless somebody may still need what lies behind it: then the newer one does.
    fn keep(&mut self, checkpoint: Checkpoint, state: &State) {
        let bytes = state.snapshot(record_position(checkpoint.end));
        let log_from = log_position(state.needed_from()).min(checkpoint.position);
        self.due = checkpoint.index + 10 + self.rng.below(60);
        if let [_, newer] = &self.kept[..] {
            let passed = usize::from(newer.checkpoint.index > self.all_have);
            self.kept.remove(passed);
        }
        self.kept.push(Kept { checkpoint, bytes, log_from });
    }

    /// What neither needs.
    fn releases(&self) -> Option<LogPosition> {
        self.before()?;
        let [older, newer] = &self.kept[..] else { return None };
        Some(older.log_from.min(newer.log_from))
    }

    /// Where in something that the disk did the power goes, if it does.
    fn cut(&mut self, from: usize, to: usize) -> Option<usize> {
        (self.cuts && self.rng.chance(4)).then(|| from + self.rng.below((to - from) as u64 + 1) as usize)
    }
}

impl Machine {
    /// The last entry that it has noted as committed.
    pub(crate) fn noted_commit(&self) -> u64 {
        self.ledger.noted_commit()
    }

    /// Takes a snapshot now and then, and lets go of what two of them cover. `all_have`: what every machine has as committed that
    /// may come back. Whether the power went meanwhile.
    pub(crate) fn keep_snapshots(&mut self, all_have: u64, trace: &mut Trace) -> bool {
        let Self { node, snapshots, ledger, asks, .. } = self;
        let (Some(node), Some(snapshots)) = (node, snapshots) else { return false };
        snapshots.all_have = all_have.max(snapshots.all_have);
        if node.failed.is_some() {
            return false;
        }
        let last = ledger.entry(node.commit().index).filter(|last| last.end <= node.appender.durable());
        if let Some(last) = last
            && last.index >= snapshots.due
        {
            trace.line(format!("{} takes a snapshot behind {}", node.id, last.index));
            snapshots.keep(*last, node.core.state());
            asks.extend(snapshots.before().map(|older| Request::Covered(older.index)));
        }
        let whole_segment = node.reader.start().0 + SEGMENT;
        // As the product's retention does.
        let needed = node.core.group_standing().and_then(|group| group.needed_from).unwrap_or(LogPosition::BEYOND);
        let releases = snapshots.releases().map(|before| before.min(needed));
        let before = releases.filter(|before| before.0 >= whole_segment && snapshots.rng.chance(20));
        before.is_some_and(|before| self.release(before, trace))
    }

    fn release(&mut self, before: LogPosition, trace: &mut Trace) -> bool {
        let Some(node) = &self.node else { return false };
        let events = self.disk.events();
        self.ledger.release_asked(before);
        let released = node.appender.housekeeping().release_before(before);
        trace.line(format!("{} releases what lies before {before}: {released:?}", self.id));
        if self.power_goes_since(events, trace) {
            return true;
        }
        if let Ok(released) = released {
            self.ledger.released(released.start);
        }
        false
    }

    /// The power may have gone while the disk did what it did behind so many events.
    pub(super) fn power_goes_since(&mut self, events: usize, trace: &mut Trace) -> bool {
        let (now, Some(snapshots)) = (self.disk.events(), &mut self.snapshots) else { return false };
        if now == events {
            return false;
        }
        let Some(at) = snapshots.cut(events, now) else { return false };
        let mut rng = Rng::new(snapshots.rng.next());
        let loss = LOSSES[rng.below(LOSSES.len() as u64) as usize];
        trace.line(format!("the power of {} goes while a segment leaves the log or comes to be: {loss:?}", self.id));
        self.power_cut_at(at, loss, &mut rng);
        true
    }
}
