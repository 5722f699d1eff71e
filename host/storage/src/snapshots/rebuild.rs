//! Parts of which no copy is whole, made again from the log where it still has the stretch that they cover.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use vouch_broker::record::{Frame, MessageHead, Record};
use vouch_broker::state::{PartRebuild, RecordAt};
use vouch_broker::{HalfPosition, Millis};
use vouch_commitlog::{LogPosition, LogReader, map_file};

use super::Snapshots;
use super::store::{Rooms, Which};
use super::stored::{StoredFile, state_of};
use crate::position::record_position;
use crate::stored;

impl Snapshots {
    /// Makes what is lost of the newest snapshot's parts again, and says how many parts those are. What is made gives the
    /// checksums that were written with it, or is not used.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn rebuild(&self, reader: &LogReader) -> io::Result<usize> {
        let mut made = 0;
        for (stored, stretch) in self.lost_of_newest() {
            let Some(content) = self.rebuilt(stored, stretch, reader) else { continue };
            let (kind, position) = stored.place();
            for which in Which::BOTH {
                // A start that has it waits for no free space.
                self.store.mend(kind, position, which, &content, Rooms::Taken)?;
            }
            tracing::warn!(part = position, "a part that was damaged in both copies is made again from the log");
            made += 1;
        }
        Ok(made)
    }

    /// Whether a start makes a part again, of which no copy is whole.
    pub(super) fn can_be_rebuilt(&self, stored: StoredFile, reader: &LogReader) -> bool {
        let mut lost = self.lost_of_newest().into_iter();
        lost.any(|(other, stretch)| other == stored && self.rebuilt(stored, stretch, reader).is_some())
    }

    /// Parts of the newest snapshot that are lost, and the stretch of the log that each covers.
    fn lost_of_newest(&self) -> Vec<(StoredFile, Range<LogPosition>)> {
        let newest = self.newest_position().and_then(|position| self.snapshot_bytes(position).ok());
        let Some((_, bytes)) = newest else { return Vec::new() };
        let named = vouch_broker::State::parts_of_snapshot(state_of(&bytes)).unwrap_or_default();
        let before = std::iter::once(0).chain(named.iter().map(|(id, _)| *id));
        let all = named
            .iter()
            .zip(before)
            .map(|((id, checksum), before)| (StoredFile::Part(*id, *checksum), LogPosition(before)..LogPosition(*id)));
        all.filter(|(stored, _)| !self.has_whole(*stored)).collect()
    }

    /// The bytes of a part as they were written; `None` where the log does not have all that it takes. A record that
    /// cannot be read ends it: half of a part would be another part.
    fn rebuilt(&self, stored: StoredFile, stretch: Range<LogPosition>, reader: &LogReader) -> Option<Vec<u8>> {
        let StoredFile::Part(id, checksum) = stored else { return None };
        let [first, second] =
            Which::BOTH.map(|which| map_file(&self.copy_path(stored, which)).unwrap_or_else(|_| Bytes::new()));
        let mut rebuild = PartRebuild::of(id, checksum, [&first, &second])?;
        // Of a part that went before nobody knows where it ended: more of the log is read then than was in this one.
        let from = stretch.start.max(reader.start());
        for entry in reader.entries_from(from) {
            let entry = entry.ok()?;
            if entry.position >= stretch.end {
                break;
            }
            let time = Millis(entry.leader_time_ms);
            let mut records: &[u8] = &entry.payload;
            let mut position = record_position(entry.payload_position);
            while !records.is_empty() {
                let (frame, rest) = Frame::split(records).ok()?;
                let record = Record::decode(&frame).ok()?;
                rebuild.record(RecordAt { position, time }, record, |half| read_half(reader, half));
                position = position.plus(frame.record_len().into());
                records = rest;
            }
        }
        rebuild.finish()
    }
}

/// The head of the half that a commit refers to, which may lie long before the part.
fn read_half(reader: &LogReader, transaction: HalfPosition) -> Option<MessageHead> {
    let record = stored::record(reader, transaction.first_place()).ok()?;
    let (frame, _) = Frame::split(&record).ok()?;
    match Record::decode(&frame).ok()? {
        Record::Half(head) => Some(head),
        _ => None,
    }
}
