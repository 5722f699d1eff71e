//! Points on the way of an answer with what was staged at which a test lets its process die. Not part of a real build: crates above
//! get at them with the feature `testing`.
//!
//! The process ends as `kill -9` would end it: nothing is written, synced, closed or answered any more.

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vouch_broker::record::{Frame, Record};
use vouch_commitlog::LogPosition;

/// Where it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// The component answered, and nothing is proposed.
    Answered,
    /// It is proposed, and not written.
    Proposed,
    /// It is written, and not known to be durable. Of a power cut what is behind the position that is said then is not certain:
    /// `durable to POSITION` on a line of the standard output.
    Written,
    /// It is durable, and not applied.
    Durable,
    /// It is applied, and nobody was told.
    Applied,
}

/// The process that is to die, and how far the record is.
struct Dying {
    at: FaultPoint,
    /// Before this position all was durable when the record was about to be written.
    durable: Option<LogPosition>,
    /// Where its entry ends.
    written_to: Option<LogPosition>,
}

static DYING: Mutex<Option<Dying>> = Mutex::new(None);

/// Lets this process die when the next record of an answer with what was staged is at this point.
pub fn die_at(point: FaultPoint) {
    *dying() = Some(Dying { at: point, durable: None, written_to: None });
}

fn dying() -> MutexGuard<'static, Option<Dying>> {
    DYING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process, if it is to end here. Whoever came here has the lock, so nobody comes any further.
fn reached(point: FaultPoint, dying: &Dying) {
    if dying.at != point {
        return;
    }
    if let Some(LogPosition(durable)) = dying.durable {
        // Whoever reads this is there, or nobody needs it.
        let _ = writeln!(std::io::stdout(), "\ndurable to {durable}");
    }
    std::process::abort();
}

/// Whether one of these records is the answer of a component with what it staged.
fn settles(mut records: &[u8]) -> bool {
    while let Ok((frame, rest)) = Frame::split(records) {
        if matches!(Record::decode(&frame), Ok(Record::Settled(_))) {
            return true;
        }
        records = rest;
    }
    false
}

/// Somebody is about to propose these records.
pub(crate) fn proposes(records: &[u8]) {
    if let Some(dying) = &*dying()
        && settles(records)
    {
        reached(FaultPoint::Answered, dying);
    }
}

/// An entry of these proposals is about to be written; before this position all is durable.
pub(crate) fn appends(proposals: &[&[u8]], durable: LogPosition) {
    if let Some(dying) = &mut *dying()
        && dying.durable.is_none()
        && proposals.iter().any(|records| settles(records))
    {
        reached(FaultPoint::Proposed, dying);
        dying.durable = Some(durable);
    }
}

/// It is written, and ends there.
pub(crate) fn appended(end: LogPosition) {
    if let Some(dying) = &mut *dying()
        && dying.durable.is_some()
        && dying.written_to.is_none()
    {
        dying.written_to = Some(end);
        reached(FaultPoint::Written, dying);
    }
}

/// Before this position all is durable, and nobody was told.
pub(crate) fn is_durable(to: LogPosition) {
    at_its_end(FaultPoint::Durable, to);
}

/// What is durable before this position is applied, and nobody was told.
pub(crate) fn is_applied(to: LogPosition) {
    at_its_end(FaultPoint::Applied, to);
}

fn at_its_end(point: FaultPoint, to: LogPosition) {
    if let Some(dying) = &*dying()
        && dying.written_to.is_some_and(|end| end <= to)
    {
        reached(point, dying);
    }
}
