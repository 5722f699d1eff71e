//! What a node has of its shard that another one may take.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vouch_commitlog::LogPosition;

use super::PullError;
use crate::backup::{self, BackupTrouble, FileKind, Plan, Planned};
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
    /// Where the log of the node ends that offers it: nobody has acknowledged more to it.
    pub written: u64,
    /// Position that the snapshot covers; `None`: the log tells everything.
    pub snapshot: Option<u64>,
    /// In the order in which they are to be taken: what may go first comes first.
    pub files: Vec<OfferedFile>,
}

impl PullOffer {
    /// What the folder of this running node holds. Reads the log behind the newest snapshot.
    ///
    /// # Errors
    /// The folder is damaged, or the node is just tidying it: ask again.
    pub fn of_folder(data_dir: &Path, written: LogPosition) -> Result<Self, PullError> {
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
        Ok(Self {
            format: FORMAT,
            cluster_id: backup::hexadecimal(&cluster_id),
            segment_size,
            log_start: log_start.0,
            log_end: log_end.0,
            written: written.max(log_end).0,
            snapshot: snapshot.map(|covered| covered.0),
            files: files.into_iter().filter_map(offered).collect(),
        })
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

    /// Whether what is offered may take the place of a log that was durable up to there.
    ///
    /// # Errors
    /// [`PullError::TooShort`].
    pub(super) fn replaces(&self, durable: LogPosition) -> Result<(), PullError> {
        let needed = durable.0.min(self.written);
        if self.log_end >= needed { Ok(()) } else { Err(PullError::TooShort { offered: self.log_end, needed }) }
    }
}

impl OfferedFile {
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
            written: 8192,
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

    #[test]
    fn an_offer_reaches_as_far_as_the_other_acknowledged_or_as_the_leader_has_anything() {
        let offer = offer();
        assert!(offer.replaces(LogPosition(4096)).is_ok());
        for durable in [4097, 8192, 9000] {
            let refused = offer.replaces(LogPosition(durable)).unwrap_err();
            assert!(matches!(refused, PullError::TooShort { offered: 4096, needed } if needed == durable.min(8192)));
        }
        let all = PullOffer { log_end: 8192, ..offer };
        assert!(all.replaces(LogPosition(9000)).is_ok(), "what the leader never had is nobody's");
    }
}
