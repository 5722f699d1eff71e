//! What leaves the log: messages past their retention, then the segments that nobody needs.
//!
//! The order is what makes it safe. A record lets queues begin later; it is durable before anything follows from it. Two
//! snapshots are kept, and a segment goes only when neither refers to anything in it: then every start, from either, finds
//! all that its state speaks of. What is still needed in a segment that is otherwise free (halves of open transactions,
//! pieces of components) is written again at the log's other end first.

mod disk;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vouch_broker::record::{Carried, Expire, Seen, before_carried};
use vouch_broker::state::{Applied, Body};
use vouch_broker::{GroupId, Refusal, TopicId};
use vouch_commitlog::{LogPosition, Usage};

pub use disk::DiskUse;
use disk::Space;

use crate::node::Inner;
use crate::shard::Executor;
use crate::snapshots::{Bound, Bounds};

/// How often the disk is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// What expired is released with the snapshots that are made anyway; where the log stands still, after this long.
const RELEASE_WITHIN: Duration = Duration::from_secs(600);
/// A living group is noted in the log once in this time, if nothing else shows that it lives.
const SEEN_EVERY_MS: u64 = 24 * 60 * 60 * 1000;
/// Groups looked at in one step.
const GROUPS_AT_ONCE: usize = 4096;
/// Records carried out of one segment at most, and the share of a segment that they may have: if more of it is needed it
/// stays, for carrying would only move it.
const CARRY_MAX: usize = 100_000;
const CARRY_SHARE: u64 = 4;
/// Bytes of carried records that are proposed at once.
const CARRY_BATCH: usize = 256 << 10;

/// What retention did since the node started.
#[derive(Debug, Default)]
pub struct RetentionReport {
    /// Messages past their retention that are gone.
    pub expired: AtomicU64,
    /// Messages that groups had not finished when they went; each counts once for each group.
    pub missed: AtomicU64,
    /// Records that were written again because they are still needed.
    pub carried: AtomicU64,
    /// Segments released.
    pub segments: AtomicU64,
}

/// What the task remembers between two passes.
#[derive(Default)]
struct Keeper {
    /// Log position behind the last record that let something go or carried something, and since when it waits to be in
    /// both snapshots.
    changed: Option<(u64, Instant)>,
    /// Where groups are looked at next.
    after_group: Option<GroupId>,
    /// What the newest snapshot covered when the log was last made to go on for the next one.
    nudged: Option<u64>,
    /// The segment that was last told to be needed as a whole.
    told: Option<u64>,
}

/// Runs until the node stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut keeper = Keeper::default();
    let (mut next, mut was_full) = (Instant::now(), false);
    loop {
        let full = measure(&inner).await;
        if Instant::now() >= next || full != was_full {
            next = Instant::now() + inner.config.retention_every;
            if let Err(refusal) = keeper.pass(&inner, full).await
                && !matches!(refusal, Refusal::Stopping | Refusal::Poisoned(_))
            {
                tracing::warn!(%refusal, "a pass of retention did not end; the next one goes on");
            }
        }
        was_full = full;
        tokio::select! {
            () = tokio::time::sleep(MEASURE_EVERY.min(inner.config.retention_every)) => {}
            () = inner.stopping.cancelled() => return,
        }
    }
}

async fn measure(inner: &Arc<Inner>) -> bool {
    let inner = inner.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let Usage { segment_bytes, held_bytes, .. } = inner.housekeeping.usage();
        let disk = Space::of_folder(&inner.config.data_dir)?;
        Ok::<_, std::io::Error>(inner.disk.measured(disk, segment_bytes + held_bytes, inner.config.disk_limit))
    });
    match measured.await {
        Ok(Ok(full)) => full,
        Ok(Err(error)) => {
            tracing::warn!(%error, "how full the disk is cannot be found out");
            false
        }
        Err(_) => false,
    }
}

impl Keeper {
    async fn pass(&mut self, inner: &Arc<Inner>, full: bool) -> Result<(), Refusal> {
        if inner.shared.poisoned().is_some() {
            return Ok(());
        }
        self.note_living_groups(inner).await?;
        self.expire(inner).await?;
        let Some(bounds) = inner.snapshotter.bounds() else { return self.hurry(inner, None, full).await };
        self.carry(inner, bounds.newer).await?;
        release(inner, bounds).await?;
        self.hurry(inner, Some(bounds), full).await
    }

    /// Groups that live and receive nothing keep their right to what they have not consumed (ruling 13).
    async fn note_living_groups(&mut self, inner: &Arc<Inner>) -> Result<(), Refusal> {
        let after = self.after_group;
        let look = move |executor: &mut Executor| living_groups(executor, after);
        let (groups, next) = inner.shard.query(look).await?;
        self.after_group = next;
        if !groups.is_empty() {
            let seen = Seen { groups: groups.into_iter().collect() };
            inner.shard.propose_one(|out| seen.encode(out)).await?;
        }
        Ok(())
    }

    async fn expire(&mut self, inner: &Arc<Inner>) -> Result<(), Refusal> {
        let now = inner.shared.clock.now();
        let mut after = None;
        loop {
            let look = move |executor: &mut Executor| executor.state.expirations(now, after);
            let (expirations, next) = inner.shard.query(look).await?;
            for expire in expirations {
                self.expire_one(inner, &expire).await?;
            }
            let Some(next) = next else { return Ok(()) };
            after = Some(next);
        }
    }

    async fn expire_one(&mut self, inner: &Arc<Inner>, expire: &Expire) -> Result<(), Refusal> {
        let topic = topic_text(inner, expire.topic).await?;
        let applied = match inner.shard.propose_one(|out| expire.encode(out)).await {
            // Deleted meanwhile.
            Err(Refusal::TopicNotFound(_)) => return Ok(()),
            applied => applied?,
        };
        let Applied::Expired { messages, missed } = applied else { return Ok(()) };
        inner.retention.expired.fetch_add(messages, Ordering::Relaxed);
        inner.retention.missed.fetch_add(missed, Ordering::Relaxed);
        if missed > 0 {
            tracing::warn!(
                topic,
                messages,
                missed,
                "messages expired that groups had not finished; their gaps are on record"
            );
        } else if messages > 0 {
            tracing::info!(topic, messages, "messages expired");
        }
        self.note_change(inner).await
    }

    async fn note_change(&mut self, inner: &Arc<Inner>) -> Result<(), Refusal> {
        let applied = applied(inner).await?;
        self.changed = Some((applied, self.changed.map_or_else(Instant::now, |(_, since)| since)));
        Ok(())
    }

    /// Writes again what is needed of the first segment, if nothing else keeps it and that is little.
    async fn carry(&mut self, inner: &Arc<Inner>, bound: Bound) -> Result<(), Refusal> {
        let size = inner.segment_size;
        let start = inner.housekeeping.usage().start.0;
        let segment = start..start + size;
        if bound.fixed() < segment.end || bound.needed.carriable >= segment.end {
            return Ok(());
        }
        let range = segment.clone();
        let look = move |executor: &mut Executor| executor.state.to_carry(range, CARRY_MAX + 1);
        let bodies = inner.shard.query(look).await?;
        let records = read_all(inner, bodies, size / CARRY_SHARE).await?;
        let Some(records) = records else {
            if self.told != Some(segment.start) {
                self.told = Some(segment.start);
                tracing::info!(segment = segment.start, "a segment stays: much of it is needed by open transactions");
            }
            return Ok(());
        };
        if records.is_empty() {
            return Ok(());
        }
        let count = records.len() as u64;
        let mut batch = Vec::new();
        for carried in records {
            carried.encode(&mut batch);
            if batch.len() >= CARRY_BATCH {
                inner.shard.propose(std::mem::take(&mut batch)).await?;
            }
        }
        if !batch.is_empty() {
            inner.shard.propose(batch).await?;
        }
        inner.retention.carried.fetch_add(count, Ordering::Relaxed);
        tracing::info!(segment = segment.start, count, "carried on what is still needed of a segment");
        self.note_change(inner).await
    }

    /// Asks for a snapshot where waiting for the next one would take too long: the disk is full, or the log stands still.
    async fn hurry(&mut self, inner: &Arc<Inner>, bounds: Option<Bounds>, full: bool) -> Result<(), Refusal> {
        let usage = inner.housekeeping.usage();
        let (start, size) = (usage.start.0, inner.segment_size);
        let free = |bound: &Bound| bound.log_from().saturating_sub(start) / size;
        let waits = match (bounds, self.changed) {
            // A newer snapshot may say that more is free than the last one does.
            (None, _) => usage.end.0 - start >= 2 * size,
            (Some(bounds), Some((changed, _))) if bounds.newer.covers < changed => true,
            (Some(Bounds { older, newer }), _) => free(&newer) > older.as_ref().map_or(0, free),
        };
        if !waits {
            self.changed = None;
            return Ok(());
        }
        let since = self.changed.get_or_insert_with(|| (0, Instant::now())).1;
        if !full && since.elapsed() < RELEASE_WITHIN {
            return Ok(());
        }
        // A snapshot covers more than the one before it: the log must go on for one, and it may stand still.
        let covers = bounds.map(|bounds| bounds.newer.covers);
        if covers.is_some() && self.nudged != covers {
            inner.shard.propose_one(|out| Seen { groups: Vec::new() }.encode(out)).await?;
            self.nudged = covers;
        }
        let position = applied(inner).await?;
        inner.shared.snapshots.want(position);
        Ok(())
    }
}

/// Everything before this position is applied.
async fn applied(inner: &Arc<Inner>) -> Result<u64, Refusal> {
    inner.shard.query(|executor| executor.positions().2).await
}

async fn topic_text(inner: &Arc<Inner>, id: TopicId) -> Result<String, Refusal> {
    let find = move |executor: &mut Executor| executor.state.topics().name_of(id).map(ToString::to_string);
    Ok(inner.shard.query(find).await?.unwrap_or_default())
}

/// Groups with a member whose session lives, which the log has not shown for a day; and where to go on.
fn living_groups(executor: &Executor, after: Option<GroupId>) -> (BTreeSet<GroupId>, Option<GroupId>) {
    let now = executor.shared.clock.now();
    let mut found = BTreeSet::new();
    let mut last = None;
    for (looked_at, group) in executor.state.groups().after(after).enumerate() {
        if looked_at == GROUPS_AT_ONCE {
            return (found, last);
        }
        last = Some(group.id);
        if now.ms_since(group.seen) >= SEEN_EVERY_MS && executor.shared.sessions.has_member(&group.name) {
            found.insert(group.id);
        }
    }
    (found, None)
}

/// The records at these places, as they are to be written again; `None` if they are more than `max` bytes, or too many.
async fn read_all(inner: &Arc<Inner>, bodies: Vec<Body>, max: u64) -> Result<Option<Vec<Carried>>, Refusal> {
    if bodies.len() > CARRY_MAX {
        return Ok(None);
    }
    let reading = inner.clone();
    let read = move || {
        let mut bytes = 0;
        let mut records = Vec::with_capacity(bodies.len());
        for body in bodies {
            let record = first_record(&reading, body)?;
            bytes += record.len() as u64;
            if bytes > max {
                return Ok(None);
            }
            records.push(Carried { from: body.from, record: record.to_vec() });
        }
        Ok(Some(records))
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| Refusal::Internal(format!("what is to be carried on cannot be read: {error}")))?
}

/// The record as it first lay in the log, verified: a damaged one must not be carried on as if it were whole.
fn first_record(inner: &Inner, body: Body) -> Result<Bytes, Refusal> {
    let record = inner.read_record(body.position)?;
    let unreadable =
        |why| Refusal::Internal(format!("the record at position {} cannot be carried on: {why}", body.position));
    let record = before_carried(&record).map_err(unreadable)?.map_or(record, |(_, first)| first);
    let (frame, _) = vouch_broker::record::Frame::split(&record).map_err(unreadable)?;
    frame.verify().map_err(unreadable)?;
    Ok(record)
}

/// Releases the segments that neither snapshot needs.
async fn release(inner: &Arc<Inner>, bounds: Bounds) -> Result<(), Refusal> {
    let Some(older) = bounds.older else { return Ok(()) };
    let before = older.log_from().min(bounds.newer.log_from());
    let Range { start, end } = inner.housekeeping.usage().start.0..before;
    if end.saturating_sub(start) < inner.segment_size {
        return Ok(());
    }
    let log = inner.housekeeping.clone();
    let released = tokio::task::spawn_blocking(move || log.release_before(LogPosition(before))).await;
    match released {
        Ok(Ok(released)) if released.segments > 0 => {
            inner.retention.segments.fetch_add(released.segments, Ordering::Relaxed);
            let (segments, kept, start) = (released.segments, released.kept, released.start.0);
            tracing::info!(segments, kept, start, "released segments that nobody needs");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "old segments could not be released"),
        Err(error) => tracing::error!(%error, "releasing old segments ended by a panic"),
    }
    Ok(())
}
