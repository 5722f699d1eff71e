//! A send as records, and what became of them as receipts.

use vouch_broker::record::{MessagePlace, encode_message};
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::{MessageKind, Millis, NotDone, Refusal, check::CheckOverrides};

use crate::directory::TopicRoute;
use crate::{Receipt, SendRequest};
use vouch_shard::Signals;

/// The records of a send, all for the next queue of its topic.
///
/// # Errors
/// A [`Refusal`] of a message that the topic does not take, or of what a half message says of its checks.
pub(super) fn encode_send(route: &TopicRoute, request: &SendRequest, now: Millis) -> Result<Vec<u8>, NotDone> {
    let config = &route.info.config;
    let place = MessagePlace { topic: route.info.id, queue: route.next_queue(), stored_at: now };
    let room: usize = request.messages.iter().map(|message| message.body.len() + 512).sum();
    let mut records = Vec::with_capacity(room);
    for message in &request.messages {
        if matches!(message.kind, MessageKind::Fifo | MessageKind::Delay) && config.topic_type.takes(message.kind) {
            return Err(NotDone::Refused(Refusal::NotBuilt(match message.kind {
                MessageKind::Fifo => "an ordered message (with a message group)",
                _ => "a delayed message",
            })));
        }
        if !config.topic_type.takes(message.kind) {
            return Err(NotDone::Refused(Refusal::TypeMismatch {
                topic: request.topic.clone(),
                topic_type: config.topic_type.as_str(),
                kind: kind_name(message.kind),
            }));
        }
        let checks = match message.kind {
            MessageKind::Transaction => CheckOverrides::of(message)?,
            _ => CheckOverrides::default(),
        };
        encode_message(&mut records, place, &request.producer, message, checks);
    }
    Ok(records)
}

/// The kind as users write it.
fn kind_name(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Normal => "normal",
        MessageKind::Fifo => "fifo",
        MessageKind::Delay => "delay",
        MessageKind::Transaction => "transaction",
    }
}

/// What the sender hears of one record.
pub(super) fn receipt(outcome: Outcome, signals: &Signals) -> Result<Receipt, NotDone> {
    match outcome? {
        Applied::Stored { queue, offset } => Ok(Receipt::Stored { queue, offset }),
        Applied::Prepared { transaction } => Ok(Receipt::Prepared { transaction: signals.transaction_id(transaction) }),
        Applied::Done => Ok(Receipt::InMemory),
        other => Err(NotDone::Unknown(format!("a send was answered with {other:?}"))),
    }
}
