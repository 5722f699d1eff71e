//! What members of a group say to each other, as bytes. They are described in `docs/peers.md`.

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use vouch_commitlog::{EntrySpan, LogIdentity, SpanError};
use vouch_consensus::{Append, AppendAnswer, EntryId, GroupMessage, NodeId, Rejected, Said};
use vouch_shard::role_of;

/// The version that this code writes and reads.
const VERSION: u8 = 1;
/// Bytes of what every frame begins with.
const HEAD: usize = 28;

const APPEND: u8 = 0;
const APPENDED: u8 = 1;
const ASK_VOTE: u8 = 2;
const VOTE: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ANSWER: u8 = 5;
const TAKE_OVER: u8 = 6;
const BEHIND: u8 = 7;

/// Of *appended*: it refuses, and a hint follows.
const REJECTED: u16 = 1;
/// Of *ask vote* and *vote*.
const PRE: u16 = 1;
/// Of *ask vote*.
const TRANSFER: u16 = 2;
/// Of *vote*.
const GRANTED: u16 = 2;

/// Why bytes are no frame of a group. They are dropped: whoever sent them sends what matters again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupFrameFault {
    /// Another version wrote it.
    #[error("it is of version {0}, and this node reads version {VERSION}")]
    Version(u8),
    /// No message has this kind, or these flags.
    #[error("kind {kind} with flags {flags:#06x} is no message")]
    Kind {
        /// As it says.
        kind: u8,
        /// As it says.
        flags: u16,
    },
    /// It ends too early.
    #[error("it ends too early")]
    Short,
    /// Bytes follow behind its end.
    #[error("{0} bytes follow behind its end")]
    Long(usize),
    /// An entry is not whole, or of another log.
    #[error("an entry in it is unsound: {0}")]
    Entry(#[from] SpanError),
    /// Its entries are not those behind the one that it names.
    #[error("entry {found} stands where entry {expected} should")]
    Order {
        /// What should stand there.
        expected: u64,
        /// What does.
        found: u64,
    },
}

impl From<TryGetError> for GroupFrameFault {
    fn from(_: TryGetError) -> Self {
        Self::Short
    }
}

/// A message with what its entries hold, in pieces: payloads are not copied. Names and roles of the entries are those that the
/// spans say.
pub(super) fn encode(message: &GroupMessage, spans: &[EntrySpan]) -> Vec<Bytes> {
    let (kind, flags) = kind_and_flags(&message.body);
    let mut head = BytesMut::with_capacity(HEAD + 32 + 4 * spans.len());
    head.put_u8(VERSION);
    head.put_u8(kind);
    head.put_u16_le(flags);
    head.put_u64_le(message.from.0);
    head.put_u64_le(message.to.0);
    head.put_u64_le(message.term);
    let mut pieces = Vec::with_capacity(1 + 2 * spans.len());
    match &message.body {
        Said::Append(append) => {
            put_name(&mut head, append.previous);
            head.put_u64_le(append.commit);
            head.put_u32_le(spans.len() as u32);
            spans.iter().for_each(|span| head.put_u32_le(span.encoded_len() as u32));
        }
        Said::Appended(answer) => {
            head.put_u64_le(answer.index);
            head.put_u64_le(answer.commit);
            answer.rejected.iter().for_each(|rejected| put_name(&mut head, rejected.hint));
        }
        Said::AskVote { last, commit, .. } => {
            put_name(&mut head, *last);
            put_name(&mut head, *commit);
        }
        Said::Vote { commit, .. } => put_name(&mut head, *commit),
        Said::Heartbeat { commit } | Said::HeartbeatAnswer { commit } => head.put_u64_le(*commit),
        Said::TakeOver => {}
        Said::Behind { covered } => put_name(&mut head, *covered),
    }
    pieces.push(head.freeze());
    pieces.extend(spans.iter().flat_map(EntrySpan::parts).filter(|part| !part.is_empty()));
    pieces
}

fn kind_and_flags(said: &Said) -> (u8, u16) {
    let flag = |is: bool, flag: u16| if is { flag } else { 0 };
    match said {
        Said::Append(_) => (APPEND, 0),
        Said::Appended(answer) => (APPENDED, flag(answer.rejected.is_some(), REJECTED)),
        Said::AskVote { pre, transfer, .. } => (ASK_VOTE, flag(*pre, PRE) | flag(*transfer, TRANSFER)),
        Said::Vote { pre, granted, .. } => (VOTE, flag(*pre, PRE) | flag(*granted, GRANTED)),
        Said::Heartbeat { .. } => (HEARTBEAT, 0),
        Said::HeartbeatAnswer { .. } => (HEARTBEAT_ANSWER, 0),
        Said::TakeOver => (TAKE_OVER, 0),
        Said::Behind { .. } => (BEHIND, 0),
    }
}

fn put_name(out: &mut BytesMut, EntryId { index, term }: EntryId) {
    out.put_u64_le(index);
    out.put_u64_le(term);
}

fn name(bytes: &mut Bytes) -> Result<EntryId, TryGetError> {
    Ok(EntryId { index: bytes.try_get_u64_le()?, term: bytes.try_get_u64_le()? })
}

/// Reads what [`encode`] gave, for the log of this identity. Payloads stay where they are; whatever the bytes are, no more is
/// taken up for them than their own length.
///
/// # Errors
/// See [`GroupFrameFault`].
pub(super) fn decode(
    mut bytes: Bytes,
    identity: &LogIdentity,
) -> Result<(GroupMessage, Vec<EntrySpan>), GroupFrameFault> {
    let version = bytes.try_get_u8()?;
    if version != VERSION {
        return Err(GroupFrameFault::Version(version));
    }
    let (kind, flags) = (bytes.try_get_u8()?, bytes.try_get_u16_le()?);
    let (from, to) = (NodeId(bytes.try_get_u64_le()?), NodeId(bytes.try_get_u64_le()?));
    let term = bytes.try_get_u64_le()?;
    let has = |flag: u16| flags & flag != 0;
    let mut spans = Vec::new();
    let body = match (kind, flags) {
        (APPEND, 0) => {
            let (previous, commit) = (name(&mut bytes)?, bytes.try_get_u64_le()?);
            spans = decode_spans(&mut bytes, previous, identity)?;
            let entries = spans.iter().map(|span| {
                let id = EntryId { index: span.index(), term: span.term() };
                (id, role_of(span.kind()))
            });
            Said::Append(Append { previous, commit, entries: entries.collect() })
        }
        (APPENDED, 0 | REJECTED) => {
            let (index, commit) = (bytes.try_get_u64_le()?, bytes.try_get_u64_le()?);
            let rejected = if has(REJECTED) { Some(Rejected { hint: name(&mut bytes)? }) } else { None };
            Said::Appended(AppendAnswer { index, commit, rejected })
        }
        (ASK_VOTE, 0..=3) => {
            let (last, commit) = (name(&mut bytes)?, name(&mut bytes)?);
            Said::AskVote { pre: has(PRE), last, commit, transfer: has(TRANSFER) }
        }
        (VOTE, 0..=3) => Said::Vote { pre: has(PRE), granted: has(GRANTED), commit: name(&mut bytes)? },
        (HEARTBEAT, 0) => Said::Heartbeat { commit: bytes.try_get_u64_le()? },
        (HEARTBEAT_ANSWER, 0) => Said::HeartbeatAnswer { commit: bytes.try_get_u64_le()? },
        (TAKE_OVER, 0) => Said::TakeOver,
        (BEHIND, 0) => Said::Behind { covered: name(&mut bytes)? },
        _ => return Err(GroupFrameFault::Kind { kind, flags }),
    };
    if bytes.has_remaining() {
        return Err(GroupFrameFault::Long(bytes.remaining()));
    }
    Ok((GroupMessage { from, to, term, body }, spans))
}

/// The spans at the end of *append*, whose lengths stand in front of all of them.
fn decode_spans(
    bytes: &mut Bytes,
    previous: EntryId,
    identity: &LogIdentity,
) -> Result<Vec<EntrySpan>, GroupFrameFault> {
    let count = bytes.try_get_u32_le()? as usize;
    let table = count.checked_mul(4).filter(|table| *table <= bytes.len()).ok_or(GroupFrameFault::Short)?;
    let mut lengths = bytes.split_to(table);
    let mut spans: Vec<EntrySpan> = Vec::new();
    let mut expected = previous.index;
    while let Ok(length) = lengths.try_get_u32_le() {
        let length = length as usize;
        if length > bytes.len() {
            return Err(GroupFrameFault::Short);
        }
        let span = EntrySpan::decode(bytes.split_to(length), identity)?;
        expected = expected.wrapping_add(1);
        if span.index() != expected {
            return Err(GroupFrameFault::Order { expected, found: span.index() });
        }
        spans.push(span);
    }
    Ok(spans)
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
