//! What a node asks of the one that leads, for a client, and what it hears. They are described in `docs/peers.md`.
//!
//! Written as MessagePack with the names of fields: a field of a later release is passed over by an earlier one.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vouch_broker::{Handle, NotDone, Refusal, ResourceName, TransactionId};

use super::context::CallContext;
use super::http::{HttpCall, HttpCallAnswer};
use super::lost::LostReceive;
use crate::peers::answer_bytes;
use crate::secrets::{KeysOnTheWay, KeysTaken, SealedSecret};
use crate::{Delivery, EndReceipt, EndRequest, GroupInfo, Receipt, ReceiveRequest, SendRequest, TopicInfo, Written};

/// A call of a client, with what it brought along.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ForwardedCall<'a> {
    pub(super) context: CallContext,
    pub(super) ask: ForwardedAsk<'a>,
}

/// What a client asks for. Each is one call of a face.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ForwardedAsk<'a> {
    /// Store messages.
    Send(Cow<'a, SendRequest>),
    /// Hand out messages, now or when some come.
    Receive {
        /// Chosen by who asks, to name what it gets.
        ticket: u64,
        request: Cow<'a, ReceiveRequest>,
    },
    /// Give back what a receive got, which never arrived.
    GiveBack(LostReceive),
    /// Mark messages as done.
    Ack(Cow<'a, [Handle]>),
    /// Let a lease end at another time.
    ChangeInvisible { handle: Handle, invisible_ms: u64, suspend: bool },
    /// Put a message aside.
    DeadLetter { handle: Handle, reason: Cow<'a, str> },
    /// End a transaction.
    End(Cow<'a, EndRequest>),
    /// Note that a producer cannot decide.
    Undecided {
        transaction: TransactionId,
        topic: Option<Cow<'a, ResourceName>>,
        message_id: Option<Cow<'a, str>>,
        client_id: Cow<'a, str>,
    },
    /// A topic that this node does not know. `to_send`: it is made where topics are made by themselves.
    Topic { name: Cow<'a, ResourceName>, to_send: bool },
    /// A group that this node does not know.
    Group(Cow<'a, ResourceName>),
    /// Set a secret, which is sealed.
    SetSecret(Cow<'a, SealedSecret>),
    /// Take these keys of secrets, forget those, and tell yours: of this node itself, whether it leads or not.
    SecretKeys(KeysTaken),
    /// A request to the HTTP API, as a whole.
    Http(Cow<'a, HttpCall>),
}

/// What the leader answers, where it did what was asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ForwardedAnswer {
    /// Where the messages went.
    Sent(Vec<Receipt>),
    /// Messages, leased.
    Received(Vec<Delivery>),
    /// One answer a handle, in order.
    Acked(Vec<Result<(), Refusal>>),
    /// The handle to use from now on.
    Changed(Handle),
    /// It is done, and there is nothing to say.
    Done,
    /// How the transaction ended.
    Ended(EndReceipt),
    /// Whether it counted.
    Counted(bool),
    /// The topic.
    Topic(TopicInfo),
    /// The group; `None`: there is none.
    Group(Option<GroupInfo>),
    /// The secret is set.
    SecretSet(Written),
    /// The keys that are there now.
    SecretKeys(KeysOnTheWay),
    /// What the API answered.
    Http(HttpCallAnswer),
}

/// What an answer of this kind holds; `None` for one of another kind.
macro_rules! answer_of {
    ($answer:expr, $kind:ident) => {
        match $answer {
            $crate::forwarding::ForwardedAnswer::$kind(held) => Some(held),
            _ => None,
        }
    };
}
pub(crate) use answer_of;

/// Bytes that are no call, or no answer, that this release knows.
#[derive(Debug, thiserror::Error)]
#[error("what it says is of another version, or no call of a client: {0}")]
pub(super) struct NoForwardedCall(#[from] rmp_serde::decode::Error);

impl ForwardedAsk<'_> {
    /// What the log calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Send(_) => "send",
            Self::Receive { .. } => "receive",
            Self::GiveBack(_) => "give_back",
            Self::Ack(_) => "ack",
            Self::ChangeInvisible { .. } => "change_invisible",
            Self::DeadLetter { .. } => "dead_letter",
            Self::End(_) => "end",
            Self::Undecided { .. } => "undecided",
            Self::Topic { .. } => "topic",
            Self::Group(_) => "group",
            Self::SetSecret(_) => "set_secret",
            Self::SecretKeys(_) => "secret_keys",
            Self::Http(_) => "http",
        }
    }

    /// Whether it changes nothing, so that it may be asked again whatever became of it.
    pub(super) fn only_looks(&self) -> bool {
        match self {
            Self::Group(_) | Self::Topic { to_send: false, .. } => true,
            Self::Http(call) => call.only_looks(),
            _ => false,
        }
    }
}

impl ForwardedCall<'_> {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = Vec::new();
        write(&mut bytes, self);
        bytes.into()
    }
}

impl ForwardedCall<'static> {
    /// # Errors
    /// It is none that this release knows.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NoForwardedCall> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

/// An answer, or why there is none.
pub(super) fn encode_answer(answer: &Result<ForwardedAnswer, NotDone>) -> Bytes {
    answer_bytes(|bytes| write(bytes, answer))
}

/// # Errors
/// It is none that this release knows.
pub(super) fn decode_answer(bytes: &[u8]) -> Result<Result<ForwardedAnswer, NotDone>, NoForwardedCall> {
    Ok(rmp_serde::from_slice(bytes)?)
}

fn write<T: Serialize>(bytes: &mut Vec<u8>, what: &T) {
    rmp_serde::encode::write_named(bytes, what).expect("calls hold nothing that MessagePack cannot");
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
