//! What other nodes ask of this one for their clients.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::Instrument;
use vouch_broker::{Handle, NotDone, NothingStored};
use vouch_cluster::NodeId;
use vouch_shard::Shard;

use super::call::{ForwardedAnswer, ForwardedAsk, ForwardedCall, encode_answer};
use super::context::CallContext;
use super::give_back::give_back_lost;
use super::handed_out::{HandedOutThere, NeverGot};
use super::http::{HttpApi, HttpCallAnswer};
use crate::messages::Messages;
use crate::peers::{ClientAnswer, ClientAnswering, ServeClients};
use crate::routes::Routes;
use crate::secrets::Secrets;
use crate::sessions::{Client, Sessions};
use crate::transactions::Transactions;
use crate::{Delivery, ReceiveRequest};

/// Bytes of messages in one answer: what is beyond is given back, and comes with the next receive. One message has less.
const RECEIVED_BYTES_MAX: usize = 8 << 20;
/// Longer answers that wait to be written are counted in pieces of so many bytes.
const ANSWER_UNIT: usize = 4 << 10;
/// The most of them, for each node: 64 MiB.
const ANSWER_UNITS: u32 = (64 << 20) / ANSWER_UNIT as u32;
/// The answer to a send, an acknowledgement or an end has less.
const SMALL_ANSWER: usize = 64 << 10;

/// Room for answers, for each node its own: one that reads slowly keeps no other waiting.
#[derive(Default)]
pub(crate) struct AnswerRoom(Mutex<HashMap<NodeId, Arc<Semaphore>>>);

impl AnswerRoom {
    fn of(&self, node: NodeId) -> Arc<Semaphore> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.entry(node).or_insert_with(|| Arc::new(Semaphore::new(ANSWER_UNITS as usize))).clone()
    }
}

/// An answer until it is written.
struct AnswerWithRoom {
    answer: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for AnswerWithRoom {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

/// Does what other nodes ask for: on the runtime of the node, and not on that of its connections to others.
#[derive(Clone)]
pub(crate) struct ForwardedCalls {
    /// Says whether this node leads.
    pub(crate) shard: Arc<Shard>,
    /// Sends, receives, acknowledges.
    pub(crate) messages: Arc<Messages>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) sessions: Arc<Sessions>,
    /// Set when the HTTP API is served.
    pub(crate) http: Arc<HttpApi>,
    pub(crate) runtime: Runtime,
    /// Room for answers, in pieces.
    pub(crate) answers: Arc<AnswerRoom>,
    /// What went to other nodes a moment ago.
    pub(crate) handed_out: Arc<HandedOutThere>,
}

impl ServeClients for ForwardedCalls {
    fn serve(&self, from: NodeId, request: Bytes, deadline: Instant) -> ClientAnswering {
        let this = self.clone();
        // A task of its own, which ends with the set: where its caller is gone.
        let mut doings = JoinSet::new();
        doings.spawn_on(CallContext::passed_on(async move { this.done(from, request, deadline).await }), &self.runtime);
        Box::pin(async move {
            match doings.join_next().await {
                Some(Ok(answer)) => answer,
                // It may have done something before.
                _ => ClientAnswer::Answered(encode_answer(&Err(NotDone::Unknown(
                    "the call ended by a defect".to_owned(),
                )))),
            }
        })
    }
}

impl ForwardedCalls {
    /// Does what the bytes ask for, within its span, and makes the answer as it is sent.
    async fn done(&self, from: NodeId, request: Bytes, deadline: Instant) -> ClientAnswer {
        let call = match ForwardedCall::decode(&request) {
            Ok(call) => call,
            Err(why) => return ClientAnswer::NothingStored(format!("node {from} asks for a client, and {why}")),
        };
        drop(request);
        let span = tracing::debug_span!(
            "forwarded",
            %from,
            call = call.ask.name(),
            client_id = call.context.client_id,
            request_id = call.context.request_id,
            traceparent = call.context.traceparent
        );
        let context = CallContext { deadline: Some(deadline), ..call.context };
        let answer = context.within(self.answer(from, call.ask)).instrument(span).await;
        let answer = encode_answer(&answer);
        // Many may be on their way to a node that reads slowly; what is small needs no room, and waits for none.
        if answer.len() <= SMALL_ANSWER {
            return ClientAnswer::Answered(answer);
        }
        let units = u32::try_from(answer.len().div_ceil(ANSWER_UNIT)).unwrap_or(u32::MAX).min(ANSWER_UNITS);
        match self.answers.of(from).acquire_many_owned(units).await {
            Ok(room) => ClientAnswer::Answered(Bytes::from_owner(AnswerWithRoom { answer, _room: room })),
            Err(_) => ClientAnswer::Answered(answer),
        }
    }

    /// Does it by the face that it is a call of.
    async fn answer(&self, from: NodeId, ask: ForwardedAsk<'static>) -> Result<ForwardedAnswer, NotDone> {
        let (messages, transactions) = (&self.messages, &self.transactions);
        Ok(match ask {
            ForwardedAsk::Send(request) => ForwardedAnswer::Sent(messages.send_here(&request).await?),
            ForwardedAsk::Receive { ticket, request } => {
                ForwardedAnswer::Received(self.receive(from, ticket, request.into_owned()).await?)
            }
            ForwardedAsk::GiveBack(lost) => {
                match self.handed_out.take(from, lost.ticket, Instant::now()) {
                    NeverGot::These(handles) => self.give_back(handles).await,
                    NeverGot::Unknown => {
                        give_back_lost(&self.shard, &self.sessions, &self.messages.clock, lost).await?
                    }
                }
                ForwardedAnswer::Done
            }
            ForwardedAsk::Ack(handles) => ForwardedAnswer::Acked(messages.ack_here(&handles).await?),
            ForwardedAsk::ChangeInvisible { handle, invisible_ms, suspend } => {
                ForwardedAnswer::Changed(messages.change_invisible_here(handle, invisible_ms, suspend).await?)
            }
            ForwardedAsk::DeadLetter { handle, reason } => {
                messages.forward_to_dead_letter_here(handle, &reason).await?;
                ForwardedAnswer::Done
            }
            ForwardedAsk::End(request) => ForwardedAnswer::Ended(transactions.end_here(&request).await?),
            ForwardedAsk::Undecided { transaction, topic, message_id, client_id } => ForwardedAnswer::Counted(
                transactions.undecided_here(transaction, topic.as_deref(), message_id.as_deref(), &client_id).await?,
            ),
            ForwardedAsk::Topic { name, to_send: false } => {
                ForwardedAnswer::Topic(self.routes.route_by_leader(&name).await?.info.clone())
            }
            ForwardedAsk::Topic { name, to_send: true } => {
                ForwardedAnswer::Topic(self.routes.route_for_send_here(&name).await?.info.clone())
            }
            ForwardedAsk::Group(name) => ForwardedAnswer::Group(self.routes.group_by_leader(&name).await?),
            ForwardedAsk::SetSecret(sealed) => ForwardedAnswer::SecretSet(self.secrets.put_here(&sealed).await?),
            ForwardedAsk::SecretKeys(taken) => {
                ForwardedAnswer::SecretKeys(self.secrets.exchange_keys(from, taken).await?)
            }
            ForwardedAsk::Http(call) => {
                let http = self.http.get().ok_or(NothingStored::NotLeading { leader: None })?;
                // All that was answered before is in the state from here on.
                self.shard.lead(|_, _| ()).await?;
                let answer = http.answer(call.into_owned()).await?;
                let applied = self.shard.standing().await?.applied.0;
                ForwardedAnswer::Http(HttpCallAnswer { applied, ..answer })
            }
        })
    }

    /// The filter is known here before anything is skipped by it (ruling 12), as if the consumer had come here.
    async fn receive(&self, from: NodeId, ticket: u64, request: ReceiveRequest) -> Result<Vec<Delivery>, NotDone> {
        let client = Client { id: &request.client_id, address: request.address };
        let subscription = (&request.topic, &request.filter);
        let noted =
            self.sessions.note_receive(client, &request.group, subscription, request.auto_renew, Instant::now());
        noted.map_err(|no_room| NothingStored::TooMany(no_room.to_string()))?;
        let mut deliveries = self.messages.receive_here(request).await?;
        // Before anything else is waited for: from here on that node can say that it gets nothing.
        let handles: Vec<_> = deliveries.iter().map(|delivery| delivery.handle).collect();
        if !self.handed_out.put(from, ticket, handles.clone(), Instant::now()) {
            self.give_back(handles).await;
            return Ok(Vec::new());
        }
        let mut bytes = 0;
        let fit = deliveries.iter().take_while(|delivery| {
            bytes += delivery.message.message.body.len();
            bytes <= RECEIVED_BYTES_MAX
        });
        let beyond = deliveries.split_off(fit.count().max(1).min(deliveries.len()));
        self.give_back(beyond.into_iter().map(|delivery| delivery.handle).collect()).await;
        Ok(deliveries)
    }

    /// Ends leases of messages that nobody got.
    async fn give_back(&self, handles: Vec<Handle>) {
        for handle in handles {
            if let Err(refusal) = self.messages.change_invisible_here(handle, 0, true).await {
                tracing::debug!(%refusal, "a lease that nobody got runs out by itself");
            }
        }
    }
}
