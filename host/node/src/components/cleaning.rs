//! Emptying the fence tables of a binding's databases.
//!
//! A row is needed for as long as its transaction may be asked about, or a business transaction may still come to insert it. So no
//! row goes that was noted later than a day before the oldest transaction that is open or parked, of whichever topic: several bindings
//! may share a table, and a topic may have left its binding.

use std::time::{Duration, SystemTime};

use vouch_broker::{Millis, NotDone, Refusal, State};

use super::Components;

/// Rows of this long before the oldest transaction stay: the clocks of broker and database differ.
const MARGIN: Duration = Duration::from_secs(24 * 60 * 60);
/// No row goes that is younger: a business transaction may still run, or its half be on its way.
const OLDER_THAN_MIN: Duration = MARGIN;
/// How long the databases of one binding may take, together: the answer is in time for whoever passes the request on.
const CLEANED_WITHIN: Duration = Duration::from_secs(60);

/// What came of a cleaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceCleaning {
    /// Rows went that were noted before this.
    pub noted_before: Millis,
    /// Of each database with a fence.
    pub databases: Vec<CleanedFence>,
}

/// What came of it in one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanedFence {
    /// Its name in the binding.
    pub name: String,
    /// Rows that went, or would go.
    pub rows: u64,
    /// There are more, for which the time was too short.
    pub more: bool,
    /// What the database said, where it failed.
    pub error: Option<String>,
}

impl Components {
    /// Deletes rows of the binding's fence tables that are older than this and that nobody needs any more. `dry`: only says how many
    /// those are.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::Invalid`] where the binding has no fence, or less than a day is asked for; a log that is only read. What a database
    /// says is told beside its name.
    pub async fn clean_fences(&self, name: &str, older_than: Duration, dry: bool) -> Result<FenceCleaning, NotDone> {
        self.writable.check()?;
        if older_than < OLDER_THAN_MIN {
            return Err(invalid(format!(
                "rows younger than {} are never deleted: a business transaction may still run",
                humantime::format_duration(OLDER_THAN_MIN)
            )));
        }
        let missing = || NotDone::Refused(Refusal::NotFound(format!("there is no binding {name}")));
        let entry = self.binding(name).await?.ok_or_else(missing)?;
        let answerer = self.bound.answerer(name, &entry).await?;
        let fences: Vec<_> = answerer.binding.fences().collect();
        if fences.is_empty() {
            return Err(invalid(format!("binding {name} grants no database with a fence table")));
        }
        let mut before = self.clock.now().0.saturating_sub(millis(older_than));
        if let Some(oldest) = self.oldest_open().await? {
            before = before.min(oldest.0.saturating_sub(millis(MARGIN)));
        }
        let noted_before = SystemTime::UNIX_EPOCH + Duration::from_millis(before);
        let until = tokio::time::Instant::now() + CLEANED_WITHIN;
        let mut databases = Vec::new();
        for (name, fence) in fences {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let cleaned = fence.clean(noted_before, left, dry).await;
            let (rows, more, error) = match cleaned {
                Ok((rows, all)) => (rows, !all, None),
                Err(why) => (0, true, Some(why.to_string())),
            };
            databases.push(CleanedFence { name: name.to_owned(), rows, more, error });
        }
        Ok(FenceCleaning { noted_before: Millis(before), databases })
    }

    /// When the oldest transaction was opened that has not ended: they are in the order of the log.
    async fn oldest_open(&self) -> Result<Option<Millis>, NotDone> {
        let look = |state: &State| state.open_transactions().iter(None).next().map(|(_, open)| open.opened_at);
        self.shard.read(look).await
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn invalid(why: String) -> NotDone {
    NotDone::Refused(Refusal::Invalid(why))
}
