//! The medium of the virtual disk at any request of its write log: what must be on it, and what may be.

use std::collections::BTreeSet;

use super::write_log::{Request, SECTOR};
use crate::simulated::{PowerLoss, Rng};

/// What a file system takes for written whole or not at all, in bytes.
pub(super) const BLOCK: usize = 4096;

/// Replays a write log.
///
/// # To ensure correctness
/// - What stands before a flush is durable behind it. A request that was done while the flush was under way may stand
///   before it without being covered; taking it for durable leaves out a state that a disk could show, and shows none
///   that it could not.
/// - Since then any request may be kept or lost, in any combination: the disk's cache owes no order.
/// - A block of the log's own files tears at any sector, because the log promises to stand that. Other blocks are kept or
///   lost whole: ext4 takes the write of one of its blocks for atomic, and its failures are not looked for here.
pub(super) struct Medium {
    durable: Vec<u8>,
    /// Done since the last flush.
    pending: Vec<Request>,
    /// Numbers of the blocks that the log's files own.
    torn: BTreeSet<u64>,
}

impl Medium {
    pub(super) fn new(base: Vec<u8>, torn: BTreeSet<u64>) -> Self {
        Self { durable: base, pending: Vec::new(), torn }
    }

    /// The disk does one more request.
    pub(super) fn take(&mut self, request: &Request) {
        if !request.data.is_empty() {
            self.pending.push(request.clone());
        }
        if request.flush {
            for request in std::mem::take(&mut self.pending) {
                apply(&mut self.durable, &request, SECTOR, |_| true);
            }
        }
    }

    /// What is there when the power is cut now.
    pub(super) fn cut(&self, loss: PowerLoss, rng: &mut Rng) -> Vec<u8> {
        let mut medium = self.durable.clone();
        let half = self.pending.len() / 2;
        for (number, request) in self.pending.iter().enumerate() {
            match loss {
                _ if request.fua => apply(&mut medium, request, SECTOR, |_| true),
                PowerLoss::All => {}
                PowerLoss::Nothing => apply(&mut medium, request, SECTOR, |_| true),
                PowerLoss::OlderHalf if number < half => {}
                PowerLoss::OlderHalf => apply(&mut medium, request, SECTOR, |_| true),
                PowerLoss::Sectors => self.tear(&mut medium, request, rng),
            }
        }
        medium
    }

    fn tear(&self, medium: &mut [u8], request: &Request, rng: &mut Rng) {
        let mut kept = (u64::MAX, false);
        apply(medium, request, SECTOR, |sector| {
            let block = (sector * SECTOR / BLOCK) as u64;
            if kept.0 != block || self.torn.contains(&block) {
                kept = (block, rng.chance(2));
            }
            kept.1
        });
    }
}

/// Applies a request in units of `unit` bytes, as far as `kept` says yes to the number of the unit.
fn apply(medium: &mut [u8], request: &Request, unit: usize, mut kept: impl FnMut(usize) -> bool) {
    let start = request.offset as usize;
    for (number, data) in request.data.chunks(unit).enumerate() {
        let at = start + number * unit;
        if kept(at / unit) {
            medium[at..at + data.len()].copy_from_slice(data);
        }
    }
}

fn write(sector: usize, sectors: usize, byte: u8, fua: bool) -> Request {
    let data = vec![byte; sectors * SECTOR].into();
    Request { at: 0, flush: false, fua, offset: (sector * SECTOR) as u64, data }
}

fn flush() -> Request {
    Request { flush: true, ..write(0, 0, 0, false) }
}

#[test]
fn only_a_flush_makes_what_stands_before_it_safe() {
    let mut medium = Medium::new(vec![0; 4 * BLOCK], BTreeSet::new());
    medium.take(&write(0, 1, 1, false));
    medium.take(&write(1, 1, 2, true));
    assert_eq!(medium.cut(PowerLoss::All, &mut Rng::new(1))[..2 * SECTOR], [vec![0; SECTOR], vec![2; SECTOR]].concat());
    medium.take(&flush());
    medium.take(&write(0, 1, 3, false));
    assert_eq!(medium.cut(PowerLoss::All, &mut Rng::new(1))[0], 1);
    assert_eq!(medium.cut(PowerLoss::Nothing, &mut Rng::new(1))[0], 3);
}

#[test]
fn only_blocks_of_the_log_tear_inside() {
    let mut medium = Medium::new(vec![0; 4 * BLOCK], BTreeSet::from([1]));
    medium.take(&write(0, 16, 9, false));
    let mut torn = 0;
    for seed in 0..100 {
        let cut = medium.cut(PowerLoss::Sectors, &mut Rng::new(seed));
        let kept = |block: usize| cut[block * BLOCK..(block + 1) * BLOCK].iter().filter(|byte| **byte == 9).count();
        assert!(kept(0) == 0 || kept(0) == BLOCK, "a block of the file system was torn");
        torn += usize::from(kept(1) > 0 && kept(1) < BLOCK);
    }
    assert!(torn > 50, "{torn} of 100 were torn");
}
