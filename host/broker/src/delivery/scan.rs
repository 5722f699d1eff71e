//! The scan behind one receive.

use super::reservations::{FiltersOnTheirWay, Reserved};
use super::{BATCH_MAX, Demand, Picked, Picks};
use crate::record::{Again, Lease, LeasedAgain, LeasedRange};
use crate::state::{IndexEntry, Progress, Topic, UNFINISHED_MAX};
use crate::{QueueOffset, TagFilter, TagHash};

/// Places looked at in one step of a scan. Bounds the time that one receive with a rarely matching filter can take; the
/// next one goes on where it stopped, since all that was looked at is decided by the record.
pub(super) const SCAN_MAX: usize = 4096;

/// One look at what a group may have of a topic, for one receive of one member. It changes nothing but the turn of the
/// queues: what it decides becomes a lease record, and holds when that is applied.
///
/// # To ensure correctness
/// - It decides no place that a record on its way decides.
/// - Everything that it looks at it decides, for the member that asks or not, so that the next scan begins behind it.
///   What nobody wants is done, what another member wants is left for that one (ruling 12).
/// - What the group has in hand and unfinished is bounded ([`UNFINISHED_MAX`]): fresh messages are looked at only as
///   far as there is room.
pub(super) struct Scan<'a> {
    topic: &'a Topic,
    progress: &'a Progress,
    on_their_way: &'a FiltersOnTheirWay,
    wanted: &'a Demand<'a>,
    max_attempts: u32,
    max: usize,
    /// Fresh messages that the group may take on (see [`UNFINISHED_MAX`]).
    room: u64,
    /// Places that this step may still look at.
    budget: usize,
    stopped: bool,
    picks: Picks,
    again: Vec<LeasedAgain>,
    fresh: Vec<LeasedRange>,
}

/// For whom a message is, by its tag.
enum Match {
    Mine,
    Others,
    Nobodys,
}

impl<'a> Scan<'a> {
    /// A scan that has looked at nothing. How many it may hand out is clamped here, whatever the member asked for.
    pub(super) fn new(
        topic: &'a Topic,
        progress: &'a Progress,
        on_their_way: &'a FiltersOnTheirWay,
        wanted: &'a Demand<'a>,
        max_attempts: u32,
    ) -> Self {
        Self {
            topic,
            progress,
            on_their_way,
            wanted,
            max_attempts,
            max: wanted.max.clamp(1, BATCH_MAX),
            room: UNFINISHED_MAX.saturating_sub(progress.unfinished()),
            budget: 0,
            stopped: false,
            picks: Picks::default(),
            again: Vec::new(),
            fresh: Vec::new(),
        }
    }

    /// Redeliveries first, then what other members left, then what the group never saw.
    pub(super) fn run(mut self, reserved: &mut Reserved) -> Picks {
        self.budget = SCAN_MAX;
        self.redeliveries(reserved);
        self.budget = SCAN_MAX;
        self.left_behind(reserved);
        self.budget = SCAN_MAX;
        self.fresh_messages(reserved);
        self.finish()
    }

    /// The member has as many as it asked for, and no further place is looked at: what is not looked at is not decided.
    fn full(&self) -> bool {
        self.picks.messages.len() >= self.max
    }

    /// Whether one more place may be looked at in this step.
    fn may_look(&mut self) -> bool {
        if self.full() {
            return false;
        }
        if self.budget == 0 {
            self.stopped = true;
            return false;
        }
        self.budget -= 1;
        self.picks.looked_at += 1;
        true
    }

    /// Whether some member wants messages with this tag, by what the state says or records on their way.
    fn is_wanted(&self, tag: TagHash) -> bool {
        self.progress.filters().matches(tag) || self.on_their_way.matches(tag)
    }

    /// For whom a message with this tag is. The member that asks goes before the others, who may want it as well.
    fn whose(&self, tag: TagHash) -> Match {
        if self.wanted.filter.matches(tag) {
            Match::Mine
        } else if self.is_wanted(tag) {
            Match::Others
        } else {
            Match::Nobodys
        }
    }

    /// Messages whose time has come. Each is leased, passed on to the members that want it, or done, so that no scan
    /// meets it twice.
    fn redeliveries(&mut self, reserved: &Reserved) {
        let (progress, now) = (self.progress, self.wanted.now);
        for (visible_at, queue, offset) in progress.due() {
            if visible_at > now {
                return;
            }
            if reserved.holds((queue, offset)) {
                continue;
            }
            if !self.may_look() {
                return;
            }
            self.decide_again(queue, offset);
        }
    }

    /// Messages that wait for a member with the right filter: this one's, and those that no member wants any more.
    fn left_behind(&mut self, reserved: &Reserved) {
        let (progress, wanted, on_their_way) = (self.progress, self.wanted, self.on_their_way);
        if progress.left_tags().next().is_none() {
            return;
        }
        let mine: Box<dyn Iterator<Item = TagHash>> = match wanted.filter {
            TagFilter::All => Box::new(progress.left_tags()),
            TagFilter::Tags(tags) => Box::new(tags.iter().copied()),
        };
        let unwanted =
            progress.unwanted_tags().filter(|tag| !wanted.filter.matches(*tag) && !on_their_way.matches(*tag));
        for tag in mine.chain(unwanted) {
            for (queue, offset) in progress.left(tag) {
                if reserved.holds((queue, offset)) {
                    continue;
                }
                if !self.may_look() {
                    return;
                }
                self.decide_again(queue, offset);
            }
        }
    }

    /// Decides one place below the cursor. One that was handed out too often is none of the lease: it is told as
    /// exhausted, and becomes a dead letter by a record of its own.
    fn decide_again(&mut self, queue: u32, offset: QueueOffset) {
        let Some(exception) = self.progress.exception(queue, offset) else { return };
        let Some(entry) = self.topic.entry(queue, offset) else { return };
        if exception.attempts >= self.max_attempts {
            self.picks.exhausted.push((queue, offset, exception.generation));
            return;
        }
        let becomes = match self.whose(entry.tag) {
            Match::Mine => {
                let attempt = exception.attempts + 1;
                self.picks.messages.push(Picked { queue, offset, attempt, position: entry.position });
                Again::Leased
            }
            Match::Others => Again::Left,
            Match::Nobodys => Again::Done,
        };
        self.again.push(LeasedAgain { queue, offset, becomes });
    }

    /// Queue by queue in turn, beginning where the last scan ended.
    fn fresh_messages(&mut self, reserved: &mut Reserved) {
        let queues = self.topic.queue_count();
        let first = reserved.turn % queues;
        for step in 0..queues {
            if self.full() || self.budget == 0 || self.room == 0 {
                break;
            }
            self.picks.looked_at += 1;
            let queue = (first + step) % queues;
            let from = reserved.next(queue, self.progress.next(queue));
            self.fresh_of_queue(queue, from);
            reserved.turn = (queue + 1) % queues;
        }
    }

    /// One stretch of a queue, from where neither the state nor a record on its way has decided. It has no gap, for the
    /// cursor moves over all of it at once.
    fn fresh_of_queue(&mut self, queue: u32, from: QueueOffset) {
        let mut range = LeasedRange { queue, from, to: from, leased: Vec::new(), left: Vec::new() };
        while self.room > 0
            && let Some(entry) = self.topic.entry(queue, range.to)
            && self.may_look()
        {
            self.decide_fresh(&mut range, &entry);
        }
        if range.to > range.from {
            self.fresh.push(range);
        }
    }

    /// Decides the next fresh message of a queue. One that nobody wants takes no room: it is done with the same record.
    fn decide_fresh(&mut self, range: &mut LeasedRange, entry: &IndexEntry) {
        let offset = range.to;
        match self.whose(entry.tag) {
            Match::Mine => {
                let message = Picked { queue: range.queue, offset, attempt: 1, position: entry.position };
                self.picks.messages.push(message);
                range.leased.push(offset);
                self.room -= 1;
            }
            Match::Others => {
                range.left.push(offset);
                self.room -= 1;
            }
            Match::Nobodys => {}
        }
        range.to = range.to.next();
    }

    /// The record of all that was decided, if anything was, and whether the same member should ask on at once.
    fn finish(mut self) -> Picks {
        let decided = !self.fresh.is_empty() || !self.again.is_empty();
        // Without a decision the next call would stop at the same place, and nothing would end the asking.
        self.picks.more = self.stopped && !self.full() && (decided || !self.picks.exhausted.is_empty());
        if decided {
            self.picks.lease = Some(Lease {
                group: self.wanted.group,
                topic: self.wanted.topic,
                generation: self.wanted.generation,
                deadline: self.wanted.deadline,
                renewed_for: self.wanted.renewed_for.map(str::to_owned),
                fresh: self.fresh,
                again: self.again,
            });
        }
        self.picks
    }
}
