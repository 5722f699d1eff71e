//! The course of the log's time (ruling 20). Pure: two readings go in, the log's time comes out.
//!
//! Time goes on by the boot-time clock, which nobody sets and which counts suspends. The wall clock only corrects it:
//!
//! | the wall clock is | the log's time |
//! |---|---|
//! | behind | goes at nine tenths of its pace until they meet; it never stands still and never goes back |
//! | ahead by at most a minute | is the wall clock's at once |
//! | ahead by more | goes on; the wall clock is followed when that held for a quarter of an hour |
//!
//! # To ensure correctness
//!
//! Over any stretch of boot time *t* without a leap that the caller took, the log's time passes by at least nine tenths of
//! *t*, and by at most *t*, a fifteenth of *t*, and a minute: a minute that may be followed at once comes back within a
//! quarter of an hour, so that a wall clock which runs wild in small steps is not followed faster than one in big ones.

/// Microseconds of a second.
const SECOND: u64 = 1_000_000;
/// So far ahead the wall clock is followed at once.
pub(super) const AT_ONCE: u64 = 60 * SECOND;
/// A wall clock further ahead is followed when it was so for so long, and what was in doubt is believed when the two agreed
/// for so long.
pub(super) const HELD: u64 = 15 * 60 * SECOND;
/// Two readings further apart say nothing about the time between them.
const UNSEEN: u64 = 60 * SECOND;
/// Two clocks that differ by so little agree.
const AGREE: u64 = SECOND;
/// What is off is told at most once in this time.
const TELL_EVERY: u64 = 60 * SECOND;
/// Later than any time that is met: sums of two stay far from the end of the numbers.
pub(super) const NEVER: u64 = u64::MAX / 8;

/// What two clocks say at one moment, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Since the machine started, suspends included.
    pub(super) boot: u64,
    /// Since 1970.
    pub(super) wall: u64,
}

/// The log's time is to go ahead, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AheadMicros {
    /// The log's time when it last was the wall clock's: what was stored since has times that are too early.
    pub(super) from: u64,
    /// What the wall clock says.
    pub(super) to: u64,
}

/// Something that a person should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockNews {
    /// The wall clock is behind by so much.
    Behind(u64),
    /// The wall clock is ahead by so much, and is not followed yet.
    Ahead(u64),
    /// The wall clock was ahead by so much, and was followed at once.
    Followed(u64),
    /// They agree again.
    Met,
}

/// A wall clock that is further ahead than is followed at once.
#[derive(Clone, Copy, Debug)]
struct Lead {
    /// Boot time since when it is ahead by about `by`.
    since: u64,
    by: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Off {
    Behind,
    Ahead,
}

/// Where the log's time is, and what the wall clock was seen to do.
#[derive(Debug)]
pub(super) struct Course {
    /// The log's time.
    log: u64,
    last: Reading,
    /// The log's time when it last was the wall clock's.
    met: u64,
    /// How much of a minute may be followed at once now.
    credit: u64,
    lead: Option<Lead>,
    /// Boot time since when both agree.
    agree_since: Option<u64>,
    /// What was told last, and when.
    off: Option<Off>,
    told_at: Option<u64>,
}

impl Course {
    /// Goes on from the last time in a log. At a start the wall clock is believed where it is ahead.
    pub(super) fn start(logged: u64, reading: Reading) -> Self {
        let log = logged.max(reading.wall);
        let agree_since = (log - reading.wall <= AGREE).then_some(reading.boot);
        Self { log, last: reading, met: log, credit: AT_ONCE, lead: None, agree_since, off: None, told_at: None }
    }

    /// The log's time now, in microseconds since 1970.
    pub(super) fn log(&self) -> u64 {
        self.log
    }

    /// What was read last.
    pub(super) fn last(&self) -> Reading {
        self.last
    }

    /// Goes on to a later reading.
    pub(super) fn advance(&mut self, reading: Reading) -> Option<ClockNews> {
        let passed = reading.boot.saturating_sub(self.last.boot);
        let boot = self.last.boot.max(reading.boot);
        self.last = Reading { boot, wall: reading.wall };
        self.credit = (self.credit + passed / (HELD / AT_ONCE)).min(AT_ONCE);
        let full = (self.log + passed).min(NEVER);
        let by = reading.wall.saturating_sub(full);
        if by > self.credit {
            self.log = full;
            let lead = self.lead.get_or_insert(Lead { since: boot, by });
            if passed > UNSEEN || lead.by.abs_diff(by) > AT_ONCE {
                // It wanders, or nobody saw what it did: it must hold from here on.
                (lead.since, lead.by) = (boot, by);
            }
        } else {
            self.lead = None;
            self.credit -= by;
            self.log = reading.wall.max(self.log + passed / 10 * 9 + passed % 10 * 9 / 10).min(NEVER);
            self.met = if self.log == reading.wall { self.log } else { self.met };
        }
        if self.log.abs_diff(reading.wall) > AGREE {
            self.agree_since = None;
        } else if self.agree_since.is_none() || passed > UNSEEN {
            self.agree_since = Some(boot);
        }
        self.tell(by)
    }

    fn tell(&mut self, by: u64) -> Option<ClockNews> {
        let Reading { boot, wall } = self.last;
        let behind = self.log.saturating_sub(wall);
        let (off, told) = if self.lead.is_some() && by > AT_ONCE {
            (Off::Ahead, ClockNews::Ahead(by))
        } else if behind > AGREE {
            (Off::Behind, ClockNews::Behind(behind))
        } else if self.off == Some(Off::Behind) && behind > 0 {
            return None;
        } else if self.off.take().is_some() {
            return Some(ClockNews::Met);
        } else {
            return (self.lead.is_none() && by > AGREE).then_some(ClockNews::Followed(by));
        };
        let lately = self.told_at.is_some_and(|at| boot - at < TELL_EVERY);
        if self.off == Some(off) || lately {
            return None;
        }
        (self.off, self.told_at) = (Some(off), Some(boot));
        Some(told)
    }

    /// The leap that is due: the wall clock was ahead for long enough. Nothing leaps until [`Course::follow`].
    pub(super) fn due(&self) -> Option<AheadMicros> {
        let Lead { since, .. } = self.lead?;
        let to = self.last.wall.min(NEVER);
        let far = to.saturating_sub(self.log) > AT_ONCE;
        (far && self.last.boot - since >= HELD).then_some(AheadMicros { from: self.met, to })
    }

    /// Time leaps ahead, if it is not there yet.
    pub(super) fn follow(&mut self, to: u64) {
        self.log = self.log.max(to.min(NEVER));
        self.met = self.log;
        self.lead = None;
    }

    /// Whether both agreed for long enough that whatever the wall clock said may be believed.
    pub(super) fn agreed(&self) -> bool {
        self.agree_since.is_some_and(|since| self.last.boot - since >= HELD)
    }
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
