//! A shard on a real folder without a node above it: the test itself writes the log, one entry for each call, and each entry
//! is durable and applied when the call returns.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{
    ClusterInit, FEATURE_LEVEL, MembersChanged, MessagePlace, NodeInvited, NodeStarted, SealedAt, SnapshotNamed,
    TopicDelete, TopicPut, encode_message,
};
use vouch_broker::state::Copies;
use vouch_broker::testing::message;
use vouch_broker::{
    HalfPosition, MessageKind, Millis, NewMessage, NotDone, QueueOffset, ResourceName, ShardId, State, TopicConfig,
    TopicId,
};
use vouch_cluster::{MembersChange, NodeId};
use vouch_commitlog::{
    AppendError, Appender, Checkpoint, Entry, EntryHeader, EntryKind, LogPosition, LogReader, Recovery,
};
use vouch_storage::{
    DamagedLog, Folders, Listeners, OnDamage, Opened, OpenedLog, ReplicaFile, Requests, Scrub, ScrubReport,
    ScrubbedFiles, SealedUnlike, SnapshotBounds, Snapshots, Snapshotter, StartError, StartProgress, StorageConfig,
    VERSION, replay,
};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const MIB: usize = 1 << 20;
/// Bytes of a segment: the least there can be.
pub(crate) const SEGMENT: u64 = 4 << 20;

pub(crate) fn config(data: &Path) -> StorageConfig {
    StorageConfig {
        data_dir: data.to_owned(),
        shard: ShardId::FIRST,
        segment_size: Some(SEGMENT),
        zero_ahead: 1 << 20,
        syncs_in_flight: 2,
        disk_high_water: 90,
        disk_limit: None,
        on_damage: OnDamage::Refuse,
        joins: None,
        feature_level: FEATURE_LEVEL,
    }
}

pub(crate) fn read_only(data: &Path) -> StorageConfig {
    StorageConfig { on_damage: OnDamage::ReadOnly, ..config(data) }
}

pub(crate) fn open(config: &StorageConfig) -> Result<Opened, StartError> {
    vouch_storage::open(config, &|_| (), &StartProgress::default())
}

pub(crate) fn refused(config: &StorageConfig) -> StartError {
    open(config).err().expect("the start is refused")
}

/// What the thread of the snapshots told.
pub(crate) enum Heard {
    Sealed(Vec<u64>),
    Adopt(u64, Copies),
    Mended(u64, Copies),
    AtNames(Vec<SealedAt>),
}

/// A shard that is written.
pub(crate) struct Shard {
    pub(crate) state: State,
    pub(crate) reader: LogReader,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) snapshotter: Snapshotter,
    pub(crate) heard: Receiver<Heard>,
    /// The thread of the snapshots panics when it has made the next one.
    pub(crate) stumbles: Arc<AtomicBool>,
    pub(crate) appender: Appender,
    pub(crate) recovery: Recovery,
    pub(crate) replica: Box<ReplicaFile>,
    /// The last entry in the state, and those behind it.
    pub(crate) base: Option<Checkpoint>,
    pub(crate) tail: Vec<Entry>,
    /// Position that the snapshot covers from which it was read.
    pub(crate) snapshot: u64,
    pub(crate) passed_over: bool,
    term: u64,
    index: u64,
    now: Millis,
    folders: Folders,
}

impl Shard {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(&config(data)).unwrap()
    }

    /// Snapshots are made when they are asked for, with one part each.
    pub(crate) fn start_with(config: &StorageConfig) -> Result<Self, StartError> {
        let Opened { state, logged, reader, segment_size, snapshots, snapshot, passed_over, log, folders, .. } =
            open(config)?;
        let OpenedLog::Whole { appender, recovery, base, tail, replica } = log else { panic!("the log is damaged") };
        let (tell, heard) = channel();
        let [adopts, mends, names] = std::array::from_fn(|_| tell.clone());
        let stumbles = Arc::<AtomicBool>::default();
        let stumble = stumbles.clone();
        // Whoever does not listen any more is at his end.
        let listeners = Listeners {
            adopt: Box::new(move |part, copies| drop(adopts.send(Heard::Adopt(part, copies)))),
            mended: Box::new(move |part, copies| drop(mends.send(Heard::Mended(part, copies)))),
            sealed: Box::new(move |parts| drop(tell.send(Heard::Sealed(parts.to_vec())))),
            kept: Box::new(move |_| assert!(!stumble.swap(false, Ordering::Relaxed), "it stumbles")),
            at_names: Box::new(move |sealed| drop(names.send(Heard::AtNames(sealed)))),
            due: Box::new(|| ()),
        };
        let (snapshots, requests) =
            (Arc::new(snapshots), Arc::new(Requests::due_at(vouch_commitlog::LogPosition::BEYOND)));
        let adopted = state.parts().last().copied().unwrap_or(0);
        let snapshotter =
            Snapshotter::start(snapshots.clone(), requests.clone(), reader.clone(), 1 << 40, adopted, listeners);
        let (term, index) = (recovery.last_term.max(1), recovery.last_index);
        let (now, snapshotter) = (logged.max(Millis(1_000_000)), snapshotter.unwrap());
        let cluster_id = folders.cluster_id()?;
        let mut records = Vec::new();
        if state.cluster().init.is_none() {
            let (feature_level, written_by) = (config.feature_level, VERSION.to_owned());
            ClusterInit { cluster_id, segment_size, handle_key: [2; 32], feature_level, written_by }
                .encode(&mut records);
        }
        NodeStarted { version: VERSION.to_owned() }.encode(&mut records);
        let mut shard = Self {
            state,
            reader,
            snapshots,
            requests,
            snapshotter,
            heard,
            stumbles,
            appender,
            recovery,
            replica,
            base,
            tail,
            snapshot: snapshot.0,
            passed_over,
            term,
            index,
            now,
            folders,
        };
        let first = shard.append(EntryKind::Records, &records);
        let (entry, _) = first.map_err(|error| StartError::FirstRecords(NotDone::Unknown(error.to_string())))?;
        replay(&mut shard.state, &shard.reader.entry_at(entry).unwrap()).unwrap();
        shard.folders.begun()?;
        Ok(shard)
    }

    /// Writes an entry of records; where the first of them lies.
    pub(crate) fn write(&mut self, records: &[u8]) -> u64 {
        let (entry, first) = self.append(EntryKind::Records, records).unwrap();
        replay(&mut self.state, &self.reader.entry_at(entry).unwrap()).unwrap();
        first.0
    }

    /// Where an entry lies, and where its first record does.
    pub(crate) fn append(
        &mut self,
        kind: EntryKind,
        payload: &[u8],
    ) -> Result<(LogPosition, LogPosition), AppendError> {
        self.index += 1;
        self.now = self.now.plus_ms(1);
        let header = EntryHeader { term: self.term, index: self.index, leader_time_ms: self.now.0, kind };
        let parts: &[&[u8]] = if payload.is_empty() { &[] } else { &[payload] };
        let appended = self.appender.append(header, parts)?;
        while self.appender.durable() < appended.end {
            self.appender.sync_here()?;
        }
        Ok((appended.position, appended.payload_position))
    }

    /// Covers all that was written with a mark, as a log does that is idle.
    pub(crate) fn mark(&mut self) {
        if !self.appender.is_covered() {
            self.append(EntryKind::Mark, &[]).unwrap();
        }
    }

    /// Makes a topic, or changes it.
    pub(crate) fn topic(&mut self, name: &str, json: &str) -> TopicId {
        let (name, config) = (ResourceName::plain(name), serde_json::from_str::<TopicConfig>(json).unwrap());
        let mut records = Vec::new();
        TopicPut { name: name.clone(), config, expected_revision: None }.encode(&mut records);
        self.write(&records);
        self.state.topics().named(&name).unwrap().id
    }

    /// Takes a topic away, and with it what the state needs of the log for it.
    pub(crate) fn delete(&mut self, name: &str) {
        let mut records = Vec::new();
        TopicDelete { name: ResourceName::plain(name), force: true }.encode(&mut records);
        self.write(&records);
    }

    /// Sends a message of so many bytes to queue 0; where it lies.
    pub(crate) fn send(&mut self, topic: TopicId, id: &str, bytes: usize) -> u64 {
        let body = Bytes::from(body(id, bytes));
        self.send_to(topic, 0, NewMessage { body, keys: vec![format!("key-{id}")], ..message(id) })
    }

    pub(crate) fn send_to(&mut self, topic: TopicId, queue: u32, message: NewMessage) -> u64 {
        let mut records = Vec::new();
        let place = MessagePlace { topic, queue, stored_at: self.now };
        encode_message(&mut records, place, "producer", &message, CheckOverrides::default());
        self.write(&records)
    }

    /// Prepares a transaction; its id.
    pub(crate) fn half(&mut self, topic: TopicId, id: &str) -> HalfPosition {
        HalfPosition(self.send_to(topic, 0, NewMessage { kind: MessageKind::Transaction, ..message(id) }))
    }

    /// Sends these messages of half a mebibyte each.
    pub(crate) fn fill(&mut self, topic: TopicId, numbers: std::ops::Range<u32>) {
        for n in numbers {
            self.send(topic, &format!("m{n:03}"), MIB / 2);
        }
    }

    /// Makes a snapshot of everything where the log names no position, until it is stored.
    pub(crate) fn snapshot_between(&mut self) {
        self.requests.want_here(self.reader.end());
        loop {
            match self.heard.recv_timeout(PATIENCE).expect("a snapshot is made") {
                Heard::AtNames(at_names) => return assert!(at_names.is_empty()),
                Heard::Adopt(part, copies) => self.state.adopt(part, copies).unwrap(),
                Heard::Sealed(_) | Heard::Mended(..) => {}
            }
        }
    }

    /// Makes a snapshot of everything, and reads from its parts from then on; what it covers.
    pub(crate) fn snapshot(&mut self) -> u64 {
        self.requests.want(self.reader.end());
        let mut named: Option<Vec<u64>> = None;
        loop {
            let adopted = self.state.parts().last().copied();
            if named.as_ref().is_some_and(|parts| parts.last().copied() <= adopted) {
                return self.snapshots.newest_position().unwrap().0;
            }
            match self.heard.recv_timeout(PATIENCE).expect("a snapshot is made") {
                Heard::Sealed(parts) => named = Some(parts),
                Heard::Adopt(part, copies) => self.state.adopt(part, copies).unwrap(),
                Heard::Mended(..) | Heard::AtNames(_) => {}
            }
        }
    }

    /// The log names this position, and nobody makes a snapshot of it yet.
    pub(crate) fn name(&mut self, sealed: Vec<SealedAt>) {
        let mut records = Vec::new();
        SnapshotNamed { sealed }.encode(&mut records);
        self.write(&records);
    }

    /// The log names this position, with what a leader told of earlier ones; what this shard had at those that are new to it, or what
    /// it is in doubt of then.
    pub(crate) fn name_snapshot(&mut self, told: Vec<SealedAt>) -> Result<Vec<SealedAt>, SealedUnlike> {
        self.name(told.clone());
        self.requests.named(self.reader.end(), told);
        loop {
            match self.heard.recv_timeout(PATIENCE).expect("a snapshot is made") {
                Heard::AtNames(at_names) => return self.requests.comparison().doubt().map_or(Ok(at_names), Err),
                Heard::Adopt(part, copies) => self.state.adopt(part, copies).unwrap(),
                Heard::Sealed(_) | Heard::Mended(..) => {}
            }
        }
    }

    /// Waits until it is said why a snapshot was not made.
    pub(crate) fn trouble(&self) -> String {
        let began = Instant::now();
        loop {
            if let Some(why) = self.requests.trouble() {
                return why;
            }
            assert!(began.elapsed() < PATIENCE, "nothing is wrong");
            std::thread::yield_now();
        }
    }

    /// Releases what neither kept snapshot needs, and says where the log begins then.
    pub(crate) fn release(&self) -> u64 {
        let Some(SnapshotBounds { older: Some(older), newer }) = self.snapshotter.bounds() else {
            panic!("there are two")
        };
        self.snapshotter.read_back([older, newer]).unwrap();
        let to = older.log_from().min(newer.log_from());
        self.appender.housekeeping().release_before(to).unwrap();
        self.reader.start().0
    }

    /// Stops in good order. `last`: with one more snapshot, where there is enough to be worth one.
    pub(crate) fn stop_with(mut self, last: bool) {
        self.mark();
        let end = self.appender.close().unwrap();
        self.snapshotter.stop(last.then_some(end));
    }

    pub(crate) fn stop(self) {
        self.stop_with(true);
    }

    /// Ends as a process that is killed: nothing more is written.
    pub(crate) fn kill(self) {
        self.snapshotter.give_up();
        self.snapshotter.stop(None);
    }

    /// It is this one of three nodes from now on, all of which vote, and voted in this term.
    pub(crate) fn three(&mut self, node: NodeId, term: u64) {
        self.replica.is_member(node).unwrap();
        self.replica.term_and_vote(term, Some(NodeId(3))).unwrap();
        self.term = term;
        for _ in 2..=3 {
            let mut records = Vec::new();
            NodeInvited { token: [7; 32], until: Millis(u64::MAX), votes_at_once: true, replaces: None }
                .encode(&mut records);
            self.write(&records);
        }
        self.vote_from_now(&[1, 2, 3]);
    }

    /// These vote from now on, and nobody else.
    pub(crate) fn vote_from_now(&mut self, voters: &[u64]) {
        let (voters, learners) = (voters.iter().copied().map(NodeId).collect(), BTreeSet::new());
        for change in [MembersChange::To { voters, learners }, MembersChange::Finish] {
            let mut records = Vec::new();
            MembersChanged { change }.encode(&mut records);
            let (entry, _) = self.append(EntryKind::Members, &records).unwrap();
            replay(&mut self.state, &self.reader.entry_at(entry).unwrap()).unwrap();
        }
    }

    /// Index of the last entry.
    pub(crate) fn last_index(&self) -> u64 {
        self.index
    }

    /// Ids of the messages of a topic that can be read, in their order.
    pub(crate) fn listed(&self, topic: &str) -> Vec<String> {
        listed(&self.state, &self.reader, topic)
    }
}

/// What of a shard is scrubbed besides its log.
pub(crate) fn files_of(shard: &Shard) -> ScrubbedFiles {
    ScrubbedFiles { snapshots: shard.snapshots.clone(), requests: shard.requests.clone() }
}

/// Scrubs a shard until all of it was read once, by a whole round.
pub(crate) fn scrubbed_once(shard: &Shard, data: &Path) -> Arc<ScrubReport> {
    let place = data.join("shards/0/scrub");
    let scrub = Scrub::start(shard.appender.housekeeping(), files_of(shard), 1 << 40, place).unwrap();
    let began = Instant::now();
    while scrub.report.rounds.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < PATIENCE, "no round ends");
        std::thread::yield_now();
    }
    scrub.stop();
    scrub.report.clone()
}

/// Ids of the messages of a topic that can be read, in their order.
pub(crate) fn listed(state: &State, reader: &LogReader, topic: &str) -> Vec<String> {
    let topic = state.topics().named(&ResourceName::plain(topic)).unwrap();
    let places = (0..topic.queue_count()).flat_map(|queue| {
        QueueOffset::each(topic.start(queue)..topic.end(queue)).filter_map(move |offset| topic.entry(queue, offset))
    });
    places
        .filter_map(|entry| vouch_storage::message(reader, entry.position).ok())
        .map(|(_, stored)| stored.message.message_id)
        .collect()
}

/// A damaged log that is only read.
pub(crate) struct Damaged {
    pub(crate) state: State,
    pub(crate) reader: LogReader,
    pub(crate) log: DamagedLog,
    _folders: Folders,
}

impl Damaged {
    pub(crate) fn open(data: &Path) -> Result<Self, StartError> {
        let Opened { state, reader, log, folders, .. } = open(&read_only(data))?;
        let OpenedLog::Damaged(log) = log else { panic!("the log is whole") };
        Ok(Self { state, reader, log, _folders: folders })
    }

    pub(crate) fn listed(&self, topic: &str) -> Vec<String> {
        listed(&self.state, &self.reader, topic)
    }
}

/// What a message holds: unique, so that it can be found in the log's files.
pub(crate) fn body(id: &str, bytes: usize) -> String {
    format!("<{id}>").repeat(bytes / (id.len() + 2) + 1)
}

pub(crate) fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("m{n:03}")).collect()
}

/// A stopped shard's folder with 10 MiB of log in three segments, and a snapshot of all of it.
pub(crate) fn stopped(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..20);
    shard.stop();
    data
}

/// A shard starts there, and has these messages.
pub(crate) fn still_has(data: &Path, expected: &[String]) {
    let shard = Shard::start(data);
    assert_eq!(shard.listed("t"), expected);
    shard.stop();
}

pub(crate) fn log_folder(data: &Path) -> PathBuf {
    data.join("shards/0/log")
}

pub(crate) fn segment(data: &Path, start: u64) -> PathBuf {
    log_folder(data).join(format!("{start:020}.log"))
}

pub(crate) fn snapshot_folder(data: &Path) -> PathBuf {
    data.join("shards/0/snapshots")
}

/// Files of the snapshots with this extension, in their order.
pub(crate) fn named(data: &Path, extension: &str) -> Vec<PathBuf> {
    let all = files(&snapshot_folder(data)).into_iter();
    all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// The position that a file is named by.
pub(crate) fn number(file: &Path) -> u64 {
    file.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Every file of the log and the snapshots, without room that is set aside.
pub(crate) fn contents(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = [log_folder(data), snapshot_folder(data)].iter().flat_map(|folder| files(folder)).collect::<Vec<_>>();
    let all = all.into_iter().filter(|path| path.extension().is_none_or(|extension| extension != "room"));
    all.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

pub(crate) fn flip(file: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Changes one byte of the body of a message, wherever it lies, and says in which file.
pub(crate) fn damage(data: &Path, id: &str) -> PathBuf {
    let needle = body(id, 64).into_bytes();
    for path in files(&log_folder(data)) {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(64).position(|window| window == &needle[..64]) {
            flip(&path, at as u64 + 100);
            return path;
        }
    }
    panic!("{id} is not in the log");
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Where in the file of a part the first message of its first queue is told; each takes 16 bytes.
pub(crate) fn first_entry(part: &Path) -> u64 {
    40 + 56 * u64::from_le_bytes(fs::read(part).unwrap()[24..32].try_into().unwrap())
}
