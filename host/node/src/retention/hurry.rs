//! Snapshots that are made for retention, where waiting for the next one would take too long.

use std::time::{Duration, Instant};
use vouch_commitlog::LogPosition;

use vouch_broker::record::Seen;
use vouch_broker::{NotDone, State};
use vouch_storage::{SnapshotBound, SnapshotBounds};

use super::Keeper;

/// What expired is released with the snapshots that are made anyway; where the log stands still, after this long.
const RELEASE_WITHIN: Duration = Duration::from_secs(600);
/// Snapshots that are made only for retention are at least so far apart: where the log grows slowly, and on a full disk.
const PART_EVERY: Duration = Duration::from_secs(600);
const FULL_SNAPSHOT_EVERY: Duration = Duration::from_secs(2);
/// What was asked for is made by then, or is not coming.
const NAMED_WITHIN: Duration = Duration::from_secs(60);

impl Keeper {
    /// Asks for a snapshot where waiting for the next one would take too long: the disk is full, or the log stands still.
    pub(super) async fn hurry(&mut self, bounds: Option<SnapshotBounds>, full: bool) -> Result<(), NotDone> {
        let usage = self.of.upkeep.housekeeping.usage();
        let (start, size) = (usage.start, self.of.segment_size);
        let free = |bound: &SnapshotBound| bound.log_from().saturating_since(start) / size;
        let waits = match (bounds, self.changed) {
            // A newer snapshot may say that more is free than the last one does.
            (None, _) => usage.end.since(start) >= 2 * size,
            (Some(bounds), Some((changed, _))) if bounds.newer.covers < changed => true,
            (Some(SnapshotBounds { older, newer }), _) => free(&newer) > older.as_ref().map_or(0, free),
        };
        if !waits {
            self.changed = None;
        }
        let covers = bounds.map(|bounds| bounds.newer.covers);
        if self.newest.is_none_or(|(newest, _)| newest != covers) {
            self.newest = Some((covers, Instant::now()));
        }
        let age = self.newest.map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let late = waits
            && self.changed.get_or_insert_with(|| (LogPosition::START, Instant::now())).1.elapsed() >= RELEASE_WITHIN;
        // While it is full anything may have made room: a topic was deleted, a transaction was ended. One that frees nothing
        // is not made: it would take what is set aside for one that does.
        let would_free = async || {
            // In this order: what is applied between the two looks may be needed, and lies behind the first.
            let applied = self.of.shard.standing().await?.applied;
            let needed = move |state: &State| vouch_storage::log_position(state.needed_from()).min(applied);
            let freed = self.of.shard.read(needed).await?.saturating_since(start) / size;
            Ok::<_, NotDone>(bounds.is_none_or(|bounds| freed > free(&bounds.newer)))
        };
        let pressed = full && (waits || age >= FULL_SNAPSHOT_EVERY && would_free().await?);
        if !late && !pressed && !self.messages_wait_for_a_part(age).await? {
            return Ok(());
        }
        let by_name = !full && self.of.shard.read(|state| state.cluster().names_snapshots()).await?;
        if by_name && self.asks_for_a_name(covers) {
            return Ok(());
        }
        // A snapshot covers more than the one before it: the log must go on for one, and it may stand still.
        if waits && covers.is_some() && self.nudged != covers {
            // Where another one leads, that one lets the log go on.
            let seen = self.of.shard.propose_one(|out| Seen { groups: Vec::new() }.encode(out)).await;
            super::if_it_leads(seen.map(drop))?;
            self.nudged = covers;
        }
        let position = self.of.applied().await?;
        if covers.is_none_or(|covers| position > covers) {
            // On a full disk a part ends with it, since the next ones need the room.
            if full { self.of.snapshots.want(position) } else { self.of.snapshots.want_here(position) }
        }
        Ok(())
    }

    /// Asks for a snapshot where every replica makes one, once. It is named by whoever leads; a replica that follows waits, for that
    /// one has the same reason, mostly. `false`: it was asked for and did not come, so this replica makes one of its own. `covers`: what
    /// the newest one covers.
    fn asks_for_a_name(&mut self, covers: Option<LogPosition>) -> bool {
        match self.asked {
            Some((before, at)) if before == covers => at.elapsed() < NAMED_WITHIN,
            _ => {
                self.of.shard.name_snapshot();
                self.asked = Some((covers, Instant::now()));
                true
            }
        }
    }

    /// Messages expire when they are in a part, which comes with a snapshot: where the log grows slowly, one is due when
    /// the last one is as old as a quarter of the shortest retention.
    async fn messages_wait_for_a_part(&self, age: Duration) -> Result<bool, NotDone> {
        if age < PART_EVERY {
            return Ok(false);
        }
        let shortest = self.of.shard.read(|state| state.shortest_retention_unsealed()).await?;
        Ok(part_is_due(age, shortest))
    }
}

/// Whether the newest snapshot is so old that another one is due for the shortest retention of messages that are in none.
fn part_is_due(age: Duration, shortest: Option<Duration>) -> bool {
    age >= PART_EVERY && shortest.is_some_and(|shortest| age >= shortest / 4)
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
