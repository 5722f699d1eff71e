//! What a node has of its shard that another one may take.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vouch_commitlog::LogPosition;

use super::PullError;
use crate::backup::{self, BackupError, BackupTrouble, Extent, FileKind, Plan, Planned};
use crate::layout::ShardFolder;

/// Version of the document.
const FORMAT: u64 = 1;
/// Where segments lie, and where snapshots and parts do, below the shard's folder.
const LOG: &str = "log/";
const SNAPSHOTS: &str = "snapshots/";
/// How files of snapshots and parts are called behind their positions, each with its second copy.
const SNAPSHOT_KINDS: [&str; 4] = [".snapshot", ".snapshot2", ".part", ".part2"];
/// Digits of a position in a name.
const DIGITS: usize = 20;

/// A file that is offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferedFile {
    /// What it is to be called, below the shard's folder.
    pub path: String,
    /// What it is called at the node that offers it: of two copies one that is whole.
    pub source: String,
    /// Bytes that count; the rest is zeros.
    pub data: u64,
    /// Bytes of the file.
    pub length: u64,
}

/// The node that offers its files, at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferedBy {
    /// The latest term that it knows.
    pub term: u64,
    /// It leads in that term, as far as it knows.
    pub leads: bool,
    /// Index of the last entry that is offered, which is committed with all before it.
    pub last_index: u64,
    /// Index of the last entry of its log, committed or not.
    pub written_index: u64,
}

/// How far a node that pulls has gone itself, before it stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoppedLog {
    /// Index of the last entry that lies there as a whole: it acknowledged nothing behind that. `None`: nobody can tell, since the log
    /// is damaged there.
    pub last_index: Option<u64>,
    /// The latest term that it noted: it acknowledged nothing in a later one.
    pub term: u64,
    /// Where the logs of leaders ended when they were first asked since, by their terms, which are no earlier ones.
    pub(super) written: BTreeMap<u64, u64>,
}

/// All that a start needs, and its messages, as it is at this moment: a snapshot with its parts, and the log from its first segment
/// up to what is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullOffer {
    format: u64,
    /// The cluster, in hexadecimal digits.
    pub cluster_id: String,
    /// Bytes in a segment of the log.
    pub segment_size: u64,
    /// Where the log begins.
    pub log_start: u64,
    /// Everything before this position is committed, and offered.
    pub log_end: u64,
    /// Who offers it, and how far that node is.
    pub by: OfferedBy,
    /// Position that the snapshot covers; `None`: the log tells everything.
    pub snapshot: Option<u64>,
    /// In the order in which they are to be taken: what may go first comes first.
    pub files: Vec<OfferedFile>,
}

impl PullOffer {
    /// What the folder of this running node holds; whoever asks for it says in [`Self::by`] how far the node is. Reads the log behind
    /// the newest snapshot.
    ///
    /// # Errors
    /// The folder is damaged, or the node is just tidying it: ask again.
    pub fn of_folder(data_dir: &Path) -> Result<Self, PullError> {
        let plan = backup::plan(data_dir).map_err(|trouble| match trouble {
            BackupTrouble::Failed(why) => why.into(),
            BackupTrouble::Changed(why) => PullError::Offer(why),
        })?;
        let Plan { cluster_id, segment_size, log_start, log_end, snapshot, files, .. } = plan;
        let shard = ShardFolder::of(Path::new(""), backup::SHARD);
        let below = |path: &Path| path.strip_prefix(shard.path()).ok()?.to_str().map(str::to_owned);
        let offered = |file: Planned| {
            let Planned { kind, path, from, extent } = file;
            let wanted = matches!(kind, FileKind::Snapshot | FileKind::Segment);
            let source = from.strip_prefix(data_dir).ok().and_then(below);
            let (path, source) = wanted.then(|| Some((below(Path::new(&path))?, source?)))??;
            Some(OfferedFile { path, source, data: extent.data, length: extent.length })
        };
        let files = files.into_iter().filter_map(offered).collect();
        Ok(Self::new((cluster_id, segment_size), log_start..log_end, snapshot, files))
    }

    /// The same where what is found to be damaged in the folder stands against it: nothing but the node's word of how far it is, which
    /// another one may need that takes the log from a third.
    ///
    /// # Errors
    /// As for [`Self::of_folder`].
    pub fn or_word_of_folder(data_dir: &Path) -> Result<Self, PullError> {
        match Self::of_folder(data_dir) {
            Err(PullError::Shard(BackupError::SourceDamaged(why))) => {
                tracing::error!(why, "this node's own log is damaged; nothing of it is offered to another node");
                let identity = backup::identity(data_dir)?;
                let cluster_id = identity.cluster_id().map_err(|error| PullError::Offer(error.to_string()))?;
                Ok(Self::word((cluster_id, identity.segment_size)))
            }
            offered => offered,
        }
    }

    /// No file of the log of a cluster, with segments of so many bytes.
    pub fn word(log: ([u8; 16], u64)) -> Self {
        Self::new(log, LogPosition::START..LogPosition::START, None, Vec::new())
    }

    /// Whether it is a node's word alone.
    pub fn is_word(&self) -> bool {
        self.files.is_empty()
    }

    /// These files of the log of a cluster, with segments of so many bytes.
    pub fn new(
        (cluster_id, segment_size): ([u8; 16], u64),
        log: Range<LogPosition>,
        snapshot: Option<LogPosition>,
        files: Vec<OfferedFile>,
    ) -> Self {
        Self {
            format: FORMAT,
            cluster_id: backup::hexadecimal(&cluster_id),
            segment_size,
            log_start: log.start.0,
            log_end: log.end.0,
            by: OfferedBy::default(),
            snapshot: snapshot.map(|covered| covered.0),
            files,
        }
    }

    /// The document.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and texts can always be written")
    }

    /// Reads a document that another node sent. What it says of files is checked: names of segments, snapshots and parts, and no
    /// others.
    ///
    /// # Errors
    /// It is none of this version, or says what cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, PullError> {
        let offer: Self = serde_json::from_slice(bytes).map_err(|error| PullError::Offer(error.to_string()))?;
        if offer.format != FORMAT {
            return Err(PullError::Offer(format!("it is of format {}, and this node reads {FORMAT}", offer.format)));
        }
        let unfit = |file: &&OfferedFile| {
            let known = is_offered(&file.path) && is_offered(&file.source);
            let fits = file.data <= file.length && (file.segment().is_none() || file.length == offer.segment_size);
            !known || !fits
        };
        match offer.files.iter().find(unfit) {
            Some(file) => Err(PullError::Offer(format!("it names {:?}, which is no file of a shard", file.path))),
            None => Ok(offer),
        }
    }
}

impl OfferedBy {
    /// Whether what is offered may take the place of this node's own log.
    ///
    /// # To ensure correctness
    /// Nothing that this node acknowledged, and that may be committed, may be missing afterwards: its voice was counted for it. What is
    /// offered is committed. So it may take the place of a log that ends no later, whoever offers it: where the two differ, what this
    /// node had is never committed. Otherwise only a leader's word helps: one of a term that this node knew or a later one has all that
    /// this node acknowledged to others and that was committed; and what it acknowledged to that leader itself lies before where the
    /// leader's log ended when it was asked for the first time since this node stopped. Whatever is committed and reaches as far as
    /// that will do, whoever offers it: what the leader has may be damaged, too.
    ///
    /// # Errors
    /// [`PullError::TooShort`].
    pub fn replaces(&self, own: &mut StoppedLog) -> Result<(), PullError> {
        let OfferedBy { term, leads, last_index, written_index } = *self;
        if leads && term >= own.term {
            own.written.entry(term).or_insert(written_index);
        }
        let needed = own.written.values().copied().chain(own.last_index).min().unwrap_or(u64::MAX);
        if last_index >= needed { Ok(()) } else { Err(PullError::TooShort { offered: last_index, needed }) }
    }
}

impl OfferedFile {
    /// A segment that begins here, of a log that is offered up to its end.
    pub fn of_segment(start: LogPosition, log_end: LogPosition, segment_size: u64) -> Self {
        let path = format!("{LOG}{:0digits$}.log", start.0, digits = DIGITS);
        let Extent { data, length } = backup::extent_of_segment(start, log_end, segment_size);
        Self { source: path.clone(), path, data, length }
    }

    /// Where the segment begins, if it is one.
    pub(super) fn segment(&self) -> Option<LogPosition> {
        let digits = self.path.strip_prefix(LOG)?.strip_suffix(".log")?;
        digits.parse().ok().map(LogPosition)
    }

    /// Whether all of it counts, so that it never changes any more.
    pub(super) fn is_full(&self) -> bool {
        self.data == self.length
    }
}

/// Whether it is the name of a segment, a snapshot or a part, below the shard's folder: nothing that leads elsewhere is.
fn is_offered(path: &str) -> bool {
    let is_position = |digits: &str| digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(name) = path.strip_prefix(LOG) {
        return name.strip_suffix(".log").is_some_and(is_position);
    }
    let Some(name) = path.strip_prefix(SNAPSHOTS) else { return false };
    SNAPSHOT_KINDS.iter().any(|kind| name.strip_suffix(kind).is_some_and(is_position))
}

/// Opens a file that this node offered, by the name that the offer gave.
///
/// # Errors
/// It is no such name, or the file went meanwhile: whoever pulls asks for another offer.
pub fn open_offered(data_dir: &Path, name: &str) -> io::Result<File> {
    if !is_offered(name) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no file of a shard")));
    }
    File::open(ShardFolder::of(data_dir, backup::SHARD).path().join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_snapshots_and_parts_are_offered_and_nothing_that_leads_elsewhere() {
        let position = "00000000000000004096";
        for name in ["log/P.log", "snapshots/P.snapshot", "snapshots/P.part2"] {
            assert!(is_offered(&name.replace('P', position)), "{name}");
        }
        for name in [
            "replica",
            "log/P.spare",
            "log/../replica",
            "../P.log",
            "/log/P.log",
            "log/4096.log",
            "log/P.log/..",
            "snapshots/P.part.unfinished",
            "snapshots/../log/P.log",
            "log/-0000000000000004096.log",
            "",
        ] {
            assert!(!is_offered(&name.replace('P', position)), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let refused = open_offered(folder.path(), "../../etc/passwd").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    fn offer() -> PullOffer {
        let path = format!("log/{:020}.log", 0);
        let segment = OfferedFile { source: path.clone(), path, data: 4096, length: 1 << 20 };
        PullOffer {
            format: FORMAT,
            cluster_id: "07".repeat(16),
            segment_size: 1 << 20,
            log_start: 0,
            log_end: 4096,
            by: OfferedBy { term: 5, leads: true, last_index: 40, written_index: 45 },
            snapshot: None,
            files: vec![segment],
        }
    }

    #[test]
    fn what_another_node_says_is_read_back_and_not_believed() {
        let good = offer();
        assert_eq!(PullOffer::decode(&good.encode()).unwrap(), good);
        let with = |change: fn(&mut PullOffer)| {
            let mut offer = offer();
            change(&mut offer);
            PullOffer::decode(&offer.encode()).unwrap_err().to_string()
        };
        assert!(with(|offer| offer.files[0].path = "../identity.json".to_owned()).contains("no file of a shard"));
        assert!(with(|offer| offer.files[0].data = 2 << 20).contains("no file of a shard"));
        assert!(with(|offer| offer.files[0].length = 2 << 20).contains("no file of a shard"));
        assert!(with(|offer| offer.format = 2).contains("format 2"));
        assert!(PullOffer::decode(b"{").is_err());
    }

    fn by(term: u64, leads: bool, last_index: u64, written_index: u64) -> PullOffer {
        PullOffer { by: OfferedBy { term, leads, last_index, written_index }, ..offer() }
    }

    #[test]
    fn what_is_committed_takes_the_place_of_a_log_that_ends_no_later_whoever_offers_it() {
        let own = |last| StoppedLog { last_index: Some(last), term: 9, ..StoppedLog::default() };
        assert!(by(5, false, 40, 40).by.replaces(&mut own(40)).is_ok());
        let refused = by(5, false, 40, 50).by.replaces(&mut own(41)).unwrap_err();
        assert!(matches!(refused, PullError::TooShort { offered: 40, needed: 41 }), "{refused}");
        // A leader of the past does not know what this node acknowledged to a later one.
        assert!(by(8, true, 40, 40).by.replaces(&mut own(41)).is_err());
        assert!(by(9, true, 40, 40).by.replaces(&mut own(41)).is_ok(), "what its leader never had is nobody's");
    }

    #[test]
    fn of_a_log_whose_end_is_lost_only_a_leader_knows_what_it_may_have_acknowledged() {
        let lost = || StoppedLog { last_index: None, term: 5, ..StoppedLog::default() };
        let mut own = lost();
        assert!(by(5, false, 1_000, 1_000).by.replaces(&mut own).is_err());
        assert!(
            by(4, true, 1_000, 1_000).by.replaces(&mut own).is_err(),
            "it may have acknowledged more to a later one"
        );
        let refused = by(5, true, 40, 45).by.replaces(&mut own).unwrap_err();
        assert!(matches!(refused, PullError::TooShort { needed: 45, .. }), "{refused}");
        // It goes on writing; what this node acknowledged lies before where it was at first.
        assert!(by(5, true, 44, 90).by.replaces(&mut own).is_err());
        assert!(by(5, true, 45, 99).by.replaces(&mut own).is_ok());
        let mut own = lost();
        assert!(by(7, true, 50, 60).by.replaces(&mut own).is_err());
        assert!(by(7, true, 60, 70).by.replaces(&mut own).is_ok());
    }

    /// The files of the one that leads may be damaged, and nobody may know that yet.
    #[test]
    fn what_reaches_as_far_as_the_log_of_a_leader_is_taken_from_another_one() {
        let mut own = StoppedLog { last_index: None, term: 5, ..StoppedLog::default() };
        assert!(by(5, false, 60, 60).by.replaces(&mut own).is_err(), "no leader was asked yet");
        assert!(by(6, true, 40, 45).by.replaces(&mut own).is_err());
        assert!(by(6, false, 44, 50).by.replaces(&mut own).is_err());
        assert!(by(6, false, 45, 50).by.replaces(&mut own).is_ok());
        // It acknowledged nothing since, and nothing to a later leader.
        assert!(by(8, true, 50, 60).by.replaces(&mut own).is_ok());
    }
}
