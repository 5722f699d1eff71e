//! What callers hear of their proposals.

use vouch_broker::record::Frame;
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::{NotDone, NothingStored, Refusal};
use vouch_commitlog::{AppendError, Shortage};

/// How many records of a proposal were refused.
pub(super) fn refused(outcomes: &Result<Vec<Outcome>, NotDone>) -> u64 {
    outcomes.as_ref().map_or(1, |outcomes| outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64)
}

/// What the caller of messages hears when they are written: not where they are, which is decided when they are durable.
pub(super) fn in_memory(mut records: &[u8]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(1);
    while let Ok((_, rest)) = Frame::split(records) {
        outcomes.push(Ok(Applied::Done));
        records = rest;
    }
    outcomes
}

/// Space is told apart: what frees it is the operator's to decide.
pub fn short_of(shortage: Shortage, text: String) -> NothingStored {
    match shortage {
        Shortage::Space => NothingStored::StorageFull(text),
        Shortage::Descriptors | Shortage::Memory => NothingStored::Short(text),
    }
}

pub(super) fn why_not_appended(error: &AppendError) -> NotDone {
    match error {
        AppendError::Short { shortage, .. } => short_of(*shortage, format!("{error}; nothing was stored")).into(),
        AppendError::TooLarge { len, max } => NotDone::Refused(Refusal::Invalid(format!(
            "the request has {len} bytes; the log takes at most {max} at once, send it in parts"
        ))),
        other => NotDone::internal(other.to_string()),
    }
}
