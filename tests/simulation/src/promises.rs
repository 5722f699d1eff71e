//! What a node may say only when its disk has it: each message and each answer is held against that as it goes out.

use bytes::Bytes;
use vouch_broker::RecordPosition;
use vouch_commitlog::{EntrySpan, LogPosition};
use vouch_consensus::{GroupMessage, Said};
use vouch_leader::ReceiveAnswer;
use vouch_storage::ReplicaNote;

use crate::ledger::Ledger;
use crate::machine::identity;

/// What a message says that its sender may forget.
pub(crate) fn broken_by(
    message: &GroupMessage,
    note: &ReplicaNote,
    ledger: &Ledger,
    durable: LogPosition,
) -> Option<String> {
    let GroupMessage { from, to, term, body } = message;
    let its_own = !matches!(body, Said::AskVote { pre: true, .. } | Said::Vote { pre: true, .. });
    if its_own && *term > note.term {
        return Some(format!("node {from} speaks in term {term}, and has saved {}", note.term));
    }
    let vote = match body {
        Said::AskVote { pre: false, .. } => Some(*from),
        Said::Vote { pre: false, granted: true, .. } => Some(*to),
        _ => None,
    };
    if vote.is_some() && *term == note.term && note.vote != vote {
        return Some(format!("node {from} votes for {vote:?} in term {term}, and has saved {:?}", note.vote));
    }
    match body {
        Said::Appended(appended) if appended.rejected.is_none() => {
            let is_there = ledger.entry(appended.index).is_some_and(|entry| entry.end <= durable);
            (!is_there && appended.index > 0).then(|| {
                format!("node {from} says that it has entry {}, and is durable up to {durable}", appended.index)
            })
        }
        _ => None,
    }
}

/// What is sent as an entry, and is none that lies here.
pub(crate) fn entry_that_is_not_there(bytes: &Bytes, ledger: &Ledger) -> Option<String> {
    match EntrySpan::decode(bytes.clone(), &identity()) {
        Ok(span) if ledger.entry(span.index()) == Some(&span.checkpoint()) => None,
        Ok(span) => Some(format!("{}, and has {:?}", span.checkpoint(), ledger.entry(span.index()))),
        Err(error) => Some(format!("bytes that are no entry: {error}")),
    }
}

/// I3: what of messages that are handed out is not committed.
pub(crate) fn delivered_early(answer: &ReceiveAnswer, committed: LogPosition) -> Option<String> {
    let Ok(Some(batch)) = answer else { return None };
    let early = batch.messages.iter().find(|message| message.position >= RecordPosition(committed.0))?;
    Some(format!("I3: {early:?} is handed out, and all is committed up to {committed}"))
}
