//! What a node's background work costs: a node that scrubs, makes snapshots and lookup files, lets messages expire,
//! releases segments and is read cold, beside one that does nothing of it; and the bare server beside the same bytes a
//! second of plain reads and writes, without anything else of that work.
//!
//! The work is made to happen often enough that some of all of it falls into every turn; a turn without it fails.

mod nodes;
mod plain;
mod report;

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;

use self::nodes::{Done, NodeInTurns};
use self::plain::{PerSecond, PlainFile};
use self::report::{BackgroundReport, BackgroundRound};
use super::contestants::{self, Contestant};
use super::scratch::Scratch;
use super::stats::Measured;
use super::{LoadArgs, runtime};
use crate::output;

/// All that takes part.
struct Arrangement {
    /// Of the load.
    runtime: Runtime,
    /// The node that does nothing besides.
    quiet: NodeInTurns,
    /// The node that does everything besides.
    busy: NodeInTurns,
    /// The bare server, with and without reads and writes beside it.
    bare: Contestant,
    /// What is read and written beside it.
    file: PlainFile,
}

/// Runs `vouch bench send --background`.
pub(super) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let scratch = Scratch::create(args.dir.as_deref())?;
    let mut report = BackgroundReport::new(args.plain(1), args.rounds, args.seconds, scratch.describe());
    if !args.json {
        output::line(report.heading())?;
    }
    let setting = Arrangement::create(args, scratch.path())?;
    for number in 0..args.rounds {
        let round = setting.round(args, number)?;
        if !args.json {
            output::line(round.render())?;
        }
        report.rounds.push(round);
    }
    if args.json {
        output::json(&report.document())?
    } else {
        output::line(report.summary())?
    }
    report.complain()
}

impl Arrangement {
    /// Starts what runs through all rounds. The busy node is prepared first, which takes longest.
    fn create(args: &LoadArgs, folder: &Path) -> anyhow::Result<Self> {
        let (runtime, load) = (runtime()?, args.plain(1));
        let busy = NodeInTurns::busy(&runtime, &folder.join("busy"), &load)?;
        let quiet = NodeInTurns::quiet(&folder.join("quiet"), &load);
        let bare = contestants::peer("bare", folder, &load)?;
        Ok(Self { runtime, quiet, busy, bare, file: PlainFile::create(&folder.join("plain"))? })
    }

    /// Node and bare server, each with and without; which of them is first changes with every round.
    fn round(&self, args: &LoadArgs, number: u32) -> anyhow::Result<BackgroundRound> {
        let quiet_first = number.is_multiple_of(2);
        let (vouch, (vouch_beside, done)) = in_order(quiet_first, || self.quiet_turn(args), || self.busy_turn(args))?;
        let plain = PerSecond::of(done.disk, vouch_beside.elapsed);
        let (bare, bare_beside) =
            in_order(quiet_first, || self.turn(&self.bare, args, || ()), || self.bare_beside(args, plain))?;
        Ok(BackgroundRound { number: number + 1, vouch, vouch_beside, bare, bare_beside, done, plain })
    }

    /// One turn of a server.
    fn turn(&self, contestant: &Contestant, args: &LoadArgs, at_both_ends: impl Fn()) -> anyhow::Result<Measured> {
        self.runtime.block_on(contestant.turn(args.window(), at_both_ends))
    }

    /// A turn of the node without background work, which is started for it and stopped afterwards.
    fn quiet_turn(&self, args: &LoadArgs) -> anyhow::Result<Measured> {
        let node = self.quiet.start()?;
        node.wait_until_still()?;
        let measured = self.turn(&node.contestant, args, || ())?;
        node.stop()?;
        Ok(measured)
    }

    /// A turn of the other one, with what it did meanwhile.
    fn busy_turn(&self, args: &LoadArgs) -> anyhow::Result<(Measured, Done)> {
        let node = self.busy.start()?;
        let looks = RefCell::new(Vec::new());
        let look = || looks.borrow_mut().push(node.look());
        let (measured, pages) = beside(|stop| node.read_cold(stop), || self.turn(&node.contestant, args, look))?;
        node.stop()?;
        let looks = looks.into_inner().into_iter().collect::<anyhow::Result<Vec<Done>>>()?;
        let done = looks.last().zip(looks.first()).map(|(after, before)| after.since(*before));
        Ok((measured, Done { pages, ..done.unwrap_or_default() }))
    }

    /// A turn of the bare server beside as many reads and writes as the busy node had.
    fn bare_beside(&self, args: &LoadArgs, rates: PerSecond) -> anyhow::Result<Measured> {
        let background = |stop: &AtomicBool| self.file.read_and_write(rates, stop);
        Ok(beside(background, || self.turn(&self.bare, args, || ()))?.0)
    }
}

/// Both, the first one first or last.
fn in_order<A, B>(
    first_first: bool,
    first: impl FnOnce() -> anyhow::Result<A>,
    second: impl FnOnce() -> anyhow::Result<B>,
) -> anyhow::Result<(A, B)> {
    if first_first {
        let done = first()?;
        Ok((done, second()?))
    } else {
        let done = second()?;
        Ok((first()?, done))
    }
}

/// Runs `work` on this thread and `background` on another, which is told when the work is done.
fn beside<T, B: Send>(
    background: impl FnOnce(&AtomicBool) -> anyhow::Result<B> + Send,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, B)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let background = scope.spawn(|| background(&stop));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let ended = background.join().map_err(|_| anyhow::anyhow!("the background work panicked"))?;
        Ok((done?, ended?))
    })
}
