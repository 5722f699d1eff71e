//! The log's time as threads see it.

use std::sync::atomic::AtomicBool;

use super::*;

/// Clocks that a test sets, in microseconds.
#[derive(Default)]
struct Clocks {
    boot: AtomicU64,
    wall: AtomicU64,
}

impl Clocks {
    fn at(boot_ms: u64, wall_ms: u64) -> Arc<Self> {
        Arc::new(Self { boot: AtomicU64::new(boot_ms * 1000), wall: AtomicU64::new(wall_ms * 1000) })
    }

    fn pass_ms(&self, ms: u64) {
        self.boot.fetch_add(ms * 1000, Ordering::SeqCst);
        self.wall.fetch_add(ms * 1000, Ordering::SeqCst);
    }
}

impl TimeSource for Clocks {
    fn since_boot(&self) -> Duration {
        Duration::from_micros(self.boot.load(Ordering::SeqCst))
    }

    fn since_1970(&self) -> Duration {
        Duration::from_micros(self.wall.load(Ordering::SeqCst))
    }
}

#[test]
fn time_goes_on_from_the_log_where_the_wall_clock_is_behind_it() {
    let clocks = Clocks::at(500, 1_000_000);
    let clock = Clock::start(Millis(9_000_000), clocks.clone());
    assert_eq!((clock.now(), clock.leapt_from()), (Millis(9_000_000), None));
    clocks.pass_ms(1000);
    assert_eq!(clock.now(), Millis(9_000_900));
    assert_eq!(clock.ahead_ms(), 9_000_900 - 1_001_000);
}

#[test]
fn a_start_leaps_from_a_log_that_ended_more_than_a_minute_ago_and_not_from_an_empty_one() {
    let leapt = |logged| Clock::start(Millis(logged), Clocks::at(500, 1_000_000)).leapt_from();
    assert_eq!(leapt(1_000_000 - PAUSE_MS), None);
    assert_eq!(leapt(1_000_000 - PAUSE_MS - 1), Some(Millis(1_000_000 - PAUSE_MS - 1)));
    assert_eq!(leapt(0), None);
}

#[test]
fn between_two_looks_time_goes_on_and_a_slower_pace_shows_at_the_next_one() {
    let clocks = Clocks::at(500, 1_000_000);
    let clock = Clock::start(Millis(1_002_000), clocks.clone());
    let mut last = clock.now();
    for n in 1..=20_000u64 {
        clocks.pass_ms(1);
        let now = clock.now();
        assert!(now >= last && now.ms_since(last) <= 2);
        let met = n.saturating_sub(20_000) + 1_002_000 + n * 9 / 10;
        assert!(now.0.abs_diff(met) <= 2, "{now:?} {met}");
        last = now;
    }
    assert!(clock.ahead_ms() <= 2);
}

#[test]
fn a_leap_waits_until_it_is_followed() {
    let clocks = Clocks::at(500, 1_000_000);
    let clock = Clock::start(Millis(1_000_000), clocks.clone());
    clocks.wall.fetch_add(3_600_000_000, Ordering::SeqCst);
    for _ in 0..=900 {
        assert_eq!(clock.due(), None);
        clocks.pass_ms(1000);
        clock.now();
    }
    let due = clock.due().unwrap();
    assert_eq!(due, Ahead { from: Millis(1_000_000), to: Millis(1_000_000 + 3_600_000 + 901_000) });
    assert_eq!((clock.now(), clock.ahead_ms()), (Millis(1_901_000), -3_600_000));
    clock.follow(due.to);
    assert_eq!((clock.now(), clock.ahead_ms(), clock.due()), (due.to, 0, None));
}

#[test]
fn the_machines_own_clocks_are_read() {
    let clock = Clock::start(Millis(0), Arc::new(SystemTimeSource));
    assert!(clock.now() > Millis(1_600_000_000_000) && clock.ahead_ms().abs() < 1000);
    let since_boot = SystemTimeSource.since_boot();
    assert!(since_boot > Duration::ZERO && SystemTimeSource.since_boot() >= since_boot);
}

#[test]
fn time_never_goes_back_between_threads() {
    let clocks = Clocks::at(500, 1_000_000);
    let clock = Clock::start(Millis(1_000_000), clocks.clone());
    let (latest, calls, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let before = latest.load(Ordering::SeqCst);
                    let now = clock.now().0;
                    assert!(now >= before, "{now} after somebody saw {before}");
                    latest.fetch_max(now, Ordering::SeqCst);
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let (mut n, mut before) = (0, 0);
        // However the threads are scheduled, the clocks go on for some time, and are looked at behind that.
        while n < 10_000 || calls.load(Ordering::SeqCst) < before + 100_000 {
            n += 1;
            if n == 10_000 {
                before = calls.load(Ordering::SeqCst);
            }
            match n % 500 {
                0 => drop(clocks.wall.fetch_add(90_000_000, Ordering::SeqCst)),
                250 => drop(clocks.wall.fetch_sub(90_000_000, Ordering::SeqCst)),
                _ => clocks.pass_ms(n % 7),
            }
        }
        stop.store(true, Ordering::Release);
    });
    assert!(latest.load(Ordering::SeqCst) > 1_000_000);
}

#[test]
fn generations_grow_within_a_millisecond_and_across_restarts() {
    let at = |ms| Clock::start(Millis(ms), Clocks::at(500, 10));
    let clock = at(1000);
    let (a, b) = (clock.generation(Millis(1000)), clock.generation(Millis(1000)));
    let later = clock.generation(Millis(1001));
    assert!(a < b && b < later);
    assert!(at(1001).generation(Millis(1001)) > later);
}
