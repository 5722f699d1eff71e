//! How many calls came, by method and by the code of their answer: the numbers behind a rate of errors.
//!
//! Codes are counted as they are meant, also where an old client is told another one.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::Empty;
use tracing::{Span, info_span};
use vouch_protocol::wire::Code;

macro_rules! methods {
    ($($method:ident),+ $(,)?) => {
        /// A call of the service.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Method { $($method),+ }

        impl Method {
            const ALL: &'static [Self] = &[$(Self::$method),+];

            /// As the interface writes it.
            fn name(self) -> &'static str {
                match self { $(Self::$method => stringify!($method)),+ }
            }

            /// The span of such a call, which has its name. Its fields are filled in where they are known. It stands for
            /// itself: the transport may have spans of its own around it.
            pub(super) fn span(self) -> Span {
                match self {
                    $(Self::$method => info_span!(
                        parent: None,
                        stringify!($method),
                        client_id = Empty,
                        request_id = Empty,
                        traceparent = Empty,
                        topic = Empty,
                        group = Empty,
                        message_id = Empty,
                        queue = Empty,
                        transaction = Empty,
                    )),+
                }
            }
        }
    };
}

methods! {
    QueryRoute, QueryAssignment, Heartbeat, NotifyClientTermination, SendMessage, EndTransaction, ReceiveMessage,
    AckMessage, ChangeInvisibleDuration, ForwardMessageToDeadLetterQueue, Telemetry, RecallMessage,
    SyncLiteSubscription, PullMessage, UpdateOffset, GetOffset, QueryOffset,
}

impl Method {
    /// Calls that come once for each message or few: what is done for each of them is counted in nanoseconds.
    pub(super) fn is_frequent(self) -> bool {
        matches!(self, Self::SendMessage | Self::AckMessage)
    }
}

/// Every code that an answer can have, ascending.
const CODES: [Code; 54] = [
    Code::Unspecified,
    Code::Ok,
    Code::MultipleResults,
    Code::BadRequest,
    Code::IllegalAccessPoint,
    Code::IllegalTopic,
    Code::IllegalConsumerGroup,
    Code::IllegalMessageTag,
    Code::IllegalMessageKey,
    Code::IllegalMessageGroup,
    Code::IllegalMessagePropertyKey,
    Code::InvalidTransactionId,
    Code::IllegalMessageId,
    Code::IllegalFilterExpression,
    Code::IllegalInvisibleTime,
    Code::IllegalDeliveryTime,
    Code::InvalidReceiptHandle,
    Code::MessagePropertyConflictWithType,
    Code::UnrecognizedClientType,
    Code::MessageCorrupted,
    Code::ClientIdRequired,
    Code::IllegalPollingTime,
    Code::IllegalOffset,
    Code::IllegalLiteTopic,
    Code::InvalidClientProperties,
    Code::Unauthorized,
    Code::PaymentRequired,
    Code::Forbidden,
    Code::NotFound,
    Code::MessageNotFound,
    Code::TopicNotFound,
    Code::ConsumerGroupNotFound,
    Code::OffsetNotFound,
    Code::RequestTimeout,
    Code::PayloadTooLarge,
    Code::MessageBodyTooLarge,
    Code::MessageBodyEmpty,
    Code::PreconditionFailed,
    Code::TooManyRequests,
    Code::LiteTopicQuotaExceeded,
    Code::LiteSubscriptionQuotaExceeded,
    Code::RequestHeaderFieldsTooLarge,
    Code::MessagePropertiesTooLarge,
    Code::InternalError,
    Code::InternalServerError,
    Code::HaNotAvailable,
    Code::NotImplemented,
    Code::ProxyTimeout,
    Code::MasterPersistenceTimeout,
    Code::SlavePersistenceTimeout,
    Code::Unsupported,
    Code::VersionUnsupported,
    Code::VerifyFifoMessageUnsupported,
    Code::FailedToConsumeMessage,
];

/// Answered calls. One atomic addition each.
pub(crate) struct Calls(Vec<[AtomicU64; CODES.len()]>);

impl Default for Calls {
    fn default() -> Self {
        Self(Method::ALL.iter().map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect())
    }
}

impl Calls {
    /// Counts a call that is answered.
    pub(super) fn count(&self, method: Method, code: Code) {
        let at = CODES.binary_search_by_key(&(code as i32), |code| *code as i32).unwrap_or_default();
        self.0[method as usize][at].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted until now, above 0: method, code, calls.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        Method::ALL.iter().zip(&self.0).flat_map(|(method, counts)| {
            let counts = CODES.iter().zip(counts).map(|(code, count)| (code, count.load(Ordering::Relaxed)));
            counts.filter(|(_, count)| *count > 0).map(|(code, count)| (method.name(), code.as_str_name(), count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_interface_has_its_place() {
        let all: Vec<Code> = (0..100_000).filter_map(|number| Code::try_from(number).ok()).collect();
        assert_eq!(CODES.to_vec(), all, "ascending, and complete");
    }

    #[test]
    fn calls_are_told_apart_by_method_and_code() {
        let calls = Calls::default();
        calls.count(Method::SendMessage, Code::Ok);
        calls.count(Method::SendMessage, Code::Ok);
        calls.count(Method::AckMessage, Code::InvalidReceiptHandle);
        let counts: Vec<_> = calls.counts().collect();
        assert_eq!(counts, [("SendMessage", "OK", 2), ("AckMessage", "INVALID_RECEIPT_HANDLE", 1)]);
    }
}
