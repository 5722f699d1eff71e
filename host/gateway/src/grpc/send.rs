//! SendMessage (§4.4).

use vouch_broker::{MessageKind, Millis};
use vouch_node::{Receipt, SendRequest};
use vouch_protocol::validate::{self, Arrival};
use vouch_protocol::wire::{SendMessageRequest, SendMessageResponse, SendResultEntry, Status};

use super::Messaging;
use super::answer::{RefusedCall, ok};
use super::caller::CallMetadata;
use super::span::{CallSubject, one_queue, told};

impl Messaging {
    /// Stores all messages of the request or none, and answers when they are durable.
    ///
    /// # Errors
    /// Nothing of it is stored: a message is wrong, the topic does not exist or does not take its kind, or there is no
    /// room. Or nobody knows whether it is stored, where the log broke meanwhile; the code tells the two apart.
    pub(super) async fn send(
        &self,
        caller: CallMetadata<'_>,
        request: SendMessageRequest,
    ) -> Result<SendMessageResponse, RefusedCall> {
        let client_id = caller.client_id()?;
        let known = self.heard(client_id);
        // What is recorded goes by the log's time, not by a wall clock that may be set.
        let arrival = Arrival { at: Millis(self.shared.node.status.now_ms()), peer: &self.peer };
        let validate::ValidSend { topic, messages } = validate::send(request, caller.names(), arrival)?;
        if !known && messages.iter().any(|message| message.kind == MessageKind::Transaction) {
            self.introduce_producer(client_id);
        }
        let ids: Vec<_> = messages.iter().map(|message| message.message_id.clone()).collect();
        let named = || ids.iter().map(String::as_str).collect::<Vec<_>>();
        if told() {
            CallSubject { topic: Some(&topic), message_ids: &named(), ..CallSubject::default() }.record();
        }
        let request = SendRequest { topic: topic.clone(), producer: client_id.to_owned(), messages };
        let receipts = self.shared.node.messages.send(request).await.inspect_err(|not_done| {
            CallSubject { topic: Some(&topic), message_ids: &named(), ..CallSubject::default() }
                .record_defect(caller, not_done);
        })?;
        if told() {
            Self::record_receipts(&receipts);
        }
        let entries = ids.into_iter().zip(receipts).map(|(id, receipt)| self.entry(id, receipt)).collect();
        Ok(SendMessageResponse { status: Some(ok()), entries })
    }

    /// Where the messages went, into the span of the call: their one queue, or their transactions.
    fn record_receipts(receipts: &[Receipt]) {
        let (mut queues, mut transactions) = (Vec::new(), Vec::new());
        for receipt in receipts {
            match receipt {
                Receipt::Stored { queue, .. } => queues.push(*queue),
                Receipt::Prepared { transaction } => transactions.push(*transaction),
                Receipt::InMemory => {}
            }
        }
        CallSubject { queue: one_queue(queues.into_iter()), transactions: &transactions, ..CallSubject::default() }
            .record();
    }

    /// The receipt of one message.
    fn entry(&self, message_id: String, receipt: Receipt) -> SendResultEntry {
        let entry = SendResultEntry { status: Some(ok()), message_id, ..Default::default() };
        match receipt {
            Receipt::Stored { offset, .. } => {
                SendResultEntry { offset: i64::try_from(offset.0).unwrap_or(i64::MAX), ..entry }
            }
            Receipt::Prepared { transaction } => SendResultEntry { transaction_id: transaction.to_string(), ..entry },
            // Said, because it is less than others get (ruling 16); where the message will be is not known yet.
            Receipt::InMemory => {
                let message = "accepted in memory, not on disk yet: the topic's ack level is memory".to_owned();
                SendResultEntry { status: Some(Status { message, ..ok() }), ..entry }
            }
        }
    }
}
