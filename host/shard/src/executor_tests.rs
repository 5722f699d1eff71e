//! An executor on a real log: what a start proposes, and what is written when it ends.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;
use vouch_broker::record::{FEATURE_LEVEL, NodeInvited, NodeStarted};
use vouch_broker::{Millis, NotDone, NothingStored, ShardId, State};
use vouch_commitlog::{CommitLog, EntryHeader, EntryKind, LogConfig, LogReader, NoteFile};
use vouch_consensus::{Append, ClusterIncarnation, EntryId, NodeId, Said};
use vouch_leader::testing::Living;
use vouch_storage::{LogName, ReplicaFile, Requests, VERSION};

use super::*;
use crate::clock::{Clock, SystemTimeSource};
use crate::core::{Claim, CoreSettings, Proposal, Standing};
use crate::group::alone;
use crate::handle::Shard;
use crate::links::ShardLinks;
use crate::log::OutputLog;
use crate::peers::NoPeers;
use crate::signals::MetDamage;

const CLUSTER: [u8; 16] = [7; 16];
const SEGMENT: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

fn standing(executor: &mut Executor) -> Standing {
    let (tell, told) = sync_channel(1);
    executor.begin_turn();
    executor.tell(Event::Request(Request::Standing(Box::new(move |standing| tell.send(standing).unwrap()))));
    told.recv().unwrap()
}

struct Start {
    _folder: tempfile::TempDir,
    output: Output,
    reader: LogReader,
    inbox: Arc<Inbox>,
    signals: Arc<Signals>,
    lead: (Lead, OnBegun),
    begun: Receiver<Result<Begun, NotDone>>,
}

fn executor(output: Output, inbox: Arc<Inbox>, signals: Arc<Signals>) -> Executor {
    Executor::new(
        State::default(),
        output,
        ShardLinks { inbox, signals, members: Arc::new(Living::default()), peers: Arc::new(NoPeers) },
    )
    .unwrap()
}

/// `uncovered`: there is an entry that asks for a mark.
fn new_log(uncovered: bool) -> Start {
    let folder = tempfile::tempdir().unwrap();
    let inbox = Arc::new(Inbox::new(1 << 20));
    let reports = inbox.clone();
    let config = LogConfig { segment_size: SEGMENT, zero_ahead: 1 << 20, ..LogConfig::new(folder.path(), CLUSTER, 0) };
    let opened = CommitLog::open(config, Box::new(move |news| reports.report(news)), &mut |_| Ok::<(), String>(()));
    let (mut appender, reader, recovery) = opened.unwrap();
    if uncovered {
        let header = EntryHeader { term: 1, index: 1, leader_time_ms: 1, kind: EntryKind::Records };
        appender.append(header, &[]).unwrap();
    }
    let name = LogName { cluster_id: CLUSTER, shard: ShardId::FIRST };
    let file = ReplicaFile::begin(NoteFile::open(folder.path(), "replica").unwrap(), name, &recovery).unwrap();
    let replica = alone(&recovery, file.note()).unwrap();
    let (log, base, tail) = (reader.clone(), recovery.checkpoint, Vec::new());
    let log = OutputLog {
        appender,
        reader: log,
        prepared: 1 << 20,
        replica,
        file,
        base,
        tail,
        settings: CoreSettings::default(),
    };
    let output = Output::Log(Box::new(log));
    let clock = Clock::start(Millis(0), Arc::new(SystemTimeSource));
    let signals = Arc::new(Signals::new(clock, Arc::new(Requests::due_at(vouch_commitlog::LogPosition::BEYOND))));
    let (on_begun, begun) = sync_channel(1);
    let lead = Lead {
        cluster_id: CLUSTER,
        segment_size: SEGMENT,
        handle_key: [3; 32],
        feature_level: FEATURE_LEVEL,
        leapt_from: None,
        incarnation: ClusterIncarnation::FIRST,
    };
    Start { _folder: folder, output, reader, inbox, signals, lead: (lead, on_begun), begun }
}

#[test]
fn who_waits_for_the_start_hears_of_it_when_the_first_records_are_durable_and_not_before() {
    let Start { _folder, output, reader, inbox, signals, lead, begun } = new_log(false);
    let mut executor = executor(output, inbox.clone(), signals.clone());
    inbox.serve_here();
    executor.lead(lead.0, lead.1);
    let Standing { appended, applied, .. } = standing(&mut executor);
    assert!(reader.end() == appended && applied < appended && begun.try_recv().is_err());
    assert!(executor.core.state().cluster().init.is_none(), "nothing is applied before it is durable");
    executor.tell(Event::TurnEnds(None));
    executor.carry_out();
    assert!(begun.try_recv().is_err());
    let run = std::thread::spawn(move || executor.run(None));
    let Begun { init, applied } = begun.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(applied > appended, "they stand behind the first entry of the term");
    assert_eq!((init.cluster_id, init.segment_size), (CLUSTER, SEGMENT));
    inbox.push(Request::Stop);
    run.join().unwrap();
}

#[test]
fn who_waits_for_a_start_that_the_log_refuses_hears_that_too() {
    let Start { _folder, output, inbox, signals, lead, begun, .. } = new_log(false);
    let mut executor = executor(output, inbox, signals);
    executor.tell(Event::Request(Request::Fence("the folder is gone".to_owned(), Box::new(|| ()))));
    executor.carry_out();
    executor.lead(lead.0, lead.1);
    assert!(
        matches!(begun.try_recv().unwrap(), Err(NotDone::NothingStored(NothingStored::Poisoned(why))) if why == "the folder is gone")
    );
}

#[test]
fn a_shard_that_does_not_lead_writes_nothing() {
    let Start { _folder, output, reader, inbox, signals, .. } = new_log(true);
    let begin = reader.end();
    let mut executor = executor(output, inbox.clone(), signals);
    let mut records = Vec::new();
    NodeStarted { version: VERSION.to_owned() }.encode(&mut records);
    let proposal = Proposal { records, told: Hearer::Nobody, cost: 0, claim: Claim::Reserve };
    executor.tell(Event::Request(Request::Propose(proposal)));
    executor.tell(Event::TurnEnds(None));
    executor.carry_out();
    inbox.push(Request::Stop);
    executor.run(None);
    assert_eq!(reader.end(), begin, "not even the mark of its end");
}

#[test]
fn a_fence_that_comes_while_a_shard_stops_keeps_it_from_writing_even_the_mark_of_the_end() {
    let Start { _folder, output, reader, inbox, signals, lead, begun: _begun } = new_log(false);
    let mut executor = executor(output, inbox.clone(), signals);
    inbox.serve_here();
    executor.lead(lead.0, lead.1);
    let begun_at = reader.end();
    let (done, fenced) = oneshot::channel();
    inbox.push(Request::Fence("the folder is gone".to_owned(), Box::new(move || done.send(()).unwrap())));
    executor.stop();
    assert_eq!(reader.end(), begun_at);
    assert_eq!(fenced.blocking_recv(), Ok(()));
}

#[test]
fn a_shard_that_stopped_writing_for_a_lost_part_still_covers_the_end_of_its_log() {
    let Start { _folder, output, reader, inbox, signals, lead, begun: _begun } = new_log(false);
    let mut executor = executor(output, inbox.clone(), signals);
    inbox.serve_here();
    executor.lead(lead.0, lead.1);
    let begun_at = reader.end();
    while standing(&mut executor).durable < begun_at {
        inbox.take(Some(Duration::from_millis(1)), Vec::new());
    }
    executor.tell(Event::Failed("a part of the index is damaged in both copies".to_owned()));
    executor.stop();
    let after: Vec<_> = reader.entries_from(begun_at).map(|entry| entry.unwrap().kind).collect();
    assert_eq!(after, [EntryKind::Mark]);
}

#[test]
fn what_another_member_needs_and_cannot_be_read_is_not_sent_and_told_by_where_it_lies() {
    let Start { _folder: folder, output, reader, inbox, signals, .. } = new_log(true);
    let end = reader.end();
    let entry = reader.headers_from(reader.start()).next().unwrap().unwrap();
    let mut executor = executor(output, inbox, signals.clone());
    let message = |executor: &mut Executor| {
        let append = Append { previous: EntryId::default(), commit: 0, entries: Vec::new() };
        let message = GroupMessage { from: NodeId(1), to: NodeId(2), term: 1, body: Said::Append(append) };
        executor.send(message, &[(LogPosition(0), end)]);
        executor.carry_out();
    };
    message(&mut executor);
    assert_eq!(*signals.met_damage().borrow(), MetDamage::default());
    let file = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
    let file = file.filter(|file| file.extension().is_some_and(|extension| extension == "log")).min().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[entry.position.0 as usize + 20] ^= 1;
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::File::options().write(true).open(&file).unwrap(),
        &bytes[entry.position.0 as usize..][..64],
        entry.position.0,
    )
    .unwrap();
    message(&mut executor);
    let entries = [LogPosition(0), LogPosition(end.0 - 1)].into();
    assert_eq!(*signals.met_damage().borrow(), MetDamage { entries, ..MetDamage::default() });
}

#[test]
fn whoever_watches_who_belongs_hears_of_a_node_that_is_invited_before_it_is_answered() {
    let Start { _folder, output, inbox, signals, lead, begun, .. } = new_log(false);
    let mut belongs = signals.belongs();
    let links = ShardLinks { inbox, signals, members: Arc::new(Living::default()), peers: Arc::new(NoPeers) };
    let shard = Shard::start(State::default(), output, Some(lead), links).unwrap();
    begun.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(belongs.borrow_and_update().members.is_only(NodeId::FIRST));
    let invited = NodeInvited { token: [7; 32], until: Millis(u64::MAX), votes_at_once: false, replaces: None };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(shard.propose_one(|out| invited.encode(out))).unwrap();
    assert!(belongs.has_changed().unwrap());
    assert!(belongs.borrow_and_update().nodes.nodes[&NodeId(2)].invitation.is_some());
    shard.stop();
}
