//! How a message is sent, received and acknowledged.
//!
//! Each call is one round: what it asks for becomes records, the shard writes them, and the caller hears what became of
//! them when they are durable. Only sends to a topic with the ack level `memory` are answered earlier.

mod deliveries;
mod encoding;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vouch_broker::record::{Ack, ChangeInvisible, DeadLetter, DeadLetterSized};
use vouch_broker::{AckLevel, Handle, MessageKind, NotDone, Refusal, State};
use vouch_commitlog::LogReader;

use crate::forwarding::{ForwardedAnswer, ForwardedAsk, Leaders, UnheardReceive, answer_of};
use crate::metrics::Metrics;
use crate::routes::Routes;
use crate::sessions::{SESSION_LIMIT, Sessions, machine};
use crate::shortages::Shortages;
use crate::writable::Writable;
use crate::{Delivery, Receipt, ReceiveRequest, SendRequest};
use encoding::{encode_send, receipt};
use vouch_leader::{Poll, RENEWED_LEASE_MS};
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

/// A lease without a stated length lasts this long.
const DEFAULT_LEASE_MS: u64 = 60_000;
/// Longest a receive waits.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// What a receive may take beside that, at another node.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Messages: sent, received, acknowledged.
///
/// What a call names and is not there is refused with a [`Refusal`]; where nothing can be written, or space or room among
/// what is under way is missing, with [`NothingStored`](vouch_broker::NothingStored). [`NotDone::Unknown`] alone leaves open
/// whether something was stored.
pub struct Messages {
    pub(crate) shard: Arc<Shard>,
    /// Does what only a leader does, wherever that is.
    pub(crate) leaders: Arc<Leaders>,
    pub(crate) log: LogReader,
    pub(crate) routes: Arc<Routes>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) clock: Arc<Clock>,
    /// Asked before anything that may name what a damaged log does not serve.
    pub(crate) writable: Writable,
    pub(crate) shortages: Arc<Shortages>,
    /// Counts what goes in and out, and how long it takes.
    pub(crate) metrics: Arc<Metrics>,
}

impl Messages {
    /// Stores messages: all of them or none. Resolves when they are durable, or, on a topic with the ack level
    /// `memory`, when they are written. Half messages are durable in any case.
    ///
    /// If the future is dropped, the messages may be stored all the same. A message that is sent again under its id is
    /// recognised for a while, and stored once.
    ///
    /// # Errors
    /// [`Refusal::TopicNotFound`], unless the node makes topics by itself, [`Refusal::TypeMismatch`] and other refusals
    /// of what is sent; [`StorageFull`](vouch_broker::NothingStored::StorageFull) and
    /// [`Overloaded`](vouch_broker::NothingStored::Overloaded), since a send can wait until there is room.
    pub async fn send(&self, request: SendRequest) -> Result<Vec<Receipt>, NotDone> {
        if request.messages.iter().any(|message| message.kind == MessageKind::Transaction) {
            // Whoever leads hears of it from this node, which has the client.
            self.sessions.note_half(&request.producer, &request.topic, Instant::now());
        }
        let here = || self.send_here(&request);
        let ask = || ForwardedAsk::Send(Cow::Borrowed(&request));
        self.leaders.done(here, ask, |answer| answer_of!(answer, Sent)).await
    }

    pub(crate) async fn send_here(&self, request: &SendRequest) -> Result<Vec<Receipt>, NotDone> {
        let began = Instant::now();
        request.topic.check_sent_to()?;
        self.writable.check()?;
        self.shortages.check_disk()?;
        let route = self.routes.route_for_send_here(&request.topic).await?;
        let records = encode_send(&route, request, self.clock.now())?;
        let halves = request.messages.iter().any(|message| message.kind == MessageKind::Transaction);
        if halves {
            self.sessions.note_half(&request.producer, &request.topic, Instant::now());
        }
        let in_memory = route.info.config.ack == AckLevel::Memory && !halves;
        let proposed = match in_memory {
            false => self.shard.propose_if_room(records).await,
            true => self.shard.propose_in_memory(records).await,
        };
        let outcomes = self.shortages.counted(proposed)?;
        self.metrics.sends.observe(began.elapsed());
        let stored = outcomes.len() as u64;
        self.metrics.messages_in.fetch_add(stored, Ordering::Relaxed);
        if in_memory {
            self.metrics.messages_in_memory.fetch_add(stored, Ordering::Relaxed);
        }
        outcomes.into_iter().map(|outcome| receipt(outcome, self.shard.signals())).collect()
    }

    /// Waits for messages of a topic and leases them to the caller. Empty if none came in time; it waits for 20 s at
    /// most. Nobody else of the group gets the same messages while the leases last.
    ///
    /// If the future is dropped while it waits, nothing is leased.
    ///
    /// # Errors
    /// Refusals of the topic and of the name of the group; [`NothingStored`](vouch_broker::NothingStored) where no
    /// lease can be written.
    pub async fn receive(&self, request: ReceiveRequest) -> Result<Vec<Delivery>, NotDone> {
        let within = request.wait.min(WAIT_MAX) + ANSWERED_WITHIN;
        let unheard = UnheardReceive::begin(&self.leaders, (&self.shard, &self.sessions, &self.clock), &request);
        // Whoever leads meanwhile, the consumer waits no longer.
        let left = || ReceiveRequest { wait: unheard.wait_left(), ..request.clone() };
        let here = || {
            unheard.stays_here();
            self.receive_here(left())
        };
        let ask = || ForwardedAsk::Receive { ticket: unheard.goes_there(), request: Cow::Owned(left()) };
        let received = self.leaders.done_within(within, here, ask, |answer| answer_of!(answer, Received)).await;
        unheard.ended(&received);
        received
    }

    pub(crate) async fn receive_here(&self, request: ReceiveRequest) -> Result<Vec<Delivery>, NotDone> {
        let began = Instant::now();
        self.writable.check()?;
        request.group.check_group()?;
        let default = if request.auto_renew { RENEWED_LEASE_MS } else { DEFAULT_LEASE_MS };
        let invisible_ms = request.invisible_ms.filter(|_| !request.auto_renew).unwrap_or(default);
        let (topic, client_id) = (request.topic.clone(), request.client_id.clone());
        let held = self
            .shard
            .receive(|waiter| Poll {
                topic: request.topic,
                group: request.group,
                client_id: request.client_id,
                machine: request.address.map(machine),
                filter: request.filter,
                max: request.max as usize,
                invisible_ms,
                auto_renew: request.auto_renew,
                until: Instant::now() + request.wait.min(WAIT_MAX),
                waiter,
            })
            .await?;
        let Some(held) = held else { return Ok(Vec::new()) };
        let lease = Duration::from_millis(invisible_ms).min(SESSION_LIMIT);
        self.sessions.leased(&client_id, Instant::now() + lease);
        let deliveries = self.deliveries(held.batch(), invisible_ms, &topic).await?;
        held.is_handed_out();
        self.metrics.receives.observe(began.elapsed());
        self.metrics.messages_out.fetch_add(deliveries.len() as u64, Ordering::Relaxed);
        Ok(deliveries)
    }

    /// Marks messages as done; one answer a handle, in order. Resolves when that is durable. It is written also where
    /// there is no room for sends any more.
    ///
    /// # Errors
    /// Of a handle: a [`Refusal`]; the others count all the same. Of the call: [`NotDone`], for all of them.
    pub async fn ack(&self, handles: &[Handle]) -> Result<Vec<Result<(), Refusal>>, NotDone> {
        let ask = || ForwardedAsk::Ack(Cow::Borrowed(handles));
        self.leaders.done(|| self.ack_here(handles), ask, |answer| answer_of!(answer, Acked)).await
    }

    pub(crate) async fn ack_here(&self, handles: &[Handle]) -> Result<Vec<Result<(), Refusal>>, NotDone> {
        let mut records = Vec::new();
        for handle in handles {
            let Handle { group, topic, queue, offset, generation, .. } = *handle;
            Ack { group, topic, queue, offset, generation }.encode(&mut records);
        }
        let outcomes = self.shortages.counted(self.shard.propose(records).await)?;
        Ok(outcomes.into_iter().map(|outcome| outcome.map(drop)).collect())
    }

    /// Lets a lease end `invisible_ms` milliseconds from now and returns the handle to use from now on. `suspend`: the
    /// delivery does not count as an attempt. Resolves when that is durable.
    ///
    /// # Errors
    /// A [`Refusal`] of the handle.
    pub async fn change_invisible(&self, handle: Handle, invisible_ms: u64, suspend: bool) -> Result<Handle, NotDone> {
        let here = || self.change_invisible_here(handle, invisible_ms, suspend);
        let ask = || ForwardedAsk::ChangeInvisible { handle, invisible_ms, suspend };
        self.leaders.done(here, ask, |answer| answer_of!(answer, Changed)).await
    }

    pub(crate) async fn change_invisible_here(
        &self,
        handle: Handle,
        invisible_ms: u64,
        suspend: bool,
    ) -> Result<Handle, NotDone> {
        let now = self.clock.now();
        let changed = Handle { generation: self.clock.generation(now), deadline: now.plus_ms(invisible_ms), ..handle };
        let Handle { group, topic, queue, offset, generation, .. } = handle;
        let record = ChangeInvisible {
            group,
            topic,
            queue,
            offset,
            generation,
            new_generation: changed.generation,
            deadline: changed.deadline,
            uncounted: suspend,
        };
        self.shard.propose_one(|out| record.encode(out)).await?;
        Ok(changed)
    }

    /// Moves a message to its group's dead letters; one that is done or in other hands is left alone (§4.9). Resolves
    /// when that is durable. A message that cannot be read is moved all the same.
    ///
    /// # Errors
    /// A [`Refusal`] of the handle.
    pub async fn forward_to_dead_letter(&self, handle: Handle, reason: &str) -> Result<(), NotDone> {
        let here = || self.forward_to_dead_letter_here(handle, reason);
        let ask = || ForwardedAsk::DeadLetter { handle, reason: Cow::Borrowed(reason) };
        self.leaders.done(here, ask, |answer| matches!(answer, ForwardedAnswer::Done).then_some(())).await
    }

    pub(crate) async fn forward_to_dead_letter_here(&self, handle: Handle, reason: &str) -> Result<(), NotDone> {
        let Handle { group, topic, queue, offset, generation, .. } = handle;
        let find = move |state: &State| state.topics().get(topic).and_then(|topic| topic.entry(queue, offset));
        // What cannot be read is moved all the same, and counts as nothing.
        let entry = self.shard.read(find).await?;
        let record_len = entry.and_then(|entry| vouch_storage::record_len(&self.log, entry.position).ok()).unwrap_or(0);
        let letter = DeadLetter { group, topic, queue, offset, generation, reason: reason.to_owned() };
        let record = DeadLetterSized { letter, record_len };
        self.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }
}
