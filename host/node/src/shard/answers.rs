//! What callers hear of their proposals.

use vouch_broker::record::Frame;
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::{NotDone, NothingStored, Refusal};
use vouch_commitlog::{AppendError, Shortage};

use super::inbox::Proposal;

/// How many records of a proposal were refused.
pub(super) fn refused(outcomes: &Result<Vec<Outcome>, NotDone>) -> u64 {
    outcomes.as_ref().map_or(1, |outcomes| outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64)
}

/// Tells the caller that its messages are written, not where they are: that is decided when they are durable.
pub(super) fn answer_in_memory(proposal: &mut Proposal) {
    let Some(reply) = proposal.reply.take() else { return };
    let mut outcomes = Vec::with_capacity(1);
    let mut records: &[u8] = &proposal.records;
    while let Ok((_, rest)) = Frame::split(records) {
        outcomes.push(Ok(Applied::Done));
        records = rest;
    }
    // A caller that went away does not change what the log says.
    let _ = reply.send(Ok(outcomes));
}

/// Space is told apart: what frees it is the operator's to decide.
pub(crate) fn short_of(shortage: Shortage, text: String) -> NothingStored {
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

/// The only outcome of a proposal with one record.
pub(crate) fn single(outcomes: Vec<Outcome>) -> Result<Applied, NotDone> {
    let mut outcomes = outcomes.into_iter();
    let outcome = outcomes.next().ok_or_else(|| NotDone::Unknown("a proposal without records".to_owned()))?;
    Ok(outcome?)
}
