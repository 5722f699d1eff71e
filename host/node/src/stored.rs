//! Reading what the log holds, by its position there.

use bytes::Bytes;
use vouch_broker::record::{End, Frame, MessageHead, Record, Settled, SettledHead};
use vouch_broker::{NotDone, RecordPosition, StoredMessage};
use vouch_commitlog::LogReader;
use vouch_storage::StoredError;

/// The record at a log position, its frame included. Zero-copy; its checksum is for the caller to verify.
///
/// # Errors
/// An internal error where no record can be read there: to be told, not to be tried again.
pub(crate) fn record(log: &LogReader, position: RecordPosition) -> Result<Bytes, NotDone> {
    vouch_storage::record(log, position).map_err(unreadable)
}

/// The message at a log position, verified.
///
/// # Errors
/// An internal error where there is none, or where it is damaged.
pub(crate) fn message(log: &LogReader, position: RecordPosition) -> Result<(MessageHead, StoredMessage), NotDone> {
    vouch_storage::message(log, position).map_err(unreadable)
}

/// The end of a transaction at a log position, verified.
///
/// # Errors
/// An internal error where there is none, or where it is damaged.
pub(crate) fn end(log: &LogReader, position: RecordPosition) -> Result<End, NotDone> {
    let record = record(log, position)?;
    let read = || {
        let (frame, _) = Frame::split(&record)?;
        frame.verify()?;
        Record::decode(&frame)
    };
    match read() {
        Ok(Record::End(end) | Record::Settled(Settled { head: SettledHead::End(end), .. })) => Ok(end),
        Ok(_) => Err(NotDone::internal("the record is not the end of a transaction".to_owned())),
        Err(error) => Err(NotDone::internal(error.to_string())),
    }
}

/// Nobody can do anything about it but look after the disk.
fn unreadable(error: StoredError) -> NotDone {
    NotDone::internal(error.to_string())
}
