//! Who works beside the guests: senders, another member of their group, and operators who set bindings and end transactions.

use std::collections::BTreeSet;

use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{
    Ack, BindingDelete, BindingPut, End, EndedBy, KeepGrant, KeptDeleted, MessagePlace, Resume, TopicDelete,
    encode_message,
};
use vouch_broker::testing::message;
use vouch_broker::{ResourceName, TransactionOutcome};
use vouch_leader::testing::ReceiveCaller;

use super::names::{BINDING, COUNTER, DIGEST, GROUP, GuestView, IN, NAMESPACE, ROOM, SHARER, TARGETS};
use super::runner::{Hands, poll, received};
use crate::checks::GotMessage;

/// Messages that guests get in a run, at most.
const MOST_MESSAGES: u64 = 150;

/// The record that sets the binding.
pub(crate) fn binding(quota: u64) -> BindingPut {
    BindingPut {
        name: BINDING.to_owned(),
        digest: DIGEST,
        spec: TARGETS.to_owned(),
        expected_revision: None,
        secrets: BTreeSet::new(),
        names_life: true,
        keeps: Some(KeepGrant { namespace: NAMESPACE.to_owned(), quota }),
    }
}

/// All of them: each acts on whoever leads.
pub(super) struct Others {
    sent: u64,
    send_at: u64,
    operate_at: u64,
    rival_at: u64,
    rival: Option<ReceiveCaller>,
    /// What the rival has, and when it acknowledges it.
    has: Vec<(u64, GotMessage)>,
}

impl Others {
    pub(super) fn new() -> Self {
        Self { sent: 0, send_at: 300, operate_at: 1_000, rival_at: 600, rival: None, has: Vec::new() }
    }

    pub(super) fn act(&mut self, view: &GuestView<'_>, hands: &mut Hands<'_>) {
        if !hands.ends && view.now >= self.send_at && self.sent < MOST_MESSAGES {
            self.send(view, hands);
        }
        self.compete(view, hands);
        if view.now >= self.operate_at {
            self.operate_at = view.now + 50 + hands.rng.below(500);
            if hands.ends { see_to_the_end(view, hands) } else { operate(view, hands) }
        }
    }

    fn send(&mut self, view: &GuestView<'_>, hands: &mut Hands<'_>) {
        self.send_at = view.now + hands.rng.below(200);
        self.sent += 1;
        let mut records = Vec::new();
        let place = MessagePlace { topic: IN, queue: (self.sent % 2) as u32, stored_at: view.time };
        let new = message(&format!("work {}", self.sent));
        encode_message(&mut records, place, "sender", &new, CheckOverrides::default());
        hands.throw(records);
    }

    /// Another member of the group takes messages, acknowledges some in time, some late and some never.
    fn compete(&mut self, view: &GuestView<'_>, hands: &mut Hands<'_>) {
        for got in received(&mut self.rival, hands.told).unwrap_or_default() {
            if !hands.rng.chance(3) {
                self.has.push((view.now + hands.rng.below(400), got));
            }
        }
        let due = self.has.extract_if(.., |(at, _)| *at <= view.now).collect::<Vec<_>>();
        for (_, GotMessage { queue, offset, generation, .. }) in due {
            let mut records = Vec::new();
            Ack { group: GROUP, topic: IN, queue, offset, generation }.encode(&mut records);
            hands.throw(records);
        }
        if !hands.ends && self.rival.is_none() && view.now >= self.rival_at && view.unfinished() {
            self.rival_at = view.now + 100 + hands.rng.below(900);
            let (request, caller) = poll("rival", 100 + hands.rng.below(300), 2, view);
            self.rival = Some(caller);
            hands.asked.push(request);
        } else if view.now >= self.rival_at {
            // Who leads no more may never answer.
            (self.rival, self.rival_at) = (None, view.now + 200);
        }
    }
}

/// The binding is set, deleted, created again, gets less room or more; what it keeps is deleted; transactions end.
fn operate(view: &GuestView<'_>, hands: &mut Hands<'_>) {
    let mut records = Vec::new();
    let key = format!("{COUNTER}{}", hands.rng.below(3));
    match hands.rng.below(24) {
        0 | 1 => _ = binding(ROOM).encode(&mut records),
        2 if hands.rng.chance(2) => _ = BindingDelete { name: SHARER.to_owned() }.encode(&mut records),
        2 => {
            let spec = r#"{"plugin":"p:1"}"#.to_owned();
            BindingPut { name: SHARER.to_owned(), spec, ..binding(ROOM) }.encode(&mut records);
        }
        3 | 4 => _ = binding(300 + hands.rng.below(4_000)).encode(&mut records),
        5 => _ = BindingDelete { name: BINDING.to_owned() }.encode(&mut records),
        6 | 7 => {
            BindingDelete { name: BINDING.to_owned() }.encode(&mut records);
            binding(ROOM).encode(&mut records);
        }
        8 => _ = KeptDeleted { namespace: NAMESPACE.to_owned(), key: Some(key) }.encode(&mut records),
        9 => _ = KeptDeleted { namespace: NAMESPACE.to_owned(), key: None }.encode(&mut records),
        10 if view.now > 4_000 => {
            let name = ResourceName::plain("withdrawn");
            TopicDelete { name, force: true }.encode(&mut records);
        }
        _ => {
            let open: Vec<_> = view.state.open_transactions().iter(None).collect();
            if !open.is_empty() {
                let (transaction, open) = open[hands.rng.below(open.len() as u64) as usize];
                let outcomes = [TransactionOutcome::Committed, TransactionOutcome::RolledBack];
                if open.parked.is_some() && hands.rng.chance(2) {
                    Resume { transaction, by: "guests".to_owned(), reason: String::new() }.encode(&mut records);
                } else {
                    end(transaction, outcomes[hands.rng.below(2) as usize], &mut records);
                }
            }
        }
    }
    if !records.is_empty() {
        hands.throw(records);
    }
}

/// There is a binding, with room; what is parked ends.
fn see_to_the_end(view: &GuestView<'_>, hands: &mut Hands<'_>) {
    if !view.has_room() {
        let mut records = Vec::new();
        binding(ROOM).encode(&mut records);
        hands.throw(records);
    }
    for (transaction, _) in view.state.open_transactions().iter(None).filter(|(_, open)| open.parked.is_some()) {
        let mut records = Vec::new();
        end(transaction, TransactionOutcome::RolledBack, &mut records);
        hands.throw(records);
    }
}

fn end(transaction: vouch_broker::HalfPosition, outcome: TransactionOutcome, records: &mut Vec<u8>) {
    let by = EndedBy::Operator { name: "guests".to_owned() };
    End { transaction, outcome, queue: 0, by, reason: String::new() }.encode(records);
}
