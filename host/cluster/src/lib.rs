//! Who belongs to a cluster, and how that changes while it serves. Pure: data, and what follows from it.
//!
//! A cluster begins with one voter, [`NodeId::FIRST`]. It changes by [`MembersChange`]s, each a record alone in its entry of the
//! log, and each decided by what was agreed before: a change of one node at once, a change of several in two steps between
//! which the majorities of both sets decide (joint consensus, §4.3 of the thesis). So no two majorities that know nothing of each
//! other ever decide.
//!
//! What is left of a cluster, or restored of it, begins anew as one node, in another [`ClusterIncarnation`]: no majority is asked then.

mod change;
mod incarnation;
mod members;
mod next;
mod node_id;
mod nodes;
#[cfg(test)]
mod tests;

pub use change::{ChangeRefused, MEMBERS_MAX, MembersChange};
pub use incarnation::ClusterIncarnation;
pub use members::GroupMembers;
pub use next::next_change;
pub use node_id::NodeId;
pub use nodes::{ADDRESS_MAX, ClusterNode, ClusterNodes, NodeAddresses, NodeInvitation, NodeRefused};
