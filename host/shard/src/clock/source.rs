//! Where time is read.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Two clocks of a machine.
pub trait TimeSource: Send + Sync {
    /// Time since the machine started, suspends included. Never goes back, and nobody sets it.
    fn since_boot(&self) -> Duration;

    /// Time since 1970 by the wall clock, which may be set to anything; zero before 1970.
    fn since_1970(&self) -> Duration;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemTimeSource;

impl TimeSource for SystemTimeSource {
    fn since_boot(&self) -> Duration {
        duration(clock_gettime(ClockId::Boottime))
    }

    fn since_1970(&self) -> Duration {
        duration(clock_gettime(ClockId::Realtime))
    }
}

fn duration(time: Timespec) -> Duration {
    match (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (Ok(seconds), Ok(nanoseconds)) => Duration::new(seconds, nanoseconds),
        _ => Duration::ZERO,
    }
}
