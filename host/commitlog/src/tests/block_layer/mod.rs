//! The log on a virtual disk whose every request is logged, so that its power can be cut behind any of them; and on one
//! that fails.
//!
//! The simulated disk of the other suites is fast and knows every state, but it is a model of what an operating system
//! does. Here nothing is modelled above the disk: the log makes its real calls (`pwrite`, `fdatasync`, `fallocate`,
//! `rename`, mapped reads) to ext4, and ext4 its requests to a block device. That device is a loop device over a file
//! that qemu exports through FUSE, and qemu logs each request with `blklogwrites` or fails one with `blkdebug`.
//!
//! Why so and not otherwise: a file of qemu's export cannot hold a folder and cannot be mapped, so the log itself could
//! not run on it without a file layer of the tests' own; fuse2fs needs no rights, but keeps no journal, so its file
//! system would be the first to break. A kernel's ext4 on a loop device is what people run, a `fdatasync` was seen to
//! become exactly one flush, and after each cut ext4 replays its journal before the log recovers, as after a real one.
//! It needs root, loop devices, `/dev/fuse`, and `qemu-storage-daemon`. Where they are missing nothing here passes:
//! the tests are ignored unless asked for, and `tests/run` says loudly what it leaves out.
//!
//! What threads do is not repeatable, so a seed repeats the choices of a run but not its timing. A violation leaves the
//! base image, the write log and the image of the cut behind, which show it again.
//!
//! Settings: `VOUCH_BLOCK_ROUNDS` (1) asks for more rounds, each with another seed; `VOUCH_SEED` for another first seed.

mod bugs_are_caught;
mod cuts;
mod failing;
mod judge;
mod medium;
mod virtual_disk;
mod workload;
mod write_log;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}
