//! ReceiveMessage (§4.6): a long poll whose answer is a stream of one status, the messages and the time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use prost::Message as _;
use tokio_stream::Stream;
use tonic::Status;
use tracing::{Instrument, Span};
use vouch_broker::{Handle, ResourceName};
use vouch_node::{Delivery, ReceiveRequest};
use vouch_protocol::limits::ELEMENT_ALONE_BYTES;
use vouch_protocol::validate::{self, poll_wait};
use vouch_protocol::wire::receive_message_response::Content;
use vouch_protocol::wire::{
    Code, Encoding, Message, ReceiveMessageRequest, ReceiveMessageResponse, Resource, SystemProperties,
};
use vouch_protocol::{Delivered, delivered_message, takes_long, timestamp};

use super::answer::{RefusedCall, ok};
use super::aside::Working;
use super::caller::{CallMetadata, Voice};
use super::calls::{Calls, Method};
use super::span::{CallSubject, CallUnderWay, tell, tell_gone, told};
use super::trailer::{PartRoom, RetryAfter, RoomKept};
use super::{GrpcShared, Messaging, wall_clock};

/// When a message comes again whose answer broke, and that travelled alone.
const FAILED_AGAIN_MS: u64 = 5000;

impl Messaging {
    /// The response headers leave at once; the poll runs while the client reads the stream. A client that goes away
    /// drops the stream and with it the poll, which takes neither a lease nor room then.
    pub(super) fn receive(
        &self,
        call: &CallUnderWay<'_>,
        request: ReceiveMessageRequest,
    ) -> tonic::Response<ReceiveStream> {
        // Acks are addressed with the topic as the client wrote it.
        let wire_topic = request.message_queue.as_ref().and_then(|queue| queue.topic.clone()).unwrap_or_default();
        let part = PartRoom::default();
        let stage = match call.span.in_scope(|| self.prepare(call.caller, request)) {
            Ok(receive) => {
                let source = Source {
                    shared: Arc::clone(&self.shared),
                    topic: receive.topic.clone(),
                    group: receive.group.clone(),
                    wire_topic,
                    part: part.clone(),
                    span: call.span.clone(),
                };
                let poll = call.bringing_along(poll(Arc::clone(&self.shared), receive));
                Stage::Polling { poll: Box::pin(poll), source: Some(source) }
            }
            Err(refused) => Stage::Refused(refused),
        };
        let retry_after = RetryAfter::default();
        let calls = self.shared.calls();
        let (span, voice) = (call.span.clone(), call.caller.voice());
        let stream = ReceiveStream { stage, voice, retry_after: retry_after.clone(), calls, span };
        let mut response = tonic::Response::new(stream);
        response.extensions_mut().insert(retry_after);
        response.extensions_mut().insert(part);
        response
    }

    /// What the node is asked for, checked, with the subscription noted under the client's session.
    ///
    /// # Errors
    /// Something in the request is wrong, or the session finds no room for what it declares. Both are told in the
    /// stream.
    fn prepare(&self, caller: CallMetadata<'_>, request: ReceiveMessageRequest) -> Result<ReceiveRequest, RefusedCall> {
        let client_id = caller.client_id()?;
        let receive = validate::receive(request, caller.names(), self.shared.receive_invisible_min)?;
        CallSubject { topic: Some(&receive.topic), group: Some(&receive.group), ..CallSubject::default() }.record();
        self.note_receive(client_id, &receive.group, (&receive.topic, &receive.filter), receive.auto_renew)?;
        let invisible_ms = receive.invisible.map(|length| u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        let max = self.shared.large.most(&receive.topic, &receive.group, receive.max);
        Ok(ReceiveRequest {
            topic: receive.topic,
            group: receive.group,
            client_id: client_id.to_owned(),
            address: Some(self.address),
            max,
            filter: receive.filter,
            invisible_ms,
            auto_renew: receive.auto_renew,
            wait: poll_wait(receive.wait, caller.deadline(), None),
        })
    }
}

/// Waits for messages, for as long as the request says or until the node stops: then there were none.
async fn poll(shared: Arc<GrpcShared>, receive: ReceiveRequest) -> Result<Vec<Delivery>, RefusedCall> {
    let stopped = shared.stopped();
    tokio::select! {
        biased;
        received = shared.node.messages.receive(receive) => Ok(received?),
        () = stopped => Ok(Vec::new()),
    }
}

/// Where the messages of a poll come from.
struct Source {
    /// What all share.
    shared: Arc<GrpcShared>,
    /// From where they come.
    topic: ResourceName,
    /// For whom.
    group: ResourceName,
    /// As the client wrote it: acknowledgements name it so.
    wire_topic: Resource,
    /// Of the answer that they go into.
    part: PartRoom,
    /// Of the call, for what becomes of leases after it.
    span: Span,
}

/// How far an answer is.
enum Stage {
    /// Waiting for messages.
    Polling {
        poll: Pin<Box<dyn Future<Output = Result<Vec<Delivery>, RefusedCall>> + Send>>,
        /// Taken by the next stage.
        source: Option<Source>,
    },
    /// The status with the code, then the end.
    Refused(RefusedCall),
    /// The messages one by one, then the time.
    Delivering(Leased),
    /// The time, then the end.
    Time,
    /// Nothing more. The leases belong to the client now.
    End,
}

/// The answer to ReceiveMessage.
pub(crate) struct ReceiveStream {
    /// How far it is.
    stage: Stage,
    /// How its client is spoken to.
    voice: Voice,
    /// The trailer, where it is refused for want of room.
    retry_after: RetryAfter,
    calls: Arc<Calls>,
    /// Entered whenever the stream is looked at: the call runs as long as its answer is read.
    span: Span,
}

impl ReceiveStream {
    /// The status that begins the answer, and what comes after it.
    fn polled(&mut self, polled: Result<Vec<Delivery>, RefusedCall>, source: Source) -> Content {
        match polled {
            Ok(messages) if messages.is_empty() => {
                self.stage = Stage::Time;
                self.calls.count(Method::ReceiveMessage, Code::MessageNotFound);
                tell(&self.span, Code::MessageNotFound, None);
                Content::Status(self.voice.status(Code::MessageNotFound, "no message arrived in time"))
            }
            Ok(messages) => {
                tell_handed_out(&messages);
                tell(&self.span, Code::Ok, None);
                self.stage = Stage::Delivering(Leased::new(messages, source));
                self.calls.count(Method::ReceiveMessage, Code::Ok);
                Content::Status(ok())
            }
            Err(refused) => self.refused(refused),
        }
    }

    /// The status of a refusal, which ends the answer.
    fn refused(&mut self, refused: RefusedCall) -> Content {
        self.stage = Stage::End;
        self.calls.count(Method::ReceiveMessage, refused.code);
        tell(&self.span, refused.code, Some(refused.text.as_ref()));
        if let Some(ms) = refused.retry_after_ms {
            self.retry_after.set(ms);
        }
        Content::Status(refused.status(self.voice))
    }

    /// The next element.
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Content>> {
        let time = || Content::DeliveryTimestamp(timestamp(wall_clock()));
        let content = match &mut self.stage {
            Stage::Polling { poll, source } => {
                let polled = ready!(poll.as_mut().poll(cx));
                let Some(source) = source.take() else { return Poll::Ready(None) };
                Some(self.polled(polled, source))
            }
            Stage::Refused(_) => match std::mem::replace(&mut self.stage, Stage::End) {
                Stage::Refused(refused) => Some(self.refused(refused)),
                _ => None,
            },
            Stage::Delivering(leased) => match ready!(leased.poll_next(cx)) {
                Some(message) => Some(Content::Message(message)),
                None if !leased.time_told => {
                    leased.time_told = true;
                    Some(time())
                }
                None => {
                    leased.keep();
                    self.stage = Stage::End;
                    None
                }
            },
            Stage::Time => {
                self.stage = Stage::End;
                Some(time())
            }
            Stage::End => None,
        };
        Poll::Ready(content)
    }
}

/// Nobody reads an answer that was not begun. It is not counted: it has no code.
impl Drop for ReceiveStream {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Polling { .. } | Stage::Refused(_)) {
            tell_gone(&self.span);
        }
    }
}

impl Stream for ReceiveStream {
    type Item = Result<ReceiveMessageResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let span = self.span.clone();
        let _within = span.enter();
        let content = ready!(self.poll_content(cx));
        Poll::Ready(content.map(|content| Ok(ReceiveMessageResponse { content: Some(content) })))
    }
}

/// Says of each message who has it now, where lines about single calls are written.
fn tell_handed_out(messages: &[Delivery]) {
    if told() {
        for delivery in messages {
            let (message_id, queue, offset) = (&delivery.message.message.message_id, delivery.queue, delivery.offset.0);
            tracing::debug!(message_id, queue, offset, attempt = delivery.attempt, "handed out");
        }
    }
}

/// Messages on their way to a client. Clients look at nothing before the end of the stream, so if it breaks before,
/// none was seen: all of them become visible again at once, and the delivery does not count as an attempt.
///
/// A message that some client may not be able to take travels alone, so that no other fails with it: where it comes first
/// the rest is given back, and it is given back where others came before. If its answer breaks, that counts: such a client
/// would ask for it for ever.
struct Leased {
    /// Leased, and not made yet.
    messages: vec::IntoIter<Delivery>,
    /// Of what is handed to the transport.
    handed: Vec<Handle>,
    /// Is being made aside, in room of its own.
    making: Option<(Handle, Working<Message>, RoomKept)>,
    /// Something was handed over that may not have left yet: at first the status.
    gathered: bool,
    /// Where they come from, and where they go back.
    source: Source,
    /// A message travels alone here, or has to.
    large: bool,
    /// What is handed over is such a message.
    alone: bool,
    /// The last element is told: the client has seen all of it when it reads the end.
    time_told: bool,
}

impl Leased {
    /// They are on their way from now on.
    fn new(messages: Vec<Delivery>, source: Source) -> Self {
        let handed = Vec::with_capacity(messages.len());
        Self {
            messages: messages.into_iter(),
            handed,
            making: None,
            gathered: true,
            source,
            large: false,
            alone: false,
            time_told: false,
        }
    }

    /// The next message. Digest and decompression happen here, one message at a time, and aside where they take long: then in
    /// room of its own, for which what is gathered has to leave before.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            let (handle, made) = if let Some((handle, working, _)) = &mut self.making {
                let (handle, made) = (*handle, ready!(Pin::new(working).poll(cx)));
                self.making = None;
                (handle, made)
            } else {
                let aside = self.messages.as_slice().first().is_some_and(|delivery| takes_long(&delivery.message));
                if aside && std::mem::take(&mut self.gathered) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let Some(delivery) = self.messages.next() else { return Poll::Ready(None) };
                let handle = delivery.handle;
                let make = self.making_of(delivery);
                if aside {
                    let kept = self.source.part.keep();
                    self.making = Some((handle, self.source.shared.aside.run(make), kept));
                    continue;
                }
                (handle, Some(make()))
            };
            let alone = made.as_ref().is_none_or(travels_alone);
            self.large |= alone;
            match made {
                Some(message) if !alone || self.handed.is_empty() => {
                    self.handed.push(handle);
                    self.gathered = true;
                    if alone {
                        self.alone = true;
                        self.give_back_rest();
                    }
                    return Poll::Ready(Some(message));
                }
                // It was not handed over.
                Some(_) => self.source.give_back(vec![handle], Back::Unseen),
                // A defect, which must not repeat for ever.
                None => self.source.give_back(vec![handle], Back::Failed),
            }
        }
    }

    /// What makes the message that a client sees of a delivery, wherever it runs.
    fn making_of(&self, delivery: Delivery) -> impl FnOnce() -> Message + Send + 'static {
        let shared = &self.source.shared;
        let delivered = Delivered {
            topic: self.source.wire_topic.clone(),
            queue: delivery.queue,
            offset: delivery.offset,
            attempt: delivery.attempt,
            handle: shared.handles.seal(&delivery.handle),
            invisible: Duration::from_millis(delivery.invisible_ms),
            dead_letter_origin: delivery.dead_letter_origin,
        };
        let (message, shared) = (delivery.message, Arc::clone(shared));
        move || delivered_message(message, delivered, &shared.store_host)
    }

    /// Gives back what was not begun.
    fn give_back_rest(&mut self) {
        self.source.give_back(self.messages.by_ref().map(|delivery| delivery.handle).collect(), Back::Unseen);
    }

    /// The client has them.
    fn keep(&mut self) {
        self.handed.clear();
        let Source { shared, topic, group, .. } = &self.source;
        if self.large { shared.large.alone(topic, group) } else { shared.large.together(topic, group) }
    }
}

/// Larger than others, or not decompressed: not every client can take it.
fn travels_alone(message: &Message) -> bool {
    let encoding = message.system_properties.as_ref().map(SystemProperties::body_encoding);
    encoding == Some(Encoding::Gzip) || message.encoded_len() > ELEMENT_ALONE_BYTES
}

/// What became of a message that was leased.
#[derive(Clone, Copy)]
enum Back {
    /// Its client has not seen it: it is visible at once, and the delivery does not count.
    Unseen,
    /// Its client could not take it: it comes again a little later, as often as its group allows.
    Failed,
}

impl Source {
    /// Ends leases that the client does not have.
    fn give_back(&self, handles: Vec<Handle>, back: Back) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if handles.is_empty() {
            return;
        }
        let (topic, group) = (self.topic.clone(), self.group.clone());
        let messages = self.shared.node.messages.clone();
        let giving_back = async move {
            for handle in handles {
                let changed = match back {
                    Back::Unseen => messages.change_invisible(handle, 0, true).await,
                    Back::Failed => messages.change_invisible(handle, FAILED_AGAIN_MS, false).await,
                };
                if let Err(refusal) = changed {
                    tracing::debug!(%topic, %group, %refusal, "a lease that nobody got runs out by itself");
                }
            }
        };
        runtime.spawn(giving_back.instrument(self.span.clone()));
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let back = if self.alone { Back::Failed } else { Back::Unseen };
        self.source.give_back(std::mem::take(&mut self.handed), back);
        self.source.give_back(self.making.take().map(|(handle, ..)| handle).into_iter().collect(), Back::Unseen);
        self.give_back_rest();
    }
}
