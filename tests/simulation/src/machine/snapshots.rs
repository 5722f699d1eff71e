//! Snapshots of a machine's state, and the segments that leave its log when two of them cover what is in them.
//!
//! A snapshot is durable at once and never damaged: how its files are written and read back, the suites of `vouch-storage` test.
//! Where nobody may pull what leaves a log ([`super::pull`]), nothing leaves it that a machine may need which may come back.

use vouch_broker::State;
use vouch_broker::testing::read_snapshot;
use vouch_commitlog::simulated::{LOSSES, Rng};
use vouch_commitlog::{Checkpoint, LogPosition};
use vouch_shard::core::Request;
use vouch_storage::{log_position, record_position};

use super::{Machine, SEGMENT};
use crate::bugs::{Slip, slips};
use crate::trace::Trace;

/// One snapshot.
#[derive(Clone)]
pub(super) struct Kept {
    /// The last entry that it covers.
    pub(super) checkpoint: Checkpoint,
    pub(super) bytes: Vec<u8>,
    /// Nothing before this is needed for a start from it.
    pub(super) log_from: LogPosition,
}

impl Kept {
    /// As a file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Checkpoint { position, end, term, index, checksum } = self.checkpoint;
        let numbers = [position.0, end.0, term, index, checksum.into(), self.log_from.0];
        numbers.into_iter().flat_map(u64::to_le_bytes).chain(self.bytes.iter().copied()).collect()
    }

    /// Reads what [`Self::encode`] gave.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn decode(file: &[u8]) -> Result<Self, String> {
        let (numbers, bytes) = file.split_at_checked(6 * 8).ok_or("a snapshot is cut short")?;
        let mut numbers =
            numbers.chunks(8).map(|number| number.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)));
        let mut next = || numbers.next().unwrap_or(0);
        let checkpoint = Checkpoint {
            position: LogPosition(next()),
            end: LogPosition(next()),
            term: next(),
            index: next(),
            checksum: next() as u32,
        };
        Ok(Self { checkpoint, log_from: LogPosition(next()), bytes: bytes.to_vec() })
    }
}

/// What a machine keeps of its state: two snapshots, the older one first.
pub(crate) struct Snapshots {
    pub(super) kept: Vec<Kept>,
    /// The next is taken behind this entry.
    due: u64,
    /// What every machine has as committed that may come back.
    all_have: u64,
    /// The power may go while a segment leaves the log, or comes to be.
    pub(crate) cuts: bool,
    /// With each of its own it lets the log name a position, if it leads.
    pub(crate) names: bool,
    rng: Rng,
}

impl Snapshots {
    pub(crate) fn new(rng: Rng, names: bool) -> Self {
        Self { kept: Vec::new(), due: 0, all_have: 0, cuts: true, names, rng }
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
            // Whoever leads lets the others make one, too.
            asks.extend(snapshots.names.then_some(Request::NameSnapshot));
            // As the product does, where names that are missing are learned again.
            let covers = !node.pulls || snapshots.kept.len() > 1;
            asks.extend(snapshots.before().filter(|_| covers).map(|older| Request::Covered(older.index)));
        }
        let whole_segment = node.reader.start().0 + SEGMENT;
        // As the product's retention does.
        let needed = node.core.group_standing().and_then(|group| group.needed_from).unwrap_or(LogPosition::BEYOND);
        let needed = if slips(Slip::NeededReleased) { LogPosition::BEYOND } else { needed };
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
