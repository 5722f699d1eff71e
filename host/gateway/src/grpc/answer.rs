//! What was not done, on its way to a client.
//!
//! There is one table of codes (`protocol::code`), for gRPC and HTTP alike. A sentence is for the person who reads the
//! client's log: it says what to do next, and nothing of what only our own log should hold.

use std::borrow::Cow;

use vouch_broker::{NotDone, NothingStored, Refusal};
use vouch_protocol::code;
use vouch_protocol::validate::Violation;
use vouch_protocol::wire::{self, Code};

use super::caller::{CallMetadata, Voice};
use super::trailer::RetryAfter;

/// Why a call is answered with something else than OK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedCall {
    /// The code of the answer.
    pub(super) code: Code,
    /// The sentence that goes with it.
    pub(super) text: Cow<'static, str>,
    /// When it is worth another try, in milliseconds: the trailer of what was throttled.
    pub(super) retry_after_ms: Option<u64>,
}

impl From<Violation> for RefusedCall {
    fn from(violation: Violation) -> Self {
        Self { code: violation.code, text: violation.text, retry_after_ms: None }
    }
}

impl From<NotDone> for RefusedCall {
    fn from(not_done: NotDone) -> Self {
        if not_done.is_internal() {
            tracing::error!(error = %not_done, "a call failed by a defect");
        }
        let shown = code::outcome(&not_done);
        Self { code: shown.code, text: not_done.to_string().into(), retry_after_ms: shown.retry_after_ms }
    }
}

impl From<Refusal> for RefusedCall {
    fn from(refusal: Refusal) -> Self {
        NotDone::from(refusal).into()
    }
}

impl From<NothingStored> for RefusedCall {
    fn from(why: NothingStored) -> Self {
        NotDone::from(why).into()
    }
}

impl RefusedCall {
    /// With the name of its code before the sentence. Clients that repeat a call until its handle is refused know that by
    /// this text where they pass on no code.
    pub(super) fn named(self) -> Self {
        Self { text: format!("{}: {}", self.code.as_str_name(), self.text).into(), ..self }
    }

    /// As this client is spoken to.
    pub(super) fn status(self, voice: Voice) -> wire::Status {
        voice.status(self.code, self.text)
    }
}

/// The status of success.
pub(super) fn ok() -> wire::Status {
    wire::Status { code: Code::Ok as i32, message: "OK".to_owned() }
}

/// The one status of many: the common code, or `MULTIPLE_RESULTS` where they differ.
pub(super) fn summary<'a>(mut entries: impl Iterator<Item = &'a wire::Status>) -> wire::Status {
    let Some(first) = entries.next() else { return ok() };
    if entries.all(|status| status.code == first.code) {
        return first.clone();
    }
    let text = "the entries differ; look at the status of each";
    wire::Status { code: Code::MultipleResults as i32, message: text.to_owned() }
}

/// An answer: what was found, or `refused` made from the status. Throttling adds the trailer `retry-after-ms`.
pub(super) fn answer<T>(
    caller: CallMetadata<'_>,
    result: Result<T, RefusedCall>,
    refused: impl FnOnce(wire::Status) -> T,
) -> tonic::Response<T> {
    match result {
        Ok(message) => tonic::Response::new(message),
        Err(why) => {
            let retry_after = why.retry_after_ms.map(RetryAfter::ms);
            let mut response = tonic::Response::new(refused(why.status(caller.voice())));
            if let Some(retry_after) = retry_after {
                response.extensions_mut().insert(retry_after);
            }
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code) -> wire::Status {
        wire::Status { code: code as i32, message: format!("{code:?}") }
    }

    #[test]
    fn a_summary_is_the_common_code_or_says_that_entries_differ() {
        let of = |codes: &[Code]| {
            let entries: Vec<_> = codes.iter().map(|code| status(*code)).collect();
            summary(entries.iter()).code()
        };
        assert_eq!(of(&[]), Code::Ok);
        assert_eq!(of(&[Code::Ok, Code::Ok]), Code::Ok);
        assert_eq!(of(&[Code::InvalidReceiptHandle; 2]), Code::InvalidReceiptHandle);
        assert_eq!(of(&[Code::Ok, Code::InvalidReceiptHandle]), Code::MultipleResults);
    }
}
