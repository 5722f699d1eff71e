//! The one way into the executor thread: requests from many tasks, durability from the log's threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use vouch_broker::{NotDone, NothingStored};
use vouch_commitlog::{Durable, LogPosition};
use vouch_consensus::GroupMessage;

use crate::core::{Hearer, LeaderEntry, Proposal, Request};

/// Bytes that a request costs besides its records: queue entries, replies, indexes.
const COMMAND_COST: u64 = 512;
/// When a refused caller should try again. A full queue of the default size drains in about this time on a disk of
/// some hundred megabytes a second.
const RETRY_AFTER_MS: u64 = 200;

/// Bytes of entries of other members that wait at most, while the executor is at work on as many.
const GROUP_BYTES_MAX: u64 = 64 << 20;

/// Drops a request that nobody has looked at.
fn refuse(request: Request) {
    match request {
        Request::Propose(Proposal { told: Hearer::Caller(reply), .. })
        | Request::ProposeIf(_, Proposal { told: Hearer::Caller(reply), .. })
        | Request::HandOver(_, reply) => reply.send(Err(NothingStored::Stopping.into())),
        _ => {}
    }
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    /// Bytes of entries among them that other members sent.
    group_bytes: u64,
    durable: Option<LogPosition>,
    poisoned: Option<String>,
    /// The executor is gone: nobody would answer.
    closed: bool,
}

/// What the executor finds when it looks.
pub(crate) struct InboxContents {
    pub(crate) requests: Vec<Request>,
    /// Everything before this position is durable.
    pub(crate) durable: Option<LogPosition>,
    /// The log is poisoned; the reason.
    pub(crate) poisoned: Option<String>,
}

/// The executor's inbox.
pub struct Inbox {
    waiting: Mutex<Waiting>,
    executor: Mutex<Option<Thread>>,
    /// The executor sleeps, or is about to: whoever clears this wakes it.
    asleep: AtomicBool,
    in_flight: AtomicU64,
    bound: u64,
}

impl Inbox {
    /// `bytes_in_flight`: how many bytes may be proposed and not answered.
    pub fn new(bytes_in_flight: u64) -> Self {
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

    /// Hands a request over. Once the executor is gone it is dropped, which tells its caller; who proposes hears
    /// for certain that nothing was stored.
    pub fn push(&self, request: Request) {
        let mut waiting = self.waiting();
        if waiting.closed {
            drop(waiting);
            return refuse(request);
        }
        waiting.requests.push(request);
        drop(waiting);
        self.wake();
    }

    /// Hands over what another member of the group says, with what came with its entries; whether that was taken. Beyond a bound it is
    /// dropped: what matters is said again.
    pub fn push_message(&self, message: GroupMessage, bodies: Vec<LeaderEntry>) -> bool {
        let bytes = bodies.iter().map(|LeaderEntry(span)| span.encoded_len() as u64).sum::<u64>() + COMMAND_COST;
        let mut waiting = self.waiting();
        // A single one is always taken, whatever the bound.
        if waiting.group_bytes > 0 && waiting.group_bytes + bytes > GROUP_BYTES_MAX {
            return false;
        }
        waiting.group_bytes += bytes;
        drop(waiting);
        self.push(Request::Message(message, bodies));
        true
    }

    /// The executor is gone, by a stop or by a defect: drops what waits, and what comes.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let left = std::mem::take(&mut waiting.requests);
        // Dropping a request wakes its caller: not under the lock.
        drop(waiting);
        left.into_iter().for_each(refuse);
    }

    /// Reports of the log; called from its threads.
    pub fn report(&self, durable: Durable) {
        let mut waiting = self.waiting();
        match durable {
            Durable::Up { to } => waiting.durable = Some(to),
            Durable::Poisoned(report) => waiting.poisoned = Some(report.to_string()),
        }
        drop(waiting);
        self.wake();
    }

    /// Something that the log relies on failed, for this reason; called from any thread.
    pub(crate) fn fail(&self, reason: String) {
        self.waiting().poisoned.get_or_insert(reason);
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
    pub(crate) fn take(&self, patience: Option<Duration>, spare: Vec<Request>) -> InboxContents {
        let mut spare = spare;
        loop {
            // First say "asleep", then look: what comes after the look finds the word and wakes.
            self.asleep.store(true, Ordering::Release);
            let mut waiting = self.waiting();
            let empty = waiting.requests.is_empty() && waiting.durable.is_none() && waiting.poisoned.is_none();
            if !empty || patience == Some(Duration::ZERO) {
                waiting.group_bytes = 0;
                let requests = std::mem::replace(&mut waiting.requests, std::mem::take(&mut spare));
                let taken =
                    InboxContents { requests, durable: waiting.durable.take(), poisoned: waiting.poisoned.take() };
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

#[cfg(test)]
mod tests {
    use vouch_consensus::{NodeId, Said};

    use super::*;

    #[test]
    fn what_other_members_say_waits_up_to_a_bound_and_is_taken_again_when_it_was_heard() {
        let inbox = Inbox::new(1 << 20);
        let body = Said::Heartbeat { commit: 0 };
        let message = GroupMessage { from: NodeId(2), to: NodeId(1), term: 1, body };
        let say = || inbox.push_message(message.clone(), Vec::new());
        let taken = (0..).take_while(|_| say()).count() as u64;
        assert_eq!(taken, GROUP_BYTES_MAX / COMMAND_COST);
        assert!(inbox.reserve(1).is_ok(), "callers have room of their own");
        assert_eq!(inbox.take(Some(Duration::ZERO), Vec::new()).requests.len() as u64, taken);
        assert!(say());
    }
}
