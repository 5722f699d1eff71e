//! One replica of one shard at work: a pure core that decides ([`core`]), the thread around it, and the handle by which
//! tasks talk to it.
//!
//! Nobody gets at the core but by the four verbs of [`Shard`]: `propose` records, `receive` messages, `read` the state, and
//! `lead`, which also reaches what only a leader keeps.

#[cfg(any(test, feature = "testing"))]
pub mod bugs;
pub mod clock;
pub mod core;
mod executor;
#[cfg(any(test, feature = "testing"))]
pub mod faults;
mod group;
mod handle;
mod inbox;
mod leadership;
mod links;
mod log;
mod noting;
mod peers;
mod reply;
mod signals;
mod takers;
mod waiting;

pub use self::core::{CoreSettings, GroupStanding, HeldLog, LeaderEntry, Request, Standing, role_of, short_of};
pub use executor::OnBegun;
pub use group::{LogNames, Member, alone, member};
pub use handle::Shard;
pub use inbox::Inbox;
pub use leadership::{Begun, Lead};
pub use links::ShardLinks;
pub use log::{Output, OutputLog};
pub use peers::{NoPeers, Peers};
pub use reply::Reply;
pub use signals::{MetDamage, Signals, WhoBelongs};
pub use takers::Takers;
pub use waiting::HeldBatch;
