//! Reading what a position of the log holds: a record, a message.

use bytes::Bytes;
use vouch_broker::record::DecodeError;
use vouch_broker::record::{FRAME_LEN, Frame, MessageHead, before_carried, decode_stored};
use vouch_broker::{HalfPosition, RecordPosition, StoredMessage};
use vouch_commitlog::{LogReader, ReadError};

use crate::position::log_position;

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The log does not give it.
    #[error("the record at position {0}: {1}")]
    Log(RecordPosition, ReadError),
    /// It is none.
    #[error("the record at position {0}: {1}")]
    Record(RecordPosition, DecodeError),
    /// It is not the message that it should be.
    #[error("the message at position {0} cannot be read: {1}")]
    Message(RecordPosition, DecodeError),
}

/// The record at this position, its frame included. Zero-copy; its checksum is for the caller to verify.
pub fn record(log: &LogReader, position: RecordPosition) -> Result<Bytes, StoredError> {
    let len = announced_len(log, position)?;
    log.read(log_position(position), len).map_err(|error| StoredError::Log(position, error))
}

/// The length of the record at this position, as its frame announces it.
pub fn record_len(log: &LogReader, position: RecordPosition) -> Result<u32, StoredError> {
    Ok(u32::try_from(announced_len(log, position)?).unwrap_or(u32::MAX))
}

/// Bytes of the record, frame included. The frame is not verified here: a length that is nonsense is met when so much
/// is read.
fn announced_len(log: &LogReader, position: RecordPosition) -> Result<usize, StoredError> {
    let head = log.read(log_position(position), FRAME_LEN).map_err(|error| StoredError::Log(position, error))?;
    Frame::announced_len(&head).map_err(|error| StoredError::Record(position, error))
}

/// The message at this position, verified.
pub fn message(log: &LogReader, position: RecordPosition) -> Result<(MessageHead, StoredMessage), StoredError> {
    decode_stored(&record(log, position)?).map_err(|why| StoredError::Message(position, why))
}

/// The transaction whose half lies at this position: where the half lay at first, if it was carried there.
pub fn transaction_at(log: &LogReader, position: RecordPosition) -> HalfPosition {
    let carried = record(log, position).ok().and_then(|record| before_carried(&record).ok().flatten());
    HalfPosition::of(carried.map_or(position, |(first, _)| first))
}
