//! How the node of a machine begins, with what is on the disk: as a start of the product does.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::sync::{Arc, Mutex};

use vouch_broker::record::FEATURE_LEVEL;
use vouch_broker::{Millis, State};
use vouch_cluster::{ClusterIncarnation, GroupMembers, NodeId};
use vouch_commitlog::simulated::{Rng, Steps, open, open_note};
use vouch_commitlog::{Appender, Checkpoint, Durable, Entry, LogPosition, LogReader};
use vouch_consensus::Replica;
use vouch_leader::testing::Around;
use vouch_shard::core::{Core, CoreBeginning, Event, LeaderEntry};
use vouch_shard::{CoreSettings, Lead, Member, Takers, member};
use vouch_storage::{Committed, Known, ReplicaFile, UndecidedTail, replay};

use super::{ASKS_WITHIN, BEGIN, CLUSTER, Machine, NAME, NoStart, SEGMENT, Snapshots, log_config};
use crate::beginning::BEGUN;
use crate::bugs::{Slip, slips};
use crate::node::{News, Node, standing};

/// A log that was recovered, and what it says.
struct OpenedLog {
    state: State,
    /// Entries of which only a leader knows whether they are committed.
    tail: Vec<Entry>,
    /// The last entry that is in the state.
    base: Checkpoint,
    applied: Committed,
    appender: Appender,
    reader: LogReader,
    file: ReplicaFile,
    news: Arc<Mutex<News>>,
}

fn refused(error: &dyn Display) -> NoStart {
    NoStart::Refused(error.to_string())
}

fn reports_to(news: Arc<Mutex<News>>) -> impl Fn(Durable) + Send + Sync + 'static {
    move |report| {
        let mut news = news.lock().unwrap();
        match report {
            Durable::Up { to } => news.durable = Some(to),
            Durable::Poisoned(report) => news.failed = Some(report.to_string()),
        }
    }
}

impl Machine {
    /// Recovers the log behind a snapshot, or all of it, and holds what is there against what must be.
    fn open_log(&mut self) -> Result<OpenedLog, NoStart> {
        let file = open_note(&self.disk, "replica").map_err(|error| refused(&error))?;
        let note = ReplicaFile::noted(&file, NAME).map_err(|error| refused(&error))?;
        let mut config = log_config();
        let covered = self.snapshots.as_ref().map_or(LogPosition::START, Snapshots::durable);
        Known::of_note(note.as_ref()).and_durable(covered).tell(&mut config);
        let known = note.as_ref().map_or(BEGUN, |note| note.commit.index.max(BEGUN));
        let snapshot = self.snapshots.as_mut().map_or(Ok(None), Snapshots::read).map_err(NoStart::Wrong)?;
        config.checkpoint = snapshot.as_ref().map(|(checkpoint, _)| *checkpoint);
        let (mut state, mut tail) =
            (snapshot.map_or_else(State::default, |(_, state)| state), UndecidedTail::default());
        let news = Arc::<Mutex<News>>::default();
        let (mut base, mut applied) = config.checkpoint.map_or((None, Committed::default()), |covered| {
            (Some(covered.position), Committed { index: covered.index, position: covered.end })
        });
        let opened = open(&self.disk, &config, reports_to(news.clone()), &mut |entry: Entry| {
            let decided = if entry.index <= known { vec![entry] } else { tail.take(entry) };
            for entry in decided {
                replay(&mut state, &entry)?;
                applied = Committed { index: entry.index, position: entry.end };
                base = Some(entry.position);
            }
            Ok(())
        });
        let (mut appender, reader, recovery) = opened.map_err(|error| refused(&error))?;
        let mut file = ReplicaFile::begin(file, NAME, &recovery).map_err(|error| refused(&error))?;
        if !file.note().member {
            file.is_member(self.id).map_err(|error| refused(&error))?;
            // A log that was opened as that of a node alone settles what is durable: one of several must be opened anew.
            drop((file, appender, reader));
            return self.open_log();
        }
        file.end_with_an_entry(&mut appender, &recovery).map_err(|error| refused(&error))?;
        let found =
            reader.headers_from(reader.start()).map(|entry| entry.and_then(|at| reader.checkpoint_at(at.position)));
        let told = note.ok_or_else(|| refused(&"the note of a member is gone"))?;
        let found = found.collect::<Result<_, _>>().map_err(|error| refused(&error))?;
        self.ledger.found(reader.start(), found, &told).map_err(NoStart::Wrong)?;
        self.ledger.noted(file.note());
        self.least_time = Millis(recovery.last_leader_time_ms);
        let base = base.map_or(Ok(Checkpoint::BEFORE_ALL), |base| reader.checkpoint_at(base));
        let base = base.map_err(|error| refused(&error))?;
        self.began_from_one += u64::from(config.checkpoint.is_some());
        let tail = tail.into_entries();
        Ok(OpenedLog { state, tail, base, applied, appender, reader, file, news })
    }

    fn replica(&mut self, opened: &OpenedLog) -> Result<Replica<LeaderEntry>, NoStart> {
        let OpenedLog { state, base, reader, file, .. } = opened;
        let mut draws = Rng::new(self.rng.next());
        let replica = member(Member {
            node: self.id,
            members: if slips(Slip::MembersOfTheBeginning) {
                GroupMembers::voters((1..=3).map(NodeId))
            } else {
                state.members().clone()
            },
            note: file.note(),
            log: reader,
            before: self.snapshots.as_ref().and_then(Snapshots::before),
            applied: *base,
            draw: Box::new(move |below| draws.below(below)),
        });
        replica.map_err(|broken| refused(&broken))
    }

    /// Starts the node with what is on the disk.
    ///
    /// # Errors
    /// Why it does not start.
    pub(super) fn begin(&mut self, now: u64) -> Result<(), NoStart> {
        let opened = self.open_log()?;
        let replica = self.replica(&opened)?;
        let OpenedLog { state, tail, base, applied, appender, reader, file, news } = opened;
        let incarnation = file.note().incarnation;
        // An empty log begins behind the head of its first segment.
        let commit = if applied.index == 0 { file.note().commit } else { applied };
        let start = self.catch_up.map_or(LogPosition::START, |_| reader.start());
        let (log, applied_to) = (standing(&appender, start, None), applied.position);
        let beginning = CoreBeginning {
            state,
            applied: applied_to,
            log,
            tail,
            reserve: 1 << 10,
            settings: CoreSettings { catch_up: self.catch_up.unwrap_or(1 << 30), ..CoreSettings::default() },
            replica: Some(replica),
            closed: None,
        };
        let core = Core::new(beginning, self.moment(now));
        let around = Around::default();
        // Generations of different lives differ, as those of clocks do.
        around.generation.set((BEGIN + now) << 20 | self.id.0 << 16);
        let mut node = Node {
            id: self.id,
            core,
            appender,
            reader,
            pulls: self.catch_up.is_some(),
            fell_behind: false,
            takers: Takers::new(ASKS_WITHIN),
            names_at: now,
            steps: Steps::new(log_config().syncs_in_flight),
            file,
            around,
            news,
            base,
            commit,
            noted_at: now,
            appended_at: now,
            now,
            incarnation,
            heard: BTreeMap::new(),
            greets: Vec::new(),
            waits_for_syncs: self.rng.chance(2),
            is_sound: true,
            dies: None,
            died: None,
            held: VecDeque::new(),
            in_hands: Vec::new(),
            cut_to: None,
            deaf_until: 0,
            failed: None,
            wake: now,
            sealed: BTreeMap::new(),
            newly: Vec::new(),
            served: Vec::new(),
        };
        let (cluster_id, segment_size, handle_key) = (CLUSTER, SEGMENT, [2; 32]);
        node.core.step(
            Event::MayLead(Lead {
                cluster_id,
                segment_size,
                handle_key,
                feature_level: FEATURE_LEVEL,
                leapt_from: None,
                incarnation: ClusterIncarnation::FIRST,
            }),
            &node.around,
        );
        self.node = Some(node);
        self.lives += 1;
        Ok(())
    }
}
