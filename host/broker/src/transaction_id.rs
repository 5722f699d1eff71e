//! Transaction ids as clients and people see them (ruling 20): shard and half, opaque to clients.

use crate::{HalfPosition, ShardId};

/// Prefix that tells a transaction id from other hexadecimal text, and its format from later ones.
const VERSION: char = 'T';

/// A transaction: the shard that holds it, and its half message in the log of that shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TransactionId {
    /// The shard.
    pub shard: ShardId,
    /// Its half message.
    pub half: HalfPosition,
}

impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{VERSION}{:04X}{:016X}", self.shard.0, self.half.0)
    }
}

impl std::str::FromStr for TransactionId {
    type Err = crate::Refusal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || crate::Refusal::UnknownTransaction {
            id: text.to_owned(),
            why: "it is not a transaction id of Vouch; use the one from the send receipt or the check".to_owned(),
        };
        let digits = text.strip_prefix(VERSION).ok_or_else(unknown)?;
        if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        Ok(Self {
            shard: ShardId(u16::from_str_radix(&digits[..4], 16).map_err(|_| unknown())?),
            half: HalfPosition(u64::from_str_radix(&digits[4..], 16).map_err(|_| unknown())?),
        })
    }
}

/// The id of a transaction of the first shard, for messages to people.
pub(crate) fn transaction_name(half: HalfPosition) -> String {
    TransactionId { shard: ShardId::FIRST, half }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_written_and_anything_else_is_refused() {
        for half in [0, 77, u64::MAX].map(HalfPosition) {
            let id = TransactionId { shard: ShardId(3), half };
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
        ] {
            assert!(bad.parse::<TransactionId>().is_err(), "{bad}");
        }
    }
}
