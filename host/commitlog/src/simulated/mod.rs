//! A disk whose power can be cut, and a log on it that runs step by step: a seed decides everything.
//!
//! Crates above get this with the feature `simulated-disk`, as a development dependency; nothing that is shipped has it.
//! [`open`] recovers a log on a [`SimDisk`]. It has no threads: [`Steps`] takes theirs, one at a time.
//! [`SimDisk::after_power_cut`] says what is left when the power goes, and the next life begins with it. What cannot be,
//! in a test, panics.

#![allow(clippy::unwrap_used, reason = "a test that goes wrong here is to fail here")]

mod disk;
mod event;
mod files;
mod handed_out;
mod notes;
mod platter;
mod rng;
mod rot;
mod steps;

pub use disk::SimDisk;
pub use event::{DiskEvent, Image, LOSSES, PowerLoss, SimFault};
pub use files::{look, open_read_only};
pub use notes::{open_note, read_note};
pub use rng::Rng;
pub use rot::log_file;
pub use steps::{Steps, open};
