//! When a database that cannot be reached is tried again.
//!
//! A connection that is refused costs the server as much as one that is taken: a process or a thread, a handshake. Where every
//! call tries, a database that is short of connections, or of anything else, gets the whole load of its callers as attempts
//! to connect, and gets it once more when it comes back. So after some attempts in a row that failed, calls are told at
//! once what the last of them was told, and one attempt is made now and then.
//!
//! No clock is read here: callers say what time it is.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::SqlError;

/// So many attempts in a row fail before calls are told without one. Those that were made side by side count as one.
const FAILURES_FIRST: u32 = 3;
/// The first pause between two attempts; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: so late at most a database is found that is there again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// An attempt that was given up because its call had no more time tells of the database only if it had so much.
const TELLING: Duration = Duration::from_millis(500);

/// What one pool knows about connecting to its database.
#[derive(Default)]
pub(crate) struct Reaching(Mutex<Failures>);

/// Attempts that failed, none of which was followed by a success.
#[derive(Default)]
struct Failures {
    in_a_row: u32,
    /// The last one that counted, and what it was told.
    last: Option<(Instant, SqlError)>,
    /// No attempt is made before.
    until: Option<Instant>,
}

impl Reaching {
    /// Whether a call may try to connect. During a pause it may not; at the end of one a single call may, and the others when that
    /// one has succeeded, or after a further pause: so it does not matter whether anything is heard of it.
    ///
    /// # Errors
    /// [`SqlError::Unavailable`], or whatever else the last attempt was told: nothing happened.
    pub(crate) fn may_try(&self, now: Instant) -> Result<(), SqlError> {
        let mut failures = self.failures();
        let (Some(until), Some((_, why))) = (failures.until, &failures.last) else { return Ok(()) };
        if now < until {
            return Err(why.clone());
        }
        failures.until = Some(now + pause_after(failures.in_a_row));
        Ok(())
    }

    /// Connected.
    pub(crate) fn reached(&self) {
        *self.failures() = Failures::default();
    }

    /// Not connected, for this reason, in an attempt that began then.
    pub(crate) fn failed(&self, began: Instant, now: Instant, why: &SqlError) {
        let mut failures = self.failures();
        if failures.last.as_ref().is_some_and(|(at, _)| began < *at) {
            return;
        }
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        failures.last = Some((now, why.clone()));
        if failures.in_a_row >= FAILURES_FIRST {
            failures.until = Some(now + pause_after(failures.in_a_row));
        }
    }

    /// The call's time was over before there was a connection.
    pub(crate) fn given_up(&self, began: Instant, now: Instant, why: &SqlError) {
        if now.duration_since(began) >= TELLING {
            self.failed(began, now, why);
        }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        // Nothing in here can be left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long nobody tries after so many failures.
fn pause_after(in_a_row: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << in_a_row.saturating_sub(FAILURES_FIRST).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn refused(text: &str) -> SqlError {
        SqlError::Unavailable(text.to_owned())
    }

    /// Fails so often, one attempt after the other.
    fn fail(reaching: &Reaching, times: u32, now: &mut Instant) {
        for _ in 0..times {
            let began = *now;
            *now += MOMENT;
            reaching.failed(began, *now, &refused("no"));
            *now += MOMENT;
        }
    }

    #[test]
    fn after_failures_in_a_row_one_attempt_is_made_in_each_pause_and_others_are_told_what_it_was_told() {
        let (reaching, mut now) = (Reaching::default(), Instant::now());
        fail(&reaching, FAILURES_FIRST - 1, &mut now);
        assert_eq!(reaching.may_try(now), Ok(()), "it may have been chance");
        fail(&reaching, 1, &mut now);
        assert_eq!(reaching.may_try(now), Err(refused("no")));
        now += FIRST_PAUSE;
        assert_eq!(reaching.may_try(now), Ok(()));
        assert_eq!(reaching.may_try(now), Err(refused("no")), "another one tries just now");
        let later = now + FIRST_PAUSE;
        assert_eq!(reaching.may_try(later), Ok(()), "nothing was heard of that one");
        reaching.failed(later, later + MOMENT, &refused("still no"));
        let paused = later + MOMENT + FIRST_PAUSE;
        assert_eq!(reaching.may_try(paused), Err(refused("still no")), "the pause is twice as long");
        assert_eq!(reaching.may_try(paused + FIRST_PAUSE), Ok(()));
    }

    #[test]
    fn pauses_end_however_long_it_is_away_and_a_success_ends_them_at_once() {
        let (reaching, mut now) = (Reaching::default(), Instant::now());
        fail(&reaching, 100, &mut now);
        assert!(reaching.may_try(now).is_err());
        assert_eq!(reaching.may_try(now + LONGEST_PAUSE), Ok(()));
        reaching.reached();
        fail(&reaching, FAILURES_FIRST - 1, &mut now);
        assert_eq!(reaching.may_try(now), Ok(()));
    }

    #[test]
    fn attempts_side_by_side_count_once_and_one_without_time_says_nothing_of_the_database() {
        let (reaching, began) = (Reaching::default(), Instant::now());
        let ended = began + MOMENT;
        (0..64).for_each(|_| reaching.failed(began, ended, &refused("no")));
        assert_eq!(reaching.may_try(ended), Ok(()));
        (0..10).for_each(|n| {
            let began = ended + TELLING * n;
            reaching.given_up(began, began + TELLING - MOMENT, &refused("no time"));
        });
        let now = ended + TELLING * 11;
        assert_eq!(reaching.may_try(now), Ok(()));
        reaching.given_up(now, now + TELLING, &refused("no answer"));
        reaching.given_up(now + TELLING, now + TELLING * 2, &refused("no answer"));
        assert_eq!(reaching.may_try(now + TELLING * 2), Err(refused("no answer")));
    }
}
