//! How a replica gets what it lacks from the disk of another: the snapshots and segments of a log whose names the others have
//! forgotten, or those of its own that are damaged.
//!
//! One node *offers* what it has of its shard, as it is committed at that moment ([`PullOffer`]). Another one gathers these files
//! beside its own shard ([`PullStage`]), reads all of them as a start would, and lets them take the place of what it had. What it
//! noted of itself goes along: its id, its term, its vote.
//!
//! What is gathered, what stays, and in which order one takes the other's place is decided by [`Gathering`] and [`PlacePicture`],
//! which know of no folder: the simulator runs them on disks of its own ([`PullDisk`]).
//!
//! # To ensure correctness
//!
//! - Whoever pulls runs no replica meanwhile: it votes for nobody, acknowledges nothing, and asks for no votes.
//! - What is offered is committed, and reaches as far as this node has acknowledged anything that may be committed
//!   ([`OfferedBy::replaces`]).
//! - Of its own files the other keeps segments that were committed as a whole and are read to their end like all others: an entry
//!   names the checksum of the one before it, so what reads as one log up to the leader's last entry is that log.
//! - What was gathered takes its place in two renames ([`take_place`]). Whatever a crash leaves, the next start ends it in one way or
//!   the other, and never with a mixture.

mod error;
mod folder_disk;
mod gathering;
mod offer;
mod own;
mod stage;
mod staged;
mod take_place;
#[cfg(test)]
mod tests;
mod unsound;

pub use error::PullError;
pub use gathering::{Gathering, MissingFile, PullDisk};
pub use offer::{OfferedBy, OfferedFile, PullOffer, StoppedLog, open_offered};
pub use stage::PullStage;
pub use take_place::{PlaceDisk, PlacePicture, PlaceStep, discard_gathered, go_on};
pub(crate) use take_place::{finish, is_between, is_under_way};
pub use unsound::{damaged_segments, unsound_segments};
