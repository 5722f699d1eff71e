//! A virtual disk that fails a request, and a file system that is full.

use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::cuts::all_over;
use super::judge::{Cut, Life};
use super::setting;
use super::virtual_disk::{DiskFault, FaultKind, Scratch, VirtualDisk};
use super::workload::{History, PATIENCE, Run, Stopped};
use crate::simulated::{LOSSES, Rng};
use crate::{AppendError, EntryKind, Shortage};

/// Faults of each kind that the log meets in one round.
const FAULTS: usize = 8;
/// A fault may come behind the end of a run, whose groups are not those of another run; then another one is drawn, so often at most.
const TRIES: usize = 4 * FAULTS;
/// One in so many cuts is judged where the file system was full.
const CUTS_OF: u64 = 12;
/// Entries that are appended, unless the log ends before.
const ENTRIES: usize = 120;

/// Runs a log into a fault and cuts the power at the end. Gives whether the log met the fault: it may have hit a
/// request that only the file system sent, and that it could do without.
fn suffer(scratch: &Scratch, base: &[u8], fault: DiskFault, rng: &mut Rng) -> Result<bool, String> {
    let disk = VirtualDisk::start(scratch, base, Some(fault))?;
    let run = Run::open(&disk.log(), disk.write_log(), History::default(), Rng::new(rng.next()));
    // Recovery met the fault: the log did not open, and has promised nothing.
    let Ok(mut run) = run else { return Ok(true) };
    let stopped = run.work(ENTRIES).and_then(|()| run.wait_until(0)).err();
    let poisoned = match &stopped {
        Some(Stopped::Refused(AppendError::Poisoned(_))) => true,
        // Met while the next segment was prepared: nothing of the log is in what was not written.
        Some(Stopped::Refused(AppendError::Short { shortage: Shortage::Space, .. }))
            if fault.kind == FaultKind::NoSpace =>
        {
            false
        }
        Some(other) => return Err(other.to_string()),
        None => false,
    };
    if poisoned && !matches!(run.append(EntryKind::Records, 10), Err(AppendError::Poisoned(_))) {
        return Err("a poisoned log takes an entry".to_owned());
    }
    let folder = disk.log();
    let history = run.abandon();
    if poisoned {
        reported_once(&history, &folder)?;
    }
    let life = Life::of(base.to_vec(), disk, history)?;
    let cuts = LOSSES.map(|loss| Cut { requests: life.requests.len(), loss, seed: rng.next() });
    life.judge(scratch, &cuts)?;
    Ok(stopped.is_some())
}

/// What is said of a failure: once, with file and cause, and nothing becomes durable afterwards.
fn reported_once(history: &History, folder: &Path) -> Result<(), String> {
    let [report] = &history.poisoned[..] else {
        return Err(format!("the failure was reported {} times", history.poisoned.len()));
    };
    if history.durable_after_poison > 0 {
        return Err(format!("the log went on after {report}"));
    }
    // The file system may have gone read-only.
    let causes = [Errno::IO, Errno::NOSPC, Errno::ROFS].map(|errno| Some(errno.raw_os_error()));
    if !report.file.starts_with(folder) || !causes.contains(&report.cause.raw_os_error()) {
        return Err(format!("reported as {report}"));
    }
    Ok(())
}

/// How many writes and flushes a run has in which nothing fails.
fn healthy(scratch: &Scratch, base: &[u8], rng: &mut Rng) -> Result<(usize, usize), String> {
    let disk = VirtualDisk::start(scratch, base, None)?;
    let run = Run::open(&disk.log(), disk.write_log(), History::default(), Rng::new(rng.next()));
    run.map_err(|error| error.to_string())?.work(ENTRIES).map_err(|error| error.to_string())?;
    let life = Life::of(base.to_vec(), disk, History::default())?;
    let flushes = life.requests.iter().filter(|request| request.flush).count();
    Ok((life.requests.len() - flushes, flushes))
}

fn faults(scratch: &Scratch, seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let base = scratch.fresh_image();
    let (writes, flushes) = healthy(scratch, &base, &mut rng)?;
    for kind in [FaultKind::Write, FaultKind::Flush, FaultKind::NoSpace] {
        let requests = if kind == FaultKind::Flush { flushes } else { writes };
        let (mut met, mut tries) = (0, 0);
        while met < FAULTS {
            // The first tenth belongs to the file system, and there is no certainty about the last one.
            let nth = requests / 10 + rng.below(requests as u64 * 8 / 10) as usize;
            let fault = DiskFault { kind, nth };
            let about = |violation| format!("seed {seed}, {fault:?} of {requests}: {violation}");
            met += usize::from(suffer(scratch, &base, fault, &mut rng).map_err(about)?);
            tries += 1;
            if tries == TRIES && met < FAULTS {
                return Err(format!("seed {seed}: of {tries} faults of a {kind:?} the log met only {met}"));
            }
        }
        println!("{kind:?}: the log met {met} of {tries}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and qemu-storage-daemon; tests/run sees to both"]
fn a_failed_request_of_a_virtual_disk_ends_the_log_and_takes_nothing_acked() {
    let seed = setting("VOUCH_SEED").unwrap_or(0xFA11);
    let scratch = Scratch::new();
    for seed in (0..setting("VOUCH_BLOCK_ROUNDS").unwrap_or(1)).map(|round| seed.wrapping_add(round)) {
        println!("seed {seed}");
        faults(&scratch, seed).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[test]
#[ignore = "needs root and qemu-storage-daemon; tests/run sees to both"]
fn a_full_file_system_refuses_entries_and_takes_them_again_when_there_is_space() {
    let seed = setting("VOUCH_SEED").unwrap_or(0xF011);
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let scratch = Scratch::new();
    let base = scratch.fresh_image();
    let disk = VirtualDisk::start(&scratch, &base, None).unwrap();
    let mut log = Run::open(&disk.log(), disk.write_log(), History::default(), Rng::new(rng.next())).unwrap();
    log.work(20).unwrap();
    // Room for the segment that is prepared ahead, and then for no other.
    let ballast = disk.mounted().root().join("ballast");
    let space = rustix::fs::statvfs(disk.mounted().root()).unwrap();
    let file = fs::File::create(&ballast).unwrap();
    let rest = space.f_bavail * space.f_frsize - (300 << 10);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, rest).unwrap();
    drop(file);

    // Nothing but appends: a release would make space.
    let refused = (0..2000).find_map(|_| log.append(EntryKind::Records, 4000).err()).expect("the file system is full");
    assert!(matches!(refused, AppendError::Short { shortage: Shortage::Space, .. }), "{refused}");
    log.wait_until(0).expect("what was taken becomes durable");
    assert!(log.appender.poisoned().is_none(), "a full file system does not end the log");
    let most = log.appender.max_payload() as usize;
    let again = log.append(EntryKind::Records, most).expect_err("it is still full");
    assert!(matches!(again, AppendError::Short { shortage: Shortage::Space, .. }), "{again}");

    // What is released gives its blocks to the segment that is written, which has none behind what was prepared of it.
    log.release().unwrap();
    let began = Instant::now();
    while log.append(EntryKind::Records, most / 2).is_err() {
        assert!(began.elapsed() < PATIENCE, "segments were released, and there is no space");
        std::thread::yield_now();
    }

    fs::remove_file(ballast).unwrap();
    log.work(20).expect("there is space again");
    log.wait_until(0).unwrap();
    let life = Life::of(base, disk, log.abandon()).unwrap();
    assert!(life.history.poisoned.is_empty());
    // Some of many: what is new here happens at few of them.
    let offset = rng.below(CUTS_OF) as usize;
    let cuts: Vec<Cut> = all_over(&life, &mut rng).into_iter().skip(offset).step_by(CUTS_OF as usize).collect();
    life.judge(&scratch, &cuts).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{} power cuts", cuts.len());
}
