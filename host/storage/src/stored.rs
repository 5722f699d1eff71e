//! Reading what a position of the log holds: a record, a message.

use bytes::Bytes;
use vouch_broker::StoredMessage;
use vouch_broker::record::DecodeError;
use vouch_broker::record::{FRAME_LEN, Frame, MessageHead, before_carried, decode_stored};
use vouch_commitlog::{LogPosition, LogReader, ReadError};

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The log does not give it.
    #[error("the record at position {0}: {1}")]
    Log(u64, ReadError),
    /// It is none.
    #[error("the record at position {0}: {1}")]
    Record(u64, DecodeError),
    /// It is not the message that it should be.
    #[error("the message at position {0} cannot be read: {1}")]
    Message(u64, DecodeError),
}

/// The record at a log position, its frame included. Zero-copy; its checksum is for the caller to verify.
pub fn record(log: &LogReader, position: u64) -> Result<Bytes, StoredError> {
    let len = announced_len(log, position)?;
    log.read(LogPosition(position), len).map_err(|error| StoredError::Log(position, error))
}

/// The length of the record at a log position, as its frame announces it.
pub fn record_len(log: &LogReader, position: u64) -> Result<u32, StoredError> {
    Ok(u32::try_from(announced_len(log, position)?).unwrap_or(u32::MAX))
}

fn announced_len(log: &LogReader, position: u64) -> Result<usize, StoredError> {
    let head = log.read(LogPosition(position), FRAME_LEN).map_err(|error| StoredError::Log(position, error))?;
    Frame::announced_len(&head).map_err(|error| StoredError::Record(position, error))
}

/// The message at a log position, verified.
pub fn message(log: &LogReader, position: u64) -> Result<(MessageHead, StoredMessage), StoredError> {
    decode_stored(&record(log, position)?).map_err(|why| StoredError::Message(position, why))
}

/// The transaction whose half lies at a log position: where the half lay at first, if it was carried there.
pub fn transaction_at(log: &LogReader, position: u64) -> u64 {
    let carried = record(log, position).ok().and_then(|record| before_carried(&record).ok().flatten());
    carried.map_or(position, |(transaction, _)| transaction)
}
