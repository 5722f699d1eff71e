//! What is possible: `pwrite` and `fdatasync` into a file whose blocks are all written already.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cpu;

const SIZE: u64 = 512 << 20;
/// Most groups that share a sync.
const MAX_SHARED: usize = 256;
/// A part of a turn that is shorter is not worth the start of its threads.
const SHORTEST: Duration = Duration::from_millis(5);

/// What some groups took.
pub(super) struct Figure {
    pub(super) groups: u64,
    pub(super) bytes: u64,
    /// Groups that were under way at once, in the mean. Where all writers wait all the time, these are the outstanding
    /// entries by the entries in a group (Little's law).
    pub(super) in_flight: f64,
    pub(super) took: Duration,
    pub(super) cpu: Duration,
}

impl Figure {
    pub(super) fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64()
    }

    pub(super) fn groups_per_second(&self) -> f64 {
        self.groups as f64 / self.took.as_secs_f64()
    }

    pub(super) fn cpu_us_per_group(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.groups as f64
    }
}

/// A file that is written round and round.
pub(super) struct Raw {
    path: PathBuf,
    /// Offset of the next group.
    next: Mutex<u64>,
}

impl Raw {
    pub(super) fn new(folder: &Path) -> Self {
        let path = folder.join("raw");
        let file = File::create_new(&path).unwrap();
        let bytes = vec![7; 1 << 20];
        (0..SIZE).step_by(1 << 20).for_each(|at| file.write_all_at(&bytes, at).unwrap());
        file.sync_all().unwrap();
        Self { path, next: Mutex::new(0) }
    }

    fn open(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }

    /// Writes a group behind the one before it, in the order of the calls, and syncs it through `file`.
    fn write(&self, file: &File, group: &[u8]) {
        let mut next = self.next.lock().unwrap();
        if *next + group.len() as u64 > SIZE {
            *next = 0;
        }
        file.write_all_at(group, *next).unwrap();
        *next += group.len() as u64;
        drop(next);
        file.sync_data().unwrap();
    }

    /// Groups one after the other, `in_flight` at a time, for as long or for as many bytes.
    pub(super) fn closed_loop(&self, group: usize, in_flight: usize, time: Duration, bytes: u64) -> Figure {
        let (started, cpu_before, groups) = (Instant::now(), cpu(), AtomicU64::new(0));
        let most = bytes / group as u64;
        std::thread::scope(|scope| {
            for _ in 0..in_flight {
                scope.spawn(|| {
                    let (file, body) = (self.open(), vec![7; group]);
                    while started.elapsed() < time && groups.fetch_add(1, Ordering::Relaxed) < most {
                        self.write(&file, &body);
                    }
                });
            }
        });
        let groups = groups.into_inner().min(most);
        let (took, cpu) = (started.elapsed(), cpu() - cpu_before);
        Figure { groups, bytes: groups * group as u64, in_flight: in_flight as f64, took, cpu }
    }

    /// As [`Self::closed_loop`] with so many in flight in the mean: for a part of the time one more than for the rest.
    pub(super) fn closed_loop_in_the_mean(&self, group: usize, in_flight: f64, time: Duration, bytes: u64) -> Figure {
        let (fewer, part) = (in_flight.floor() as usize, in_flight.fract());
        let few = self.closed_loop(group, fewer, time.mul_f64(1.0 - part), bytes);
        if part * time.as_secs_f64() < SHORTEST.as_secs_f64() {
            return few;
        }
        let more = self.closed_loop(group, fewer + 1, time.mul_f64(part), bytes);
        Figure {
            groups: few.groups + more.groups,
            bytes: few.bytes + more.bytes,
            in_flight,
            took: few.took + more.took,
            cpu: few.cpu + more.cpu,
        }
    }

    /// Groups at a fixed rate, whether or not those before are done; all that are due when a sync begins share it, as
    /// they would in any log. Gives the time from when each was due.
    pub(super) fn open_loop(&self, group: usize, in_flight: usize, every: Duration, count: u32) -> Vec<Duration> {
        let (started, next) = (Instant::now() + every, Mutex::new(0));
        let work = || {
            let (file, body, mut latencies) = (self.open(), vec![7; group * MAX_SHARED], Vec::new());
            loop {
                let mut turn = next.lock().unwrap();
                if *turn == count {
                    return latencies;
                }
                let first = *turn;
                std::thread::sleep((started + every * first).saturating_duration_since(Instant::now()));
                while *turn < count && started + every * *turn <= Instant::now() && *turn - first < MAX_SHARED as u32 {
                    *turn += 1;
                }
                let groups = first..*turn;
                drop(turn);
                self.write(&file, &body[..group * groups.len()]);
                latencies.extend(groups.map(|number| (started + every * number).elapsed()));
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..in_flight).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }
}
