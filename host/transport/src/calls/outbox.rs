//! Calls that wait to be sent, and those that wait for their answers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::call::{CallAnswer, SharedCall};
use super::failed::CallFailed;
use crate::connection::{Connection, Incoming};
use crate::counters::LaneCounters;
use crate::frame::{FrameHead, FrameHeader, FrameKind};
use crate::link::Carry;
use crate::reading::ReadFault;
use crate::sending::{Outgoing, send_all};
use crate::sentence::{self, SENTENCE_MAX_BYTES};
use crate::settings::TransportTiming;
use crate::share::Share;

/// The calls of one link.
#[derive(Debug)]
pub(crate) struct CallOutbox {
    state: Mutex<OutboxState>,
    /// Of requests, until they are answered.
    requests: Arc<Share>,
    /// Of answers, until their callers have them.
    answers: Arc<Share>,
    counters: Arc<LaneCounters>,
    ping_every: Duration,
    ping_answer: Duration,
}

#[derive(Debug, Default)]
struct OutboxState {
    /// Of the connection there is.
    queue: Option<UnboundedSender<CallMove>>,
    /// Those of that connection, whether they are sent or not.
    waiting: HashMap<u64, Arc<SharedCall>>,
    /// Numbers are never used again, so an answer that comes late finds nobody.
    last: u64,
}

/// What goes to the other.
enum CallMove {
    Request { number: u64, call: Arc<SharedCall>, pieces: Vec<Bytes>, deadline: Instant },
    Cancel(u64),
}

impl Outgoing for CallMove {
    fn begin(&mut self, _: u64) -> Option<(FrameHead, Vec<Bytes>)> {
        match self {
            Self::Request { number, call, pieces, deadline } => {
                let left = deadline.saturating_duration_since(Instant::now()).as_millis();
                if left == 0 {
                    let why = "its deadline passed before it was its turn";
                    call.lose(why);
                    return None;
                }
                if !call.send() {
                    return None;
                }
                let argument = u32::try_from(left).unwrap_or(u32::MAX);
                let head = FrameHead { kind: FrameKind::Request, number: *number, argument };
                Some((head, std::mem::take(pieces)))
            }
            Self::Cancel(number) => Some((FrameHead::new(FrameKind::Cancel, *number), Vec::new())),
        }
    }
}

type Queued = (u64, Arc<SharedCall>, oneshot::Receiver<Result<CallAnswer, CallFailed>>);

impl CallOutbox {
    pub(crate) fn new(
        requests: Arc<Share>,
        answers: Arc<Share>,
        counters: Arc<LaneCounters>,
        timing: &TransportTiming,
    ) -> Arc<Self> {
        let TransportTiming { ping_every, ping_answer, .. } = *timing;
        Arc::new(Self { state: Mutex::default(), requests, answers, counters, ping_every, ping_answer })
    }

    pub(super) fn count_dropped(&self) {
        self.counters.drop_one();
    }

    /// Queues a request.
    ///
    /// # Errors
    /// There is no connection or no room, or it is too late: it was certainly not sent.
    pub(super) fn queue(&self, pieces: Vec<Bytes>, length: usize, deadline: Instant) -> Result<Queued, CallFailed> {
        let not_sent = |why: &str| CallFailed::NotSent(why.to_owned());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = state.queue.clone() else { return Err(not_sent("there is no connection to this peer")) };
        if deadline <= Instant::now() {
            return Err(not_sent("its deadline passed before it was its turn"));
        }
        let room = self
            .requests
            .take(length)
            .ok_or_else(|| CallFailed::NoRoom("too many calls are under way here".to_owned()))?;
        let (call, outcome) = SharedCall::new(room);
        let call = Arc::new(call);
        state.last += 1;
        let number = state.last;
        let request = CallMove::Request { number, call: call.clone(), pieces, deadline };
        queue.send(request).map_err(|_| not_sent("there is no connection to this peer"))?;
        state.waiting.insert(number, call.clone());
        Ok((number, call, outcome))
    }

    /// Nobody waits for this call any more; the other is told if it may have it.
    pub(super) fn forget(&self, number: u64, cancels: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // It is of the connection there is, or the connection's end took it out.
        if state.waiting.remove(&number).is_some()
            && cancels
            && let Some(queue) = &state.queue
        {
            // The connection may end this moment, and its handlers with it.
            let _ = queue.send(CallMove::Cancel(number));
        }
    }

    /// Takes a call out whose outcome is known.
    fn take(&self, number: u64) -> Option<Arc<SharedCall>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&number)
    }
}

/// What is queued for one connection, and what is answered on it.
pub(crate) struct CallQueue {
    outbox: Arc<CallOutbox>,
    moves: UnboundedReceiver<CallMove>,
    /// Why the connection ended, as far as that is known.
    why: String,
}

impl Drop for CallQueue {
    /// The connection ended, and no byte is written to it any more: what is queued is not sent, what is sent is unknown.
    fn drop(&mut self) {
        let lost = {
            let mut state = self.outbox.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.queue = None;
            std::mem::take(&mut state.waiting)
        };
        for call in lost.into_values() {
            call.lose(&self.why);
        }
    }
}

impl Carry for CallOutbox {
    type Queue = CallQueue;

    fn open(self: &Arc<Self>) -> CallQueue {
        let (sender, moves) = mpsc::unbounded_channel();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).queue = Some(sender);
        CallQueue { outbox: self.clone(), moves, why: "the connection was given up".to_owned() }
    }

    async fn carry(mut queue: CallQueue, connection: Connection) -> String {
        let Connection { mut reader, mut writer, pulse, .. } = connection;
        let outbox = queue.outbox.clone();
        let Err(why) = tokio::select! {
            sent = send_all(&mut queue.moves, &mut writer, &pulse, outbox.ping_every) => sent,
            heard = hear_answers(&outbox, &mut reader) => heard.map_err(|fault| fault.to_string()),
            lapsed = pulse.lapse(outbox.ping_answer) => lapsed,
        };
        queue.why = format!("the connection ended: {why}");
        why
    }
}

/// Tells callers what is answered, until the connection ends.
async fn hear_answers(outbox: &CallOutbox, reader: &mut Incoming) -> Result<Infallible, ReadFault> {
    loop {
        let header = reader.next().await?;
        match header.head.kind {
            FrameKind::Pong if header.length == 0 => reader.skip(&header).await?,
            FrameKind::Answer => hear_answer(outbox, reader, &header).await?,
            FrameKind::NotTaken | FrameKind::Failed if header.length <= SENTENCE_MAX_BYTES => {
                let why = sentence::heard(&reader.payload(&header).await?);
                let taken = header.head.kind == FrameKind::Failed;
                let failed = if taken { CallFailed::Unknown(why) } else { CallFailed::NoRoom(why) };
                if let Some(call) = outbox.take(header.head.number) {
                    call.settle(Err(failed));
                }
            }
            _ => return Err(ReadFault::Protocol("a frame that answers nothing")),
        }
    }
}

/// An answer that nobody waits for, or that there is no room for, passes by: the answers behind it are not kept waiting.
async fn hear_answer(outbox: &CallOutbox, reader: &mut Incoming, header: &FrameHeader) -> Result<(), ReadFault> {
    let is_awaited = {
        let state = outbox.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.contains_key(&header.head.number)
    };
    let room = if is_awaited { outbox.answers.take(header.length) } else { None };
    let outcome = if room.is_some() {
        Ok((reader.payload(header).await?, room))
    } else {
        reader.skip(header).await?;
        Err(CallFailed::Unknown("there was no room for its answer: too many wait to be taken".to_owned()))
    };
    // It stays where the connection's end finds it until its answer is whole.
    if let Some(call) = outbox.take(header.head.number) {
        call.settle(outcome);
    }
    Ok(())
}
