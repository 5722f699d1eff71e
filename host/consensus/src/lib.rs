//! Raft as a pure state machine over a view of the log: messages and proposals in, commands out.
//!
//! A [`Replica`] decides what becomes of one member of a group: who leads, what is appended and cut off, what is committed. It
//! has no thread, no file, no clock and no randomness of its own: whoever runs it says when time has passed ([`Replica::tick`]),
//! what others sent, how far the log is durable, and draws the random numbers. So a seed repeats a run to the bit.
//!
//! The algorithm is that of the crate `raft`. Its types stay inside: what goes to a disk or a wire is ours ([`GroupMessage`]), and
//! it sees of an entry no more than index and term, so that a message's body is written once, in the log.
//!
//! # To ensure correctness
//!
//! Whoever runs a replica
//! - carries out its commands in their order, each before it tells it anything else ([`Decision`] says what each relies on);
//! - says that entries are durable only when they are ([`Replica::durable`]), and takes that back for what is cut off;
//! - never runs two replicas with the same node id, nor one with less than what it has said ([`Vote`], [`ReplicaBeginning`]).

mod beginning;
mod broken;
#[cfg(any(test, feature = "testing"))]
pub mod bugs;
mod command;
mod message;
mod pending;
mod replica;
mod role;
#[cfg(test)]
mod tests;
mod timeouts;
mod translate;
mod view;
mod vote;

pub use beginning::{GroupPace, ReplicaBeginning};
pub use broken::Broken;
pub use command::{Decision, EndsAt, Received};
pub use message::{Append, AppendAnswer, EntryId, EntryRole, GroupMessage, Rejected, Said};
pub use replica::{FollowerProgress, Replica};
pub use role::{NotLeading, Role, Slot};
pub use timeouts::Draw;
pub use view::Descriptor;
pub use vote::Vote;

pub use vouch_cluster::{ClusterIncarnation, GroupMembers, NodeId};
