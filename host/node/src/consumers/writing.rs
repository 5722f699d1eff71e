//! How much a binding's answers may put into the log in a second (`limits.effects_rate`). Pure.
//!
//! The log is everybody's: a message that is sent while a large record is written is durable when that record is. How long
//! others wait goes with the size of one record, and how many of them do with the bytes of all. So all bytes count, and those
//! of one record beyond [`SMALL`] count [`LARGE_COUNTS`] times.

use std::time::{Duration, Instant};

/// Bytes of a record that are written so soon that nobody notices.
const SMALL: u64 = 256 << 10;
/// How much each byte beyond that counts.
const LARGE_COUNTS: u64 = 4;

/// What was written, against what may be. Nobody knows beforehand what an answer stages: it is paid for afterwards, by those that come
/// next, and what is under way counts for as much as the last one that staged anything.
#[derive(Debug)]
pub(super) struct Writing {
    per_second: u64,
    /// Up to when the time is taken that all that was written may have, if anything was.
    taken_to: Option<Instant>,
    /// What the last one came to.
    last: u64,
}

impl Writing {
    /// So many bytes a second.
    pub(super) fn new(per_second: u64) -> Self {
        Self { per_second: per_second.max(1), taken_to: None, last: 0 }
    }

    fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second)).unwrap_or(u64::MAX),
        )
    }

    /// An answer put a record of this length into the log.
    pub(super) fn wrote(&mut self, now: Instant, record: usize) {
        let record = record as u64;
        self.last = record.min(SMALL) + record.saturating_sub(SMALL) * LARGE_COUNTS;
        // Who wrote little for a while has what is left of one second, and no more.
        let from = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        self.taken_to = Some(self.taken_to.map_or(from, |taken| taken.max(from)) + self.time_of(self.last));
    }

    /// An answer put nothing into the log but itself: those that are under way come to less than the last one that did.
    pub(super) fn wrote_nothing(&mut self) {
        self.last /= 2;
    }

    /// How long the next one waits, where so many are under way.
    pub(super) fn wait(&self, now: Instant, under_way: usize) -> Duration {
        let Some(taken) = self.taken_to else { return Duration::ZERO };
        (taken + self.time_of(self.last) * u32::try_from(under_way).unwrap_or(u32::MAX)).saturating_duration_since(now)
    }

    /// How many of so many may begin at once, one at least, where so many are under way.
    pub(super) fn at_once(&self, now: Instant, under_way: usize, wanted: usize) -> usize {
        (1..wanted).take_while(|more| self.wait(now, under_way + more).is_zero()).count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Bytes that are written in so many seconds by answers of this length, of which so many are under way at once.
    fn written_in(seconds: u64, record: usize, at_once: usize) -> usize {
        let (mut writing, began) = (Writing::new(16 * MIB as u64), Instant::now());
        let (mut now, mut written) = (began, 0);
        while now < began + Duration::from_secs(seconds) {
            let begin = writing.at_once(now, 0, at_once);
            for _ in 0..begin {
                writing.wrote(now, record);
                written += record;
            }
            // An answer takes a moment.
            now += Duration::from_millis(1) + writing.wait(now, 0);
        }
        written
    }

    #[test]
    fn small_records_come_to_the_rate_and_large_ones_to_a_quarter_of_it() {
        for at_once in [1, 8, 32] {
            let small = written_in(60, 4096, at_once);
            assert!(small <= 62 * 16 * MIB, "{at_once}: {small}");
            let large = written_in(60, 4 * MIB, at_once);
            assert!((55 * 4 * MIB..=70 * 4 * MIB).contains(&large), "{at_once}: {large}");
        }
        assert!(written_in(60, 4096, 32) >= 58 * 16 * MIB);
    }

    #[test]
    fn nobody_waits_who_writes_little_and_after_a_pause_one_second_is_free() {
        let (mut writing, mut now) = (Writing::new(MIB as u64), Instant::now());
        assert_eq!(
            (writing.wait(now, 8), writing.at_once(now, 0, 32)),
            (Duration::ZERO, 32),
            "nothing was written yet"
        );
        for _ in 0..100 {
            writing.wrote(now, 1000);
            now += Duration::from_millis(10);
            assert!(writing.wait(now, 0).is_zero());
        }
        now += Duration::from_secs(3600);
        writing.wrote(now, 256 << 10);
        assert_eq!(writing.at_once(now, 0, 32), 4, "four of a quarter each are a second's");
        for _ in 0..4 {
            writing.wrote(now, 256 << 10);
        }
        assert_eq!(writing.wait(now, 0), Duration::from_millis(250));
    }

    #[test]
    fn what_is_under_way_counts_as_the_last_one_did() {
        let (mut writing, now) = (Writing::new(MIB as u64), Instant::now());
        writing.wrote(now, 256 << 10);
        assert!(writing.wait(now, 3).is_zero());
        assert_eq!(writing.wait(now, 5), Duration::from_millis(500));
        assert_eq!((writing.at_once(now, 2, 32), writing.at_once(now, 9, 32)), (2, 1));
        // One large one among many that write nothing keeps nobody waiting.
        (0..20).for_each(|_| writing.wrote_nothing());
        assert_eq!((writing.wait(now, 64), writing.at_once(now, 32, 32)), (Duration::ZERO, 32));
    }
}
