//! What the caller says of one call.
//!
//! A deadline rather than a time-out: a call takes several steps (waiting for a connection, connecting, beginning, each
//! statement, committing), and together they must not take longer than the caller waits.

use std::time::Duration;

use tokio::time::Instant;

/// When a call must be answered, and whether anything of it may stay.
#[derive(Clone, Copy, Debug)]
pub struct SqlCall {
    /// It is answered by then, if need be with an error.
    pub deadline: Instant,
    /// The database transaction is rolled back at the end: `close_fence` and `run_once` answer what they would.
    pub dry: bool,
}

impl SqlCall {
    /// A call that may change things and must be answered within this time.
    pub fn within(time: Duration) -> Self {
        Self { deadline: Instant::now() + time, dry: false }
    }

    /// The same, leaving nothing behind.
    pub fn dry_within(time: Duration) -> Self {
        Self { dry: true, ..Self::within(time) }
    }

    /// What is left until the deadline.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// How long the database itself may run a statement.
    pub(crate) fn share_of_the_database(&self) -> Duration {
        share_of(self.left())
    }
}

/// A little less than is left, so that the database's own word for the end arrives before the connection has to be given
/// up. At least a millisecond, as none at all means for ever.
fn share_of(left: Duration) -> Duration {
    /// What the answer needs on its way, at most.
    const WAY_BACK: Duration = Duration::from_millis(50);
    left.saturating_sub(WAY_BACK.min(left / 10)).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_stops_a_little_before_the_caller_does_and_never_gets_for_ever() {
        let share = |left| share_of(Duration::from_millis(left)).as_millis();
        assert_eq!([share(10_000), share(1_000), share(100), share(0)], [9_950, 950, 90, 1]);
    }
}
