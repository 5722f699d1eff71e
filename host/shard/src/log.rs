//! The log of a shard, as its executor writes it.

use std::sync::Arc;

use vouch_broker::NothingStored;
use vouch_commitlog::{
    AppendError, Appended, Appender, Checkpoint, Entry, EntrySpan, LogPosition, LogReader, ReadError,
};
use vouch_consensus::{NodeId, Replica, Vote};
use vouch_storage::{Committed, NotedCut, ReplicaFile};

use crate::core::{CoreSettings, EntryToAppend, LeaderEntry, LogStanding};
use crate::inbox::Inbox;
use crate::noting::NoteKeeper;

/// Space of the log that sends leave to what ends transactions, acknowledges or makes room when the disk is full: some
/// hundred thousand such records. At most half of what is prepared ahead.
const RESERVE_BYTES: u64 = 32 << 20;

/// From where to where an entry lies, with what goes in front of it.
pub(crate) type EntryPlace = (LogPosition, LogPosition);

/// Where the records of a shard go.
pub enum Output {
    /// To the end of its log.
    Log(Box<OutputLog>),
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

/// A log that goes on, with all that a replica of its group has besides its state.
pub struct OutputLog {
    /// Which it appends to.
    pub appender: Appender,
    /// Reads what was appended.
    pub reader: LogReader,
    /// Bytes of the log that are kept prepared ahead.
    pub prepared: u64,
    /// Its part in its group.
    pub replica: Replica<LeaderEntry>,
    /// What it notes beside the log.
    pub file: ReplicaFile,
    /// The last entry that is applied: nothing before it is ever cut off.
    pub base: Option<Checkpoint>,
    /// The entries behind that.
    pub tail: Vec<Entry>,
    /// What somebody set.
    pub settings: CoreSettings,
}

/// The log that a shard has.
pub(crate) struct Log {
    /// `None`: the log is only read, or was let go.
    appender: Option<Appender>,
    reader: Option<LogReader>,
    /// `None`: nothing is noted.
    noting: Option<NoteKeeper>,
    /// How far it is known to be committed.
    commit: Option<Committed>,
    /// The entry behind which it began in this life; `None` at the very beginning.
    base: Option<Checkpoint>,
    /// How it stands where there is no appender.
    fixed: LogStanding,
}

/// How a shard begins on a log.
pub(crate) struct ShardBeginning {
    pub(crate) log: Log,
    pub(crate) applied: LogPosition,
    pub(crate) tail: Vec<Entry>,
    pub(crate) reserve: u64,
    pub(crate) settings: CoreSettings,
    pub(crate) replica: Option<Replica<LeaderEntry>>,
    pub(crate) closed: Option<NothingStored>,
}

fn fixed(start: LogPosition, appended: LogPosition, durable: LogPosition) -> LogStanding {
    LogStanding { start, appended, durable, covered: true, mark_due_in: None, short: None, failed: false }
}

impl Log {
    /// `inbox` hears if something cannot be noted beside the log.
    ///
    /// # Errors
    /// The system gave no thread.
    pub(crate) fn of(output: Output, inbox: &Arc<Inbox>) -> std::io::Result<ShardBeginning> {
        Ok(match output {
            Output::Log(log) => {
                let OutputLog { appender, reader, prepared, replica, file, base, tail, settings } = *log;
                // What was recovered is durable before the executor begins, and applied but for the tail.
                let end = appender.appended();
                let log = Self {
                    noting: Some(NoteKeeper::start(file, inbox.clone())?),
                    commit: None,
                    base,
                    fixed: fixed(reader.start(), end, end),
                    appender: Some(appender),
                    reader: Some(reader),
                };
                let applied = tail.first().and(base).map_or(end, |base| base.end);
                let reserve = RESERVE_BYTES.min(prepared / 2);
                ShardBeginning { log, applied, tail, reserve, settings, replica: Some(replica), closed: None }
            }
            Output::Refused { why, appended, durable, applied } => {
                let fixed = fixed(LogPosition::START, appended, durable);
                let log = Self { appender: None, reader: None, noting: None, commit: None, base: None, fixed };
                let (tail, reserve, settings, replica) = (Vec::new(), 0, CoreSettings::default(), None);
                ShardBeginning { log, applied, tail, reserve, settings, replica, closed: Some(why) }
            }
        })
    }

    /// Reads what was appended; nothing where nothing is.
    pub(crate) fn reader(&self) -> Option<&LogReader> {
        self.reader.as_ref()
    }

    pub(crate) fn standing(&self) -> LogStanding {
        let Some(appender) = &self.appender else { return self.fixed };
        LogStanding {
            start: self.reader.as_ref().map_or(LogPosition::START, LogReader::start),
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
        #[cfg(any(test, feature = "testing"))]
        crate::faults::appends(&parts, appender.durable());
        let appended = appender.append(entry.header, &parts);
        #[cfg(any(test, feature = "testing"))]
        crate::faults::appended(appender.appended());
        appended
    }

    /// Makes a vote durable.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub(crate) fn save_vote(&mut self, vote: Vote) -> Result<(), String> {
        let Some(noting) = &self.noting else { return Err("the log is only read".to_owned()) };
        noting.save_vote(vote).map_err(|error| format!("a vote cannot be noted: {error}"))
    }

    /// Notes that it is one of several from now on, and lets what is appended settle when it is committed.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub(crate) fn join_group(&mut self, node: NodeId) -> Result<(), String> {
        let (Some(appender), Some(noting)) = (&mut self.appender, &self.noting) else {
            return Err("the log is only read".to_owned());
        };
        appender.settle_by_caller();
        // From now on marks prove nothing: what is durable and committed so far must be noted first.
        let progress = self.commit.map(|commit| (appender.durable().min(commit.position), commit));
        noting
            .is_member(node, progress)
            .map_err(|error| format!("that this node is one of several cannot be noted: {error}"))
    }

    /// Appends an entry of a leader, byte for byte.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub(crate) fn append_span(&mut self, span: &EntrySpan) -> Result<(), String> {
        let Some(appender) = &mut self.appender else { return Err("the log is only read".to_owned()) };
        appender.append_span(span).map(drop).map_err(|error| error.to_string())
    }

    /// Cuts off what lies behind an entry.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub(crate) fn cut(&mut self, span: Option<(LogPosition, LogPosition)>) -> Result<(), String> {
        let (Some(appender), Some(noting), Some(reader)) = (&mut self.appender, &self.noting, &self.reader) else {
            return Err("the log is only read".to_owned());
        };
        let last = match span {
            Some((from, to)) => reader.span(from, to).map_err(|error| error.to_string())?.checkpoint(),
            None => self.base.ok_or("nothing stays of the log, which no leader may ask for")?,
        };
        let cut = NotedCut { to: last.end, end: appender.appended() };
        let cut = noting.cut(cut, || appender.cut(&last).map_err(std::io::Error::other));
        cut.map_err(|error: std::io::Error| format!("the end of the log cannot be cut off: {error}"))
    }

    /// The entries in these places, with what goes in front of each.
    ///
    /// # Errors
    /// Which place cannot be read, and why.
    pub(crate) fn spans(&self, places: &[EntryPlace]) -> Result<Vec<EntrySpan>, (EntryPlace, ReadError)> {
        let reader = self.reader.as_ref().into_iter();
        let span =
            |reader: &LogReader, place: EntryPlace| reader.span(place.0, place.1).map_err(|error| (place, error));
        reader.flat_map(|reader| places.iter().map(move |place| span(reader, *place))).collect()
    }

    /// The log is committed up to there: its bytes stay, and that is noted some time later.
    pub(crate) fn committed(&mut self, commit: Committed) {
        let Some(appender) = &mut self.appender else { return };
        appender.settle(commit.position);
        self.commit = Some(commit);
        if let Some(noting) = &self.noting {
            noting.follow(appender.durable(), commit);
        }
    }

    /// Ends the log's threads without another sync: nothing is written there any more.
    pub(crate) fn let_go(&mut self) {
        self.fixed = LogStanding { failed: true, short: None, ..self.standing() };
        drop(self.appender.take());
        drop(self.noting.take());
    }

    /// Makes all of it durable, notes that, and closes it, if it is there.
    pub(crate) fn close(self) -> Result<(), AppendError> {
        let end = self.appender.map(Appender::close).transpose()?;
        if let Some(noting) = self.noting {
            noting.end(end.zip(self.commit));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vouch_broker::{Millis, ShardId};
    use vouch_commitlog::simulated::{Image, SimDisk, SimFault, Steps, open, open_note};
    use vouch_commitlog::{EntryHeader, EntryKind, LogConfig, Shortage};

    use vouch_storage::LogName;

    use super::*;
    use crate::core::{Claim, Hearer, Proposal};
    use crate::group::alone;

    fn entry(index: u64) -> EntryToAppend {
        let header = EntryHeader { term: 1, index, leader_time_ms: Millis(1).0, kind: EntryKind::Records };
        let proposal = Proposal { records: vec![1; 1000], told: Hearer::Nobody, cost: 0, claim: Claim::Reserve };
        EntryToAppend { header, begins: false, proposals: vec![proposal] }
    }

    #[test]
    fn a_log_that_was_let_go_is_short_of_nothing_any_more() {
        let disk = SimDisk::new(Image::new());
        let config = LogConfig { segment_size: 16 << 10, zero_ahead: 4 << 10, ..LogConfig::new("log", [1; 16], 0) };
        let (appender, reader, recovery) = open(&disk, &config, drop, &mut |_| Ok(())).unwrap();
        let name = LogName { cluster_id: [1; 16], shard: ShardId::FIRST };
        let file = ReplicaFile::begin(open_note(&disk, "replica").unwrap(), name, &recovery).unwrap();
        let replica = alone(&recovery, file.note()).unwrap();
        let (prepared, base, tail) = (4 << 10, None, Vec::new());
        let log =
            OutputLog { appender, reader, prepared, replica, file, base, tail, settings: CoreSettings::default() };
        let output = Output::Log(Box::new(log));
        let mut log = Log::of(output, &Arc::new(Inbox::new(1))).unwrap().log;
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
