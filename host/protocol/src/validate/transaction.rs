//! EndTransaction (§4.10).

use vouch_broker::{ResourceName, TransactionId};

use super::{CallNames, Violation, is_blank, refuse};
use crate::wire::{self, Code, TransactionResolution, TransactionSource};

/// Characters of a strange transaction id that a refusal repeats; real ones have 21.
const SHOWN_MAX_CHARS: usize = 64;

/// A producer's decision, or its answer that it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Topic of the half message.
    pub topic: ResourceName,
    /// Message id of the half message; not blank.
    pub message_id: String,
    /// The transaction.
    pub transaction: TransactionId,
    /// True: commit. False: roll back. None: undecided.
    pub commit: Option<bool>,
    /// Whether the client says that it answers a check. The Go client never does.
    pub from_check: bool,
}

/// Checks an EndTransaction request.
pub fn decision(request: wire::EndTransactionRequest, names: CallNames<'_>) -> Result<Decision, Violation> {
    let topic = names.topic(request.topic)?;
    if is_blank(&request.transaction_id) {
        let text = "the transaction id is blank; send the one from the receipt of the half message";
        return refuse(Code::InvalidTransactionId, text);
    }
    let transaction = shown(&request.transaction_id).parse::<TransactionId>()?;
    if is_blank(&request.message_id) {
        return refuse(Code::IllegalMessageId, "the message id is blank; send the one of the half message");
    }
    let commit = match TransactionResolution::try_from(request.resolution) {
        Ok(TransactionResolution::Commit) => Some(true),
        Ok(TransactionResolution::Rollback) => Some(false),
        Ok(TransactionResolution::Unspecified) => None,
        Err(_) => {
            let text = format!("resolution {} is unknown; use COMMIT or ROLLBACK", request.resolution);
            return refuse(Code::BadRequest, text);
        }
    };
    let from_check = request.source == TransactionSource::SourceServerCheck as i32;
    Ok(Decision { topic, message_id: request.message_id, transaction, commit, from_check })
}

/// The first characters of an id: enough for any real one, and no flood for the one who reads the refusal.
fn shown(id: &str) -> &str {
    id.char_indices().nth(SHOWN_MAX_CHARS).map_or(id, |(end, _)| &id[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "T0000000000000000002A";

    fn request(id: &str, resolution: i32) -> wire::EndTransactionRequest {
        wire::EndTransactionRequest {
            topic: Some(wire::Resource { name: "orders".into(), ..Default::default() }),
            message_id: "01".into(),
            transaction_id: id.into(),
            resolution,
            source: 2,
            ..Default::default()
        }
    }

    #[test]
    fn a_decision_is_read() {
        let of = |resolution| decision(request(ID, resolution), CallNames::default());
        assert_eq!(of(1).unwrap().commit, Some(true));
        assert_eq!(of(2).unwrap().commit, Some(false));
        assert_eq!(of(0).unwrap().commit, None);
        assert_eq!(of(3).map_err(|violation| violation.code), Err(Code::BadRequest));
        assert_eq!(
            of(1).unwrap().transaction,
            TransactionId::of_first_life(vouch_broker::ShardId(0), vouch_broker::HalfPosition(42))
        );
        assert!(of(1).unwrap().from_check);
    }

    #[test]
    fn a_blank_or_strange_transaction_id_has_its_code() {
        for id in ["", "  ", "x", "X0000000000000000002A", &"f".repeat(10_000)] {
            let violation = decision(request(id, 1), CallNames::default()).unwrap_err();
            assert_eq!(violation.code, Code::InvalidTransactionId, "{id:?}");
            assert!(violation.text.len() < 1000);
        }
        let blank_message = wire::EndTransactionRequest { message_id: " ".into(), ..request(ID, 1) };
        assert_eq!(decision(blank_message, CallNames::default()).unwrap_err().code, Code::IllegalMessageId);
    }
}
