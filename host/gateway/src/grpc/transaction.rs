//! EndTransaction (§4.10).

use vouch_broker::record::EndedBy;
use vouch_broker::{Refusal, TransactionOutcome};
use vouch_node::EndRequest;
use vouch_protocol::validate;
use vouch_protocol::wire::{EndTransactionRequest, EndTransactionResponse};

use super::Messaging;
use super::answer::{RefusedCall, ok};
use super::caller::CallMetadata;
use super::span::CallSubject;

impl Messaging {
    /// Ends a transaction, or takes note that its producer cannot decide.
    ///
    /// # Errors
    /// There is no such transaction, it is of another topic or message, or it ended in the other way. That it ended in
    /// the same way is OK: clients repeat what they got no answer to.
    pub(super) async fn end_transaction(
        &self,
        caller: CallMetadata<'_>,
        request: EndTransactionRequest,
    ) -> Result<EndTransactionResponse, RefusedCall> {
        let client_id = caller.client_id()?;
        self.heard(client_id);
        let decision = validate::decision(request, caller.names())?;
        CallSubject {
            topic: Some(&decision.topic),
            message_ids: &[&decision.message_id],
            transactions: &[decision.transaction],
            ..CallSubject::default()
        }
        .record();
        let node = &self.shared.node;
        if decision.transaction.shard != node.identity.shard {
            let why = "it belongs to another node".to_owned();
            return Err(Refusal::UnknownTransaction { id: decision.transaction.to_string(), why }.into());
        }
        let transaction = decision.transaction;
        let Some(commit) = decision.commit else {
            node.transactions
                .undecided(transaction, Some(&decision.topic), Some(&decision.message_id), client_id)
                .await?;
            return Ok(EndTransactionResponse { status: Some(ok()) });
        };
        let by = EndedBy::Client { client_id: client_id.to_owned(), from_check: decision.from_check };
        node.transactions
            .end(EndRequest {
                topic: Some(decision.topic),
                message_id: Some(decision.message_id),
                transaction,
                outcome: if commit { TransactionOutcome::Committed } else { TransactionOutcome::RolledBack },
                by,
                reason: String::new(),
            })
            .await?;
        Ok(EndTransactionResponse { status: Some(ok()) })
    }
}
