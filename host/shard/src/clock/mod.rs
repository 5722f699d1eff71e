//! The log's time as all threads read it; the rules are in [`course`].

mod course;
mod source;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use vouch_broker::{Generation, Millis};

use course::{ClockNews, Course, NEVER, Reading};
pub use source::{SystemTimeSource, TimeSource};

/// Bits of a generation below the millisecond: leases that one millisecond can hold before numbers run ahead.
const GENERATION_BITS: u32 = 16;
/// How often it is looked what the wall clock says, in microseconds of boot time; between two looks time goes on by the
/// boot-time clock.
const LOOK_EVERY: u64 = 10_000;
/// Nobody looked for so long (the node was idle, or the machine slept): everybody waits for the look.
const LOOK_LATE: u64 = 100_000;
/// A pause between the readings of two clocks that is too long for them to be of one moment, and how often they are read
/// again for it.
const APART: u64 = 1_000;
const READINGS: usize = 3;
/// So much time without a node is as good as none.
const PAUSE_MS: u64 = 60_000;

/// Time that is to leap ahead: everything between the two was stored with times that are too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The last time before it.
    pub from: Millis,
    /// The first behind it.
    pub to: Millis,
}

/// The log's time. Never goes back and never stands still, whatever the machine's clocks do.
pub struct Clock {
    source: Arc<dyn TimeSource>,
    course: Mutex<Course>,
    /// The log's time less boot time, in microseconds.
    offset: AtomicI64,
    /// Boot time from which on it is to be looked again, in microseconds.
    look_at: AtomicU64,
    /// The latest time that anybody was told.
    last_ms: AtomicU64,
    /// The log's time less the wall clock's, in milliseconds, when it was last looked.
    ahead_ms: AtomicI64,
    /// Numbers for leases: at least the time in the upper bits, so that they grow across restarts too.
    last_generation: AtomicU64,
    leapt_from: Option<Millis>,
}

impl Clock {
    /// Goes on from the last time in the log. Zero is the last time in an empty one.
    pub fn start(logged: Millis, source: Arc<dyn TimeSource>) -> Self {
        let reading = read(source.as_ref());
        let course = Course::start(logged.0.saturating_mul(1000).min(NEVER), reading);
        let generation = (logged.0 + 1) << GENERATION_BITS;
        let pause_ms = (course.log() / 1000).saturating_sub(logged.0);
        let leapt = logged.0 > 0 && pause_ms > PAUSE_MS;
        if leapt {
            let (log_ended, time) = (text(logged.0), text(course.log() / 1000));
            tracing::info!(
                log_ended,
                time,
                "the log ended some time ago, by the wall clock; leases and checks go by that at once, and what is \
                 forgotten by its age when the clock held for a quarter of an hour"
            );
        }
        let clock = Self {
            source,
            offset: AtomicI64::new(0),
            look_at: AtomicU64::new(0),
            last_ms: AtomicU64::new(logged.0),
            ahead_ms: AtomicI64::new(0),
            last_generation: AtomicU64::new(generation),
            leapt_from: leapt.then_some(logged),
            course: Mutex::new(course),
        };
        clock.publish(&clock.course());
        clock
    }

    /// The last time in the log, if the start leapt on from there.
    pub fn leapt_from(&self) -> Option<Millis> {
        self.leapt_from
    }

    /// Now, by the log's time.
    pub fn now(&self) -> Millis {
        let boot = micros(self.source.since_boot());
        let look_at = self.look_at.load(Ordering::Acquire);
        if boot >= look_at {
            self.look(boot - look_at > LOOK_LATE);
        }
        let time = boot.cast_signed() + self.offset.load(Ordering::Acquire);
        self.at_least(time.max(0).cast_unsigned() / 1000)
    }

    /// Who comes first looks; the others go on with what is known, unless that is old.
    fn look(&self, late: bool) {
        let mut course = match self.course.try_lock() {
            Ok(course) => course,
            Err(_) if late => self.course(),
            Err(_) => return,
        };
        let reading = read(self.source.as_ref());
        // Somebody else may have looked meanwhile.
        if reading.boot >= self.look_at.load(Ordering::Acquire) {
            let told = course.advance(reading);
            self.publish(&course);
            if let Some(told) = told {
                tell(told, &course);
            }
        }
    }

    fn publish(&self, course: &Course) {
        let Reading { boot, wall } = course.last();
        let ahead_us = course.log().cast_signed() - wall.cast_signed();
        self.ahead_ms.store(ahead_us / 1000, Ordering::Relaxed);
        self.offset.store(course.log().cast_signed() - boot.cast_signed(), Ordering::Release);
        self.look_at.store(boot + LOOK_EVERY, Ordering::Release);
    }

    fn at_least(&self, ms: u64) -> Millis {
        let last = self.last_ms.load(Ordering::Acquire);
        // Most calls come within a millisecond that is known: they only read.
        Millis(if ms > last { self.last_ms.fetch_max(ms, Ordering::AcqRel).max(ms) } else { last })
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leap that is due, because the wall clock was ahead for long enough. Time goes on as before until the leap is in
    /// the log, and then [`Clock::follow`]s.
    pub fn due(&self) -> Option<Ahead> {
        let course::AheadMicros { from, to } = self.course().due()?;
        Some(Ahead { from: Millis(from / 1000), to: Millis(to / 1000) })
    }

    /// A leap is in the log.
    pub fn follow(&self, to: Millis) {
        let mut course = self.course();
        let before = course.log() / 1000;
        course.follow(to.0.saturating_mul(1000));
        self.publish(&course);
        self.at_least(to.0);
        let (from, to) = (text(before), text(to.0));
        tracing::warn!(from, to, "time went ahead: the wall clock was ahead for a quarter of an hour");
    }

    /// Whether the wall clock and the log's time agreed for so long that what was in doubt may be believed.
    pub fn agreed(&self) -> bool {
        self.course().agreed()
    }

    /// By how many milliseconds the log's time is ahead of the wall clock; below zero where the wall clock is ahead.
    pub fn ahead_ms(&self) -> i64 {
        self.now();
        self.ahead_ms.load(Ordering::Relaxed)
    }

    /// A number for a lease, higher than any before.
    pub fn generation(&self, now: Millis) -> Generation {
        let floor = now.0 << GENERATION_BITS;
        let update = |last: u64| Some(last.max(floor) + 1);
        let last = self
            .last_generation
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, update)
            .expect("the update always gives a value");
        Generation(last.max(floor) + 1)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).map_or(NEVER, |us| us.min(NEVER))
}

/// Reads both clocks at one moment, as nearly as that is possible: a thread may be stopped between the two.
fn read(source: &dyn TimeSource) -> Reading {
    let mut best = (u64::MAX, Reading { boot: 0, wall: 0 });
    for _ in 0..READINGS {
        let boot = micros(source.since_boot());
        let wall = micros(source.since_1970());
        let apart = micros(source.since_boot()).saturating_sub(boot);
        if apart < best.0 {
            best = (apart, Reading { boot, wall });
        }
        if apart <= APART {
            break;
        }
    }
    best.1
}

fn tell(told: ClockNews, course: &Course) {
    let (time, wall_clock) = (text(course.log() / 1000), text(course.last().wall / 1000));
    match told {
        ClockNews::Behind(by) => {
            let (behind_seconds, meet_in_seconds) = (by / 1_000_000, by / 100_000);
            tracing::warn!(
                time,
                wall_clock,
                behind_seconds,
                meet_in_seconds,
                "the wall clock is behind the log's time, which goes at nine tenths of its pace until they meet"
            );
        }
        ClockNews::Ahead(by) => {
            let ahead_seconds = by / 1_000_000;
            tracing::warn!(
                time,
                wall_clock,
                ahead_seconds,
                "the wall clock is ahead of the log's time; it is followed if that holds for a quarter of an hour"
            );
        }
        ClockNews::Followed(by) => {
            tracing::info!(time, went_ahead_ms = by / 1000, "the wall clock went ahead and is followed");
        }
        ClockNews::Met => tracing::info!(time, "the wall clock and the log's time agree again"),
    }
}

/// A time for a person.
fn text(ms: u64) -> String {
    /// The last one with a year of four digits.
    const LAST_MS: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS))).to_string()
}
