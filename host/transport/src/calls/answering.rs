//! The acceptor's side of calls.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::serve::ServeAny;
use crate::connection::{Connection, Incoming, ToPeer};
use crate::frame::{FRAME_MAX_BYTES, FrameHead, FrameHeader, FrameKind};
use crate::identity::PeerIdentity;
use crate::reading::ReadFault;
use crate::share::{Share, ShareTaken};

/// Refusals that wait to be written, beyond one answer for each call that is let in. Whoever asks for more reads none of them,
/// and is not read either.
const REFUSALS_MAX: usize = 64;

/// What answers the calls of one peer.
#[derive(Clone)]
pub(crate) struct CallsServed {
    pub(crate) handler: Arc<dyn ServeAny>,
    /// Of requests, from the moment they are read until their answers are written.
    pub(crate) room: Arc<Share>,
    /// The most calls at once in that.
    pub(crate) calls: usize,
}

/// What is written back.
struct Reply {
    head: FrameHead,
    payload: Bytes,
    _room: Option<ShareTaken>,
}

type RunningCalls = Arc<Mutex<HashMap<u64, AbortHandle>>>;

/// Answers calls until the connection ends, and says why it did. Whatever runs then is dropped.
pub(crate) async fn answer(connection: Connection, served: CallsServed) -> String {
    let Connection { peer, mut reader, mut writer, .. } = connection;
    let (replies, mut waiting) = mpsc::channel(served.calls.saturating_add(REFUSALS_MAX).min(1 << 20));
    let pong = Notify::new();
    let mut calls = TakenCalls { peer, served, replies, running: RunningCalls::default(), tasks: JoinSet::new() };
    let Err(why) = tokio::select! {
        wrote = write_replies(&mut waiting, &pong, &mut writer) => wrote,
        read = calls.take_all(&mut reader, &pong) => read.map_err(|fault| fault.to_string()),
    };
    why
}

/// Writes what is answered, in the order in which it is done.
async fn write_replies(
    replies: &mut mpsc::Receiver<Reply>,
    pong: &Notify,
    writer: &mut ToPeer,
) -> Result<Infallible, String> {
    loop {
        let written = tokio::select! {
            biased;
            () = pong.notified() => writer.frame_at_once(FrameHead::new(FrameKind::Pong, 0), &[]).await,
            reply = replies.recv() => {
                let Some(Reply { head, payload, _room }) = reply else { return Err("nobody answers".to_owned()) };
                match writer.frame(head, &[payload]).await {
                    Ok(()) if replies.is_empty() => writer.flush().await,
                    written => written,
                }
            }
        };
        written.map_err(|fault| fault.to_string())?;
    }
}

/// The calls of one connection that are taken.
struct TakenCalls {
    peer: PeerIdentity,
    served: CallsServed,
    replies: mpsc::Sender<Reply>,
    running: RunningCalls,
    tasks: JoinSet<()>,
}

impl TakenCalls {
    async fn take_all(&mut self, reader: &mut Incoming, pong: &Notify) -> Result<Infallible, ReadFault> {
        loop {
            let header = reader.next().await?;
            while self.tasks.try_join_next().is_some() {}
            match header.head.kind {
                FrameKind::Ping if header.length == 0 => {
                    reader.skip(&header).await?;
                    pong.notify_one();
                }
                FrameKind::Request => self.take(reader, &header).await?,
                FrameKind::Cancel if header.length == 0 => {
                    reader.skip(&header).await?;
                    let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(call) = running.get(&header.head.number) {
                        call.abort();
                    }
                }
                _ => return Err(ReadFault::Protocol("a frame of another lane")),
            }
        }
    }

    /// Lets a request in, or says that there is no room for it.
    async fn take(&mut self, reader: &mut Incoming, header: &FrameHeader) -> Result<(), ReadFault> {
        let number = header.head.number;
        // Its time runs from here, also while its bytes come.
        let deadline = Instant::now() + Duration::from_millis(header.head.argument.into());
        let Some(room) = self.served.room.take(header.length) else {
            reader.skip(header).await?;
            return self.refuse(number, "too many calls of this peer, or of all, are under way there").await;
        };
        let request = reader.payload(header).await?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(&number) {
            return Err(ReadFault::Protocol("two requests with one number"));
        }
        let (peer, handler) = (self.peer, self.served.handler.clone());
        let unanswered = Unanswered {
            number,
            running: self.running.clone(),
            replies: self.replies.clone(),
            reason: "the handler ended without an answer",
        };
        let call = self.tasks.spawn(async move {
            let mut unanswered = unanswered;
            match timeout_at(deadline, handler.serve_any(peer, request, deadline)).await {
                Ok(answer) => unanswered.answer(answer, room).await,
                Err(_) => unanswered.reason = "its deadline passed at the other end",
            }
        });
        // The lock is held since before it could end, so it cannot have taken itself out before it is in.
        running.insert(number, call);
        Ok(())
    }

    /// Says that a request reached no handler: its caller may send it elsewhere.
    async fn refuse(&self, number: u64, why: &'static str) -> Result<(), ReadFault> {
        let reply = Reply {
            head: FrameHead::new(FrameKind::NotTaken, number),
            payload: Bytes::from_static(why.as_bytes()),
            _room: None,
        };
        // The writer is there as long as the reader is.
        let _ = self.replies.send(reply).await;
        Ok(())
    }
}

/// A call that runs. Whatever ends it, its caller hears of it if it still waits.
struct Unanswered {
    number: u64,
    running: RunningCalls,
    replies: mpsc::Sender<Reply>,
    /// Empty when it is answered.
    reason: &'static str,
}

impl Unanswered {
    async fn answer(&mut self, payload: Bytes, room: ShareTaken) {
        if payload.len() > FRAME_MAX_BYTES {
            self.reason = "the answer is longer than a frame";
            return;
        }
        let head = FrameHead::new(FrameKind::Answer, self.number);
        if self.replies.send(Reply { head, payload, _room: Some(room) }).await.is_ok() {
            self.reason = "";
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        if !self.reason.is_empty() {
            let head = FrameHead::new(FrameKind::Failed, self.number);
            let payload = Bytes::from_static(self.reason.as_bytes());
            // Where so many replies wait that there is no place, the caller's deadline tells it.
            let _ = self.replies.try_send(Reply { head, payload, _room: None });
        }
    }
}
