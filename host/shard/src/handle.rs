//! One shard, as tasks talk to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::{NotDone, NothingStored, Refusal, State};
use vouch_cluster::NodeId;
use vouch_commitlog::{LogPosition, LogReader};
use vouch_consensus::Broken;
use vouch_leader::{Leader, Poll, Waiter};

use crate::core::{Claim, Condition, GroupStanding, Hearer, HeldLog, Proposal, Request, Standing};
use crate::executor::{Executor, OnBegun};
use crate::group::LogNames;
use crate::inbox::Inbox;
use crate::leadership::Lead;
use crate::links::ShardLinks;
use crate::log::Output;
use crate::reply::Reply;
use crate::signals::Signals;
use crate::waiting::{HeldBatch, Waits};

/// Runs when the executor's thread ends, however it ends: nobody waits for an answer that nobody gives.
struct Ending {
    inbox: Arc<Inbox>,
    signals: Arc<Signals>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.signals.close(NothingStored::Poisoned("the shard's thread ended by a defect".to_owned()));
        }
        self.inbox.close();
    }
}

/// A running shard.
pub struct Shard {
    inbox: Arc<Inbox>,
    signals: Arc<Signals>,
    /// Receives so far.
    receives: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Who proposed and hears nothing: the shard's thread ended by a defect, maybe after it had written.
fn no_answer() -> NotDone {
    NotDone::Unknown("the shard ended before it answered".to_owned())
}

impl Shard {
    /// Starts the executor on the state that the log gave, and lets it lead if it shall. Who waits for its first records
    /// hears of them, unless the thread ends before.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(
        state: State,
        output: Output,
        lead: Option<(Lead, OnBegun)>,
        links: ShardLinks,
    ) -> std::io::Result<Self> {
        let (inbox, signals) = (links.inbox.clone(), links.signals.clone());
        let executor = Executor::new(state, output, links)?;
        let ending = Ending { inbox: inbox.clone(), signals: signals.clone() };
        let run = move || {
            let _ending = ending;
            executor.run(lead);
        };
        let thread = std::thread::Builder::new().name("vouch-shard-0".to_owned()).spawn(run)?;
        Ok(Self { inbox, signals, receives: AtomicU64::new(0), thread: Mutex::new(Some(thread)) })
    }

    /// What it shows of itself: what transactions are called, among else.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Bytes that are proposed and not answered.
    pub fn in_flight(&self) -> u64 {
        self.inbox.in_flight()
    }

    /// Proposes framed records that happen together; resolves when they are durable and applied, one outcome a record.
    ///
    /// If the returned future is dropped, the records may happen all the same.
    pub async fn propose(&self, records: Vec<u8>) -> Result<Vec<Outcome>, NotDone> {
        self.propose_as(records, Claim::Reserve).await
    }

    /// The same for records that are refused where space runs out, so that others still find some.
    pub async fn propose_if_room(&self, records: Vec<u8>) -> Result<Vec<Outcome>, NotDone> {
        self.propose_as(records, Claim::Room).await
    }

    /// The same, but it resolves when they are written, and each outcome is [`Applied::Done`]: before they are durable,
    /// and before anybody knows what becomes of them.
    pub async fn propose_in_memory(&self, records: Vec<u8>) -> Result<Vec<Outcome>, NotDone> {
        self.propose_as(records, Claim::RoomInMemory).await
    }

    async fn propose_as(&self, records: Vec<u8>, claim: Claim) -> Result<Vec<Outcome>, NotDone> {
        self.propose_by(records, claim, Request::Propose).await
    }

    async fn propose_by(
        &self,
        records: Vec<u8>,
        claim: Claim,
        request: impl FnOnce(Proposal) -> Request,
    ) -> Result<Vec<Outcome>, NotDone> {
        #[cfg(any(test, feature = "testing"))]
        crate::faults::proposes(&records);
        let cost = self.inbox.reserve(records.len())?;
        let (reply, answer) = Reply::new();
        self.inbox.push(request(Proposal { records, told: Hearer::Caller(reply), cost, claim }));
        answer.await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Proposes one record.
    pub async fn propose_one(&self, encode: impl FnOnce(&mut Vec<u8>) -> usize) -> Result<Applied, NotDone> {
        let mut records = Vec::new();
        encode(&mut records);
        single(self.propose(records).await?)
    }

    /// Proposes one record if this holds when it is its turn, which is decided on the executor's thread: what was proposed
    /// before is applied, or on its way and known to the leader. `None`: it did not hold, and nothing was written.
    pub async fn propose_one_if(
        &self,
        condition: impl FnOnce(&State, &Leader) -> bool + Send + 'static,
        encode: impl FnOnce(&mut Vec<u8>) -> usize,
    ) -> Result<Option<Applied>, NotDone> {
        let mut records = Vec::new();
        encode(&mut records);
        self.propose_if(records, Claim::Reserve, condition).await
    }

    /// The same for a record that is refused where space runs out, so that others still find some.
    pub async fn propose_one_if_room(
        &self,
        condition: impl FnOnce(&State, &Leader) -> bool + Send + 'static,
        encode: impl FnOnce(&mut Vec<u8>) -> usize,
    ) -> Result<Option<Applied>, NotDone> {
        let mut records = Vec::new();
        encode(&mut records);
        self.propose_if(records, Claim::Room, condition).await
    }

    async fn propose_if(
        &self,
        records: Vec<u8>,
        claim: Claim,
        condition: impl FnOnce(&State, &Leader) -> bool + Send + 'static,
    ) -> Result<Option<Applied>, NotDone> {
        let condition: Condition = Box::new(condition);
        let outcomes = self.propose_by(records, claim, |proposal| Request::ProposeIf(condition, proposal)).await?;
        if outcomes.is_empty() { Ok(None) } else { single(outcomes).map(Some) }
    }

    /// Waits for messages; `None` if there were none in time. If the returned future is dropped, or what it resolves to, nothing is
    /// leased, or what was is visible again.
    pub async fn receive(&self, make: impl FnOnce(Box<dyn Waiter>) -> Poll) -> Result<Option<HeldBatch>, NotDone> {
        let number = self.receives.fetch_add(1, Ordering::Relaxed);
        let (task, waits) = Waits::new(self.inbox.clone(), number);
        self.inbox.push(Request::Receive(make(Box::new(task))));
        let answer = waits.answer().await.unwrap_or(Err(NotDone::NothingStored(NothingStored::Stopping)));
        Ok(answer?.map(|batch| HeldBatch::new(self.inbox.clone(), number, batch)))
    }

    /// Looks at the state on the executor's thread, between two batches: a bounded piece of it, for everybody else waits.
    pub async fn read<T: Send + 'static>(&self, look: impl FnOnce(&State) -> T + Send + 'static) -> Result<T, NotDone> {
        self.ask(|reply| {
            Request::Read(Box::new(move |state| {
                let _ = reply.send(look(state));
            }))
        })
        .await
    }

    /// The same for who shows what the leader keeps as well, where this replica leads: any replica shows something.
    pub async fn show<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State, &mut Leader) -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        self.ask(|reply| {
            Request::Show(Box::new(move |state, leader| {
                let _ = reply.send(look(state, leader));
            }))
        })
        .await
    }

    /// The same where what the leader keeps is looked at, or changed, as well.
    ///
    /// # Errors
    /// [`NothingStored::NotLeading`] where another replica leads, or nobody.
    pub async fn lead<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State, &mut Leader) -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let looked = self.ask(|reply| {
            Request::Lead(Box::new(move |found| {
                let _ = reply.send(found.map(|(state, leader)| look(state, leader)));
            }))
        });
        Ok(looked.await??)
    }

    /// How far the shard is, and what its log is short of.
    pub async fn standing(&self) -> Result<Standing, NotDone> {
        self.ask(|reply| {
            Request::Standing(Box::new(move |standing| {
                let _ = reply.send(standing);
            }))
        })
        .await
    }

    /// Makes ready for other members, who get the log from here: a node alone knows no more of its log than where it ends. Reads the
    /// headers of a log that is all there, which takes some seconds for each ten million entries; the shard goes on meanwhile.
    /// Of a log whose beginning was released nobody gets what is gone.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn get_ready_for_others(&self, log: LogReader) -> Result<(), NotDone> {
        let to = self.ask(|reply| Request::KeepNames(Box::new(move |begin| _ = reply.send(begin)))).await?;
        if log.start() > LogPosition::START || to <= log.start() {
            return Ok(());
        }
        let names = tokio::task::spawn_blocking(move || LogNames::read(&log, None, to)).await;
        let names = names.map_err(|gone| NotDone::internal(gone.to_string()))?;
        let names = names.map_err(|Broken(why)| {
            NotDone::Refused(Refusal::Conflict(format!(
                "the log of this node is damaged, and cannot be given to another one from its beginning: {why}; let one lead that has it \
                 whole, or see `vouch log damage`"
            )))
        })?;
        self.ask(|reply| Request::LearnNames(names, Box::new(move || _ = reply.send(())))).await
    }

    /// How the group stands, as this replica knows.
    pub async fn group(&self) -> Result<GroupStanding, NotDone> {
        self.ask(|reply| {
            Request::Group(Box::new(move |standing| {
                let _ = reply.send(standing);
            }))
        })
        .await
    }

    /// Index of the last entry that ends at this position of the log or before it; `None` where its name is not known here.
    pub async fn index_before(&self, position: LogPosition) -> Result<Option<u64>, NotDone> {
        self.ask(|reply| Request::IndexBefore(position, Box::new(move |index| _ = reply.send(index)))).await
    }

    /// Keeps the log for another node, which takes a stretch from this one's disk and what follows from its leader. The latest word for each
    /// node counts.
    pub fn hold(&self, held: HeldLog) {
        self.inbox.push(Request::Hold(held));
    }

    /// Lets the log name a position where every replica makes a snapshot, as soon as this one leads or another one that does finds it due.
    pub fn name_snapshot(&self) {
        self.inbox.push(Request::NameSnapshot);
    }

    /// Takes part in nothing more: a majority of the voters had one thing at a position that the log names, and this replica another, as is
    /// said.
    pub fn differs(&self, what: String) {
        self.inbox.push(Request::Differs(what));
    }

    /// Hears that a member on which no replica runs was in this term: see [`Request::was_in`].
    ///
    /// # Errors
    /// The shard is gone.
    pub async fn hear_term(&self, term: u64, member: NodeId) -> Result<(), NotDone> {
        let GroupStanding { node, term: own, .. } = self.group().await?;
        if own < term {
            self.inbox.push(Request::was_in(term, member, node));
        }
        Ok(())
    }

    /// Lets another member lead, as soon as that has all of the log. Who leads then is seen in [`Self::group`]; if that member
    /// cannot, this one leads on.
    pub async fn hand_over(&self, to: NodeId) -> Result<(), NotDone> {
        let (reply, answer) = Reply::new();
        self.inbox.push(Request::HandOver(to, reply));
        answer.await.unwrap_or_else(|_| Err(no_answer())).map(drop)
    }

    /// Writes nothing any more, not even what would close the log well: the folder is not this node's any more. A shard that
    /// is gone writes nothing, either.
    pub async fn fence(&self, why: String) {
        let fence = |done: oneshot::Sender<()>| {
            Request::Fence(
                why,
                Box::new(move || {
                    let _ = done.send(());
                }),
            )
        };
        let _ = self.ask(fence).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, NotDone> {
        let (reply, answer) = oneshot::channel();
        self.inbox.push(request(reply));
        answer.await.map_err(|_| NotDone::NothingStored(NothingStored::Stopping))
    }

    /// Answers polls, makes everything proposed durable, closes the log. Blocks; a second call does nothing.
    pub fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            self.inbox.push(Request::Stop);
            if thread.join().is_err() {
                tracing::error!("the shard's thread ended by a panic; recovery will sort the log out");
            }
        }
    }
}

/// The only outcome of a proposal with one record.
fn single(outcomes: Vec<Outcome>) -> Result<Applied, NotDone> {
    let mut outcomes = outcomes.into_iter();
    let outcome = outcomes.next().ok_or_else(|| NotDone::Unknown("a proposal without records".to_owned()))?;
    Ok(outcome?)
}
