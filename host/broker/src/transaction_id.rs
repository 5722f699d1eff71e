//! Transaction ids as clients and people see them (ruling 20): shard, half and life of the cluster, opaque to clients.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vouch_cluster::ClusterIncarnation;

use crate::{HalfPosition, ShardId};

/// Prefix that tells a transaction id from other hexadecimal text, and its format from later ones.
const VERSION: char = 'T';
/// The same of one that was given after the cluster was restored or recovered: the life of the cluster stands at its end.
const WITH_INCARNATION: char = 'U';
/// Digits of shard and half.
const PLACE_DIGITS: usize = 20;
/// Digits of the life.
const INCARNATION_DIGITS: usize = 8;

/// A transaction: the shard that holds it, its half message in the log of that shard, and in which life of the cluster that was
/// written: the log of another life may have something else there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TransactionId {
    /// The shard.
    pub shard: ShardId,
    /// Its half message.
    pub half: HalfPosition,
    /// The life of the cluster in which that was written.
    #[serde(
        default,
        serialize_with = "write_incarnation",
        deserialize_with = "read_incarnation",
        skip_serializing_if = "ClusterIncarnation::is_first"
    )]
    pub incarnation: ClusterIncarnation,
}

impl TransactionId {
    /// One of a cluster that was never restored nor recovered.
    pub const fn of_first_life(shard: ShardId, half: HalfPosition) -> Self {
        Self { shard, half, incarnation: ClusterIncarnation::FIRST }
    }
}

fn write_incarnation<S: Serializer>(incarnation: &ClusterIncarnation, to: S) -> Result<S::Ok, S::Error> {
    incarnation.0.serialize(to)
}

fn read_incarnation<'de, D: Deserializer<'de>>(from: D) -> Result<ClusterIncarnation, D::Error> {
    u32::deserialize(from).map(ClusterIncarnation)
}

impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shard, half, incarnation } = self;
        let version = if incarnation.is_first() { VERSION } else { WITH_INCARNATION };
        write!(f, "{version}{:04X}{:016X}", shard.0, half.0)?;
        if incarnation.is_first() { Ok(()) } else { incarnation.fmt(f) }
    }
}

impl std::str::FromStr for TransactionId {
    type Err = crate::Refusal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || crate::Refusal::UnknownTransaction {
            id: text.to_owned(),
            why: "it is not a transaction id of Vouch; use the one from the send receipt or the check".to_owned(),
        };
        let (digits, has_incarnation) = match text.strip_prefix(VERSION) {
            Some(digits) => (digits, false),
            None => (text.strip_prefix(WITH_INCARNATION).ok_or_else(unknown)?, true),
        };
        let len = if has_incarnation { PLACE_DIGITS + INCARNATION_DIGITS } else { PLACE_DIGITS };
        if digits.len() != len || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let (place, incarnation) = digits.split_at(PLACE_DIGITS);
        let incarnation = match has_incarnation {
            true => ClusterIncarnation(u32::from_str_radix(incarnation, 16).map_err(|_| unknown())?),
            false => ClusterIncarnation::FIRST,
        };
        // One id has one text.
        if has_incarnation && incarnation.is_first() {
            return Err(unknown());
        }
        Ok(Self {
            shard: ShardId(u16::from_str_radix(&place[..4], 16).map_err(|_| unknown())?),
            half: HalfPosition(u64::from_str_radix(&place[4..], 16).map_err(|_| unknown())?),
            incarnation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_written_and_anything_else_is_refused() {
        for (half, incarnation) in [(0, 0), (77, 0), (u64::MAX, 0), (77, 1), (u64::MAX, u32::MAX)] {
            let (half, incarnation) = (HalfPosition(half), ClusterIncarnation(incarnation));
            let id = TransactionId { shard: ShardId(3), half, incarnation };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for bad in [
            "",
            "T",
            "T00000000000000000G00",
            "X00000000000000000000",
            "T0000000000000000000",
            "T000000000000000000000",
            "Té0000000000000000000",
            "U00000000000000000000",
            "U0000000000000000000000000001é",
            "T0000000000000000000000000001",
            // The first life is not named.
            "U0000000000000000000000000000",
        ] {
            assert!(bad.parse::<TransactionId>().is_err(), "{bad}");
        }
    }

    /// Clients and scripts keep them.
    #[test]
    fn an_id_of_the_first_life_is_as_it_always_was_and_a_later_one_ends_with_its_life() {
        let first = TransactionId::of_first_life(ShardId(1), HalfPosition(0xabc));
        assert_eq!(first.to_string(), "T00010000000000000ABC");
        let later = TransactionId { incarnation: ClusterIncarnation(0x12_34ab), ..first };
        assert_eq!(later.to_string(), "U00010000000000000ABC001234AB");
    }
}
