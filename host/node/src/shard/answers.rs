//! What callers hear of their proposals.

use vouch_broker::Refusal;
use vouch_broker::record::Frame;
use vouch_broker::state::{Applied, Outcome};
use vouch_commitlog::{AppendError, Shortage};

use super::inbox::Proposal;

/// How many records of a proposal were refused.
pub(super) fn refused(outcomes: &Result<Vec<Outcome>, Refusal>) -> u64 {
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
pub(crate) fn refusal_of_shortage(shortage: Shortage, text: String) -> Refusal {
    match shortage {
        Shortage::Space => Refusal::StorageFull(text),
        Shortage::Descriptors | Shortage::Memory => Refusal::Short(text),
    }
}

pub(super) fn refusal_of_append(error: &AppendError) -> Refusal {
    match error {
        AppendError::Short { shortage, .. } => refusal_of_shortage(*shortage, format!("{error}; nothing was stored")),
        AppendError::TooLarge { len, max } => Refusal::Invalid(format!(
            "the request has {len} bytes; the log takes at most {max} at once, send it in parts"
        )),
        other => Refusal::Internal(other.to_string()),
    }
}

/// The only outcome of a proposal with one record.
pub(crate) fn single(outcomes: Vec<Outcome>) -> Result<Applied, Refusal> {
    let mut outcomes = outcomes.into_iter();
    outcomes.next().unwrap_or_else(|| Err(Refusal::Internal("a proposal without records".to_owned())))
}
