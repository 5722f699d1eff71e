//! The telemetry stream (§4.12): settings both ways, and the broker's questions about half messages.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Response, Status, Streaming};
use tracing::{Instrument, Span};
use vouch_broker::GroupConfig;
use vouch_node::{CheckCommand, Client, Declaration, NoRoom, Question};
use vouch_protocol::validate::{self, CallNames, DeclaredClient, Violation, resource};
use vouch_protocol::wire::settings::PubSub;
use vouch_protocol::wire::telemetry_command::Command;
use vouch_protocol::wire::{self, Code, Language, RecoverOrphanedTransactionCommand, TelemetryCommand};
use vouch_protocol::{half_message, settings, takes_long};

use super::answer::ok;
use super::aside::{Aside, Working};
use super::calls::Method;
use super::session::node_role;
use super::span::{CallUnderWay, record_declared, tell};
use super::trailer::{PartRoom, RoomKept};
use super::{GrpcShared, Messaging};

/// Commands that wait for a client to read them. A Python push consumer stops reading after its first settings: what
/// does not fit is dropped, and nothing waits for it.
const QUEUE_LEN: usize = 32;
/// The Node client misses settings that come before it has all its routes; it gets them once more (§4.12.2).
const NODE_REPEAT: Duration = Duration::from_secs(1);

/// A client that is told why its subscription is refused has this long to read it before the stream ends, or until it ends
/// its own side: some act on a stream's end before they look at what came last.
const REFUSAL_READ: Duration = Duration::from_secs(1);

impl Messaging {
    /// Opens the stream. Its headers leave at once: the Rust client waits for them.
    ///
    /// # Errors
    /// The client has no id. What is wrong with its settings it is told over the stream.
    pub(super) fn telemetry(
        &self,
        call: &CallUnderWay<'_>,
        commands: Streaming<TelemetryCommand>,
    ) -> Result<Response<TelemetryOutput>, Status> {
        let (caller, span) = (call.caller, call.span.clone());
        let client_id = caller.client_id().map_err(|violation| {
            self.shared.calls.count(Method::Telemetry, violation.code);
            tell(&span, violation.code, Some(violation.text.as_ref()));
            Status::invalid_argument(describe(&violation))
        })?;
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        let (end, ended) = oneshot::channel();
        let dialog = Dialog {
            shared: Arc::clone(&self.shared),
            client_id: client_id.to_owned(),
            address: self.address,
            namespace: caller.names().namespace.map(str::to_owned),
            questions: Arc::new(Questions { sender, ended: AtomicBool::new(false) }),
            settled: false,
            told_why: false,
            refused_with: None,
        };
        let store_host = self.shared.store_host.clone();
        let part = PartRoom::default();
        let asks = AskedAs { store_host, aside: self.shared.aside.clone(), part: part.clone(), making: None };
        span.in_scope(|| dialog.attach());
        tokio::spawn(dialog.run(commands, end).instrument(span));
        let mut response = Response::new(TelemetryOutput::new(receiver, ended, asks));
        response.extensions_mut().insert(part);
        Ok(response)
    }
}

/// What waits to be written.
enum Outgoing {
    /// Settings, or a refusal of them.
    Command(Box<TelemetryCommand>),
    /// What became of a half message: asked only when the client has room for it.
    Question(Question),
}

/// What the server writes: commands, then the end that the reading side decides.
pub(crate) struct TelemetryOutput {
    /// What the other side of the dialog wants to say.
    queue: mpsc::Receiver<Outgoing>,
    /// The question at the front of the queue, which waits until what is gathered has left.
    next: Option<Question>,
    /// Something was handed over that may not have left yet.
    gathered: bool,
    /// How it ends; taken with the end.
    end: Option<oneshot::Receiver<Result<(), Status>>>,
    /// Makes questions.
    asks: AskedAs,
}

impl TelemetryOutput {
    /// Nothing was said yet.
    fn new(queue: mpsc::Receiver<Outgoing>, end: oneshot::Receiver<Result<(), Status>>, asks: AskedAs) -> Self {
        Self { queue, next: None, gathered: false, end: Some(end), asks }
    }

    /// Hands a command to the transport.
    fn hand(&mut self, command: TelemetryCommand) -> Poll<Option<Result<TelemetryCommand, Status>>> {
        self.gathered = true;
        Poll::Ready(Some(Ok(command)))
    }
}

/// What a question says of this node.
struct AskedAs {
    /// This node, as messages name it.
    store_host: String,
    /// Where long bodies are made.
    aside: Aside,
    /// Of the stream that they go into.
    part: PartRoom,
    /// The message of one is made aside.
    making: Option<(Working<TelemetryCommand>, RoomKept)>,
}

impl AskedAs {
    /// The question, or None while it is made aside.
    fn command(&mut self, question: CheckCommand) -> Option<TelemetryCommand> {
        let (store_host, aside) = (self.store_host.clone(), takes_long(&question.half));
        let make = move || {
            let message = half_message(question.half, resource(&question.topic), &store_host);
            let question = RecoverOrphanedTransactionCommand {
                message: Some(message),
                transaction_id: question.transaction.to_string(),
            };
            TelemetryCommand { status: Some(ok()), command: Some(Command::RecoverOrphanedTransactionCommand(question)) }
        };
        if !aside {
            return Some(make());
        }
        let kept = self.part.keep();
        self.making = Some((self.aside.run(make), kept));
        None
    }

    /// The question that is made aside, when it is; nothing where none is made.
    fn poll_making(&mut self, cx: &mut Context<'_>) -> Poll<Option<TelemetryCommand>> {
        let Some((making, _)) = &mut self.making else { return Poll::Ready(None) };
        let made = ready!(Pin::new(making).poll(cx));
        self.making = None;
        Poll::Ready(made)
    }
}

impl Stream for TelemetryOutput {
    type Item = Result<TelemetryCommand, Status>;

    /// Called when the transport wants one more piece, which it does before it asks whether the client has room for it. Only
    /// now is a question asked, and its message made, in a piece of its own: a client that does not read is asked one at most.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(command) = ready!(self.asks.poll_making(cx)) {
                return self.hand(command);
            }
            let outgoing = match self.next.take() {
                Some(question) => Poll::Ready(Some(Outgoing::Question(question))),
                None => self.queue.poll_recv(cx),
            };
            let Poll::Ready(Some(outgoing)) = outgoing else { break };
            match outgoing {
                Outgoing::Command(command) => return self.hand(*command),
                Outgoing::Question(question) if self.gathered => {
                    self.gathered = false;
                    self.next = Some(question);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Outgoing::Question(question) => {
                    // One that was withdrawn meanwhile is not asked any more.
                    if let Some(command) = question.take().and_then(|question| self.asks.command(question)) {
                        return self.hand(command);
                    }
                }
            }
        }
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let ended = ready!(Pin::new(end).poll(cx));
        self.end = None;
        self.queue.close();
        // The reading side says how it ends unless it broke; then the client sees an ordinary end and comes again.
        Poll::Ready(ended.unwrap_or(Ok(())).err().map(Err))
    }
}

/// The way to the client, as the node's sessions keep it.
struct Questions {
    sender: mpsc::Sender<Outgoing>,
    /// Its reading side is done, even if the client does not read that.
    ended: AtomicBool,
}

impl Questions {
    /// Puts something into the queue; whether it fits.
    fn send(&self, outgoing: Outgoing) -> bool {
        self.sender.try_send(outgoing).is_ok()
    }
}

impl vouch_node::TelemetryStream for Questions {
    fn send_check(&self, question: Question) -> bool {
        self.is_open() && self.send(Outgoing::Question(question))
    }

    fn is_open(&self) -> bool {
        !self.ended.load(Ordering::Acquire) && !self.sender.is_closed()
    }
}

/// The reading side of one stream.
struct Dialog {
    shared: Arc<GrpcShared>,
    client_id: String,
    address: IpAddr,
    namespace: Option<String>,
    /// As the session knows this stream.
    questions: Arc<Questions>,
    /// The client has sent its settings.
    settled: bool,
    /// It was told on the stream why that ends.
    told_why: bool,
    /// What ends it, if it was refused.
    refused_with: Option<Violation>,
}

impl Dialog {
    /// Reads until the client is done, says something that ends the stream, or the node stops.
    async fn run(mut self, mut commands: Streaming<TelemetryCommand>, end: oneshot::Sender<Result<(), Status>>) {
        let mut stopped = std::pin::pin!(self.shared.stopped());
        let mut repeat: Option<(tokio::time::Instant, wire::Settings)> = None;
        let result = loop {
            let when = repeat.as_ref().map(|(when, _)| *when);
            tokio::select! {
                () = stopped.as_mut() => break Ok(()),
                // Nobody reads the answers any more.
                () = self.questions.sender.closed() => break Ok(()),
                () = sleep_until(when) => {
                    if let Some((_, settings)) = repeat.take() {
                        self.reply(ok(), settings);
                    }
                }
                read = commands.message() => match read {
                    Ok(Some(command)) => match self.hear(command).await {
                        Ok(Some(again)) => repeat = Some((tokio::time::Instant::now() + NODE_REPEAT, again)),
                        Ok(None) => {}
                        Err(status) => {
                            if self.told_why {
                                self.let_read(&mut commands, stopped.as_mut()).await;
                            }
                            break Err(status);
                        }
                    },
                    Ok(None) => break Ok(()),
                    // Too large, too slow, too many, or no message of the protocol: the client learns which.
                    Err(status) => break Err(status),
                },
            }
        };
        // A client that is done may just let go of the stream, or of the connection.
        let left = |status: &Status| {
            matches!(status.code(), tonic::Code::Cancelled | tonic::Code::Unknown | tonic::Code::Unavailable)
        };
        let is_fault = result.as_ref().is_err_and(|status| !left(status));
        let fault = result.as_ref().err().filter(|_| is_fault).map(|status| (Code::BadRequest, status.message()));
        let refused = self.refused_with.as_ref().map(|violation| (violation.code, &*violation.text));
        let (code, why) = refused.or(fault).map_or((Code::Ok, None), |(code, why)| (code, Some(why)));
        self.shared.calls.count(Method::Telemetry, code);
        tell(&Span::current(), code, why);
        self.questions.ended.store(true, Ordering::Release);
        // The receiver is gone if the connection is.
        let _ = end.send(result);
    }

    /// Waits until the client has read what was said last, as far as anybody can tell. What it says meanwhile is not heard.
    async fn let_read(&self, commands: &mut Streaming<TelemetryCommand>, stopped: impl Future<Output = ()>) {
        tokio::select! {
            () = stopped => {}
            () = self.questions.sender.closed() => {}
            () = tokio::time::sleep(REFUSAL_READ) => {}
            () = async { while let Ok(Some(_)) = commands.message().await {} } => {}
        }
    }

    /// Handles one command. Returns settings that shall be sent again a little later.
    async fn hear(&mut self, command: TelemetryCommand) -> Result<Option<wire::Settings>, Status> {
        match command.command {
            Some(Command::Settings(settings)) => self.settle(settings).await,
            // Answers to commands that this broker does not send, in whatever variant (Node answers in the wrong one).
            _ => {
                self.shared.node.sessions.heard(&self.client_id, Instant::now());
                Ok(None)
            }
        }
    }

    /// Takes the client's settings and answers with those that hold.
    ///
    /// # Errors
    /// They cannot be used: the stream ends with the reason.
    async fn settle(&mut self, sent: wire::Settings) -> Result<Option<wire::Settings>, Status> {
        let names = CallNames { namespace: self.namespace.as_deref() };
        // Once: what a span says a second time stands beside the first in lines for people.
        if !self.settled {
            record_names(&sent, names);
        }
        let declared = match validate::settings(&sent, names) {
            Ok(declared) => declared,
            Err(violation) => {
                self.tell_why(sent, &violation);
                let refused = refuse(&violation);
                self.refused_with = Some(violation);
                return Err(refused);
            }
        };
        let group = match &declared.group {
            Some(group) => self
                .shared
                .node
                .settings
                .group(group)
                .await
                .map_err(|refusal| Status::unavailable(refusal.to_string()))?,
            None => None,
        };
        let group = group.map(|info| info.config).unwrap_or_default();
        let first = !std::mem::replace(&mut self.settled, true);
        let language = declared.language;
        self.declare(declared)?;
        let merged = settings::merge(sent, &group);
        let again = (first && language == Language::NodeJs).then(|| merged.clone());
        self.reply(ok(), merged);
        Ok(again)
    }

    /// Answers settings whose subscription is refused, before the stream ends. The Java client looks at the settings alone and
    /// begins: then each of its receives tells its caller why. Without an answer it would only say that none came in time.
    fn tell_why(&mut self, sent: wire::Settings, violation: &Violation) {
        if matches!(violation.code, Code::NotImplemented | Code::IllegalFilterExpression) {
            let status = wire::Status { code: violation.code as i32, message: describe(violation) };
            self.told_why = true;
            self.reply(status, settings::merge(sent, &GroupConfig::default()));
        }
    }

    /// Notes what the client declares under its session.
    fn declare(&self, declared: DeclaredClient) -> Result<(), Status> {
        let DeclaredClient { role, topics, group, subscriptions, .. } = declared;
        let declaration = Declaration { role: node_role(role), topics, group, subscriptions };
        let sessions = &self.shared.node.sessions;
        let client = Client { id: &self.client_id, address: Some(self.address) };
        sessions.declare(client, declaration, Instant::now()).map_err(|no_room| match no_room {
            NoRoom::Declaration { .. } => Status::invalid_argument(no_room.to_string()),
            NoRoom::Sessions(_) | NoRoom::Bytes(_) | NoRoom::Share(_) => {
                Status::resource_exhausted(no_room.to_string())
            }
        })?;
        // Attached each time: when it opened, there may have been no room to keep it for a client that was not known.
        self.attach();
        Ok(())
    }

    /// Commands may go over this stream.
    fn attach(&self) {
        self.shared.node.sessions.attach(&self.client_id, self.questions.clone());
    }

    /// Answers settings. Where the client reads nothing the answer is dropped.
    fn reply(&self, status: wire::Status, settings: wire::Settings) {
        let command = TelemetryCommand { status: Some(status), command: Some(Command::Settings(settings)) };
        if !self.questions.send(Outgoing::Command(Box::new(command))) {
            tracing::debug!(client_id = self.client_id, "settings dropped: the client does not read its stream");
        }
    }
}

/// However the reading side ends, the session learns of it: it must not hold a stream that is none.
impl Drop for Dialog {
    fn drop(&mut self) {
        self.questions.ended.store(true, Ordering::Release);
        let stream: Arc<dyn vouch_node::TelemetryStream> = self.questions.clone();
        self.shared.node.sessions.detach(&self.client_id, &stream, Instant::now());
    }
}

/// Whose stream it is, and about what, also where that is refused: names that are none are left out.
fn record_names(sent: &wire::Settings, names: CallNames<'_>) {
    let (group, topics): (_, Vec<_>) = match &sent.pub_sub {
        Some(PubSub::Publishing(publishing)) => (None, publishing.topics.iter().cloned().map(Some).collect()),
        Some(PubSub::Subscription(subscription)) => {
            let topics = subscription.subscriptions.iter().map(|entry| entry.topic.clone());
            (names.group(subscription.group.clone()).ok(), topics.collect())
        }
        None => (None, Vec::new()),
    };
    let topics: Vec<_> = topics.into_iter().filter_map(|topic| names.topic(topic).ok()).collect();
    record_declared(group.as_ref(), &topics);
}

/// For ever, if there is no such time.
async fn sleep_until(when: Option<tokio::time::Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// The end of a stream whose settings cannot be used. Java reports this text when it fails to start.
fn refuse(violation: &Violation) -> Status {
    match violation.code {
        Code::NotImplemented => Status::unimplemented(describe(violation)),
        _ => Status::invalid_argument(describe(violation)),
    }
}

/// The code by its name, and the sentence: all that a client's log shows of a stream's end.
fn describe(violation: &Violation) -> String {
    format!("{}: {violation}", violation.code.as_str_name())
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;
