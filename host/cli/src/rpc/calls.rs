//! The calls that the commands and the demo make, with the broker's refusals as errors.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use vouch_protocol::wire::{self, receive_message_response::Content};

use super::{MessagingStub, check, filter, message_id, resource, transport, unary};

/// What a receive may take beyond its poll.
const POLL_MARGIN: Duration = Duration::from_secs(3);

/// What becomes of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Resolution {
    /// Make it visible.
    Commit,
    /// Drop it.
    Rollback,
    /// Say nothing: a component or a checker decides.
    LeaveOpen,
}

/// A message with a new id, born now.
pub(crate) fn new_message(topic: &str, body: impl Into<Bytes>, kind: wire::MessageType) -> wire::Message {
    let system = wire::SystemProperties {
        message_id: message_id(),
        body_encoding: wire::Encoding::Identity as i32,
        message_type: kind as i32,
        born_timestamp: Some(SystemTime::now().into()),
        ..wire::SystemProperties::default()
    };
    wire::Message {
        topic: Some(resource(topic)),
        system_properties: Some(system),
        body: body.into(),
        ..wire::Message::default()
    }
}

/// Sends one message and gives back its receipt.
///
/// # Errors
/// The node refuses the request or the message, or does not answer in time: then the message may be stored all the
/// same.
pub(crate) async fn send_message(
    client: &mut MessagingStub,
    message: wire::Message,
) -> anyhow::Result<wire::SendResultEntry> {
    let entries = send_messages(client, vec![message]).await?;
    entries.into_iter().next().context("the broker's answer has no entry for the message")
}

/// Sends messages of one topic in one request, and gives back their receipts in the same order.
///
/// # Errors
/// As [`send_message`], of any of them.
pub(crate) async fn send_messages(
    client: &mut MessagingStub,
    messages: Vec<wire::Message>,
) -> anyhow::Result<Vec<wire::SendResultEntry>> {
    let request = wire::SendMessageRequest { messages };
    let answer = client.send_message(unary(request)).await.map_err(|error| transport(&error))?.into_inner();
    check(answer.status.as_ref())?;
    answer.entries.iter().try_for_each(|entry| check(entry.status.as_ref()))?;
    Ok(answer.entries)
}

/// Ends the transaction of a half message, or leaves it open.
///
/// # Errors
/// The node refuses, for example because the transaction ended in another way; or it does not answer in time.
pub(crate) async fn end_transaction(
    client: &mut MessagingStub,
    topic: &str,
    receipt: &wire::SendResultEntry,
    resolution: Resolution,
) -> anyhow::Result<()> {
    let resolution = match resolution {
        Resolution::Commit => wire::TransactionResolution::Commit,
        Resolution::Rollback => wire::TransactionResolution::Rollback,
        Resolution::LeaveOpen => return Ok(()),
    };
    let request = wire::EndTransactionRequest {
        topic: Some(resource(topic)),
        message_id: receipt.message_id.clone(),
        transaction_id: receipt.transaction_id.clone(),
        resolution: resolution as i32,
        source: wire::TransactionSource::SourceClient as i32,
        trace_context: String::new(),
    };
    let answer = client.end_transaction(unary(request)).await.map_err(|error| transport(&error))?;
    check(answer.into_inner().status.as_ref())
}

/// One ReceiveMessage call.
pub(crate) struct Fetch<'a> {
    /// From which topic.
    pub(crate) topic: &'a str,
    /// For which group.
    pub(crate) group: &'a str,
    /// Tags that are wanted; `*` is all.
    pub(crate) filter: &'a str,
    /// How many at most.
    pub(crate) batch: u32,
    /// How long the node waits for a first one.
    pub(crate) poll: Duration,
    /// How long nobody else gets them.
    pub(crate) invisible: Duration,
}

/// Receives what there is, waiting up to `poll` for a first message.
pub(crate) async fn fetch_messages(
    client: &mut MessagingStub,
    fetch: &Fetch<'_>,
) -> anyhow::Result<Vec<wire::Message>> {
    let queue = wire::MessageQueue { topic: Some(resource(fetch.topic)), id: -1, ..wire::MessageQueue::default() };
    let message = wire::ReceiveMessageRequest {
        group: Some(resource(fetch.group)),
        message_queue: Some(queue),
        filter_expression: Some(filter(fetch.filter)),
        batch_size: i32::try_from(fetch.batch).unwrap_or(i32::MAX),
        invisible_duration: prost_types::Duration::try_from(fetch.invisible).ok(),
        auto_renew: false,
        long_polling_timeout: prost_types::Duration::try_from(fetch.poll).ok(),
        attempt_id: None,
    };
    let mut request = tonic::Request::new(message);
    request.set_timeout(fetch.poll + POLL_MARGIN);
    let mut stream = client.receive_message(request).await.map_err(|error| transport(&error))?.into_inner();
    let mut messages = Vec::new();
    while let Some(element) = stream.message().await.map_err(|error| transport(&error))? {
        match element.content {
            Some(Content::Message(message)) => messages.push(message),
            Some(Content::Status(status)) if status.code != wire::Code::MessageNotFound as i32 => {
                check(Some(&status))?;
            }
            _ => {}
        }
    }
    Ok(messages)
}

/// Acknowledges one message.
///
/// # Errors
/// The lease is over, so that the message comes again; or the node does not answer in time.
pub(crate) async fn acknowledge(
    client: &mut MessagingStub,
    topic: &str,
    group: &str,
    message: &wire::Message,
) -> anyhow::Result<()> {
    let system = message.system_properties.clone().unwrap_or_default();
    let entry = wire::AckMessageEntry {
        message_id: system.message_id,
        receipt_handle: system.receipt_handle.unwrap_or_default(),
        lite_topic: None,
    };
    let request =
        wire::AckMessageRequest { group: Some(resource(group)), topic: Some(resource(topic)), entries: vec![entry] };
    let answer = client.ack_message(unary(request)).await.map_err(|error| transport(&error))?;
    check(answer.into_inner().status.as_ref())
}
