//! What nodes ask each other, and what they answer, as bytes. They are described in `docs/peers.md`.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use vouch_broker::RecordPosition;
use vouch_broker::record::SealedAt;
use vouch_broker::state::SNAPSHOT_BYTES_SINCE;
use vouch_cluster::{ADDRESS_MAX, MEMBERS_MAX, NodeAddresses, NodeId};

use super::programs::NodeVersion;
use super::told::ToldNodes;

/// The version that this code writes and reads.
const VERSION: u8 = 1;
/// The number of what a client asks for, and of what it hears.
const CLIENT: u8 = 4;
/// The most bytes of a version.
const VERSION_MAX: usize = 64;
/// The most bytes of a sentence.
const SENTENCE_MAX: usize = 1024;

/// What a node asks another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeRequest {
    /// A node that does not lead was asked, and asks the one that does: that one does not ask on.
    pub(super) forwarded: bool,
    pub(super) ask: NodeAsk,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeAsk {
    /// Let this node be one of the cluster.
    Join { node: NodeId, secret: [u8; 32], addresses: NodeAddresses },
    /// Note where this node is now.
    Moved { node: NodeId, addresses: NodeAddresses },
    /// Say who leads, and where all nodes are. It is asked by who reaches no leader, and is here, if it has moved.
    WhoLeads { address: String },
    /// Hear where all nodes are: whoever leads finds that this node does not answer.
    Hear(ToldNodes),
    /// Know which version this node runs. Versions that are older than this word do not ask it, and refuse it.
    Runs { node: NodeId, program: NodeVersion },
    /// Let this node stop serving for a while, since it takes what is damaged of its log from the others. Older versions refuse it.
    MaySpare { node: NodeId },
    /// Do what a client asks for, which came to a node that does not lead.
    Client(Bytes),
    /// Say what this replica had at a position at which another one had something else. Older versions refuse it.
    Had(HadAt),
}

/// What a replica had at a position that the log names, and who wrote the bytes that it goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HadAt {
    /// Version of Vouch.
    pub(super) version: String,
    /// Since which fixture that writes snapshots so.
    pub(super) bytes_since: u32,
    pub(super) sealed: SealedAt,
}

impl HadAt {
    /// This is what this node had.
    pub(super) fn here(sealed: SealedAt) -> Self {
        Self { version: vouch_storage::VERSION.to_owned(), bytes_since: SNAPSHOT_BYTES_SINCE, sealed }
    }

    /// Whether what the other one had can be held against what is here: the same state may be other bytes in another version.
    pub(super) fn is_comparable(&self) -> bool {
        *self == Self::here(self.sealed)
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeAnswer {
    /// It is done, or what was asked for: where all nodes are.
    Done(ToldNodes),
    /// It is refused, and would be again: a sentence for the operator.
    Refused(String),
    /// Certainly nothing was stored; ask again later.
    NothingStored(String),
    /// It may be stored.
    Unknown(String),
    /// What came of what a client asked for.
    Client(Bytes),
    /// What this replica had at the position; nothing where it made no snapshot there, or has forgotten.
    Had(Option<SealedAt>),
}

/// Bytes that are no request, or no answer, of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what it says is of another version, or no message between nodes")]
pub(super) struct NoNodeMessage;

impl From<TryGetError> for NoNodeMessage {
    fn from(_: TryGetError) -> Self {
        Self
    }
}

impl NodeRequest {
    /// What stands before the call of a client, which is not copied for that.
    pub(super) fn before_a_client() -> Bytes {
        Bytes::from_static(&[VERSION, CLIENT, 0])
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(VERSION);
        let kind = match &self.ask {
            NodeAsk::Join { .. } => 0,
            NodeAsk::Moved { .. } => 1,
            NodeAsk::WhoLeads { .. } => 2,
            NodeAsk::Hear(_) => 3,
            NodeAsk::Client(_) => CLIENT,
            NodeAsk::Runs { .. } => 5,
            NodeAsk::MaySpare { .. } => 6,
            NodeAsk::Had(_) => 7,
        };
        out.put_u8(kind);
        out.put_u8(self.forwarded.into());
        match &self.ask {
            NodeAsk::Join { node, secret, addresses } => {
                out.put_u64_le(node.0);
                out.put_slice(secret);
                put_addresses(&mut out, addresses);
            }
            NodeAsk::Moved { node, addresses } => {
                out.put_u64_le(node.0);
                put_addresses(&mut out, addresses);
            }
            NodeAsk::WhoLeads { address } => put_text(&mut out, address, ADDRESS_MAX),
            NodeAsk::Hear(told) => put_told(&mut out, told),
            NodeAsk::Client(call) => out.put_slice(call),
            NodeAsk::Runs { node, program } => {
                out.put_u64_le(node.0);
                out.put_u32_le(program.feature_level);
                put_text(&mut out, &program.version, VERSION_MAX);
            }
            NodeAsk::MaySpare { node } => out.put_u64_le(node.0),
            NodeAsk::Had(HadAt { version, bytes_since, sealed }) => {
                put_text(&mut out, version, VERSION_MAX);
                out.put_u32_le(*bytes_since);
                put_sealed(&mut out, sealed);
            }
        }
        out.freeze()
    }

    /// # Errors
    /// It is none of this version.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, NoNodeMessage> {
        let bytes = &mut bytes;
        version(bytes)?;
        let kind = bytes.try_get_u8()?;
        let forwarded = flag(bytes)?;
        let ask = match kind {
            0 => {
                let node = NodeId(bytes.try_get_u64_le()?);
                let mut secret = [0; 32];
                bytes.try_copy_to_slice(&mut secret)?;
                NodeAsk::Join { node, secret, addresses: addresses(bytes)? }
            }
            1 => NodeAsk::Moved { node: NodeId(bytes.try_get_u64_le()?), addresses: addresses(bytes)? },
            2 => NodeAsk::WhoLeads { address: text(bytes, ADDRESS_MAX)? },
            3 => NodeAsk::Hear(told(bytes)?),
            CLIENT => NodeAsk::Client(std::mem::take(bytes)),
            5 => {
                let (node, feature_level) = (NodeId(bytes.try_get_u64_le()?), bytes.try_get_u32_le()?);
                NodeAsk::Runs { node, program: NodeVersion { version: text(bytes, VERSION_MAX)?, feature_level } }
            }
            6 => NodeAsk::MaySpare { node: NodeId(bytes.try_get_u64_le()?) },
            7 => {
                let (version, bytes_since) = (text(bytes, VERSION_MAX)?, bytes.try_get_u32_le()?);
                NodeAsk::Had(HadAt { version, bytes_since, sealed: sealed(bytes)? })
            }
            _ => return Err(NoNodeMessage),
        };
        end(bytes)?;
        Ok(Self { forwarded, ask })
    }
}

impl NodeAnswer {
    /// What stands before the answer to a client.
    pub(super) const BEFORE_A_CLIENT: [u8; 2] = [VERSION, CLIENT];

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(VERSION);
        match self {
            Self::Done(told) => {
                out.put_u8(0);
                put_told(&mut out, told);
            }
            Self::Refused(why) => put_sentence(&mut out, 1, why),
            Self::NothingStored(why) => put_sentence(&mut out, 2, why),
            Self::Unknown(why) => put_sentence(&mut out, 3, why),
            Self::Client(answer) => {
                out.put_u8(CLIENT);
                out.put_slice(answer);
            }
            Self::Had(sealed) => {
                out.put_u8(5);
                out.put_u8(sealed.is_some().into());
                sealed.iter().for_each(|sealed| put_sealed(&mut out, sealed));
            }
        }
        out.freeze()
    }

    /// # Errors
    /// It is none of this version.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, NoNodeMessage> {
        let bytes = &mut bytes;
        version(bytes)?;
        let answer = match bytes.try_get_u8()? {
            0 => Self::Done(told(bytes)?),
            1 => Self::Refused(text(bytes, SENTENCE_MAX)?),
            2 => Self::NothingStored(text(bytes, SENTENCE_MAX)?),
            3 => Self::Unknown(text(bytes, SENTENCE_MAX)?),
            CLIENT => Self::Client(std::mem::take(bytes)),
            5 => Self::Had(if flag(bytes)? { Some(sealed(bytes)?) } else { None }),
            _ => return Err(NoNodeMessage),
        };
        end(bytes)?;
        Ok(answer)
    }
}

fn put_text(out: &mut BytesMut, text: &str, max: usize) {
    let text = &text[..text.floor_char_boundary(max)];
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn put_sentence(out: &mut BytesMut, kind: u8, why: &str) {
    out.put_u8(kind);
    put_text(out, why, SENTENCE_MAX);
}

fn put_addresses(out: &mut BytesMut, addresses: &NodeAddresses) {
    put_text(out, &addresses.peer, ADDRESS_MAX);
    put_text(out, &addresses.grpc, ADDRESS_MAX);
}

fn put_told(out: &mut BytesMut, told: &ToldNodes) {
    out.put_u64_le(told.as_of);
    out.put_u64_le(told.leader.map_or(0, |leader| leader.0));
    out.put_u16_le(told.nodes.len() as u16);
    for (node, address) in &told.nodes {
        out.put_u64_le(node.0);
        put_text(out, address, ADDRESS_MAX);
    }
}

/// Without a part its checksum is zero, so that each has one encoding.
fn put_sealed(out: &mut BytesMut, sealed: &SealedAt) {
    out.put_u64_le(sealed.position.0);
    out.put_u64_le(sealed.since);
    out.put_u8(sealed.part.is_some().into());
    out.put_u32_le(sealed.part.unwrap_or(0));
    out.put_u64_le(sealed.state);
}

fn version(bytes: &mut Bytes) -> Result<(), NoNodeMessage> {
    if bytes.try_get_u8()? == VERSION { Ok(()) } else { Err(NoNodeMessage) }
}

fn end(bytes: &Bytes) -> Result<(), NoNodeMessage> {
    if bytes.is_empty() { Ok(()) } else { Err(NoNodeMessage) }
}

fn text(bytes: &mut Bytes, max: usize) -> Result<String, NoNodeMessage> {
    let length = usize::from(bytes.try_get_u16_le()?);
    if length > max || length > bytes.len() {
        return Err(NoNodeMessage);
    }
    String::from_utf8(bytes.split_to(length).into()).map_err(|_| NoNodeMessage)
}

fn flag(bytes: &mut Bytes) -> Result<bool, NoNodeMessage> {
    match bytes.try_get_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(NoNodeMessage),
    }
}

fn sealed(bytes: &mut Bytes) -> Result<SealedAt, NoNodeMessage> {
    let (position, since) = (RecordPosition(bytes.try_get_u64_le()?), bytes.try_get_u64_le()?);
    let (has_part, part) = (flag(bytes)?, bytes.try_get_u32_le()?);
    if !has_part && part != 0 {
        return Err(NoNodeMessage);
    }
    Ok(SealedAt { position, since, part: has_part.then_some(part), state: bytes.try_get_u64_le()? })
}

fn addresses(bytes: &mut Bytes) -> Result<NodeAddresses, NoNodeMessage> {
    Ok(NodeAddresses { peer: text(bytes, ADDRESS_MAX)?, grpc: text(bytes, ADDRESS_MAX)? })
}

fn told(bytes: &mut Bytes) -> Result<ToldNodes, NoNodeMessage> {
    let as_of = bytes.try_get_u64_le()?;
    let leader = Some(NodeId(bytes.try_get_u64_le()?)).filter(|leader| leader.0 != 0);
    let count = usize::from(bytes.try_get_u16_le()?);
    let mut nodes = BTreeMap::new();
    for _ in 0..count {
        let node = NodeId(bytes.try_get_u64_le()?);
        // They ascend, so that each set has one encoding.
        if nodes.len() == MEMBERS_MAX || nodes.last_key_value().is_some_and(|(last, _)| *last >= node) {
            return Err(NoNodeMessage);
        }
        nodes.insert(node, text(bytes, ADDRESS_MAX)?);
    }
    Ok(ToldNodes { as_of, leader, nodes })
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
