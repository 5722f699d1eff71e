//! What this process takes of the machine.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What this process takes of the machine; `None` where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// Memory that is resident, bytes of mapped files included.
    pub resident_bytes: Option<u64>,
    /// Processor time of all its threads.
    pub cpu: Duration,
    /// Open files and connections.
    pub open_fds: Option<u64>,
    /// How many it may have; `None` for as many as it likes.
    pub max_fds: Option<u64>,
    /// When it started, seconds since 1970.
    pub start_seconds: Option<f64>,
}

impl ProcessUse {
    /// Asks the system; takes about as long as there are open files.
    pub fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            resident_bytes: resident_bytes(),
            cpu: Duration::new(cpu.tv_sec.cast_unsigned(), u32::try_from(cpu.tv_nsec).unwrap_or_default()),
            // One of them is open for the look.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            start_seconds: start_seconds(),
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn start_seconds() -> Option<f64> {
    /// Behind the name of the program, which may hold anything.
    const START_FIELD: usize = 19;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: f64 = fields.split(' ').nth(START_FIELD)?.parse().ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + ticks / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_process_of_a_test_is_seen_as_it_is() {
        let before = ProcessUse::now();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let after = ProcessUse::now();
        // Other tests of this process open files, too.
        assert!(after.open_fds.unwrap() >= 50 && after.max_fds.is_none_or(|max| max >= 50), "{after:?}");
        assert!(after.cpu >= before.cpu && after.cpu > Duration::ZERO, "{after:?}");
        assert!(after.resident_bytes.unwrap() > 1 << 20, "{after:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..86_400.0).contains(&(now + 1.0 - after.start_seconds.unwrap())), "{after:?} at {now}");
        drop(files);
    }
}
