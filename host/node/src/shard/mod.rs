//! One shard: its executor thread, and how tasks talk to it.

mod absences;
mod answers;
mod executor;
mod inbox;
mod leader;
mod leadership;
mod leading;
mod marks;
mod news;
mod polls;
mod receiving;
mod renewal;
mod timekeeping;
mod upkeep;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Notify, oneshot};
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::{NotDone, NothingStored, State};
use vouch_commitlog::{Appender, LogReader};
use vouch_storage::Requests;

pub(crate) use answers::short_of;
pub(crate) use inbox::{Command, Inbox, Standing};
pub(crate) use leader::Leader;
pub(crate) use leadership::{Begun, Lead, Leadership};
pub(crate) use polls::{Batch, Poll};
pub(crate) use renewal::RENEWED_LEASE_MS;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::sessions::Sessions;
use executor::Executor;
use inbox::{Claim, Proposal};

/// What the executor shares with tasks.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) directory: Directory,
    pub(crate) sessions: Sessions,
    /// How far the state is that a snapshot would hold.
    pub(crate) snapshots: Arc<Requests>,
    /// A check may be due earlier than was known, or a binding changed.
    pub(crate) checks_changed: Notify,
    /// Messages that were acknowledged in memory and then not stored: their topic was deleted meanwhile, for one.
    pub(crate) refused_in_memory: AtomicU64,
    /// Looks for messages that receives made.
    pub(crate) scans: AtomicU64,
    closed: OnceLock<NothingStored>,
}

impl Shared {
    pub(crate) fn new(clock: Clock, snapshots: Arc<Requests>) -> Self {
        Self {
            clock,
            directory: Directory::default(),
            sessions: Sessions::default(),
            snapshots,
            checks_changed: Notify::new(),
            refused_in_memory: AtomicU64::new(0),
            scans: AtomicU64::new(0),
            closed: OnceLock::new(),
        }
    }

    fn close(&self, why: NothingStored) {
        let _ = self.closed.set(why);
    }

    /// Why the log takes no writes, if so: [`NothingStored::Poisoned`] or [`NothingStored::ReadOnly`].
    pub(crate) fn closed(&self) -> Option<&NothingStored> {
        self.closed.get()
    }
}

/// Where the records of a shard go.
pub(crate) enum Output {
    /// To the end of its log.
    Log {
        appender: Appender,
        /// Reads what was appended.
        reader: LogReader,
        /// Bytes of the log that are kept prepared ahead.
        prepared: u64,
    },
    /// Nowhere: the log is damaged and only read.
    Refused {
        /// What everybody hears who wants to write.
        why: NothingStored,
        /// Positions before which the log is there, was durable, and is applied.
        positions: (u64, u64, u64),
    },
}

/// Runs when the executor's thread ends, however it ends: nobody waits for an answer that nobody gives.
struct Ending {
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.close(NothingStored::Poisoned("the shard's thread ended by a defect".to_owned()));
        }
        self.inbox.close();
    }
}

/// A running shard.
pub(crate) struct Shard {
    inbox: Arc<Inbox>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Who proposed and hears nothing: the shard's thread ended by a defect, maybe after it had written.
fn no_answer() -> NotDone {
    NotDone::Unknown("the shard ended before it answered".to_owned())
}

impl Shard {
    /// Starts the executor on the state that the log gave, and lets it lead if it shall. Who waits for its first records
    /// hears of them, unless the thread ends before.
    pub(crate) fn start(
        state: State,
        output: Output,
        lead: Option<Lead>,
        inbox: Arc<Inbox>,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let executor = Executor::new(state, output, inbox.clone(), shared.clone());
        let ending = Ending { inbox: inbox.clone(), shared };
        let run = move || {
            let _ending = ending;
            executor.run(lead);
        };
        let thread = std::thread::Builder::new().name("vouch-shard-0".to_owned()).spawn(run)?;
        Ok(Self { inbox, thread: Mutex::new(Some(thread)) })
    }

    /// Bytes that are proposed and not answered.
    pub(crate) fn in_flight(&self) -> u64 {
        self.inbox.in_flight()
    }

    /// Proposes framed records that happen together; resolves when they are durable and applied, one outcome a record.
    ///
    /// If the returned future is dropped, the records may happen all the same.
    pub(crate) async fn propose(&self, records: Vec<u8>) -> Result<Vec<Outcome>, NotDone> {
        self.propose_as(records, Claim::Reserve).await
    }

    /// The same for records that are refused where space runs out, so that others still find some.
    pub(crate) async fn propose_if_room(&self, records: Vec<u8>) -> Result<Vec<Outcome>, NotDone> {
        self.propose_as(records, Claim::Room).await
    }

    /// The same, but it resolves when they are written, and each outcome is [`Applied::Done`]: before they are durable,
    /// and before anybody knows what becomes of them.
    pub(crate) async fn propose_in_memory(&self, records: Vec<u8>) -> Result<Vec<Outcome>, NotDone> {
        self.propose_as(records, Claim::RoomInMemory).await
    }

    async fn propose_as(&self, records: Vec<u8>, claim: Claim) -> Result<Vec<Outcome>, NotDone> {
        let cost = self.inbox.reserve(records.len())?;
        let (reply, answer) = oneshot::channel();
        self.inbox.push(Command::Propose(Proposal { records, reply: Some(reply), cost, claim }));
        answer.await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Proposes one record.
    pub(crate) async fn propose_one(&self, encode: impl FnOnce(&mut Vec<u8>) -> usize) -> Result<Applied, NotDone> {
        let mut records = Vec::new();
        encode(&mut records);
        answers::single(self.propose(records).await?)
    }

    /// Waits for messages; `None` if there were none in time.
    pub(crate) async fn receive(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<Option<Batch>, NotDone>>) -> Poll,
    ) -> Result<Option<Batch>, NotDone> {
        let (reply, answer) = oneshot::channel();
        self.inbox.push(Command::Receive(make(reply)));
        answer.await.unwrap_or(Err(NotDone::NothingStored(NothingStored::Stopping)))
    }

    /// Looks at the state on the executor's thread, between two batches: a bounded piece of it, for everybody else waits.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        self.ask(|reply| {
            Command::Read(Box::new(move |state| {
                let _ = reply.send(look(state));
            }))
        })
        .await
    }

    /// The same where what the leader keeps is looked at, or changed, as well.
    pub(crate) async fn lead<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State, &mut Leader) -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        self.ask(|reply| {
            Command::Lead(Box::new(move |state, leader| {
                let _ = reply.send(look(state, leader));
            }))
        })
        .await
    }

    /// How far the shard is, and what its log is short of.
    pub(crate) async fn standing(&self) -> Result<Standing, NotDone> {
        self.ask(Command::Standing).await
    }

    /// Writes nothing any more, not even what would close the log well: the folder is not this node's any more. A shard that
    /// is gone writes nothing, either.
    pub(crate) async fn fence(&self, why: String) {
        let _ = self.ask(|done| Command::Fence(why, done)).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NotDone> {
        let (reply, answer) = oneshot::channel();
        self.inbox.push(command(reply));
        answer.await.map_err(|_| NotDone::NothingStored(NothingStored::Stopping))
    }

    /// Answers polls, makes everything proposed durable, closes the log. Blocks; a second call does nothing.
    pub(crate) fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            self.inbox.push(Command::Stop);
            if thread.join().is_err() {
                tracing::error!("the shard's thread ended by a panic; recovery will sort the log out");
            }
        }
    }
}
