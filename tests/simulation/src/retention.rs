//! Who lets messages go, so that segments can be released: as the product's retention does, but by how many there are.

use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{End, EndedBy, Expire, MessagePlace, encode_message};
use vouch_broker::testing::message;
use vouch_broker::{Millis, QueueOffset, RecordPosition, State, TransactionOutcome};
use vouch_commitlog::simulated::Rng;
use vouch_shard::core::{Claim, Hearer, Proposal, Request};

use crate::checks::{Call, Event, Heard};
use crate::clients::Names;
use crate::machine::BEGIN;

/// Transactions are ended that are open since so many bytes of the log.
const OPEN_BYTES: u64 = 16 << 10;
/// Messages of a queue that stay.
const STAY: u64 = 12;

/// Lets go of messages, ends what nobody ends, and sends large messages, so that segments are filled.
pub(crate) struct Retention {
    rng: Rng,
    next: u64,
    pub(crate) stops: bool,
}

impl Retention {
    pub(crate) fn new(mut rng: Rng) -> Self {
        let next = 200 + rng.below(400);
        Self { rng, next, stops: false }
    }

    /// What it asks of who leads, whose state this is; `applied`: where the last entry ends that is in that. What it does counts as
    /// done by a client who hears nothing of it.
    pub(crate) fn act(
        &mut self,
        now: u64,
        (state, applied): (&State, RecordPosition),
        names: Names,
        ids: &mut u64,
        history: &mut Vec<Event>,
    ) -> Vec<Request> {
        if self.stops || now < self.next {
            return Vec::new();
        }
        self.next = now + 10 + self.rng.below(90);
        let mut asked = vec![self.large_message(now, names, ids, history)];
        asked.extend(self.lets_go(state, names));
        let open = RecordPosition::START..RecordPosition(applied.0.saturating_sub(OPEN_BYTES));
        for transaction in state.bodies_in(open, 4).into_iter().filter_map(|body| body.transaction) {
            let (outcome, by) = (TransactionOutcome::RolledBack, EndedBy::Operator { name: "retention".to_owned() });
            let mut records = Vec::new();
            End { transaction, outcome, queue: 0, by, reason: String::new() }.encode(&mut records);
            history.push(unheard(now, Call::End(transaction, outcome)));
            asked.push(propose(records));
        }
        asked
    }

    fn large_message(&mut self, now: u64, names: Names, ids: &mut u64, history: &mut Vec<Event>) -> Request {
        *ids += 1;
        let (id, mut records) = (*ids, Vec::new());
        let mut new = message(&format!("m{id}"));
        new.body = vec![id as u8; 1 << (8 + self.rng.below(5))].into();
        let place = MessagePlace { topic: names.topic, queue: (id % 2) as u32, stored_at: Millis(BEGIN + now) };
        encode_message(&mut records, place, "producer", &new, CheckOverrides::default());
        history.push(unheard(now, Call::Send(id)));
        propose(records)
    }

    fn lets_go(&mut self, state: &State, names: Names) -> Option<Request> {
        let topic = state.topics().get(names.topic)?;
        let stay = self.rng.below(STAY);
        let starts =
            (0..topic.config.queues).map(|queue| (queue, QueueOffset(topic.end(queue).0.saturating_sub(stay))));
        let mut records = Vec::new();
        Expire { topic: names.topic, starts: starts.collect() }.encode(&mut records);
        Some(propose(records))
    }
}

fn unheard(now: u64, call: Call) -> Event {
    Event { client: usize::MAX, call, asked: now, heard_at: now, heard: Heard::Unknown }
}

fn propose(records: Vec<u8>) -> Request {
    Request::Propose(Proposal { records, told: Hearer::Nobody, cost: 1, claim: Claim::Reserve })
}
