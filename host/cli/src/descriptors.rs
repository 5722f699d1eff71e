//! How many files and connections this process may have open.
//!
//! A connection takes one, and so does each segment of the log that is open. `vouch config check` shows what the limit
//! leaves for connections; a start raises it first.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit is not raised beyond this: more than any node needs.
const WANTED_MAX: u64 = 1 << 20;

/// The limit, and what it was before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    /// What holds now.
    pub(crate) limit: u64,
    /// What held when the process began: the soft limit.
    pub(crate) before: u64,
}

/// The limit that [`raise`] would reach.
/// Nothing is changed, so a check can say what a start would have.
pub(crate) fn reachable() -> u64 {
    of(getrlimit(Resource::Nofile)).limit
}

/// Raises the soft limit as far as the hard one allows: it is there for programs that cannot take numbers above 1023.
/// Where the system refuses, the limit stays what it was.
pub(crate) fn raise() -> Descriptors {
    let limit = getrlimit(Resource::Nofile);
    let raised = of(limit);
    if raised.limit > raised.before
        && setrlimit(Resource::Nofile, Rlimit { current: Some(raised.limit), ..limit }).is_err()
    {
        return Descriptors { limit: raised.before, ..raised };
    }
    raised
}

/// What a limit can be raised to, and what it is.
fn of(limit: Rlimit) -> Descriptors {
    let before = limit.current.unwrap_or(u64::MAX);
    Descriptors { limit: before.max(limit.maximum.unwrap_or(u64::MAX).min(WANTED_MAX)), before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_up_to_the_hard_one_and_a_sane_one_and_never_lowered() {
        let reached = |current, maximum| of(Rlimit { current, maximum }).limit;
        assert_eq!(reached(Some(1024), Some(4096)), 4096);
        assert_eq!(reached(Some(1024), Some(1 << 30)), WANTED_MAX);
        assert_eq!(reached(Some(1024), None), WANTED_MAX);
        assert_eq!(reached(Some(1 << 25), None), 1 << 25);
        assert_eq!(reached(None, None), u64::MAX);
        assert_eq!(reached(Some(64), Some(64)), 64);
    }
}
