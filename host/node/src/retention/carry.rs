//! What is still needed of a segment that is otherwise free, written again at the log's other end.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use vouch_broker::record::{Carried, Frame, before_carried};
use vouch_broker::state::Body;
use vouch_broker::{HalfPosition, NotDone, State};
use vouch_commitlog::{LogPosition, LogReader};
use vouch_storage::SnapshotBound;

use super::{Keeper, Retention};
use crate::stored;

/// On a full disk it is looked again after this long what is needed of the first segment.
const LOOK_AGAIN_FULL: Duration = Duration::from_secs(2);
/// Records carried out of one segment at most, and the share of a segment that they may have: if more of it is needed it
/// stays, for carrying would only move it.
const CARRY_MAX: usize = 100_000;
const CARRY_SHARE: u64 = 4;
/// A carried record is by so many bytes larger than it was, at most.
const CARRIED_MORE: u64 = 128;
/// On a full disk what is carried may have this share of the space that is kept for ends and acknowledgements: it frees a
/// segment.
const RESERVE_SHARE: u64 = 4;
/// By how many segments the log grows before what little is needed of its first one is carried on.
const CARRY_AFTER: u64 = 2;
/// Bytes of carried records that are proposed at once.
const CARRY_BATCH: usize = 256 << 10;

impl Keeper {
    /// Writes again what is needed of the first segment, if that is little.
    ///
    /// Not at once: what is left of a segment is mostly younger than what went, and goes soon by itself. Only what stays
    /// behind while the log grows by some segments is carried, or where the disk is full.
    pub(super) async fn carry(&mut self, bound: SnapshotBound, full: bool) -> Result<(), NotDone> {
        let size = self.of.segment_size;
        let usage = self.of.upkeep.housekeeping.usage();
        let segment = usage.start..usage.start.plus(size);
        let look = (segment.start, bound.covers, full);
        let known = self.looked.is_some_and(|(looked, at)| looked == look && (!full || at.elapsed() < LOOK_AGAIN_FULL));
        if known || bound.last_entry < segment.end || bound.log_from() >= segment.end {
            return Ok(());
        }
        let Some((bodies, bytes)) = little_that_is_needed(&self.of, &segment).await? else {
            self.mostly_free = None;
            self.looked = Some((look, Instant::now()));
            return Ok(());
        };
        let now = (segment.start, usage.end);
        let (_, end_then) =
            *self.mostly_free.insert(self.mostly_free.filter(|(start, _)| *start == now.0).unwrap_or(now));
        if !full && usage.end.since(end_then) < CARRY_AFTER * size {
            self.looked = Some((look, Instant::now()));
            return Ok(());
        }
        let mut count = 0;
        let reserve = self.of.shard.standing().await?.reserve;
        let reserved = full && bytes + CARRIED_MORE * bodies.len() as u64 <= reserve / RESERVE_SHARE;
        let ended = carry_all(&self.of, bodies, reserved, &mut count).await;
        if count > 0 {
            self.of.report.carried.fetch_add(count, Ordering::Relaxed);
            tracing::info!(segment = segment.start.0, count, "carried on what is still needed of a segment");
            self.note_change().await?;
        }
        ended?;
        self.looked = Some((look, Instant::now()));
        Ok(())
    }
}

/// Writes records again, and counts them. One that cannot be read stays where it is, and keeps its segment.
async fn carry_all(of: &Retention, bodies: Vec<Body>, reserved: bool, count: &mut u64) -> Result<(), NotDone> {
    let mut rest = bodies.into_iter();
    while !rest.as_slice().is_empty() {
        let log = of.log.clone();
        // Pieces of components are large.
        let read = tokio::task::spawn_blocking(move || next_batch(&log, rest)).await;
        let (batch, records, left) =
            read.map_err(|error| NotDone::internal(format!("records to carry on cannot be read: {error}")))?;
        rest = left;
        if records > 0 {
            if reserved {
                of.shard.propose(batch).await?;
            } else {
                of.shard.propose_if_room(batch).await?;
            }
            *count += records;
        }
    }
    Ok(())
}

/// The next records to write again, how many there are, and what is left.
fn next_batch(log: &LogReader, mut rest: IntoIter<Body>) -> (Vec<u8>, u64, IntoIter<Body>) {
    let (mut batch, mut records) = (Vec::new(), 0);
    while batch.len() < CARRY_BATCH
        && let Some(body) = rest.next()
    {
        match carried(log, body) {
            Ok(carried) => {
                carried.encode(&mut batch);
                records += 1;
            }
            Err(refusal) => {
                tracing::error!(%refusal, "a damaged record keeps its segment in the log; see `vouch log verify`")
            }
        }
    }
    (batch, records, rest)
}

/// What is needed of a stretch of the log, and how many bytes that is; `None` if it is much.
async fn little_that_is_needed(
    of: &Retention,
    stretch: &Range<LogPosition>,
) -> Result<Option<(Vec<Body>, u64)>, NotDone> {
    let records = vouch_storage::records_in(stretch);
    let range = records.clone();
    let look = move |state: &State| state.bodies_in(range, CARRY_MAX + 1);
    let mut bodies = of.shard.read(look).await?;
    let mut after = None;
    loop {
        let range = records.clone();
        let look = move |state: &State| state.messages_in(&range, after);
        let (more, next) = of.shard.read(look).await?;
        bodies.extend(more);
        if bodies.len() > CARRY_MAX {
            return Ok(None);
        }
        let Some(next) = next else { break };
        after = Some(next);
    }
    let (log, max) = (of.log.clone(), stretch.end.since(stretch.start) / CARRY_SHARE);
    let weigh = move || {
        let mut bytes = 0;
        for body in &bodies {
            bytes += stored::record(&log, body.position).map_or(0, |record| record.len() as u64);
            if bytes > max {
                return Ok(None);
            }
        }
        Ok(Some((bodies, bytes)))
    };
    let weighed = tokio::task::spawn_blocking(weigh).await;
    weighed.map_err(|error| NotDone::internal(format!("what is needed of the log cannot be weighed: {error}")))?
}

/// The records at this place, as it is to be written again, verified: a damaged one must not be carried on as if it were
/// whole.
fn carried(log: &LogReader, body: Body) -> Result<Carried, NotDone> {
    let Body { position, transaction, queued } = body;
    let unreadable = |why| NotDone::internal(format!("the record at position {position} cannot be carried on: {why}"));
    let record = stored::record(log, position)?;
    let (from, record) = before_carried(&record).map_err(unreadable)?.unwrap_or((position, record));
    let (frame, _) = Frame::split(&record).map_err(unreadable)?;
    frame.verify().map_err(unreadable)?;
    // A piece of a component is known by where it lies, a message by where it lay at first.
    let from = if transaction.is_none() && queued.is_none() {
        position
    } else {
        transaction.map_or(from, HalfPosition::first_place)
    };
    Ok(Carried { from, queued, record: record.to_vec() })
}
