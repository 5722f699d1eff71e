//! Between our messages and those of the crate `raft`.

use raft::eraftpb::{EntryType, Message as RaftMessage, MessageType};

use crate::view::bare_entry;
use crate::{Append, AppendAnswer, EntryId, EntryRole, GroupMessage, NodeId, Rejected, Said};

/// What a candidate writes into its question when the leader told it to ask.
const TRANSFER: &[u8] = b"CampaignTransfer";

fn id(index: u64, term: u64) -> EntryId {
    EntryId { index, term }
}

/// A message of the crate, in our words; `None` for one that this version never sends.
pub(crate) fn from_raft(message: &RaftMessage) -> Option<GroupMessage> {
    let previous = id(message.index, message.log_term);
    let commit = id(message.commit, message.commit_term);
    let body = match message.get_msg_type() {
        MessageType::MsgAppend => {
            let named = |entry: &raft::eraftpb::Entry| {
                let kind = match entry.get_entry_type() {
                    EntryType::EntryNormal => EntryRole::Ordinary,
                    EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryRole::Members,
                };
                (id(entry.index, entry.term), kind)
            };
            let entries = message.entries.iter().map(named).collect();
            Said::Append(Append { previous, commit: message.commit, entries })
        }
        MessageType::MsgAppendResponse => {
            let rejected = message.reject.then(|| Rejected { hint: id(message.reject_hint, message.log_term) });
            Said::Appended(AppendAnswer { index: message.index, commit: message.commit, rejected })
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => Said::AskVote {
            pre: message.get_msg_type() == MessageType::MsgRequestPreVote,
            last: previous,
            commit,
            transfer: &message.context[..] == TRANSFER,
        },
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => Said::Vote {
            pre: message.get_msg_type() == MessageType::MsgRequestPreVoteResponse,
            granted: !message.reject,
            commit,
        },
        MessageType::MsgHeartbeat => Said::Heartbeat { commit: message.commit },
        MessageType::MsgHeartbeatResponse => Said::HeartbeatAnswer { commit: message.commit },
        MessageType::MsgTimeoutNow => Said::TakeOver,
        MessageType::MsgSnapshot => {
            let covered = message.get_snapshot().get_metadata();
            Said::Behind { covered: id(covered.index, covered.term) }
        }
        _ => return None,
    };
    Some(GroupMessage { from: NodeId(message.from), to: NodeId(message.to), term: message.term, body })
}

fn type_of(body: &Said) -> MessageType {
    match body {
        Said::Append(_) => MessageType::MsgAppend,
        Said::Appended(_) => MessageType::MsgAppendResponse,
        Said::AskVote { pre: true, .. } => MessageType::MsgRequestPreVote,
        Said::AskVote { pre: false, .. } => MessageType::MsgRequestVote,
        Said::Vote { pre: true, .. } => MessageType::MsgRequestPreVoteResponse,
        Said::Vote { pre: false, .. } => MessageType::MsgRequestVoteResponse,
        Said::Heartbeat { .. } => MessageType::MsgHeartbeat,
        Said::HeartbeatAnswer { .. } => MessageType::MsgHeartbeatResponse,
        Said::TakeOver => MessageType::MsgTimeoutNow,
        Said::Behind { .. } => MessageType::MsgSnapshot,
    }
}

/// Our message, in those of the crate.
pub(crate) fn to_raft(message: &GroupMessage) -> RaftMessage {
    let mut raft = RaftMessage::default();
    raft.set_msg_type(type_of(&message.body));
    (raft.from, raft.to, raft.term) = (message.from.0, message.to.0, message.term);
    match &message.body {
        Said::Append(append) => {
            (raft.index, raft.log_term, raft.commit) = (append.previous.index, append.previous.term, append.commit);
            let entries: Vec<_> = append.entries.iter().map(|(id, kind)| bare_entry(*id, *kind)).collect();
            raft.set_entries(entries.into());
        }
        Said::Appended(appended) => {
            (raft.index, raft.commit) = (appended.index, appended.commit);
            if let Some(Rejected { hint }) = appended.rejected {
                (raft.reject, raft.reject_hint, raft.log_term) = (true, hint.index, hint.term);
            }
        }
        Said::AskVote { last, commit, transfer, .. } => {
            (raft.index, raft.log_term) = (last.index, last.term);
            (raft.commit, raft.commit_term) = (commit.index, commit.term);
            if *transfer {
                raft.context = TRANSFER.to_vec().into();
            }
        }
        Said::Vote { granted, commit, .. } => {
            (raft.reject, raft.commit, raft.commit_term) = (!granted, commit.index, commit.term);
        }
        Said::Heartbeat { commit } | Said::HeartbeatAnswer { commit } => raft.commit = *commit,
        Said::TakeOver => {}
        Said::Behind { covered } => {
            let metadata = raft.mut_snapshot().mut_metadata();
            (metadata.index, metadata.term) = (covered.index, covered.term);
        }
    }
    raft
}
