//! Between our messages and those of the crate `raft`.

use raft::eraftpb::{EntryType, Message as RaftMessage, MessageType};

use crate::view::bare_entry;
use crate::{Append, Appended, Body, EntryId, EntryKind, Message, NodeId, Rejected};

/// What a candidate writes into its question when the leader told it to ask.
const TRANSFER: &[u8] = b"CampaignTransfer";

fn id(index: u64, term: u64) -> EntryId {
    EntryId { index, term }
}

/// A message of the crate, in our words; `None` for one that this version never sends.
pub(crate) fn from_raft(message: &RaftMessage) -> Option<Message> {
    let previous = id(message.index, message.log_term);
    let commit = id(message.commit, message.commit_term);
    let body = match message.get_msg_type() {
        MessageType::MsgAppend => {
            let named = |entry: &raft::eraftpb::Entry| {
                let kind = match entry.get_entry_type() {
                    EntryType::EntryNormal => EntryKind::Ordinary,
                    EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Members,
                };
                (id(entry.index, entry.term), kind)
            };
            let entries = message.entries.iter().map(named).collect();
            Body::Append(Append { previous, commit: message.commit, entries })
        }
        MessageType::MsgAppendResponse => {
            let rejected = message.reject.then(|| Rejected { hint: id(message.reject_hint, message.log_term) });
            Body::Appended(Appended { index: message.index, commit: message.commit, rejected })
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => Body::AskVote {
            pre: message.get_msg_type() == MessageType::MsgRequestPreVote,
            last: previous,
            commit,
            transfer: &message.context[..] == TRANSFER,
        },
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => Body::Vote {
            pre: message.get_msg_type() == MessageType::MsgRequestPreVoteResponse,
            granted: !message.reject,
            commit,
        },
        MessageType::MsgHeartbeat => Body::Heartbeat { commit: message.commit },
        MessageType::MsgHeartbeatResponse => Body::HeartbeatAnswer { commit: message.commit },
        MessageType::MsgTimeoutNow => Body::TakeOver,
        _ => return None,
    };
    Some(Message { from: NodeId(message.from), to: NodeId(message.to), term: message.term, body })
}

fn type_of(body: &Body) -> MessageType {
    match body {
        Body::Append(_) => MessageType::MsgAppend,
        Body::Appended(_) => MessageType::MsgAppendResponse,
        Body::AskVote { pre: true, .. } => MessageType::MsgRequestPreVote,
        Body::AskVote { pre: false, .. } => MessageType::MsgRequestVote,
        Body::Vote { pre: true, .. } => MessageType::MsgRequestPreVoteResponse,
        Body::Vote { pre: false, .. } => MessageType::MsgRequestVoteResponse,
        Body::Heartbeat { .. } => MessageType::MsgHeartbeat,
        Body::HeartbeatAnswer { .. } => MessageType::MsgHeartbeatResponse,
        Body::TakeOver => MessageType::MsgTimeoutNow,
    }
}

/// Our message, in those of the crate.
pub(crate) fn to_raft(message: &Message) -> RaftMessage {
    let mut raft = RaftMessage::default();
    raft.set_msg_type(type_of(&message.body));
    (raft.from, raft.to, raft.term) = (message.from.0, message.to.0, message.term);
    match &message.body {
        Body::Append(append) => {
            (raft.index, raft.log_term, raft.commit) = (append.previous.index, append.previous.term, append.commit);
            let entries: Vec<_> = append.entries.iter().map(|(id, kind)| bare_entry(*id, *kind)).collect();
            raft.set_entries(entries.into());
        }
        Body::Appended(appended) => {
            (raft.index, raft.commit) = (appended.index, appended.commit);
            if let Some(Rejected { hint }) = appended.rejected {
                (raft.reject, raft.reject_hint, raft.log_term) = (true, hint.index, hint.term);
            }
        }
        Body::AskVote { last, commit, transfer, .. } => {
            (raft.index, raft.log_term) = (last.index, last.term);
            (raft.commit, raft.commit_term) = (commit.index, commit.term);
            if *transfer {
                raft.context = TRANSFER.to_vec().into();
            }
        }
        Body::Vote { granted, commit, .. } => {
            (raft.reject, raft.commit, raft.commit_term) = (!granted, commit.index, commit.term);
        }
        Body::Heartbeat { commit } | Body::HeartbeatAnswer { commit } => raft.commit = *commit,
        Body::TakeOver => {}
    }
    raft
}
