//! What clients do, and what they hear: the history that is checked.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vouch_broker::check::CheckOverrides;
use vouch_broker::delivery::Picked;
use vouch_broker::record::{Ack, End, EndedBy, MessagePlace, TopicPut, encode_message};
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::testing::message;
use vouch_broker::{
    Generation, GroupId, HalfPosition, MessageKind, Millis, NotDone, NothingStored, QueueOffset, Refusal, ResourceName,
    TagFilter, TopicConfig, TopicId, TransactionOutcome,
};
use vouch_commitlog::simulated::Rng;
use vouch_consensus::NodeId;
use vouch_leader::testing::ReceiveCaller;
use vouch_leader::{Batch, Poll};
use vouch_shard::Reply;
use vouch_shard::core::{Claim, Hearer, Proposal, Request};

use crate::machine::BEGIN;
use crate::trace::Trace;

/// A client gives up after this long, and does not know.
const PATIENCE_MS: u64 = 6_000;
/// A client that is impatient gives up after this long.
const IMPATIENCE_MS: u64 = 400;
/// Leases of consumers last so long.
const INVISIBLE_MS: u64 = 3_000;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Store a message with this id.
    Send(u64),
    /// Open a transaction with this id.
    Half(u64),
    /// End a transaction.
    End(HalfPosition, TransactionOutcome),
    /// Set the register, if its revision is this one.
    Put(Option<u64>),
    /// Receive messages.
    Receive,
    /// Acknowledge one: its queue, offset and lease.
    Ack(u32, QueueOffset, Generation),
}

/// What came of it, as the client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It happened.
    Done(Applied),
    /// It was refused; a transaction that had ended otherwise says how.
    Refused(Option<TransactionOutcome>),
    /// Certainly nothing was stored.
    NothingStored,
    /// Nobody knows.
    Unknown,
    /// These messages.
    Messages(Vec<GotMessage>),
}

/// A message that a consumer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GotMessage {
    /// Its queue.
    pub queue: u32,
    /// Its offset there.
    pub offset: QueueOffset,
    /// By which lease.
    pub generation: Generation,
    /// Which delivery this is said to be.
    pub attempt: u32,
}

/// One call in a history. Times are milliseconds of virtual time.
#[derive(Clone, Debug)]
pub struct Event {
    /// Who asked.
    pub client: usize,
    /// For what.
    pub call: Call,
    /// When.
    pub asked: u64,
    /// When it was answered, or given up.
    pub heard_at: u64,
    /// What was heard.
    pub heard: Heard,
}

impl GotMessage {
    /// One of a batch.
    pub(crate) fn of(message: &Picked, batch: &Batch) -> Self {
        let Picked { queue, offset, attempt, .. } = *message;
        Self { queue, offset, generation: batch.generation, attempt }
    }
}

enum Waits {
    Proposal(oneshot::Receiver<Result<Vec<Outcome>, NotDone>>),
    Receive(ReceiveCaller),
}

struct UnderWay {
    call: Call,
    waits: Waits,
    asked: u64,
    /// Whoever waits for messages goes away then.
    goes_at: u64,
    to: NodeId,
    /// Which life of that node it asked.
    life: Option<u64>,
}

/// What a client finds when it acts.
pub(crate) struct Surroundings<'a> {
    pub(crate) now: u64,
    pub(crate) began: Instant,
    pub(crate) names: Names,
    /// Of each node, which life of it answers, if one does.
    pub(crate) lives: &'a [Option<u64>],
}

impl Surroundings<'_> {
    fn life(&self, node: NodeId) -> Option<u64> {
        self.lives[node.0 as usize - 1]
    }

    fn any(&self, rng: &mut Rng) -> NodeId {
        NodeId(1 + rng.below(self.lives.len() as u64))
    }
}

/// One client: it does one thing after the other.
pub(crate) struct Client {
    number: usize,
    under_way: Option<UnderWay>,
    /// What it does next.
    next: Vec<Call>,
    /// Whom it asks.
    asks: NodeId,
    /// The register's revision, as it heard last.
    revision: Option<u64>,
    tries: u32,
    pause_until: u64,
    /// Some transactions it leaves to whoever is asked about them.
    pub(crate) leaves_some: bool,
    pub(crate) stops: bool,
}

/// Names of what all of them use.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    pub(crate) topic: TopicId,
    pub(crate) group: GroupId,
}

impl Names {
    /// They are the same in every run.
    pub(crate) const ALL: Self = Self { topic: TopicId(1), group: GroupId(1) };
}

/// The topic whose settings are the register.
pub(crate) const REGISTER: &str = "r";

impl Client {
    pub(crate) fn new(number: usize, asks: NodeId) -> Self {
        let (under_way, next, revision) = (None, Vec::new(), None);
        Self { number, under_way, next, asks, revision, tries: 0, pause_until: 0, leaves_some: false, stops: false }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.next.is_empty()
    }

    /// What it hears, and what it asks next, of whom.
    pub(crate) fn act(
        &mut self,
        around: &Surroundings<'_>,
        ids: &mut u64,
        rng: &mut Rng,
        history: &mut Vec<Event>,
        trace: &mut Trace,
    ) -> Option<(NodeId, Request)> {
        let Surroundings { now, began, names, .. } = *around;
        self.listen(around, rng, history, trace);
        if self.under_way.is_some() || now < self.pause_until {
            return None;
        }
        if self.next.is_empty() {
            if self.stops {
                return None;
            }
            self.tries = 0;
            *ids += 1;
            let id = *ids;
            self.next.push(match rng.below(10) {
                0..=3 => Call::Send(id),
                4 | 5 => Call::Half(id),
                6 => Call::Put(self.revision),
                _ => Call::Receive,
            });
        }
        let call = self.next.last().cloned()?;
        let (request, waits) = ask(&call, now, began, names);
        // Some go away just when their messages are being leased: these are given back.
        let goes_at = now + if rng.chance(4) { rng.below(20) } else { PATIENCE_MS };
        let (to, life) = (self.asks, around.life(self.asks));
        self.under_way = Some(UnderWay { call, waits, asked: now, goes_at, to, life });
        Some((self.asks, request))
    }

    fn listen(&mut self, around: &Surroundings<'_>, rng: &mut Rng, history: &mut Vec<Event>, trace: &mut Trace) {
        let now = around.now;
        let Some(under_way) = &mut self.under_way else { return };
        // Whoever it asked is gone, or does not run: nobody answers.
        let lives = under_way.life.is_some() && around.life(under_way.to) == under_way.life;
        // Every other client goes on soon, so that one who leads alone still writes.
        let gives_up = self.number % 2 == 1 && now > under_way.asked + IMPATIENCE_MS;
        let patient = now <= under_way.asked + PATIENCE_MS;
        // Whoever waits for messages that are leased to him waits for a group that may be unable to decide: he goes away one day.
        if !patient && lives && !matches!(under_way.call, Call::Receive) {
            trace.wrong(format!(
                "I10: {:?} of {} was never answered by node {}",
                under_way.call, self.number, under_way.to
            ));
        }
        let (heard, leader) = match &mut under_way.waits {
            Waits::Proposal(answer) => match answer.try_recv() {
                Ok(answer) => heard_of(answer),
                Err(oneshot::error::TryRecvError::Closed) => (Heard::Unknown, None),
                Err(_) if !lives || gives_up => (Heard::Unknown, None),
                Err(_) => return,
            },
            Waits::Receive(caller) => match caller.heard() {
                Some(Ok(batch)) => {
                    let batch = batch
                        .map(|batch| batch.messages.iter().map(|message| GotMessage::of(message, &batch)).collect());
                    (Heard::Messages(batch.unwrap_or_default()), None)
                }
                Some(Err(not_done)) => heard_of(Err(not_done)),
                None if !lives || now > under_way.goes_at => (Heard::Unknown, None),
                None => return,
            },
        };
        let UnderWay { call, asked, .. } = self.under_way.take().unwrap();
        if matches!(heard, Heard::Unknown | Heard::NothingStored) {
            self.asks = leader.unwrap_or_else(|| around.any(rng));
            self.pause_until = now + 1 + rng.below(60);
        }
        self.go_on(&call, &heard, rng);
        history.push(Event { client: self.number, call, asked, heard_at: now, heard });
    }

    /// What follows from what it heard.
    fn go_on(&mut self, call: &Call, heard: &Heard, rng: &mut Rng) {
        self.tries += 1;
        let again =
            matches!(heard, Heard::NothingStored | Heard::Unknown) && (self.tries < 6 || self.stops && self.tries < 40);
        let again = again && !matches!(call, Call::Receive | Call::Put(_));
        if again {
            return;
        }
        self.next.pop();
        match (call, heard) {
            (Call::Half(_), Heard::Done(Applied::Prepared { .. })) if self.leaves_some && rng.chance(2) => {}
            (Call::Half(_), Heard::Done(Applied::Prepared { transaction })) => {
                let outcomes = [TransactionOutcome::Committed, TransactionOutcome::RolledBack];
                let first = rng.below(2) as usize;
                if rng.chance(4) {
                    self.next.push(Call::End(*transaction, outcomes[1 - first]));
                }
                self.next.push(Call::End(*transaction, outcomes[first]));
                self.tries = 0;
            }
            (Call::Put(_), Heard::Done(Applied::Set { revision, .. })) => self.revision = Some(*revision),
            (Call::Put(_), _) => self.revision = self.revision.filter(|_| rng.chance(2)),
            (Call::Receive, Heard::Messages(messages)) => {
                let acks = messages.iter().filter(|_| !rng.chance(5));
                self.next.extend(acks.map(|got| Call::Ack(got.queue, got.offset, got.generation)));
                self.tries = 0;
            }
            _ => {}
        }
    }
}

fn heard_of(answer: Result<Vec<Outcome>, NotDone>) -> (Heard, Option<NodeId>) {
    let outcome = match answer {
        Ok(outcomes) => outcomes.into_iter().next().unwrap().map_err(NotDone::from),
        Err(not_done) => Err(not_done),
    };
    match outcome {
        Ok(applied) => (Heard::Done(applied), None),
        Err(NotDone::Refused(Refusal::OutcomeConflict { recorded, .. })) => (Heard::Refused(Some(recorded)), None),
        Err(NotDone::Refused(_)) => (Heard::Refused(None), None),
        Err(NotDone::NothingStored(NothingStored::NotLeading { leader })) => (Heard::NothingStored, leader.map(NodeId)),
        Err(NotDone::NothingStored(_)) => (Heard::NothingStored, None),
        Err(NotDone::Unknown(_)) => (Heard::Unknown, None),
    }
}

fn ask(call: &Call, now: u64, began: Instant, names: Names) -> (Request, Waits) {
    let mut records = Vec::new();
    let Names { topic, group } = names;
    let stored_at = Millis(BEGIN + now);
    match call {
        Call::Send(id) | Call::Half(id) => {
            let mut new = message(&format!("m{id}"));
            if matches!(call, Call::Half(_)) {
                new.kind = MessageKind::Transaction;
            }
            let place = MessagePlace { topic, queue: (id % 2) as u32, stored_at };
            encode_message(&mut records, place, "producer", &new, CheckOverrides::default());
        }
        Call::End(transaction, outcome) => {
            let (transaction, outcome) = (*transaction, *outcome);
            let end = End {
                transaction,
                outcome,
                queue: 0,
                by: EndedBy::Client { client_id: "producer".to_owned(), from_check: false },
                reason: String::new(),
            };
            end.encode(&mut records);
        }
        Call::Put(expected_revision) => {
            let config = TopicConfig { retention: Some(Duration::from_secs(3600 + now)), ..TopicConfig::default() };
            let (name, expected_revision) = (ResourceName::plain(REGISTER), *expected_revision);
            TopicPut { name, config, expected_revision }.encode(&mut records);
        }
        Call::Receive => {
            let (waiter, caller) = ReceiveCaller::new();
            let poll = Poll {
                topic: ResourceName::plain("t"),
                group: ResourceName::plain("g"),
                client_id: "consumer".to_owned(),
                machine: None,
                filter: TagFilter::All,
                max: 4,
                invisible_ms: INVISIBLE_MS,
                auto_renew: false,
                until: began + Duration::from_millis(now + 200),
                waiter,
            };
            return (Request::Receive(poll), Waits::Receive(caller));
        }
        Call::Ack(queue, offset, generation) => {
            let (queue, offset, generation) = (*queue, *offset, *generation);
            Ack { group, topic, queue, offset, generation }.encode(&mut records);
        }
    }
    let (reply, answer) = Reply::new();
    let proposal = Proposal { records, told: Hearer::Caller(reply), cost: 1, claim: Claim::Reserve };
    (Request::Propose(proposal), Waits::Proposal(answer))
}
