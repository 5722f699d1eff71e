//! How the shard asks for a snapshot, and for a damaged part to be mended: by numbers that it sets and never waits for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use vouch_broker::record::SealedAt;
use vouch_commitlog::LogPosition;

use super::comparison::Comparison;
use super::take::LARGEST_GROWN_PART;
use crate::replica::Committed;

/// A snapshot is due after so many entries, however small they are: a replica keeps a name of each that lies behind the older
/// of its two snapshots.
const MOST_ENTRIES: u64 = 1_000_000;

/// What is asked for and not done yet. Of several snapshots that were asked for the last one counts: it covers the
/// others.
#[derive(Default)]
pub(super) struct PendingRequests {
    /// Everything before this position is applied, and a snapshot of it is wanted.
    pub(super) target: Option<LogPosition>,
    /// Segments go with it, or it is the only one: on a full disk it may take the room that is set aside for that.
    pub(super) frees: bool,
    /// A part ends with it, wherever the log names positions: what the part holds need not be in this snapshot and the next ones.
    pub(super) ends_part: bool,
    /// Parts in which damage was found: they are mended first.
    pub(super) damaged: BTreeSet<u64>,
    pub(super) stopping: bool,
}

/// Where the shard says how far it is.
pub struct Requests {
    /// The log names the positions at which snapshots are made: one that is due waits for that.
    by_name: AtomicBool,
    /// The next snapshot is due when this position is applied.
    due: AtomicU64,
    /// The last position that the log named, or at which it was asked to name one.
    named: AtomicU64,
    /// Everything before this position is.
    applied: AtomicU64,
    /// The next snapshot is due when the entry with this index is applied; 0: that is not known yet.
    due_entry: AtomicU64,
    /// The last entry that is.
    applied_entry: AtomicU64,
    waiting: Mutex<PendingRequests>,
    pub(super) changed: Condvar,
    /// What is here at positions that the log names, and what others had there.
    comparison: Comparison,
    /// Why the last snapshot that was asked for was not made.
    trouble: Mutex<Option<String>>,
}

impl Requests {
    /// The first snapshot is due at this position.
    pub fn due_at(position: LogPosition) -> Self {
        Self {
            by_name: AtomicBool::new(false),
            due: AtomicU64::new(position.0),
            named: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            due_entry: AtomicU64::new(0),
            applied_entry: AtomicU64::new(0),
            waiting: Mutex::default(),
            changed: Condvar::new(),
            comparison: Comparison::default(),
            trouble: Mutex::default(),
        }
    }

    /// Whether this replica has what others have at positions that the log names.
    pub fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// Why the last snapshot that was asked for was not made; `None` where it was. It is tried again when the next one is due.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_in_trouble(&self, why: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, PendingRequests> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the log names the positions at which snapshots are made.
    pub fn are_by_name(&self, by_name: bool) {
        self.by_name.store(by_name, Ordering::Relaxed);
    }

    /// Everything up to this entry is durable and applied. Called for every group: two comparisons. `counted`: the replica keeps a
    /// name of each entry behind its older snapshot, so entries make one due as well as bytes.
    ///
    /// Whether the log should name a position now. It is said once, until a snapshot was made.
    #[must_use]
    pub fn applied(&self, commit: Committed, counted: bool) -> bool {
        let commit = Committed { index: if counted { commit.index } else { 0 }, ..commit };
        // In this order here, and in the other one in `next_due`: one of the two sees what the other wrote.
        self.applied.store(commit.position.0, Ordering::SeqCst);
        self.applied_entry.store(commit.index, Ordering::SeqCst);
        if self.due_entry.load(Ordering::Relaxed) == 0 {
            self.due_entry.store(commit.index + MOST_ENTRIES, Ordering::SeqCst);
        }
        self.want_if_due(commit)
    }

    /// The log names this position, up to which everything is durable and applied. With it the leader told what it had at earlier
    /// ones.
    pub fn named(&self, position: LogPosition, told: Vec<SealedAt>) {
        self.named.fetch_max(position.0, Ordering::SeqCst);
        self.comparison.told(told);
        self.ask(position, false, false);
    }

    /// The next snapshot is due at this position, which may be applied already: where the log stands still from then on,
    /// nobody else would ask for it. Whether the log should name a position now.
    pub(super) fn next_due(&self, position: LogPosition) -> bool {
        self.due.store(position.0, Ordering::SeqCst);
        self.due_entry.store(self.applied_entry.load(Ordering::SeqCst) + MOST_ENTRIES, Ordering::SeqCst);
        let position = LogPosition(self.applied.load(Ordering::SeqCst));
        self.want_if_due(Committed { index: self.applied_entry.load(Ordering::SeqCst), position })
    }

    /// Asks once for what has fallen due. Two threads may come here at the same time, and then it is asked for twice,
    /// which is one snapshot of the later position.
    fn want_if_due(&self, applied: Committed) -> bool {
        let due = applied.position.0 >= self.due.load(Ordering::SeqCst);
        let by_name = self.by_name.load(Ordering::Relaxed);
        if !due && applied.index < self.due_entry.load(Ordering::SeqCst) {
            return by_name && self.part_is_due(applied.position);
        }
        self.named.fetch_max(applied.position.0, Ordering::SeqCst);
        // Not again before this one is made.
        self.due.store(u64::MAX, Ordering::SeqCst);
        self.due_entry.store(u64::MAX, Ordering::SeqCst);
        if !by_name {
            self.ask(applied.position, false, false);
        }
        by_name
    }

    /// A part ends where the log names a position, and stands for so much log at most: whether the next one is due, though a snapshot is
    /// still being made. It is said once.
    fn part_is_due(&self, applied: LogPosition) -> bool {
        let named = self.named.load(Ordering::SeqCst);
        if self.due.load(Ordering::SeqCst) != u64::MAX || applied.0.saturating_sub(named) < LARGEST_GROWN_PART {
            return false;
        }
        self.named.store(applied.0, Ordering::SeqCst);
        true
    }

    /// A snapshot of everything before this position, which is durable and applied, is wanted at once, wherever the log names
    /// positions: there is none to go on from.
    pub fn want_here(&self, position: LogPosition) {
        self.ask(position, true, false);
    }

    /// A snapshot of everything before this position, which is durable and applied, is wanted now, for what goes with it.
    pub fn want(&self, position: LogPosition) {
        self.ask(position, true, true);
    }

    fn ask(&self, position: LogPosition, frees: bool, ends_part: bool) {
        let mut waiting = self.waiting();
        waiting.target = waiting.target.max(Some(position));
        waiting.frees |= frees;
        waiting.ends_part |= ends_part;
        drop(waiting);
        self.changed.notify_one();
    }

    /// Damage was found in these parts, or they were mended: whoever reads from them is to read from whole copies.
    pub fn damaged(&self, parts: impl IntoIterator<Item = u64>) {
        self.waiting().damaged.extend(parts);
        self.changed.notify_one();
    }

    pub(super) fn next(&self) -> PendingRequests {
        let mut waiting = self.waiting();
        while waiting.target.is_none() && waiting.damaged.is_empty() && !waiting.stopping {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let damaged = std::mem::take(&mut waiting.damaged);
        let frees = waiting.target.is_some() && std::mem::take(&mut waiting.frees);
        let ends_part = waiting.target.is_some() && std::mem::take(&mut waiting.ends_part);
        let target = waiting.target.take();
        PendingRequests { target, frees, ends_part, damaged, stopping: waiting.stopping }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.waiting().stopping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_which_nobody_keeps_names_make_no_snapshot_due() {
        let requests = Requests::due_at(LogPosition(1_000));
        let few = |n| Committed { index: n * MOST_ENTRIES, position: LogPosition(500) };
        assert!((0..3).all(|n| !requests.applied(few(n), false)));
        assert_eq!(requests.waiting().target, None);
    }

    /// Everything before this position is applied, and the entries there are few.
    fn at(position: u64) -> Committed {
        Committed { index: 1, position: LogPosition(position) }
    }

    #[test]
    fn many_small_entries_make_a_snapshot_due_and_each_snapshot_counts_them_anew() {
        let requests = Requests::due_at(LogPosition(1_000));
        let entry = |index| Committed { index, position: LogPosition(500) };
        assert!(!requests.applied(entry(70), true));
        assert!(!requests.applied(entry(70 + MOST_ENTRIES - 1), true));
        assert_eq!(requests.waiting().target, None);
        assert!(!requests.applied(entry(70 + MOST_ENTRIES), true));
        assert_eq!(requests.next().target, Some(LogPosition(500)));
        assert!(!requests.applied(entry(80 + MOST_ENTRIES), true));
        assert!(!requests.next_due(LogPosition(1_500)));
        assert!(!requests.applied(entry(79 + 2 * MOST_ENTRIES), true));
        assert_eq!(requests.waiting().target, None);
        assert!(!requests.applied(entry(80 + 2 * MOST_ENTRIES), true));
        assert_eq!(requests.next().target, Some(LogPosition(500)));
    }

    #[test]
    fn where_the_log_names_positions_one_that_is_due_waits_for_that_and_is_said_once() {
        let requests = Requests::due_at(LogPosition(100));
        requests.are_by_name(true);
        assert!(!requests.applied(at(99), true));
        assert!(requests.applied(at(100), true));
        assert!(!requests.applied(at(110), true), "once");
        assert_eq!(requests.waiting().target, None);
        let told = SealedAt { position: vouch_broker::RecordPosition(50), since: 0, part: None, state: 1 };
        requests.named(LogPosition(120), vec![told]);
        requests.named(LogPosition(130), Vec::new());
        let PendingRequests { target, frees, ends_part, .. } = requests.next();
        assert_eq!((target, frees, ends_part), (Some(LogPosition(130)), false, false));
        requests.comparison().has(&[SealedAt { state: 2, ..told }]);
        assert_eq!(requests.comparison().doubt().map(|doubt| doubt.other), Some(told), "it was heard");
        assert!(!requests.next_due(LogPosition(200)), "not yet");
        assert!(
            !requests.applied(at(150), true) && requests.next_due(LogPosition(140)),
            "the log stands still by then"
        );
        // However long one takes to be made, parts end.
        const LARGEST: u64 = LARGEST_GROWN_PART;
        assert!(!requests.applied(at(149 + LARGEST), true), "one is being made, of what lies before 150");
        assert!(requests.applied(at(150 + LARGEST), true));
        assert!(!requests.applied(at(151 + LARGEST), true), "once");
        requests.named(LogPosition(300 + LARGEST), Vec::new());
        assert!(!requests.applied(at(299 + 2 * LARGEST), true) && requests.applied(at(300 + 2 * LARGEST), true));
        // What makes room waits for nobody.
        assert!(requests.next().target.is_some());
        requests.want_here(LogPosition(150));
        let PendingRequests { frees, ends_part, .. } = requests.next();
        assert!(frees && !ends_part);
        requests.want(LogPosition(150));
        let PendingRequests { frees, ends_part, .. } = requests.next();
        assert!(frees && ends_part);
    }

    #[test]
    fn of_several_snapshots_that_are_asked_for_the_last_one_is_made() {
        let requests = Requests::due_at(LogPosition::BEYOND);
        requests.want(LogPosition(10));
        requests.want(LogPosition(30));
        assert_eq!(requests.next().target, Some(LogPosition(30)));
        assert_eq!(requests.waiting().target, None, "it was taken");
    }

    #[test]
    fn damaged_parts_are_asked_for_once_each_and_come_with_the_snapshot_that_is_due() {
        let requests = Requests::due_at(LogPosition(100));
        requests.damaged([7, 3]);
        requests.damaged([7]);
        assert!(!requests.applied(at(100), true));
        let PendingRequests { target, damaged, stopping, .. } = requests.next();
        assert_eq!(
            (target, damaged.into_iter().collect::<Vec<_>>(), stopping),
            (Some(LogPosition(100)), vec![3, 7], false)
        );
        requests.damaged([]);
        assert!(requests.waiting().damaged.is_empty());
    }

    #[test]
    fn a_stop_is_heard_by_who_waits_and_is_not_forgotten() {
        let requests = Requests::due_at(LogPosition::BEYOND);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| requests.next().stopping);
            requests.waiting().stopping = true;
            requests.changed.notify_one();
            assert!(waiting.join().unwrap());
        });
        assert!(requests.is_stopping() && requests.next().stopping);
    }

    #[test]
    fn nothing_is_due_before_its_position_and_nothing_twice() {
        let requests = Requests::due_at(LogPosition(100));
        assert!((0..100).all(|position| !requests.applied(at(position), true)));
        assert_eq!(requests.waiting().target, None);
        assert!(!requests.applied(at(100), true));
        assert!(!requests.applied(at(101), true));
        assert_eq!(requests.next().target, Some(LogPosition(100)), "asked for when it fell due");
        assert!(!requests.next_due(LogPosition(200)));
        assert_eq!(requests.waiting().target, None);
        assert!(!requests.applied(at(200), true));
        assert_eq!(requests.next().target, Some(LogPosition(200)));
    }
}
