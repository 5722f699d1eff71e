//! What of the log is damaged, and what was in it.

mod content;
mod report;
mod stretches;

use std::ops::Range;
use std::sync::Arc;

use vouch_broker::NotDone;
use vouch_commitlog::{LogPosition, LogReader};
use vouch_storage::{ScrubReport, ShardFolder};

use crate::routes::Routes;
use crate::served::ServedLog;
use crate::turns::SearchTurns;
pub use report::{Damage, DamagedStretch, LostContent, LostMessages};
use stretches::stretch;
use vouch_shard::Shard;

/// Most stretches that are told one by one.
const STRETCHES_MAX: usize = 100;

/// What of the log is damaged: found by the start of a log that is served read-only, and by the scrubber of any other.
/// To ask changes and mends nothing.
pub struct LogDamage {
    pub(crate) shard: Arc<Shard>,
    pub(crate) log: LogReader,
    pub(crate) served: Arc<ServedLog>,
    pub(crate) folder: ShardFolder,
    /// Bytes of a segment: says in which file a position lies.
    pub(crate) segment_size: u64,
    /// What the log should still hold and lies before its first file.
    pub(crate) missing: Option<Range<LogPosition>>,
    /// What the scrubber found since the node started.
    pub(crate) scrub: Arc<ScrubReport>,
    /// Where segments begin that were damaged, and that the start took from other nodes.
    pub(crate) repaired: Vec<LogPosition>,
    pub(crate) routes: Arc<Routes>,
    /// Looking through many is done by few at a time.
    pub(crate) turns: SearchTurns,
}

impl LogDamage {
    /// How many segments of the log other nodes gave before this one began to serve, since its own were damaged.
    pub fn repaired_segments(&self) -> usize {
        self.repaired.len()
    }

    /// What of the log is damaged, as far as it is known, and what was in it. Looks through the indexes of all queues,
    /// in steps, and waits for its turn first.
    ///
    /// # Errors
    /// [`NothingStored::Stopping`](vouch_broker::NothingStored::Stopping).
    pub async fn report(&self) -> Result<Damage, NotDone> {
        let _turn = self.turns.take().await?;
        let (mut stretches, served_to, not_served_bytes) = match &*self.served {
            ServedLog::Damaged(log) => {
                let stretches = log.found.damage.iter().map(stretch).chain(self.doubtful(log.doubtful_to));
                let mut stretches: Vec<_> = stretches.collect();
                if let Some(lost) = &log.lost {
                    stretches.push(self.without_parts(lost).await?);
                }
                (stretches, Some(log.served_to), log.not_served_bytes())
            }
            ServedLog::Kept(_) => {
                let mut stretches: Vec<_> = self.scrub.found().iter().map(stretch).collect();
                for file in self.scrub.lost() {
                    stretches.push(self.lost_file(file).await?);
                }
                (stretches, None, 0)
            }
        };
        stretches.extend(self.missing_head());
        stretches.sort_by_key(|stretch| stretch.from);
        let omitted = stretches.len().saturating_sub(STRETCHES_MAX) as u64;
        stretches.truncate(STRETCHES_MAX);
        self.find_what_was_there(&mut stretches, served_to.unwrap_or(LogPosition::BEYOND)).await?;
        let repaired = self.repaired.clone();
        Ok(Damage { repaired, served_to, log_end: self.log.end(), not_served_bytes, stretches, omitted })
    }
}
