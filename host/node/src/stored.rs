//! Reading what a position of the log holds: a record, a message.

use bytes::Bytes;
use vouch_broker::record::{FRAME_LEN, Frame, MessageHead, before_carried, decode_stored};
use vouch_broker::{Refusal, StoredMessage};
use vouch_commitlog::{LogPosition, LogReader};

/// The record at a log position, its frame included. Zero-copy; its checksum is for the caller to verify.
pub(crate) fn record(log: &LogReader, position: u64) -> Result<Bytes, Refusal> {
    let len = announced_len(log, position)?;
    log.read(LogPosition(position), len).map_err(|error| unreadable(position, &error))
}

/// The length of the record at a log position, as its frame announces it.
pub(crate) fn record_len(log: &LogReader, position: u64) -> Result<u32, Refusal> {
    Ok(u32::try_from(announced_len(log, position)?).unwrap_or(u32::MAX))
}

fn announced_len(log: &LogReader, position: u64) -> Result<usize, Refusal> {
    let head = log.read(LogPosition(position), FRAME_LEN).map_err(|error| unreadable(position, &error))?;
    Frame::announced_len(&head).map_err(|error| unreadable(position, &error))
}

fn unreadable(position: u64, why: &dyn std::fmt::Display) -> Refusal {
    Refusal::Internal(format!("the record at position {position}: {why}"))
}

/// The message at a log position, verified.
pub(crate) fn message(log: &LogReader, position: u64) -> Result<(MessageHead, StoredMessage), Refusal> {
    decode_stored(&record(log, position)?)
        .map_err(|why| Refusal::Internal(format!("the message at position {position} cannot be read: {why}")))
}

/// The transaction whose half lies at a log position: where the half lay at first, if it was carried there.
pub(crate) fn transaction_at(log: &LogReader, position: u64) -> u64 {
    let carried = record(log, position).ok().and_then(|record| before_carried(&record).ok().flatten());
    carried.map_or(position, |(transaction, _)| transaction)
}
