//! The state says where records begin, the log where its bytes lie: two names of the same places, held together here.

use std::ops::Range;

use vouch_broker::RecordPosition;
use vouch_commitlog::LogPosition;

/// Where in the log a record begins.
pub fn log_position(record: RecordPosition) -> LogPosition {
    LogPosition(record.0)
}

/// The record that begins at this place of the log, or the first one behind it.
pub fn record_position(place: LogPosition) -> RecordPosition {
    RecordPosition(place.0)
}

/// Where the records of a stretch of the log begin.
pub fn records_in(stretch: &Range<LogPosition>) -> Range<RecordPosition> {
    record_position(stretch.start)..record_position(stretch.end)
}
