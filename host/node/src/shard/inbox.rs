//! The one way into the executor thread: commands from many tasks, durability from the log's threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::oneshot;
use vouch_broker::record::{Frame, Record, changes_delivery};
use vouch_broker::state::{Copies, Outcome};
use vouch_broker::{NotDone, NothingStored, State};
use vouch_commitlog::{Durable, Shortage};

use super::leader::Leader;
use super::polls::Poll;

/// Bytes that a command costs besides its records: queue entries, replies, indexes.
const COMMAND_COST: u64 = 512;
/// When a refused caller should try again. A full queue of the default size drains in about this time on a disk of
/// some hundred megabytes a second.
const RETRY_AFTER_MS: u64 = 200;

/// What a proposal may have of the log's space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Only what is left besides the reserve.
    Room,
    /// The same, and its caller hears of it when it is written, before it is durable (ruling 16).
    RoomInMemory,
    /// The reserve too: what ends something, or makes room.
    Reserve,
}

/// Records that happen together, and who wants to know.
pub(crate) struct Proposal {
    /// Framed records, one after the other.
    pub(crate) records: Vec<u8>,
    /// One outcome a record; nobody listens where it is `None`.
    pub(crate) reply: Option<oneshot::Sender<Result<Vec<Outcome>, NotDone>>>,
    /// Counted in bytes in flight.
    pub(crate) cost: u64,
    pub(crate) claim: Claim,
}

impl Proposal {
    /// Those of its records that change a group's progress: they must be held, and released.
    pub(super) fn delivery_records(&self) -> impl Iterator<Item = Record> {
        let mut records: &[u8] = &self.records;
        std::iter::from_fn(move || {
            while !records.is_empty() {
                let (frame, rest) = Frame::split(records).ok()?;
                records = rest;
                if changes_delivery(frame.kind()) {
                    return Record::decode(&frame).ok();
                }
            }
            None
        })
    }
}

/// A look at the state, and at what the leader keeps.
type Look = Box<dyn FnOnce(&State, &mut Leader) + Send>;

/// What the executor is asked to do.
pub(crate) enum Command {
    Propose(Proposal),
    Receive(Poll),
    /// Look at the state.
    Read(Box<dyn FnOnce(&State) + Send>),
    /// Look at the state and at what the leader keeps.
    Lead(Look),
    /// Say how the shard stands.
    Standing(oneshot::Sender<Standing>),
    /// Read from this part what the state holds so far in memory.
    Adopt(u64, Copies),
    /// Read from copies of a part that were mended.
    ReadFrom(u64, Copies),
    /// Write nothing any more, for this reason.
    Fence(String, oneshot::Sender<()>),
    /// Answer polls, write what is proposed, close the log.
    Stop,
}

impl Command {
    /// Drops a command that nobody has looked at.
    fn refuse(self) {
        if let Self::Propose(Proposal { reply: Some(reply), .. }) = self {
            let _ = reply.send(Err(NothingStored::Stopping.into()));
        }
    }
}

/// How a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Log position after the last entry.
    pub(crate) appended: u64,
    /// Everything before this log position is durable.
    pub(crate) durable: u64,
    /// Everything before this log position is applied.
    pub(crate) applied: u64,
    /// Why the log cannot grow, if it has no more than what is kept for ends and acknowledgements.
    pub(crate) shortage: Option<Shortage>,
    /// Bytes of the log that sends leave to others when the disk is full.
    pub(crate) reserve: u64,
    /// Receives that wait.
    pub(crate) waiting_polls: usize,
}

#[derive(Default)]
struct Waiting {
    commands: Vec<Command>,
    durable: Option<u64>,
    poisoned: Option<String>,
    /// The executor is gone: nobody would answer.
    closed: bool,
}

/// What the executor finds when it looks.
pub(crate) struct Taken {
    pub(crate) commands: Vec<Command>,
    /// Everything before this position is durable.
    pub(crate) durable: Option<u64>,
    /// The log is poisoned; the reason.
    pub(crate) poisoned: Option<String>,
}

/// The executor's inbox.
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    executor: Mutex<Option<Thread>>,
    /// The executor sleeps, or is about to: whoever clears this wakes it.
    asleep: AtomicBool,
    in_flight: AtomicU64,
    bound: u64,
}

impl Inbox {
    pub(crate) fn new(bytes_in_flight: u64) -> Self {
        Self {
            waiting: Mutex::default(),
            executor: Mutex::default(),
            asleep: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            bound: bytes_in_flight,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a proposal before anything is queued (ruling 21); given back when it is answered.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<u64, NotDone> {
        let cost = bytes as u64 + COMMAND_COST;
        let before = self.in_flight.fetch_add(cost, Ordering::Relaxed);
        // A single request always fits an idle node, whatever the bound.
        if before > 0 && before + cost > self.bound {
            self.release(cost);
            return Err(NotDone::NothingStored(NothingStored::Overloaded {
                in_flight: before,
                bound: self.bound,
                retry_after_ms: RETRY_AFTER_MS,
            }));
        }
        Ok(cost)
    }

    pub(crate) fn release(&self, cost: u64) {
        self.in_flight.fetch_sub(cost, Ordering::Relaxed);
    }

    /// Bytes that are proposed and not answered.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Hands a command over. Once the executor is gone the command is dropped, which tells its caller; who proposes hears
    /// for certain that nothing was stored.
    pub(crate) fn push(&self, command: Command) {
        let mut waiting = self.waiting();
        if waiting.closed {
            drop(waiting);
            return command.refuse();
        }
        waiting.commands.push(command);
        drop(waiting);
        self.wake();
    }

    /// The executor is gone, by a stop or by a defect: drops what waits, and what comes.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let left = std::mem::take(&mut waiting.commands);
        // Dropping a command wakes its caller: not under the lock.
        drop(waiting);
        left.into_iter().for_each(Command::refuse);
    }

    /// Reports of the log; called from its threads.
    pub(crate) fn report(&self, durable: Durable) {
        let mut waiting = self.waiting();
        match durable {
            Durable::Up { to } => waiting.durable = Some(to.0),
            Durable::Poisoned(report) => waiting.poisoned = Some(report.to_string()),
        }
        drop(waiting);
        self.wake();
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::AcqRel)
            && let Some(executor) = self.executor.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            executor.unpark();
        }
    }

    /// Says that the calling thread is the executor.
    pub(crate) fn serve_here(&self) {
        *self.executor.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
    }

    /// Takes everything that waits; sleeps up to `patience` (for ever if `None`) while there is nothing.
    pub(crate) fn take(&self, patience: Option<Duration>, spare: Vec<Command>) -> Taken {
        let mut spare = spare;
        loop {
            // First say "asleep", then look: what comes after the look finds the word and wakes.
            self.asleep.store(true, Ordering::Release);
            let mut waiting = self.waiting();
            let empty = waiting.commands.is_empty() && waiting.durable.is_none() && waiting.poisoned.is_none();
            if !empty || patience == Some(Duration::ZERO) {
                let commands = std::mem::replace(&mut waiting.commands, std::mem::take(&mut spare));
                let taken = Taken { commands, durable: waiting.durable.take(), poisoned: waiting.poisoned.take() };
                drop(waiting);
                self.asleep.store(false, Ordering::Release);
                return taken;
            }
            drop(waiting);
            match patience {
                None => std::thread::park(),
                Some(patience) => {
                    std::thread::park_timeout(patience);
                    return self.take(Some(Duration::ZERO), spare);
                }
            }
        }
    }
}
