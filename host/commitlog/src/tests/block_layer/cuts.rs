//! Power cuts at every flush of the virtual disk, and between the flushes.

use super::judge::{Cut, Life};
use super::setting;
use super::virtual_disk::{Scratch, VirtualDisk};
use super::workload::{History, Run, Said};
use crate::simulated::{LOSSES, PowerLoss, Rng};

/// Lives of one log: each begins with the image of a cut in the life before.
const LIVES: usize = 3;
/// Entries appended in one life.
const ENTRIES: usize = 250;

/// A cut behind every flush, and one somewhere between each two. The first shows the state with the fewest requests
/// that may answer for what was acknowledged, the others what a cache does with the rest.
pub(super) fn all_over(life: &Life, rng: &mut Rng) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let mut from = 0;
    let ends = life.requests.iter().enumerate().filter(|(_, request)| request.flush).map(|(number, _)| number);
    for flush in ends.chain([life.requests.len()]) {
        if flush > from {
            let requests = from + 1 + rng.below((flush - from) as u64) as usize;
            cuts.push(Cut { requests, loss: LOSSES[rng.below(4) as usize], seed: rng.next() });
        }
        if flush < life.requests.len() {
            cuts.push(Cut { requests: flush + 1, loss: PowerLoss::All, seed: 0 });
        }
        from = flush + 1;
    }
    cuts
}

/// A life: the log is opened on `base`, works, and is left where it stands.
fn live(scratch: &Scratch, base: Vec<u8>, before: History, rng: &mut Rng) -> Result<Life, String> {
    let disk = VirtualDisk::start(scratch, &base, None)?;
    let run = Run::open(&disk.log(), disk.write_log(), before, Rng::new(rng.next()));
    let mut run = run.map_err(|error| format!("the log does not open: {error}"))?;
    run.work(ENTRIES).map_err(|error| format!("the log does not work: {error}"))?;
    Life::of(base, disk, run.abandon())
}

/// What the next life must know of this one when it begins with the image of a cut.
fn inherited(life: &Life, cut: Cut) -> History {
    let length = life.length(cut.requests);
    let (released, asked) = life.history.released(length);
    let said = [Said::Durable(life.history.durable(length)), Said::Released(released), Said::ReleaseAsked(asked)];
    History { said: said.map(|said| (0, said)).to_vec(), ..History::default() }
}

/// What was looked at.
#[derive(Debug, Default)]
struct Looked {
    cuts: usize,
    requests: usize,
    /// Positions that the log's start went up by.
    released: u64,
}

/// Some lives of one log, with cuts all over each.
fn lives(scratch: &Scratch, seed: u64) -> Result<Looked, String> {
    let mut rng = Rng::new(seed);
    let (mut base, mut before) = (scratch.fresh_image(), History::default());
    let mut looked = Looked::default();
    for number in 0..LIVES {
        let about = |error| format!("seed {seed}, life {number}: {error}");
        let life = live(scratch, base, before, &mut rng).map_err(about)?;
        let cuts = all_over(&life, &mut rng);
        life.judge(scratch, &cuts).map_err(about)?;
        looked.cuts += cuts.len();
        looked.requests += life.requests.len();
        looked.released = life.history.released(u64::MAX).0;
        // One of the later half, so that the next life finds something.
        let cut = cuts[cuts.len() / 2 + rng.below(cuts.len() as u64 / 2) as usize];
        (base, before) = (life.image(cut), inherited(&life, cut));
    }
    Ok(looked)
}

#[test]
#[ignore = "needs root and qemu-storage-daemon; tests/run sees to both"]
fn acked_entries_survive_power_cuts_of_a_virtual_disk() {
    let seed = setting("VOUCH_SEED").unwrap_or(0xB10C);
    let rounds = setting("VOUCH_BLOCK_ROUNDS").unwrap_or(1);
    let scratch = Scratch::new();
    for seed in (0..rounds).map(|round| seed.wrapping_add(round)) {
        println!("seed {seed}");
        let looked = lives(&scratch, seed).unwrap_or_else(|violation| panic!("{violation}"));
        println!("{LIVES} lives: {looked:?}");
        assert!(looked.released > 0, "no segment was released");
    }
}
