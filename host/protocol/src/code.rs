//! One table: how everything that was not done looks to a gRPC client, to an HTTP client and to a script.

use vouch_broker::{NameError, NotDone, NothingStored, Refusal};

use crate::limits::RETRY_AFTER;
use crate::wire::Code;

/// A refusal as the edges show it. The sentence for the person is the refusal's own text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownRefusal {
    /// Code in the `Status` of a gRPC answer.
    pub code: Code,
    /// HTTP status.
    pub http: u16,
    /// Stable name of the error: `type` of the HTTP problem document, key of the errors table of the manual.
    pub urn: &'static str,
    /// Short title, the same for every occurrence.
    pub title: &'static str,
    /// When to try again, in milliseconds; sent as the gRPC trailer `retry-after-ms` and the HTTP header `retry-after`.
    pub retry_after_ms: Option<u64>,
}

/// One row of the table: the same outcome for both edges.
const fn row(code: Code, http: u16, urn: &'static str, title: &'static str) -> ShownRefusal {
    ShownRefusal { code, http, urn, title, retry_after_ms: None }
}

/// The table (ruling 21).
pub fn outcome(not_done: &NotDone) -> ShownRefusal {
    match not_done {
        NotDone::Refused(refusal) => refused(refusal),
        NotDone::NothingStored(why) => nothing_stored(why),
        NotDone::Unknown(_) => {
            row(Code::MasterPersistenceTimeout, 504, "urn:vouch:error:outcome-unknown", "The outcome is unknown")
        }
    }
}

/// The rows of what the state, or the request itself, says no to.
pub fn refused(refusal: &Refusal) -> ShownRefusal {
    match refusal {
        Refusal::Name(error) => name_outcome(error),
        Refusal::TopicNotFound(_) => {
            row(Code::TopicNotFound, 404, "urn:vouch:error:topic-not-found", "Topic not found")
        }
        Refusal::GroupNotFound(_) => {
            row(Code::ConsumerGroupNotFound, 404, "urn:vouch:error:group-not-found", "Consumer group not found")
        }
        Refusal::TypeMismatch { .. } => row(
            Code::MessagePropertyConflictWithType,
            409,
            "urn:vouch:error:type-mismatch",
            "The topic does not take this kind of message",
        ),
        Refusal::NotBuilt(_) => row(Code::NotImplemented, 501, "urn:vouch:error:not-built", "Not available"),
        Refusal::Invalid(_) => row(Code::BadRequest, 422, "urn:vouch:error:invalid", "Invalid request"),
        Refusal::UnknownTransaction { .. } => {
            row(Code::InvalidTransactionId, 404, "urn:vouch:error:unknown-transaction", "Unknown transaction")
        }
        Refusal::OutcomeConflict { .. } => row(
            Code::PreconditionFailed,
            409,
            "urn:vouch:error:outcome-conflict",
            "The transaction ended with the other outcome",
        ),
        Refusal::AlreadyEnded { .. } => {
            row(Code::InvalidTransactionId, 410, "urn:vouch:error:already-ended", "The transaction already ended")
        }
        Refusal::InvalidHandle(_) => {
            row(Code::InvalidReceiptHandle, 410, "urn:vouch:error:invalid-handle", "Invalid receipt handle")
        }
        Refusal::Conflict(_) => row(Code::PreconditionFailed, 409, "urn:vouch:error:conflict", "Conflict"),
        Refusal::NotFound(_) => row(Code::NotFound, 404, "urn:vouch:error:not-found", "Not found"),
        Refusal::PreconditionFailed(_) => {
            row(Code::PreconditionFailed, 412, "urn:vouch:error:precondition-failed", "Precondition failed")
        }
        Refusal::TooMany(_) => too_many(),
        Refusal::Internal(_) => internal(),
    }
}

/// What a client is told where it is certain that nothing was stored: it may send again without a second copy of the
/// message.
fn nothing_stored(why: &NothingStored) -> ShownRefusal {
    match why {
        NothingStored::Overloaded { retry_after_ms, .. } => ShownRefusal {
            retry_after_ms: Some(*retry_after_ms),
            ..row(Code::TooManyRequests, 429, "urn:vouch:error:overloaded", "Overloaded")
        },
        NothingStored::StorageFull(_) => ShownRefusal {
            retry_after_ms: Some(RETRY_AFTER.as_millis() as u64),
            ..row(Code::TooManyRequests, 507, "urn:vouch:error:storage-full", "The disk is full")
        },
        NothingStored::Short(_) => ShownRefusal {
            retry_after_ms: Some(RETRY_AFTER.as_millis() as u64),
            ..row(Code::TooManyRequests, 503, "urn:vouch:error:short", "Something is short for the moment")
        },
        NothingStored::Poisoned(_) => {
            row(Code::HaNotAvailable, 503, "urn:vouch:error:log-poisoned", "The commit log takes no writes")
        }
        NothingStored::ReadOnly(_) => {
            row(Code::HaNotAvailable, 503, "urn:vouch:error:read-only", "The node serves read-only")
        }
        NothingStored::NotLeading { .. } => {
            row(Code::HaNotAvailable, 503, "urn:vouch:error:not-leading", "Another node leads, or none")
        }
        NothingStored::Stopping => row(Code::HaNotAvailable, 503, "urn:vouch:error:stopping", "The node is stopping"),
        NothingStored::TooMany(_) => too_many(),
        NothingStored::Internal(_) => internal(),
    }
}

/// More of something than its bound: trying again later helps.
fn too_many() -> ShownRefusal {
    ShownRefusal {
        retry_after_ms: Some(RETRY_AFTER.as_millis() as u64),
        ..row(Code::TooManyRequests, 429, "urn:vouch:error:too-many", "Too many")
    }
}

/// A defect of the broker. What it was is in the log, not in the answer.
fn internal() -> ShownRefusal {
    row(Code::InternalServerError, 500, "urn:vouch:error:internal", "Internal error")
}

/// A name that breaks a rule of names, by which kind of name it is.
fn name_outcome(error: &NameError) -> ShownRefusal {
    let what = match error {
        NameError::Blank { what }
        | NameError::TooLong { what, .. }
        | NameError::Character { what, .. }
        | NameError::Reserved { what, .. } => *what,
        NameError::DeadLetters { .. } => "topic",
    };
    let code = match what {
        "topic" => Code::IllegalTopic,
        "group" => Code::IllegalConsumerGroup,
        _ => Code::BadRequest,
    };
    row(code, 422, "urn:vouch:error:illegal-name", "Illegal name")
}

/// The nearest code that the Rust client 5.0.0 knows: it panics on numbers added after mid-2023 (§6.4).
pub fn known_to_rust_5_0_0(code: Code) -> Code {
    match code {
        Code::MessageBodyEmpty => Code::MessageCorrupted,
        Code::IllegalOffset | Code::IllegalLiteTopic | Code::InvalidClientProperties => Code::BadRequest,
        Code::OffsetNotFound => Code::NotFound,
        Code::LiteTopicQuotaExceeded | Code::LiteSubscriptionQuotaExceeded => Code::TooManyRequests,
        known => known,
    }
}

#[cfg(test)]
mod tests {
    use vouch_broker::{ResourceName, TransactionOutcome};

    use super::*;

    fn topic() -> ResourceName {
        ResourceName::plain("orders")
    }

    /// One of every variant, with what the edges must show. The order of the list is the order of the enum.
    fn expected() -> Vec<(NotDone, i32, u16)> {
        let id = || "1000000000000000002a".to_owned();
        vec![
            (Refusal::Name(NameError::Blank { what: "topic" }).into(), 40002, 422),
            (Refusal::Name(NameError::TooLong { what: "group", chars: 121, max: 120 }).into(), 40003, 422),
            (Refusal::Name(NameError::Character { what: "namespace", found: '.' }).into(), 40000, 422),
            (Refusal::Name(NameError::Reserved { what: "topic", name: "TBW102".into() }).into(), 40002, 422),
            (Refusal::Name(NameError::DeadLetters { name: "%DLQ%g".into() }).into(), 40002, 422),
            (Refusal::TopicNotFound(topic()).into(), 40402, 404),
            (Refusal::GroupNotFound(topic()).into(), 40403, 404),
            (Refusal::TypeMismatch { topic: topic(), topic_type: "normal", kind: "transaction" }.into(), 40014, 409),
            (Refusal::NotBuilt("recall").into(), 50100, 501),
            (Refusal::Invalid("x".into()).into(), 40000, 422),
            (Refusal::UnknownTransaction { id: id(), why: "x".into() }.into(), 40008, 404),
            (Refusal::OutcomeConflict { id: id(), recorded: TransactionOutcome::Committed }.into(), 42800, 409),
            (Refusal::AlreadyEnded { id: id() }.into(), 40008, 410),
            (Refusal::InvalidHandle("it was used").into(), 40013, 410),
            (Refusal::Conflict("x".into()).into(), 42800, 409),
            (Refusal::NotFound("x".into()).into(), 40400, 404),
            (Refusal::PreconditionFailed("x".into()).into(), 42800, 412),
            (NothingStored::Overloaded { in_flight: 2, bound: 1, retry_after_ms: 30 }.into(), 42900, 429),
            (Refusal::TooMany("x".into()).into(), 42900, 429),
            (NothingStored::StorageFull("x".into()).into(), 42900, 507),
            (NothingStored::Short("x".into()).into(), 42900, 503),
            (NothingStored::TooMany("x".into()).into(), 42900, 429),
            (NothingStored::Internal("x".into()).into(), 50001, 500),
            (NotDone::Unknown("x".into()), 50401, 504),
            (NothingStored::Poisoned("x".into()).into(), 50002, 503),
            (NothingStored::ReadOnly("x".into()).into(), 50002, 503),
            (NothingStored::NotLeading { leader: Some(2) }.into(), 50002, 503),
            (NothingStored::Stopping.into(), 50002, 503),
            (Refusal::Internal("x".into()).into(), 50001, 500),
        ]
    }

    /// Fails to compile when a variant is added; the number keeps `expected` complete.
    fn position(not_done: &NotDone) -> usize {
        match not_done {
            NotDone::Refused(Refusal::Name(_)) => 0,
            NotDone::Refused(Refusal::TopicNotFound(_)) => 1,
            NotDone::Refused(Refusal::GroupNotFound(_)) => 2,
            NotDone::Refused(Refusal::TypeMismatch { .. }) => 3,
            NotDone::Refused(Refusal::NotBuilt(_)) => 4,
            NotDone::Refused(Refusal::Invalid(_)) => 5,
            NotDone::Refused(Refusal::UnknownTransaction { .. }) => 6,
            NotDone::Refused(Refusal::OutcomeConflict { .. }) => 7,
            NotDone::Refused(Refusal::AlreadyEnded { .. }) => 8,
            NotDone::Refused(Refusal::InvalidHandle(_)) => 9,
            NotDone::Refused(Refusal::Conflict(_)) => 10,
            NotDone::Refused(Refusal::NotFound(_)) => 11,
            NotDone::Refused(Refusal::PreconditionFailed(_)) => 12,
            NotDone::NothingStored(NothingStored::Overloaded { .. }) => 13,
            NotDone::Refused(Refusal::TooMany(_)) | NotDone::NothingStored(NothingStored::TooMany(_)) => 14,
            NotDone::Unknown(_) => 15,
            NotDone::NothingStored(NothingStored::Poisoned(_)) => 16,
            NotDone::NothingStored(NothingStored::Stopping) => 17,
            NotDone::Refused(Refusal::Internal(_)) | NotDone::NothingStored(NothingStored::Internal(_)) => 18,
            NotDone::NothingStored(NothingStored::StorageFull(_)) => 19,
            NotDone::NothingStored(NothingStored::ReadOnly(_)) => 20,
            NotDone::NothingStored(NothingStored::Short(_)) => 21,
            NotDone::NothingStored(NothingStored::NotLeading { .. }) => 22,
        }
    }

    #[test]
    fn every_refusal_has_its_code_status_and_name() {
        let mut seen = std::collections::BTreeMap::new();
        for (refusal, code, http) in expected() {
            let shown = outcome(&refusal);
            assert_eq!((shown.code as i32, shown.http), (code, http), "{refusal}");
            assert!(shown.urn.starts_with("urn:vouch:error:") && !shown.title.is_empty(), "{refusal}");
            let throttled = shown.code == Code::TooManyRequests;
            assert_eq!(shown.retry_after_ms.is_some(), throttled, "only throttling says when to come back: {refusal}");
            let position = position(&refusal);
            assert_eq!(*seen.entry(shown.urn).or_insert(position), position, "two errors share {}", shown.urn);
        }
        let positions: Vec<_> = seen.into_values().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        assert_eq!(positions, (0..23).collect::<Vec<_>>(), "a variant is missing from the list above");
    }

    #[test]
    fn a_caller_who_is_throttled_learns_when_to_come_back() {
        let shown = outcome(&NothingStored::Overloaded { in_flight: 9, bound: 8, retry_after_ms: 30 }.into());
        assert_eq!(shown.retry_after_ms, Some(30));
        assert_eq!(outcome(&Refusal::TooMany("x".into()).into()).retry_after_ms, Some(1000));
    }

    #[test]
    fn the_rust_client_never_sees_a_code_that_it_does_not_know() {
        const UNKNOWN: [i32; 7] = [40019, 40020, 40021, 40404, 41302, 42901, 42902];
        for code in (0..=60000).filter_map(|number| Code::try_from(number).ok()) {
            let told = known_to_rust_5_0_0(code);
            assert!(!UNKNOWN.contains(&(told as i32)), "{told:?}");
            assert_eq!(told == code, !UNKNOWN.contains(&(code as i32)), "{code:?} must be left alone");
        }
    }
}
