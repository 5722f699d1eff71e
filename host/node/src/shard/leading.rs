//! Who writes a log: whoever leads its group, and nobody else (ruling 29). A group of one is led by its only member as soon as
//! its thread runs; what a node's start has to say is the first thing that it proposes.

use tokio::sync::oneshot;
use vouch_broker::record::{ClusterInit, Leapt, NodeStarted};
use vouch_broker::{NotDone, NothingStored};
use vouch_storage::{FEATURE_LEVEL, VERSION};

use super::executor::Executor;
use super::inbox::{Claim, Proposal};
use super::leadership::{Beginning, Begun, Lead};

impl Executor {
    /// Leads from now on. The first batch says what every log begins with, and that this node goes on from here; it has an
    /// entry of its own.
    pub(super) fn lead(&mut self, lead: Lead) {
        let Lead { leadership, cluster_id, segment_size, on_begun } = lead;
        self.leadership = Some(leadership);
        let mut records = Vec::new();
        if self.state.cluster().init.is_none() {
            let init = ClusterInit {
                cluster_id,
                segment_size,
                handle_key: rand::random(),
                feature_level: FEATURE_LEVEL,
                written_by: VERSION.to_owned(),
            };
            init.encode(&mut records);
        }
        NodeStarted { version: VERSION.to_owned() }.encode(&mut records);
        if let Some(from) = self.shared.clock.leapt_from() {
            Leapt { from, doubted: true }.encode(&mut records);
        }
        let (reply, answer) = oneshot::channel();
        self.beginning = Some(Beginning { answer, on_begun });
        self.propose(Proposal { records, reply: Some(reply), cost: 0, claim: Claim::Reserve });
        self.write_batch();
        // It may have been refused.
        self.tell_begun();
    }

    /// Tells whoever waits for the start, as soon as there is something to tell.
    pub(super) fn tell_begun(&mut self) {
        let Some(beginning) = &mut self.beginning else { return };
        let begun = match beginning.answer.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => return,
            Err(oneshot::error::TryRecvError::Closed) => Err(NothingStored::Stopping.into()),
            Ok(Err(refusal)) => Err(refusal),
            Ok(Ok(outcomes)) => match outcomes.into_iter().find_map(Result::err) {
                Some(refusal) => Err(refusal.into()),
                None => self.begun(),
            },
        };
        if let Some(Beginning { on_begun, .. }) = self.beginning.take() {
            // Whoever gave the start up stops the shard.
            let _ = on_begun.send(begun);
        }
    }

    fn begun(&self) -> Result<Begun, NotDone> {
        let init = self.state.cluster().init.clone();
        let init = init.ok_or_else(|| NotDone::internal("the log does not say whose it is"))?;
        Ok(Begun { init, applied: self.standing().applied })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::Duration;

    use vouch_broker::{Millis, State};
    use vouch_commitlog::{Appender, CommitLog, EntryKind, LogConfig, LogReader};

    use super::super::leadership::Leadership;
    use super::*;
    use crate::clock::{Clock, SystemTimeSource};
    use crate::shard::inbox::Inbox;
    use crate::shard::{Command, Output, Shared, Standing};
    use vouch_storage::Requests;

    const CLUSTER: [u8; 16] = [7; 16];
    const SEGMENT: u64 = 4 << 20;
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Start {
        _folder: tempfile::TempDir,
        output: Output,
        reader: LogReader,
        inbox: Arc<Inbox>,
        shared: Arc<Shared>,
        lead: Lead,
        begun: Receiver<Result<Begun, NotDone>>,
    }

    /// `uncovered`: there is an entry that asks for a mark.
    fn new_log(uncovered: bool) -> Start {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Arc::new(Inbox::new(1 << 20));
        let reports = inbox.clone();
        let config =
            LogConfig { segment_size: SEGMENT, zero_ahead: 1 << 20, ..LogConfig::new(folder.path(), CLUSTER, 0) };
        let opened = CommitLog::open(config, Box::new(move |news| reports.report(news)), &mut |_| Ok::<(), String>(()));
        let (mut appender, reader, recovery): (Appender, _, _) = opened.unwrap();
        if uncovered {
            appender.append(Leadership::of_one(&recovery).header(EntryKind::Records, Millis(1)), &[]).unwrap();
        }
        let output = Output::Log { appender, reader: reader.clone(), prepared: 1 << 20 };
        let clock = Clock::start(Millis(0), Arc::new(SystemTimeSource));
        let shared = Arc::new(Shared::new(clock, Arc::new(Requests::due_at(u64::MAX))));
        let (on_begun, begun) = sync_channel(1);
        let leadership = Leadership::of_one(&recovery);
        let lead = Lead { leadership, cluster_id: CLUSTER, segment_size: SEGMENT, on_begun };
        Start { _folder: folder, output, reader, inbox, shared, lead, begun }
    }

    #[test]
    fn who_waits_for_the_start_hears_of_it_when_the_first_records_are_durable_and_not_before() {
        let Start { _folder, output, reader, inbox, shared, lead, begun } = new_log(false);
        let mut executor = Executor::new(State::default(), output, inbox.clone(), shared.clone());
        inbox.serve_here();
        executor.lead(lead);
        let Standing { appended, applied, .. } = executor.standing();
        assert!(reader.end().0 == appended && applied < appended && begun.try_recv().is_err());
        assert!(executor.state.cluster().init.is_none(), "nothing is applied before it is durable");
        executor.tell_begun();
        assert!(begun.try_recv().is_err());
        let run = std::thread::spawn(move || executor.run(None));
        let Begun { init, applied } = begun.recv_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!(applied, appended);
        assert_eq!((init.cluster_id, init.segment_size), (CLUSTER, SEGMENT));
        inbox.push(Command::Stop);
        run.join().unwrap();
    }

    #[test]
    fn who_waits_for_a_start_that_the_log_refuses_hears_that_too() {
        let Start { _folder, output, inbox, shared, lead, begun, .. } = new_log(false);
        let mut executor = Executor::new(State::default(), output, inbox, shared);
        executor.fence("the folder is gone".to_owned());
        executor.lead(lead);
        assert!(
            matches!(begun.try_recv().unwrap(), Err(NotDone::NothingStored(NothingStored::Poisoned(why))) if why == "the folder is gone")
        );
    }

    #[test]
    fn a_shard_that_does_not_lead_writes_nothing() {
        let Start { _folder, output, reader, inbox, shared, .. } = new_log(true);
        let begin = reader.end();
        let mut executor = Executor::new(State::default(), output, inbox.clone(), shared);
        executor.propose_own(|out| NodeStarted { version: VERSION.to_owned() }.encode(out));
        executor.write_batch();
        inbox.push(Command::Stop);
        executor.run(None);
        assert_eq!(reader.end(), begin, "not even the mark of its end");
    }

    #[test]
    fn a_fence_that_comes_while_a_shard_stops_keeps_it_from_writing_even_the_mark_of_the_end() {
        let Start { _folder, output, reader, inbox, shared, lead, begun: _begun } = new_log(false);
        let mut executor = Executor::new(State::default(), output, inbox.clone(), shared);
        inbox.serve_here();
        executor.lead(lead);
        let begun_at = reader.end();
        let (done, fenced) = oneshot::channel();
        inbox.push(Command::Fence("the folder is gone".to_owned(), done));
        executor.stop();
        assert_eq!(reader.end(), begun_at);
        assert_eq!(fenced.blocking_recv(), Ok(()));
    }

    #[test]
    fn a_shard_that_stopped_writing_for_a_lost_part_still_covers_the_end_of_its_log() {
        let Start { _folder, output, reader, inbox, shared, lead, begun: _begun } = new_log(false);
        let mut executor = Executor::new(State::default(), output, inbox.clone(), shared);
        inbox.serve_here();
        executor.lead(lead);
        let begun_at = reader.end();
        while executor.standing().durable < begun_at.0 {
            inbox.take(Some(Duration::from_millis(1)), Vec::new());
        }
        executor.poison("a part of the index is damaged in both copies".to_owned());
        executor.stop();
        let after: Vec<_> = reader.entries_from(begun_at).map(|entry| entry.unwrap().kind).collect();
        assert_eq!(after, [EntryKind::Mark]);
    }
}
