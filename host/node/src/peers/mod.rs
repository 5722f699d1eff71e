//! The other nodes of a cluster, as this one speaks with them.
//!
//! - [`speaking`] begins it all, and ends it.
//! - [`nodes`] takes the messages of the group to the others, as [`frames`], and takes theirs to the shard.
//! - [`admission`] says who of them may connect, [`answering`] what they may ask ([`calls`]).
//! - [`keeper`] follows the log: who there is, and where; [`told`] is what others told of that meanwhile.
//! - [`programs`] is which versions they run, as they said.
//! - [`removal`] is what a node does that is none of the cluster's any more.
//! - [`clients`] do what clients of other nodes ask for.
//! - [`address_book`] remembers where they were.
//! - [`sparing`] is whether the group can do without a member for a while.
//! - [`joining`] is how a node comes, with a [`token`].
//! - [`gathered`] is what an earlier try to take something left.
//! - [`lacking`] is what a node does not have, [`offering`] lets others take what they lack from this node's disk, and [`pulling`] is how this one takes it from theirs, by way of [`sources`].

mod address_book;
mod admission;
mod answering;
mod calls;
mod clients;
mod frames;
mod gathered;
mod joining;
mod keeper;
mod lacking;
mod nodes;
mod offering;
mod programs;
mod pulling;
mod removal;
mod runtime;
mod settings;
mod sources;
mod sparing;
mod speaking;
mod token;
mod told;

pub(crate) use clients::{ClientAnswer, ClientAnswering, ServeClients, answer_bytes};
pub use lacking::Lacking;
pub(crate) use lacking::lacks_what_is_damaged;
pub(crate) use nodes::PeerNodes;
pub use programs::NodeVersion;
pub(crate) use pulling::{Pulled, pull};
pub use settings::{JoinSettings, PeerSettings};
pub(crate) use speaking::{Speaking, WhoSpeaks};
pub use token::{ClusterToken, TokenFault};
