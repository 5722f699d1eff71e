//! Clocks that step, drift, sleep and lie.

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// From 2026 to 2036.
const YEARS: u64 = 3652 * DAY;
const BEGIN: u64 = 56 * 365 * DAY;

/// A machine whose true time is its boot time, with a wall clock that is off by so much.
struct Machine {
    boot: u64,
    off: i64,
    course: Course,
    leaps: Vec<AheadMicros>,
    told: Vec<ClockNews>,
}

impl Machine {
    /// The log's last time is `gap` ago.
    fn started_after(gap: u64, off: i64) -> Self {
        let boot = 7 * HOUR;
        let wall = (BEGIN + boot).saturating_add_signed(off);
        let course = Course::start(BEGIN + boot - gap, Reading { boot, wall });
        Self { boot, off, course, leaps: Vec::new(), told: Vec::new() }
    }

    fn running() -> Self {
        Self::started_after(0, 0)
    }

    fn right(&self) -> u64 {
        BEGIN + self.boot
    }

    fn reading(&self) -> Reading {
        Reading { boot: self.boot, wall: self.right().saturating_add_signed(self.off) }
    }

    fn read(&mut self) {
        let told = self.course.advance(self.reading());
        self.told.extend(told);
        if let Some(due) = self.course.due() {
            self.course.follow(due.to);
            self.leaps.push(due);
        }
    }

    /// Reads every second for so long.
    fn pass(&mut self, time: u64) {
        for _ in 0..time / SECOND {
            self.boot += SECOND;
            self.read();
        }
    }

    /// The log's time less the right one.
    fn error(&self) -> i64 {
        self.course.log().cast_signed() - self.right().cast_signed()
    }
}

fn signed(time: u64) -> i64 {
    time.cast_signed()
}

#[test]
fn what_was_ahead_for_less_than_a_quarter_of_an_hour_leaves_no_trace() {
    for ahead in [MINUTE + 1, 2 * HOUR, DAY, YEARS] {
        for time in [30 * SECOND, HELD - SECOND] {
            let mut machine = Machine::running();
            machine.off = signed(ahead);
            machine.pass(time);
            assert_eq!(machine.error(), 0);
            machine.off = 0;
            machine.pass(MINUTE);
            assert_eq!((machine.error(), machine.leaps.len()), (0, 0));
            assert_eq!(machine.told, [ClockNews::Ahead(ahead), ClockNews::Met]);
        }
    }
}

#[test]
fn what_was_ahead_for_a_quarter_of_an_hour_is_followed() {
    for ahead in [MINUTE + 1, HOUR, DAY, YEARS] {
        let mut machine = Machine::running();
        machine.pass(MINUTE);
        let before = machine.course.log();
        machine.off = signed(ahead);
        // The first reading sees it, so it held for a quarter of an hour a second later.
        machine.pass(HELD);
        assert_eq!(machine.error(), 0);
        machine.pass(SECOND);
        assert_eq!(machine.error(), signed(ahead));
        let to = before + HELD + SECOND + ahead;
        assert_eq!(machine.leaps, [AheadMicros { from: before, to }]);
        machine.pass(SECOND);
        assert_eq!(machine.told, [ClockNews::Ahead(ahead), ClockNews::Met]);
    }
}

#[test]
fn a_wall_clock_that_went_back_is_met_at_nine_tenths_of_the_pace() {
    for behind in [2 * SECOND, HOUR, DAY] {
        let mut machine = Machine::running();
        machine.off = -signed(behind);
        machine.pass(SECOND);
        assert_eq!(machine.error(), -signed(SECOND / 10));
        machine.pass(10 * behind - 2 * SECOND);
        assert!(machine.error() > machine.off);
        machine.pass(SECOND);
        assert_eq!(machine.error(), machine.off);
        assert!(machine.leaps.is_empty());
        assert_eq!(machine.told.len(), 2);
        assert!(matches!(machine.told[..], [ClockNews::Behind(_), ClockNews::Met]), "{:?}", machine.told);
    }
}

#[test]
fn two_seconds_ahead_and_right_again_costs_twenty_seconds_of_a_slower_pace() {
    let mut machine = Machine::running();
    machine.off = signed(2 * SECOND);
    machine.pass(5 * SECOND);
    assert_eq!(machine.error(), signed(2 * SECOND));
    machine.off = 0;
    machine.pass(10 * SECOND);
    assert_eq!(machine.error(), signed(SECOND));
    machine.pass(10 * SECOND);
    assert_eq!(machine.error(), 0);
}

#[test]
fn a_wall_clock_that_is_set_right_after_hours_behind_is_believed_after_a_quarter_of_an_hour() {
    let mut machine = Machine::running();
    machine.pass(MINUTE);
    let met = machine.course.log();
    machine.off = -signed(2 * DAY);
    machine.pass(10 * HOUR);
    assert_eq!(machine.error(), -signed(HOUR));
    machine.off = 0;
    machine.pass(HELD);
    assert_eq!(machine.error(), -signed(HOUR));
    machine.pass(SECOND);
    assert_eq!(machine.error(), 0);
    // All times since they last met are too early.
    assert_eq!(machine.leaps[0].from, met);
}

#[test]
fn to_2036_and_back_while_it_runs_is_met_and_while_it_is_down_takes_its_time() {
    let mut machine = Machine::running();
    machine.off = signed(YEARS);
    machine.pass(HELD + 2 * SECOND);
    assert_eq!(machine.error(), signed(YEARS));
    machine.off = 0;
    machine.pass(10 * HOUR);
    assert_eq!(machine.error(), signed(YEARS - HOUR), "it goes on, slower");
    assert!(
        matches!(machine.told[..], [ClockNews::Ahead(_), ClockNews::Met, ClockNews::Behind(_)]),
        "{:?}",
        machine.told
    );

    // The same log at the next start.
    let logged = machine.course.log();
    let mut course = Course::start(logged, machine.reading());
    assert_eq!(course.log(), logged);
    machine.boot += 10 * SECOND;
    course.advance(machine.reading());
    assert_eq!(course.log(), logged + 9 * SECOND);
}

#[test]
fn at_a_start_the_wall_clock_is_believed_where_it_is_ahead() {
    for (gap, off, error) in [
        (HOUR, 0, 0),
        (DAY, signed(HOUR), signed(HOUR)),
        (5 * SECOND, signed(YEARS), signed(YEARS)),
        // Behind the log: it goes on from the last time there.
        (5 * SECOND, -signed(HOUR), -signed(5 * SECOND)),
        (5 * SECOND, -signed(DAY), -signed(5 * SECOND)),
        (HOUR, -signed(10 * MINUTE), -signed(10 * MINUTE)),
    ] {
        let machine = Machine::started_after(gap, off);
        assert_eq!(machine.error(), error, "{gap} {off}");
    }
}

#[test]
fn a_start_is_believed_when_both_agreed_for_a_quarter_of_an_hour() {
    let mut machine = Machine::started_after(DAY, 0);
    machine.pass(HELD - SECOND);
    assert!(!machine.course.agreed());
    machine.pass(SECOND);
    assert!(machine.course.agreed());

    // Set right meanwhile: the log's time is ahead, and they do not agree until they meet.
    let mut machine = Machine::started_after(DAY, signed(HOUR));
    machine.pass(HELD - SECOND);
    machine.off = 0;
    machine.pass(9 * HOUR);
    assert!(!machine.course.agreed());
    machine.pass(HOUR);
    assert_eq!(machine.error(), 0);
    machine.pass(HELD);
    assert!(machine.course.agreed());
}

#[test]
fn a_suspend_is_time_that_passed() {
    for off in [0, signed(20 * SECOND)] {
        let mut machine = Machine::running();
        machine.pass(MINUTE);
        machine.boot += 8 * HOUR;
        machine.off = off;
        machine.read();
        assert_eq!((machine.error(), machine.leaps.len()), (off, 0));
    }
    // A wall clock that stood still meanwhile, as that of a virtual machine may.
    let mut machine = Machine::running();
    machine.boot += HOUR;
    machine.off = -signed(HOUR);
    machine.read();
    assert_eq!(machine.error(), -signed(HOUR / 10));
}

#[test]
fn what_nobody_watched_did_not_hold() {
    let mut machine = Machine::running();
    machine.off = signed(HOUR);
    machine.pass(MINUTE);
    machine.boot += HELD;
    machine.read();
    assert_eq!(machine.error(), 0);
    machine.pass(HELD - SECOND);
    assert_eq!(machine.error(), 0);
    machine.pass(SECOND);
    assert_eq!(machine.error(), signed(HOUR));

    let mut machine = Machine::started_after(DAY, 0);
    machine.pass(SECOND);
    machine.boot += HELD;
    machine.read();
    assert!(!machine.course.agreed());
}

#[test]
fn a_wall_clock_that_wanders_while_it_is_ahead_is_not_followed() {
    let mut machine = Machine::running();
    for hours in 2..10 {
        machine.off = signed(hours * HOUR);
        machine.pass(10 * MINUTE);
    }
    assert_eq!((machine.error(), machine.leaps.len()), (0, 0));
}

#[test]
fn a_wall_clock_that_jumps_to_and_fro_is_not_followed_and_told_seldom() {
    for far in [2 * HOUR, YEARS] {
        for sign in [1, -1] {
            let mut machine = Machine::running();
            for _ in 0..120 {
                machine.off = signed(far) * sign;
                machine.pass(MINUTE);
                machine.off = 0;
                machine.pass(MINUTE);
                assert!(machine.error().unsigned_abs() <= 7 * SECOND, "{}", machine.error());
                assert!(!machine.course.agreed());
            }
            assert!(machine.leaps.is_empty());
            assert!(machine.told.len() <= 3 * 120, "{}", machine.told.len());
        }
    }
    // Many times a second: what is off is told once a minute all the same.
    let mut machine = Machine::running();
    for n in 0..60_000 {
        machine.off = if n % 2 == 0 { signed(HOUR) } else { 0 };
        machine.boot += 10_000;
        machine.read();
    }
    assert!(machine.told.len() <= 2 * 11, "{}", machine.told.len());
}

#[test]
fn small_steps_are_followed_at_once_until_they_make_a_minute() {
    let mut machine = Machine::running();
    machine.off = signed(MINUTE);
    machine.pass(SECOND);
    assert_eq!((machine.error(), machine.told.as_slice()), (signed(MINUTE), &[ClockNews::Followed(MINUTE)][..]));
    // A minute more must wait until the first one is paid.
    machine.off = signed(2 * MINUTE);
    machine.pass(14 * MINUTE);
    assert_eq!(machine.error(), signed(MINUTE));
    machine.pass(MINUTE + SECOND);
    assert_eq!((machine.error(), machine.leaps.len()), (signed(2 * MINUTE), 0));
}

#[test]
fn a_clock_that_is_slewed_is_followed_both_ways() {
    let mut machine = Machine::running();
    for slew in [500, -500] {
        for _ in 0..HOUR / SECOND {
            machine.off += slew;
            machine.pass(SECOND);
            assert!((machine.error() - machine.off).abs() <= 500);
        }
    }
    assert!(machine.told.is_empty() && machine.leaps.is_empty() && machine.course.agreed());
}

#[test]
fn clocks_that_say_anything_at_all_break_nothing() {
    for logged in [0, 1, BEGIN, NEVER] {
        for wall in [0, 1, BEGIN, NEVER] {
            let mut course = Course::start(logged, Reading { boot: 0, wall });
            for (boot, wall) in [(0, NEVER), (NEVER, 0), (NEVER, NEVER), (5, 5)] {
                let before = course.log();
                course.advance(Reading { boot, wall });
                assert!(course.log() >= before);
            }
        }
    }
}

proptest! {
    /// Whatever the wall clock does: time never goes back, never slower than nine tenths, never faster than allowed, leaps
    /// only when it held, and meets a wall clock that is right at last.
    #[test]
    fn the_course_keeps_its_bounds(
        gap in 0..2 * DAY,
        steps in proptest::collection::vec((0u8..8, -signed(2 * DAY)..signed(2 * DAY), 1u64..20 * MINUTE), 1..40),
    ) {
        let mut machine = Machine::started_after(gap, 0);
        let mut history = vec![(machine.boot, machine.course.log())];
        for (what, off, time) in steps {
            match what {
                0 => machine.off = 0,
                1 => machine.off = off,
                2 => machine.off += off / 10_000,
                3 => machine.boot += time,
                _ => {}
            }
            for _ in 0..5 {
                let (boot, log, leaps) = (machine.boot, machine.course.log(), machine.leaps.len());
                machine.boot += time / 7;
                machine.read();
                let (passed, moved) = (machine.boot - boot, machine.course.log() - log);
                prop_assert!(moved >= passed * 9 / 10, "{moved} in {passed}");
                if machine.leaps.len() > leaps {
                    history.clear();
                }
                history.push((machine.boot, machine.course.log()));
                for (boot, log) in &history {
                    let (passed, moved) = (machine.boot - boot, machine.course.log() - log);
                    prop_assert!(moved <= passed + passed / 15 + AT_ONCE + history.len() as u64, "{moved} in {passed}");
                }
            }
        }
        for leap in &machine.leaps {
            prop_assert!(leap.to > leap.from + AT_ONCE);
        }
        // Right from now on.
        machine.off = 0;
        let behind = machine.error().max(0).unsigned_abs();
        for _ in 0..(behind * 10 + HELD) / (10 * SECOND) + 3 {
            machine.boot += 10 * SECOND;
            machine.read();
        }
        prop_assert_eq!(machine.error(), 0);
    }
}
