//! What runs guests on a node that leads, as far as that knows: it receives, runs, and has the answers recorded. What it does is
//! what `node::consumers` and `node::checks` do; what these look at before they propose something, so that less is in vain, it
//! leaves out: the log alone decides.

use std::time::Duration;

use tokio::sync::oneshot;
use vouch_broker::record::{ChangeInvisible, GiveBack};
use vouch_broker::state::{Applied, Outcome, Progress};
use vouch_broker::{Generation, NotDone, ResourceName, TagFilter};
use vouch_commitlog::simulated::Rng;
use vouch_leader::Poll;
use vouch_leader::testing::ReceiveCaller;
use vouch_shard::Reply;
use vouch_shard::core::{Claim, Hearer, Proposal, Request};

use super::call::{Asked, Delivery, GuestCall, Verdict};
use super::names::{CLIENT, GROUP, GuestView, IN};
use crate::checks::{GotMessage, GuestsTold};

/// Calls that run side by side.
const MOST_CALLS: usize = 6;
/// Who hears nothing for so long does not know.
const PATIENCE_MS: u64 = 6_000;

pub(super) type Answer = oneshot::Receiver<Result<Vec<Outcome>, NotDone>>;

/// A call, and what it waits for.
struct Running {
    call: GuestCall,
    /// Since when its answer is on its way, and whether that says what was staged.
    waits: Option<(Answer, u64, bool)>,
}

/// The guests of one node.
#[derive(Default)]
pub(super) struct GuestRunner {
    life: u64,
    leads: Option<u64>,
    /// Leases of whoever led before are its own.
    took_over: bool,
    taking_over: Option<Answer>,
    receives: Option<ReceiveCaller>,
    running: Vec<Running>,
}

/// What a runner tells, and by what it decides.
pub(super) struct Hands<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) told: &'a mut GuestsTold,
    pub(super) asked: Vec<Request>,
    /// Everything is to come to its end.
    pub(super) ends: bool,
}

impl Hands<'_> {
    /// Proposes records; what became of them is heard there.
    pub(super) fn propose(&mut self, records: Vec<u8>, claim: Claim) -> Answer {
        let (reply, answer) = Reply::new();
        let proposal = Proposal { records, told: Hearer::Caller(reply), cost: 1, claim };
        self.asked.push(Request::Propose(proposal));
        answer
    }

    /// The same; nobody hears of it.
    pub(super) fn throw(&mut self, records: Vec<u8>) {
        let proposal = Proposal { records, told: Hearer::Nobody, cost: 1, claim: Claim::Reserve };
        self.asked.push(Request::Propose(proposal));
    }
}

/// A receive of this client in the group of the guests.
pub(super) fn poll(client: &str, lease_ms: u64, max: usize, view: &GuestView<'_>) -> (Request, ReceiveCaller) {
    let (waiter, caller) = ReceiveCaller::new();
    let poll = Poll {
        topic: ResourceName::plain("in"),
        group: ResourceName::plain("guests"),
        client_id: client.to_owned(),
        machine: None,
        filter: TagFilter::All,
        max,
        invisible_ms: lease_ms,
        auto_renew: client == CLIENT,
        until: view.began + Duration::from_millis(view.now + 200),
        waiter,
    };
    (Request::Receive(poll), caller)
}

/// The messages that a receive brought, if it is over.
pub(super) fn received(receives: &mut Option<ReceiveCaller>, told: &mut GuestsTold) -> Option<Vec<GotMessage>> {
    let heard = receives.as_ref()?.heard()?;
    *receives = None;
    let Ok(Some(batch)) = heard else { return None };
    let got: Vec<GotMessage> = batch.messages.iter().map(|message| GotMessage::of(message, &batch)).collect();
    told.received.extend(&got);
    Some(got)
}

impl GuestRunner {
    /// How many calls it has.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn act(&mut self, view: &GuestView<'_>, hands: &mut Hands<'_>) {
        if self.life != view.life {
            *self = Self { life: view.life, ..Self::default() };
        }
        if self.leads != view.leads {
            (self.leads, self.took_over, self.taking_over, self.receives) = (view.leads, false, None, None);
            // Some calls end when another leads, and some answer afterwards.
            self.running.retain(|_| !hands.rng.chance(2));
        }
        for Running { call, waits } in std::mem::take(&mut self.running) {
            self.running.extend(go_on(call, waits, view, hands));
        }
        if view.leads.is_some() && self.takes_over(view, hands) {
            self.receive(view, hands);
            self.check(view, hands);
        }
    }

    /// What whoever led before had leased to the binding is due now, uncounted. Whether all of it is taken over.
    fn takes_over<'a>(&mut self, view: &GuestView<'a>, hands: &mut Hands<'_>) -> bool {
        if let Some(answer) = &mut self.taking_over {
            match answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return false,
                _ => self.taking_over = None,
            }
        }
        if self.took_over {
            return true;
        }
        let mut records = Vec::new();
        let progress = view.state.groups().get(GROUP).and_then(|group| group.progress(IN));
        let living = |progress: &'a Progress| progress.due_from(view.time.plus_ms(1)).map(move |due| (progress, due));
        for (progress, (_, queue, offset)) in progress.into_iter().flat_map(living) {
            let lease = progress.exception(queue, offset);
            if let Some(lease) = lease.filter(|lease| lease.renewed_for.as_deref() == Some(CLIENT)) {
                let delivery = Delivery { queue, offset, generation: lease.generation };
                changed(delivery, 0, true, view).encode(&mut records);
            }
        }
        if records.is_empty() {
            self.took_over = true;
        } else {
            self.taking_over = Some(hands.propose(records, Claim::Reserve));
        }
        self.took_over
    }

    fn receive(&mut self, view: &GuestView<'_>, hands: &mut Hands<'_>) {
        let Some(created) = view.binding() else { return };
        for GotMessage { queue, offset, generation, .. } in received(&mut self.receives, hands.told).unwrap_or_default()
        {
            let delivery = Delivery { queue, offset, generation };
            // Some tasks die of what nobody foresaw: their leases run out.
            if hands.ends || !hands.rng.chance(40) {
                self.begin(Asked::Delivery(delivery), created, view, hands);
            }
        }
        let room = MOST_CALLS.saturating_sub(self.running.len());
        if self.receives.is_none() && room > 0 && view.unfinished() && hands.rng.chance(10) {
            let lease_ms = 400 + hands.rng.below(1_000);
            let (request, caller) = poll(CLIENT, lease_ms, room.min(4), view);
            self.receives = Some(caller);
            hands.asked.push(request);
        }
    }

    /// Asks about transactions whose next check is due.
    fn check(&mut self, view: &GuestView<'_>, hands: &mut Hands<'_>) {
        let Some(created) = view.binding() else { return };
        let due: Vec<_> = view
            .state
            .open_transactions()
            .iter(None)
            .filter(|(_, open)| open.parked.is_none() && open.next_due <= view.time)
            .map(|(transaction, open)| (transaction, open.checks + 1))
            .take(MOST_CALLS)
            .collect();
        for (transaction, number) in due {
            let of_it = |running: &&Running| matches!(running.call.asked, Asked::Check(of, _) if of == transaction);
            // Now and then two are asked at once: each of them answers.
            let most = if hands.rng.chance(200) { 2 } else { 1 };
            if self.running.len() < 2 * MOST_CALLS && self.running.iter().filter(of_it).count() < most {
                self.begin(Asked::Check(transaction, number), created, view, hands);
            }
        }
    }

    fn begin(&mut self, asked: Asked, created: u64, view: &GuestView<'_>, hands: &mut Hands<'_>) {
        let call = GuestCall::begin(asked, created, view, hands.rng, hands.ends);
        self.running.push(Running { call, waits: None });
    }
}

/// Lets a call go on; nothing is left of it when it is over.
fn go_on(
    mut call: GuestCall,
    waits: Option<(Answer, u64, bool)>,
    view: &GuestView<'_>,
    hands: &mut Hands<'_>,
) -> Option<Running> {
    let Some((mut answer, since, staged)) = waits else {
        let waits = (view.now >= call.answers_at).then(|| record(&call, view, hands));
        return match waits {
            Some(None) => None,
            Some(waits) => Some(Running { call, waits }),
            None => Some(Running { call, waits: None }),
        };
    };
    let heard = match answer.try_recv() {
        Ok(heard) => heard.and_then(|outcomes| Ok(outcomes.into_iter().next().expect("one record")?)),
        Err(oneshot::error::TryRecvError::Empty) if view.now < since + PATIENCE_MS => {
            return Some(Running { call, waits: Some((answer, since, staged)) });
        }
        // It may be done. If it is not, its lease runs out, or the check is due again.
        Err(_) => return None,
    };
    let taken = match &heard {
        Ok(Applied::Late | Applied::Stale) | Err(NotDone::Refused(_) | NotDone::NothingStored(_)) => Some(false),
        Ok(_) => Some(true),
        Err(NotDone::Unknown(_)) => None,
    };
    if staged && let Some(taken) = taken {
        hands.told.answered.push((call.mark, taken));
    }
    match (heard, call.asked) {
        (Ok(Applied::Stale), _) => {
            call.run(view, hands.rng);
            return Some(Running { call, waits: None });
        }
        (Err(NotDone::Refused(_)), Asked::Delivery(delivery)) => failed(delivery, view, hands),
        (Err(NotDone::NothingStored(_)), Asked::Delivery(delivery)) => {
            hands.throw(records(|out| _ = changed(delivery, 20, true, view).encode(out)));
        }
        _ => {}
    }
    None
}

/// Has an answer recorded; nothing waits for what decides nothing.
fn record(call: &GuestCall, view: &GuestView<'_>, hands: &mut Hands<'_>) -> Option<(Answer, u64, bool)> {
    let Some((records, staged)) = call.answer(hands.rng.chance(10)) else {
        if let (Asked::Delivery(delivery), Verdict::Later) = (call.asked, call.verdict) {
            failed(delivery, view, hands);
        }
        return None;
    };
    let claim = if staged { Claim::Room } else { Claim::Reserve };
    Some((hands.propose(records, claim), view.now, staged))
}

/// The message comes again after a while. Where that was the host's fault, it is as if it had not been delivered.
fn failed(delivery: Delivery, view: &GuestView<'_>, hands: &mut Hands<'_>) {
    let uncounted = hands.rng.chance(3);
    let change = changed(delivery, hands.rng.below(200), uncounted, view);
    hands.throw(records(|out| _ = change.encode(out)));
    if !uncounted && hands.rng.chance(3) {
        let Delivery { queue, offset, .. } = delivery;
        let back = GiveBack { group: GROUP, topic: IN, queue, offset, attempts: 1 };
        hands.throw(records(|out| _ = back.encode(out)));
    }
}

fn records(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut records = Vec::new();
    write(&mut records);
    records
}

/// The record that lets a lease end in so long.
fn changed(delivery: Delivery, after_ms: u64, uncounted: bool, view: &GuestView<'_>) -> ChangeInvisible {
    let Delivery { queue, offset, generation } = delivery;
    let new_generation: Generation = vouch_leader::Outside::new_generation(view.around, view.time);
    let deadline = view.time.plus_ms(after_ms);
    ChangeInvisible { group: GROUP, topic: IN, queue, offset, generation, new_generation, deadline, uncounted }
}
