//! Ordered, bounded frames between two nodes that know each other. Knows no Raft.
//!
//! A [`Transport`] dials the nodes of its [`PeerTable`] and listens for them. Each connection begins with a hello in which both
//! ends say who they are ([`PeerIdentity`]); whoever is not who is meant is refused with a sentence for the operator. What it is
//! for is its [`Lane`]: datagrams of a group ([`GroupLink`]), calls ([`Caller`], [`Serve`]), or the pull of a file
//! ([`FilePull`], [`ServeFiles`]). Each has connections of its own, so that nothing big stands before something urgent.
//!
//! The bytes are described in `docs/frames.md`.
//!
//! # What may be relied on
//!
//! - Nothing is delivered that was damaged on the way, or that an earlier life of a node sent after the first word of a later one.
//! - Datagrams of a link arrive in their order, none twice; some may be missing, at the ends of connections.
//! - A call that is [`CallFailed::NotSent`] was seen by no handler.
//! - Everything that waits is bounded ([`TransportBounds`]), and so is every wait ([`TransportTiming`]).

mod admission;
mod answer;
mod calls;
mod certificates;
mod connection;
mod counters;
mod dial;
mod files;
mod frame;
mod group;
mod hello;
mod identity;
mod link;
mod listener;
mod name;
mod peers;
mod pulse;
mod reading;
mod sending;
mod sentence;
mod settings;
mod share;
mod stream;
mod tls;
mod transport;
mod writing;

pub use admission::PeerAdmission;
pub use calls::{CallFailed, Caller, Serve};
pub use certificates::{CertificateAuthority, CertificatesError, NodeCertificate};
pub use counters::{DialedBy, LaneCounts, TrafficCounts};
pub use dial::REFUSES;
pub use files::{CHUNK_MAX_BYTES, FilePull, PullFailed, ServeFiles};
pub use frame::FRAME_MAX_BYTES;
pub use group::{GroupHandler, GroupLink, GroupNotSent};
pub use hello::{CREDENTIAL_MAX_BYTES, PeerHello, TRANSPORT_VERSION};
pub use identity::{ANY_NODE, ClusterBytes, Lane, PeerIdentity};
pub use link::LinkState;
pub use listener::{PeerHandlers, PeerListener};
pub use name::CertificateName;
pub use peers::PeerTable;
pub use sentence::SENTENCE_MAX_BYTES;
pub use settings::{TransportBounds, TransportTiming};
pub use tls::{PeerSecurity, RereadSecurity, SecurityError};
pub use transport::{Transport, TransportConfig};
