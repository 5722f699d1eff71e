//! The records of the log: the one documented encoding of everything that ever happens (ruling 20).
//!
//! A record is framed ([`frame`]) and lies inside an entry of the commit log; several records of one entry happen
//! together. Unknown kinds are never skipped: a broker that cannot read a record must not guess what it meant.

mod cluster;
pub(crate) mod codec;
mod delivery;
mod filters;
mod frame;
mod groups;
mod members;
mod message;
mod plugin;
mod retention;
mod secrets;
mod settings;
mod settled;
#[cfg(test)]
pub(crate) mod tests;
mod topics;
mod transaction;

pub use cluster::*;
pub use codec::DecodeError;
pub use delivery::*;
pub use filters::*;
pub use frame::{FRAME_LEN, Frame};
pub use groups::*;
pub use members::*;
pub(crate) use members::{read_addresses, read_nodes, read_token, write_addresses, write_nodes};
pub use message::{Identity, MessageHead, MessagePlace, decode_stored, encode_message, stored_at};
pub use plugin::*;
pub use retention::*;
pub use secrets::*;
pub use settled::*;
pub use topics::*;
pub use transaction::*;

use codec::{Reader, Writer};

/// The newest feature level that this version knows (ruling 20): the greatest that a kind, a layout or a meaning of this version belongs
/// to. A log has one: that of the version which made it, until an operator raises it ([`LevelRaised`]). Nothing is written that
/// belongs to a later level ([`written_from`]), so a version that knows no more than the log's level reads all of it. What each adds
/// stands where operators read it, in `docs/cluster.md`.
pub const FEATURE_LEVEL: u32 = newest(KIND_LEVELS);

/// The newest level that gives a meaning to what was there already, such as a setting in JSON. Whoever proposes that asks for the
/// log's level; no kind and no layout can say it.
const NEWEST_MEANING: u32 = 1;

const fn newest(levels: &[u32]) -> u32 {
    let (mut newest, mut at) = (NEWEST_MEANING, 0);
    while at < levels.len() {
        if levels[at] > newest {
            newest = levels[at];
        }
        at += 1;
    }
    newest
}

/// The feature level of a cluster from which on this version of a layout is written. `level`: that of the first one; `later`: versions
/// that need a later level, each with it, ascending.
pub(crate) const fn level_of(level: u32, later: &[(u8, u32)], version: u8) -> u32 {
    let (mut needs, mut at) = (level, 0);
    while at < later.len() && later[at].0 <= version {
        needs = later[at].1;
        at += 1;
    }
    needs
}

/// A record with fields of its own: everything but messages.
pub(crate) trait Fields: Sized {
    /// Number of the kind in the log; never reused.
    const KIND: u16;
    /// Newest version of the layout; all since the first are read.
    const VERSION: u8 = 1;
    /// The feature level of a cluster from which on it is written.
    const LEVEL: u32 = 1;
    /// Versions of the layout that are written from a later level on than the kind itself, each with that level, ascending.
    const VERSION_LEVELS: &'static [(u8, u32)] = &[];
    /// Whether a value has one encoding. Settings are JSON, which may be written in several ways.
    const ONE_ENCODING: bool = true;

    /// Version of the layout in which this one is written: the oldest that has room for all that it says. So it has one
    /// encoding, and a node that knows no newer version reads whatever says nothing new.
    fn version(&self) -> u8 {
        Self::VERSION
    }

    fn write(&self, w: &mut Writer<'_>);

    /// Reads the first version of the layout.
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads any version of the layout, up to [`Self::VERSION`].
    fn read_version(r: &mut Reader<'_>, version: u8) -> Result<Self, DecodeError> {
        debug_assert_eq!(version, 1, "who has a newer version says here how it is read");
        Self::read(r)
    }
}

/// Calls a macro with every kind that has fields of its own: `[]`, then for each its sentence, its name, and a comma. So
/// whatever every kind has (its place in [`Record`], what it changes, its sample) is asked of it where that is kept.
///
/// The families are a chain: the macro of each calls the next one with its own kinds behind those that it was called with.
/// So a new kind is listed at the top of its family's file, and nowhere else.
macro_rules! each_kind {
    ($then:path) => {
        $crate::record::cluster_kinds! { [
            $crate::record::members_kinds,
            $crate::record::topics_kinds,
            $crate::record::groups_kinds,
            $crate::record::retention_kinds,
            $crate::record::transaction_kinds,
            $crate::record::delivery_kinds,
            $crate::record::filters_kinds,
            $crate::record::plugin_kinds,
            $crate::record::secrets_kinds,
            $crate::record::settled_kinds,
            $then
        ] }
    };
}
pub(crate) use each_kind;

macro_rules! records {
    ([] $($(#[$doc:meta])* $name:ident,)+) => {
        /// One decoded record.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Record {
            /// A message for a queue (its head; the rest stays in the log).
            Message(MessageHead),
            /// A half message (its head).
            Half(MessageHead),
            $($(#[$doc])* $name($name),)+
        }

        impl Record {
            /// Decodes a framed record. Does not verify the frame's checksum: the entry's covers it during replay.
            pub fn decode(frame: &Frame<'_>) -> Result<Self, DecodeError> {
                match (frame.kind(), frame.version()) {
                    (message::KIND_MESSAGE, message::VERSION) => MessageHead::decode(frame.fields()).map(Self::Message),
                    (message::KIND_HALF, message::VERSION) => MessageHead::decode(frame.fields()).map(Self::Half),
                    $(($name::KIND, version @ 1..=$name::VERSION) => {
                        let mut r = Reader(frame.fields());
                        let record = $name::read_version(&mut r, version)?;
                        r.end()?;
                        Ok(Self::$name(record))
                    })+
                    (kind, version) => Err(DecodeError::UnknownKind { kind, version }),
                }
            }

            /// Whether what is read and encoded again gives the same bytes.
            pub fn has_one_encoding(&self) -> bool {
                match self {
                    Self::Message(_) | Self::Half(_) => true,
                    $(Self::$name(_) => $name::ONE_ENCODING,)+
                }
            }
        }

        #[cfg(any(test, feature = "testing"))]
        impl Record {
            /// Appends this record, framed; `false` for messages, of which a record is only the head.
            pub fn encode(&self, buffer: &mut Vec<u8>) -> bool {
                match self {
                    Self::Message(_) | Self::Half(_) => return false,
                    $(Self::$name(record) => record.encode(buffer),)+
                };
                true
            }
        }

        #[cfg(test)]
        impl Record {
            /// Number of every kind.
            pub(crate) const KINDS: &'static [u16] = &[message::KIND_MESSAGE, message::KIND_HALF, $($name::KIND),+];

            /// Number of every kind, and the newest version of its layout.
            pub(crate) const LAYOUTS: &'static [(u16, u8)] = &[
                (message::KIND_MESSAGE, message::VERSION),
                (message::KIND_HALF, message::VERSION),
                $(($name::KIND, $name::VERSION)),+
            ];

            /// The feature level of a log in which this one may be.
            pub(crate) fn level(&self) -> u32 {
                match self {
                    Self::Message(_) | Self::Half(_) => 1,
                    $(Self::$name(record) => written_from($name::KIND, record.version()),)+
                }
            }
        }

        /// The feature level of a cluster from which on records of this kind and version are written: see [`FEATURE_LEVEL`].
        pub const fn written_from(kind: u16, version: u8) -> u32 {
            match kind {
                $($name::KIND => level_of($name::LEVEL, $name::VERSION_LEVELS, version),)+
                _ => 1,
            }
        }

        /// The level of the newest version of each kind.
        const KIND_LEVELS: &[u32] = &[$(written_from($name::KIND, $name::VERSION)),+];

        $(impl $name {
            /// Appends this record, framed, to `buffer` and returns its length in bytes.
            pub fn encode(&self, buffer: &mut Vec<u8>) -> usize {
                frame::write(buffer, Self::KIND, self.version(), |buffer| self.write(&mut Writer(buffer)))
            }
        })+
    };
}

/// Whether a record of this kind changes who belongs to the cluster: it is alone in its entry.
pub const fn changes_members(kind: u16) -> bool {
    matches!(kind, MembersChanged::KIND | ClusterBegunAnew::KIND)
}

/// Whether a record of this kind names a position at which every replica makes a snapshot: the end of its entry.
pub const fn names_snapshot(kind: u16) -> bool {
    kind == SnapshotNamed::KIND
}

/// Whether records of this kind change how far a group is. Whoever decides on deliveries reckons with those that are
/// proposed and not yet applied: if one is overlooked, a message is handed out twice.
pub const fn changes_delivery(kind: u16) -> bool {
    // The numbers that the format keeps for deliveries; nobody else repeats them.
    matches!(kind, 48..=63)
}

/// Whether records of this kind set or delete a binding. Whoever lets a binding decide reckons with those that are
/// proposed and not yet applied: if one is overlooked, a binding decides that somebody deleted.
pub const fn changes_binding(kind: u16) -> bool {
    matches!(kind, BindingPut::KIND | BindingDelete::KIND)
}

each_kind!(records);
