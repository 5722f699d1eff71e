//! The log of a shard, as its executor writes it.

use vouch_broker::NothingStored;
use vouch_commitlog::{AppendError, Appended, Appender, LogPosition, LogReader};

use vouch_consensus::{Replica, Vote};

use crate::core::{Body, EntryToAppend, LogStanding};

/// Space of the log that sends leave to what ends transactions, acknowledges or makes room when the disk is full: some
/// hundred thousand such records. At most half of what is prepared ahead.
const RESERVE_BYTES: u64 = 32 << 20;

/// Where the records of a shard go.
pub enum Output {
    /// To the end of its log.
    Log {
        /// Which it appends to.
        appender: Appender,
        /// Reads what was appended.
        reader: LogReader,
        /// Bytes of the log that are kept prepared ahead.
        prepared: u64,
        /// Its part in its group.
        replica: Box<Replica<Body>>,
    },
    /// Nowhere: the log is damaged and only read.
    Refused {
        /// What everybody hears who wants to write.
        why: NothingStored,
        /// Position before which the log is there.
        appended: LogPosition,
        /// Position before which it was durable.
        durable: LogPosition,
        /// Position before which it is applied.
        applied: LogPosition,
    },
}

/// The log that a shard has.
pub(crate) struct Log {
    /// `None`: the log is only read, or was let go.
    appender: Option<Appender>,
    reader: Option<LogReader>,
    /// How it stands where there is no appender.
    fixed: LogStanding,
}

/// How a shard begins on a log.
pub(crate) struct ShardBeginning {
    pub(crate) log: Log,
    pub(crate) applied: LogPosition,
    pub(crate) reserve: u64,
    pub(crate) replica: Option<Replica<Body>>,
    pub(crate) closed: Option<NothingStored>,
}

fn fixed(appended: LogPosition, durable: LogPosition) -> LogStanding {
    LogStanding { appended, durable, covered: true, mark_due_in: None, short: None, failed: false }
}

impl Log {
    pub(crate) fn of(output: Output) -> ShardBeginning {
        match output {
            Output::Log { appender, reader, prepared, replica } => {
                // What was recovered is durable and applied before the executor begins.
                let applied = appender.appended();
                let log = Self { fixed: fixed(applied, applied), appender: Some(appender), reader: Some(reader) };
                ShardBeginning { log, applied, reserve: RESERVE_BYTES.min(prepared / 2), replica: Some(*replica), closed: None }
            }
            Output::Refused { why, appended, durable, applied } => {
                let log = Self { appender: None, reader: None, fixed: fixed(appended, durable) };
                ShardBeginning { log, applied, reserve: 0, replica: None, closed: Some(why) }
            }
        }
    }

    /// Reads what was appended; nothing where nothing is.
    pub(crate) fn reader(&self) -> Option<&LogReader> {
        self.reader.as_ref()
    }

    pub(crate) fn standing(&self) -> LogStanding {
        let Some(appender) = &self.appender else { return self.fixed };
        LogStanding {
            appended: appender.appended(),
            durable: appender.durable(),
            covered: appender.is_covered(),
            mark_due_in: appender.mark_due_in(),
            // The shortage may have passed between the two.
            short: appender.short_of_space().and_then(|left| Some((appender.shortage()?, left))),
            failed: appender.poisoned().is_some(),
        }
    }

    /// Appends an entry. Nothing of it is durable before the log says so.
    ///
    /// # Errors
    /// Those of [`Appender::append`].
    pub(crate) fn append(&mut self, entry: &EntryToAppend) -> Result<Appended, AppendError> {
        let parts: Vec<&[u8]> = entry.proposals.iter().map(|proposal| proposal.records.as_slice()).collect();
        let appender = self.appender.as_mut().expect("a core writes nothing to a log that is closed");
        appender.append(entry.header, &parts)
    }

    /// Makes a vote durable.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub(crate) fn save_vote(&mut self, _: Vote) -> Result<(), String> {
        Ok(())
    }

    /// Ends the log's threads without another sync: nothing is written there any more.
    pub(crate) fn let_go(&mut self) {
        self.fixed = LogStanding { failed: true, short: None, ..self.standing() };
        drop(self.appender.take());
    }

    /// Makes all of it durable and closes it, if it is there.
    pub(crate) fn close(self) -> Result<(), AppendError> {
        self.appender.map_or(Ok(()), |appender| appender.close().map(drop))
    }
}

#[cfg(test)]
mod tests {
    use vouch_broker::Millis;
    use vouch_commitlog::simulated::{Image, SimDisk, SimFault, Steps, open};
    use vouch_commitlog::{EntryHeader, EntryKind, LogConfig, Shortage};

    use super::*;
    use crate::core::{Claim, Hearer, Proposal};

    fn entry(index: u64) -> EntryToAppend {
        let header = EntryHeader { term: 1, index, leader_time_ms: Millis(1).0, kind: EntryKind::Records };
        let proposal = Proposal { records: vec![1; 1000], told: Hearer::Nobody, cost: 0, claim: Claim::Reserve };
        EntryToAppend { header, proposals: vec![proposal] }
    }

    #[test]
    fn a_log_that_was_let_go_is_short_of_nothing_any_more() {
        let disk = SimDisk::new(Image::new());
        let config = LogConfig { segment_size: 16 << 10, zero_ahead: 4 << 10, ..LogConfig::new("log", [1; 16], 0) };
        let (appender, reader, _) = open(&disk, &config, drop, &mut |_| Ok(())).unwrap();
        let mut log = Log::of(Output::Log { appender, reader, prepared: 4 << 10 }).log;
        disk.inject(SimFault::NoSpace);
        for index in 1.. {
            Steps::fill(log.appender.as_ref().unwrap());
            if log.standing().short.is_some() {
                break;
            }
            log.append(&entry(index)).unwrap();
        }
        assert!(matches!(log.standing().short, Some((Shortage::Space, _))));
        log.let_go();
        let standing = log.standing();
        assert!(standing.failed && standing.short.is_none(), "{:?}", standing.short);
    }
}
