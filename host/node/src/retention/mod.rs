//! What leaves the log: messages past their retention, then the segments that nobody needs.
//!
//! The order is what makes it safe. A record lets queues begin later; it is durable before anything follows from it. Two
//! snapshots are kept, and a segment goes only when neither refers to anything in it: then every start, from either, finds
//! all that its state speaks of. What is still needed in a segment that is otherwise free (messages that are kept longer,
//! halves of open transactions, pieces of components) is written again at the log's other end first.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vouch_broker::record::{Carried, Expire, Frame, GroupsUnused, Seen, before_carried};
use vouch_broker::state::{Applied, Body};
use vouch_broker::{GroupId, Millis, NotDone, NothingStored, Refusal, State, TopicId};
use vouch_commitlog::{LogPosition, Released, Usage};
use vouch_storage::{Bound, Bounds, Space};

use crate::node::Inner;
use crate::served::Upkeep;
use crate::shard::Shared;
use crate::stored;

/// How often the disk is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// What expired is released with the snapshots that are made anyway; where the log stands still, after this long.
const RELEASE_WITHIN: Duration = Duration::from_secs(600);
/// Snapshots that are made only for retention are at least so far apart: where the log grows slowly, and on a full disk.
const PART_EVERY: Duration = Duration::from_secs(600);
const FULL_SNAPSHOT_EVERY: Duration = Duration::from_secs(2);
/// On a full disk it is looked again after this long what is needed of the first segment.
const LOOK_AGAIN_FULL: Duration = Duration::from_secs(2);
/// A living group is noted in the log once in this time, if nothing else shows that it lives.
const SEEN_EVERY_MS: u64 = 24 * 60 * 60 * 1000;
/// One that goes by itself is noted more often, and goes so much later than it could: the log may not know better when its
/// last session ended.
const UNUSED_SEEN_EVERY_MS: u64 = 60 * 60 * 1000;
/// Groups looked at in one step.
const GROUPS_AT_ONCE: usize = 4096;
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
    /// Groups that receives made, that nobody used, and that are gone.
    pub groups: AtomicU64,
}

/// What the task remembers between two passes.
struct Keeper {
    upkeep: Arc<Upkeep>,
    /// Why the last pass did not end: told once, not with every pass.
    trouble: Option<&'static str>,
    /// Log position behind the last record that let something go or carried something, and since when it waits to be in
    /// both snapshots.
    changed: Option<(u64, Instant)>,
    /// Where groups are looked at next.
    after_group: Option<GroupId>,
    /// What the newest snapshot covers, and since when that is known.
    newest: Option<(Option<u64>, Instant)>,
    /// What the newest snapshot covered when the log was last made to go on for the next one.
    nudged: Option<u64>,
    /// The first segment, what the newest snapshot covered, and whether the disk was full, when it was last looked at what
    /// is needed of that segment, and when: nothing new is known until one of them changes. On a full disk no snapshot need
    /// come, so it is looked again after a while.
    looked: Option<((u64, u64, bool), Instant)>,
    /// The first segment, of which little is needed, and where the log ended when that was found.
    mostly_free: Option<(u64, u64)>,
}

/// Runs until the node stops.
pub(crate) async fn run(inner: Arc<Inner>, upkeep: Arc<Upkeep>) {
    let mut keeper = Keeper::new(upkeep);
    let (mut next, mut was_full) = (Instant::now(), false);
    loop {
        let full = keeper.measure(&inner).await;
        if Instant::now() >= next || full || was_full {
            next = Instant::now() + inner.config.retention_every;
            let passed = keeper.pass(&inner, full).await;
            keeper.tell(passed.err());
        }
        was_full = full;
        tokio::select! {
            () = tokio::time::sleep(MEASURE_EVERY.min(inner.config.retention_every)) => {}
            () = inner.stopping.cancelled() => return,
        }
    }
}

impl Keeper {
    fn new(upkeep: Arc<Upkeep>) -> Self {
        Self {
            upkeep,
            trouble: None,
            changed: None,
            after_group: None,
            newest: None,
            nudged: None,
            looked: None,
            mostly_free: None,
        }
    }

    async fn measure(&self, inner: &Arc<Inner>) -> bool {
        let short = inner.shard.standing().await.map_or(None, |standing| standing.shortage);
        let (inner, upkeep) = (inner.clone(), self.upkeep.clone());
        let measured = tokio::task::spawn_blocking(move || {
            let Usage { segment_bytes, held_bytes, spare_bytes, .. } = upkeep.housekeeping.usage();
            let mut disk = Space::of_folder(&inner.config.data_dir)?;
            // Files that wait to become segments again are room for messages.
            disk.used = disk.used.saturating_sub(spare_bytes);
            Ok::<_, std::io::Error>(inner.disk.measured(
                disk,
                segment_bytes + held_bytes,
                inner.config.disk_limit,
                short,
            ))
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

    fn tell(&mut self, refusal: Option<NotDone>) {
        let refusal = refusal.filter(|refusal| {
            !matches!(
                refusal,
                NotDone::NothingStored(NothingStored::Stopping) | NotDone::NothingStored(NothingStored::Poisoned(_))
            )
        });
        let trouble = refusal.as_ref().map(|refusal| vouch_protocol::code::outcome(refusal).urn);
        if trouble != self.trouble
            && let Some(refusal) = refusal
        {
            tracing::warn!(%refusal, "a pass of retention did not end; the next ones go on until one does");
        }
        self.trouble = trouble;
    }

    async fn pass(&mut self, inner: &Arc<Inner>, full: bool) -> Result<(), NotDone> {
        if inner.shared.closed().is_some() {
            return Ok(());
        }
        let bounds = self.upkeep.snapshotter.bounds();
        // First, because it is all that still can be done when nothing can be written.
        if let Some(bounds) = bounds {
            release(inner, &self.upkeep, bounds).await?;
        }
        self.look_at_groups(inner).await?;
        self.expire(inner).await?;
        let carried = match bounds {
            Some(bounds) => self.carry(inner, bounds.newer, full).await,
            None => Ok(()),
        };
        // Also if nothing could be carried: on a full disk it is snapshots that make room for it.
        self.hurry(inner, bounds, full).await?;
        carried
    }

    /// Groups that live and receive nothing keep their right to what they have not consumed (ruling 13); those that nobody
    /// uses go.
    async fn look_at_groups(&mut self, inner: &Arc<Inner>) -> Result<(), NotDone> {
        let after = self.after_group;
        let shared = inner.shared.clone();
        let look = move |state: &State| GroupsLook::new(state, &shared, after);
        let GroupsLook { living, unused, next } = inner.shard.read(look).await?;
        self.after_group = next;
        if !living.is_empty() {
            let seen = Seen { groups: living };
            inner.shard.propose_one(|out| seen.encode(out)).await?;
        }
        if !unused.is_empty() {
            let unused = GroupsUnused { groups: unused };
            let applied = inner.shard.propose_one(|out| unused.encode(out)).await?;
            if let Applied::Forgotten { groups } = applied
                && groups > 0
            {
                inner.retention.groups.fetch_add(groups, Ordering::Relaxed);
                tracing::info!(groups, "groups that receives made and that never acknowledged a message are gone");
            }
        }
        Ok(())
    }

    async fn expire(&mut self, inner: &Arc<Inner>) -> Result<(), NotDone> {
        let now = inner.shared.clock.now();
        let mut after = None;
        loop {
            let look = move |state: &State| state.expirations(now, after);
            let (expirations, next) = inner.shard.read(look).await?;
            for expire in expirations {
                self.expire_one(inner, &expire).await?;
            }
            let Some(next) = next else { return Ok(()) };
            after = Some(next);
        }
    }

    async fn expire_one(&mut self, inner: &Arc<Inner>, expire: &Expire) -> Result<(), NotDone> {
        let topic = topic_text(inner, expire.topic).await?;
        let applied = match inner.shard.propose_one(|out| expire.encode(out)).await {
            // Deleted meanwhile.
            Err(NotDone::Refused(Refusal::TopicNotFound(_))) => return Ok(()),
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

    async fn note_change(&mut self, inner: &Arc<Inner>) -> Result<(), NotDone> {
        let applied = applied(inner).await?;
        self.changed = Some((applied, self.changed.map_or_else(Instant::now, |(_, since)| since)));
        Ok(())
    }

    /// Writes again what is needed of the first segment, if that is little.
    ///
    /// Not at once: what is left of a segment is mostly younger than what went, and goes soon by itself. Only what stays
    /// behind while the log grows by some segments is carried, or where the disk is full.
    async fn carry(&mut self, inner: &Arc<Inner>, bound: Bound, full: bool) -> Result<(), NotDone> {
        let size = inner.segment_size;
        let usage = self.upkeep.housekeeping.usage();
        let segment = usage.start.0..usage.start.0 + size;
        let look = (segment.start, bound.covers, full);
        let known = self.looked.is_some_and(|(looked, at)| looked == look && (!full || at.elapsed() < LOOK_AGAIN_FULL));
        if known || bound.last_entry < segment.end || bound.log_from() >= segment.end {
            return Ok(());
        }
        let Some((bodies, bytes)) = little_that_is_needed(inner, &segment).await? else {
            self.mostly_free = None;
            self.looked = Some((look, Instant::now()));
            return Ok(());
        };
        let now = (segment.start, usage.end.0);
        let (_, end_then) =
            *self.mostly_free.insert(self.mostly_free.filter(|(start, _)| *start == now.0).unwrap_or(now));
        if !full && usage.end.0 - end_then < CARRY_AFTER * size {
            self.looked = Some((look, Instant::now()));
            return Ok(());
        }
        let mut count = 0;
        let reserve = inner.shard.standing().await?.reserve;
        let reserved = full && bytes + CARRIED_MORE * bodies.len() as u64 <= reserve / RESERVE_SHARE;
        let ended = carry_all(inner, bodies, reserved, &mut count).await;
        if count > 0 {
            inner.retention.carried.fetch_add(count, Ordering::Relaxed);
            tracing::info!(segment = segment.start, count, "carried on what is still needed of a segment");
            self.note_change(inner).await?;
        }
        ended?;
        self.looked = Some((look, Instant::now()));
        Ok(())
    }

    /// Asks for a snapshot where waiting for the next one would take too long: the disk is full, or the log stands still.
    async fn hurry(&mut self, inner: &Arc<Inner>, bounds: Option<Bounds>, full: bool) -> Result<(), NotDone> {
        let usage = self.upkeep.housekeeping.usage();
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
        }
        let covers = bounds.map(|bounds| bounds.newer.covers);
        if self.newest.is_none_or(|(newest, _)| newest != covers) {
            self.newest = Some((covers, Instant::now()));
        }
        let age = self.newest.map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let late = waits && self.changed.get_or_insert_with(|| (0, Instant::now())).1.elapsed() >= RELEASE_WITHIN;
        // While it is full anything may have made room: a topic was deleted, a transaction was ended. One that frees nothing
        // is not made: it would take what is set aside for one that does.
        let would_free = async || {
            // In this order: what is applied between the two looks may be needed, and lies behind the first.
            let applied = inner.shard.standing().await?.applied.0;
            let needed = move |state: &State| state.needed_from().min(applied);
            let freed = inner.shard.read(needed).await?.saturating_sub(start) / size;
            Ok::<_, NotDone>(bounds.is_none_or(|bounds| freed > free(&bounds.newer)))
        };
        let pressed = full && (waits || age >= FULL_SNAPSHOT_EVERY && would_free().await?);
        if !late && !pressed && !self.messages_wait_for_a_part(inner, age).await? {
            return Ok(());
        }
        // A snapshot covers more than the one before it: the log must go on for one, and it may stand still.
        if waits && covers.is_some() && self.nudged != covers {
            inner.shard.propose_one(|out| Seen { groups: Vec::new() }.encode(out)).await?;
            self.nudged = covers;
        }
        let position = applied(inner).await?;
        if covers.is_none_or(|covers| position > covers) {
            inner.shared.snapshots.want(position);
        }
        Ok(())
    }

    /// Messages expire when they are in a part, which comes with a snapshot: where the log grows slowly, one is due when
    /// the last one is as old as a quarter of the shortest retention.
    async fn messages_wait_for_a_part(&self, inner: &Arc<Inner>, age: Duration) -> Result<bool, NotDone> {
        if age < PART_EVERY {
            return Ok(false);
        }
        let shortest = inner.shard.read(|state| state.shortest_retention_unsealed()).await?;
        Ok(part_is_due(age, shortest))
    }
}

/// Whether the newest snapshot is so old that another one is due for the shortest retention of messages that are in none.
fn part_is_due(age: Duration, shortest: Option<Duration>) -> bool {
    age >= PART_EVERY && shortest.is_some_and(|shortest| age >= shortest / 4)
}

/// Everything before this position is applied.
async fn applied(inner: &Arc<Inner>) -> Result<u64, NotDone> {
    Ok(inner.shard.standing().await?.applied.0)
}

async fn topic_text(inner: &Arc<Inner>, id: TopicId) -> Result<String, NotDone> {
    let find = move |state: &State| state.topics().name_of(id).map(ToString::to_string);
    Ok(inner.shard.read(find).await?.unwrap_or_default())
}

/// What a look at some groups finds, each in ascending order.
struct GroupsLook {
    /// Groups with a member whose session lives, which the log has not shown lately.
    living: Vec<GroupId>,
    /// Groups that nobody uses any more.
    unused: Vec<GroupId>,
    /// Where to go on.
    next: Option<GroupId>,
}

impl GroupsLook {
    fn new(state: &State, shared: &Shared, after: Option<GroupId>) -> Self {
        let now = shared.clock.now();
        let mut look = Self { living: Vec::new(), unused: Vec::new(), next: None };
        let mut last = None;
        for (looked_at, group) in state.groups().after(after).enumerate() {
            if looked_at == GROUPS_AT_ONCE {
                look.next = last;
                break;
            }
            last = Some(group.id);
            let every = if group.is_unused() { UNUSED_SEEN_EVERY_MS } else { SEEN_EVERY_MS };
            if now.ms_since(group.seen) < every {
                continue;
            }
            if shared.sessions.has_member(&group.name) {
                look.living.push(group.id);
            } else if group.is_forgotten(state.at(Millis(now.0.saturating_sub(UNUSED_SEEN_EVERY_MS)))) {
                look.unused.push(group.id);
            }
        }
        look
    }
}

/// Writes records again, and counts them. One that cannot be read stays where it is, and keeps its segment.
async fn carry_all(inner: &Arc<Inner>, bodies: Vec<Body>, reserved: bool, count: &mut u64) -> Result<(), NotDone> {
    let mut rest = bodies.into_iter().peekable();
    while rest.peek().is_some() {
        let (mut batch, mut records) = (Vec::new(), 0);
        while batch.len() < CARRY_BATCH
            && let Some(body) = rest.next()
        {
            match carried(inner, body) {
                Ok(carried) => {
                    carried.encode(&mut batch);
                    records += 1;
                }
                Err(refusal) => {
                    tracing::error!(%refusal, "a damaged record keeps its segment in the log; see `vouch log verify`")
                }
            }
        }
        if records > 0 {
            if reserved {
                inner.shard.propose(batch).await?;
            } else {
                inner.shard.propose_if_room(batch).await?;
            }
            *count += records;
        }
    }
    Ok(())
}

/// What is needed of a stretch of the log, and how many bytes that is; `None` if it is much.
async fn little_that_is_needed(inner: &Arc<Inner>, stretch: &Range<u64>) -> Result<Option<(Vec<Body>, u64)>, NotDone> {
    let range = stretch.clone();
    let look = move |state: &State| state.bodies_in(range, CARRY_MAX + 1);
    let mut bodies = inner.shard.read(look).await?;
    let mut after = None;
    loop {
        let range = stretch.clone();
        let look = move |state: &State| state.messages_in(&range, after);
        let (more, next) = inner.shard.read(look).await?;
        bodies.extend(more);
        if bodies.len() > CARRY_MAX {
            return Ok(None);
        }
        let Some(next) = next else { break };
        after = Some(next);
    }
    let (reading, max) = (inner.clone(), (stretch.end - stretch.start) / CARRY_SHARE);
    let weigh = move || {
        let mut bytes = 0;
        for body in &bodies {
            bytes += stored::record(&reading.reader, body.position).map_or(0, |record| record.len() as u64);
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
fn carried(inner: &Inner, body: Body) -> Result<Carried, NotDone> {
    let Body { position, transaction, queued } = body;
    let unreadable = |why| NotDone::internal(format!("the record at position {position} cannot be carried on: {why}"));
    let record = stored::record(&inner.reader, position)?;
    let (from, record) = before_carried(&record).map_err(unreadable)?.unwrap_or((position, record));
    let (frame, _) = Frame::split(&record).map_err(unreadable)?;
    frame.verify().map_err(unreadable)?;
    // A piece of a component is known by where it lies, a message by where it lay at first.
    let from = if transaction.is_none() && queued.is_none() { position } else { transaction.unwrap_or(from) };
    Ok(Carried { from, queued, record: record.to_vec() })
}

/// Releases the segments that neither snapshot needs.
async fn release(inner: &Arc<Inner>, upkeep: &Arc<Upkeep>, bounds: Bounds) -> Result<(), NotDone> {
    let Some(older) = bounds.older else { return Ok(()) };
    let before = older.log_from().min(bounds.newer.log_from());
    let Range { start, end } = upkeep.housekeeping.usage().start.0..before;
    if end.saturating_sub(start) < inner.segment_size {
        return Ok(());
    }
    let releasing = upkeep.clone();
    let released = tokio::task::spawn_blocking(move || {
        // From here on the log alone says no longer what happened: both must be readable.
        if let Err(error) = releasing.snapshotter.read_back([older, bounds.newer]) {
            // If a newer one came and took the place of the older, the next pass goes by those that are kept now.
            if releasing.snapshotter.bounds() == Some(bounds) {
                tracing::error!(%error, "a snapshot cannot be read back; no segment is released");
            }
            return Ok(Released::default());
        }
        releasing.housekeeping.release_before(LogPosition(before))
    })
    .await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_log_gets_a_snapshot_each_quarter_of_the_shortest_retention_and_none_within_ten_minutes() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let due = |age, shortest| part_is_due(minutes(age), Some(minutes(shortest)));
        assert!(due(60, 240) && !due(59, 240));
        assert!(due(10, 1) && !due(9, 1), "ten minutes at least, however short it is");
        assert!(!part_is_due(minutes(10_000), None), "nothing waits for one");
    }
}
