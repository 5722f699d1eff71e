//! The two nodes: one with all its background work, and one with none.

use std::fs::File;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::Advice;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use vouch_broker::ShardId;
use vouch_storage::ShardFolder;

use super::super::contestants::{Contestant, create_topics, start_node};
use super::super::load::{Load, SendWindow};
use super::plain::paced;
use crate::child::{ChildDiskUse, Server};
use crate::http::{HttpClient, query, segment};

/// Scrubs at the default rate; segments, snapshots and passes are smaller and more frequent than by default, so that some
/// of each fall into every turn.
const BUSY: [&str; 6] = ["--segment-size", "32MiB", "--snapshot-every", "16MiB", "--retention-every", "2s"];
/// How much of the busy node's messages is kept: what is older is released, and the oldest are read for as long as a turn
/// takes.
const KEPT: &str = "128MiB";
/// Nothing beside the sends. What is zero-filled ahead lasts for a turn, so that this is not measured either: used files, as
/// the busy node has, need none.
const QUIET: [&str; 6] = ["--scrub-rate", "0", "--snapshot-every", "1024GiB", "--zero-ahead", "1GiB"];
/// Pages of messages that are read in a second, and messages of a page.
const PAGES_PER_SECOND: u32 = 10;
/// So many are read at once.
const PAGE_MESSAGES: &str = "64";
/// The busy node is ready when it has released so many segments: the log goes on in their files then.
const RELEASED_AT_FIRST: u64 = 3;
/// It is given so many turns of a second for that.
const TURNS_AT_FIRST: u32 = 240;
/// Zero-filling is done when nothing was written for so long, and may take so long.
const STILL_FOR: Duration = Duration::from_millis(300);
/// And this is how long that may take.
const STILL_WITHIN: Duration = Duration::from_secs(120);

/// What the busy node did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Files of the lookup index; each is made of a part, and that comes with a snapshot.
    pub(super) lookup_files: u64,
    /// Segments released.
    pub(super) segments: u64,
    /// Pages of messages read.
    pub(super) pages: u64,
    /// What was read and written for all that.
    pub(super) disk: ChildDiskUse,
}

impl Done {
    /// Reads it from the node's metrics; pages and use of the disk are not in them.
    pub(super) fn parse(metrics: &str) -> Option<Self> {
        let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
        let (lookup_files, segments) =
            (value("vouch_lookup_builds_total ")?, value("vouch_retention_segments_total ")?);
        Some(Self { lookup_files, segments, ..Self::default() })
    }

    /// What came to it since an earlier look.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            lookup_files: self.lookup_files.saturating_sub(before.lookup_files),
            segments: self.segments.saturating_sub(before.segments),
            pages: self.pages.saturating_sub(before.pages),
            disk: self.disk.since(before.disk),
        }
    }

    /// What did not happen at all, if anything.
    pub(super) fn missing(self) -> Option<&'static str> {
        [
            (self.lookup_files, "no snapshot was made"),
            (self.segments, "no segment was released"),
            (self.pages, "nothing was read"),
        ]
        .into_iter()
        .find_map(|(count, why)| (count == 0).then_some(why))
    }
}

/// A node that runs in its turns only.
pub(super) struct NodeInTurns {
    /// As the report names it.
    name: &'static str,
    /// Its data folder, kept from turn to turn.
    folder: PathBuf,
    /// Flags of `vouch serve`.
    settings: &'static [&'static str],
    /// Settings of its topic.
    topic: Value,
    /// What is sent to it.
    load: Load,
}

impl NodeInTurns {
    /// The node with all its background work. Sends to it until its log goes on in used files.
    pub(super) fn busy(runtime: &Runtime, folder: &Path, load: &Load) -> anyhow::Result<Self> {
        let topic = json!({"type": "normal", "retention_size": KEPT});
        let busy = Self { name: "vouch+", folder: folder.to_owned(), settings: &BUSY, topic, load: load.clone() };
        let running = busy.start()?;
        let window = SendWindow { warmup: Duration::ZERO, measured: Duration::from_secs(1), messages_max: u64::MAX };
        for _ in 0..TURNS_AT_FIRST {
            runtime.block_on(running.contestant.turn(window, || ()))?;
            if running.look()?.segments >= RELEASED_AT_FIRST {
                running.stop()?;
                return Ok(busy);
            }
        }
        bail!("the node released no segments within {TURNS_AT_FIRST} s; send more with --body or --producers")
    }

    /// The node without background work.
    pub(super) fn quiet(folder: &Path, load: &Load) -> Self {
        let topic = json!({"type": "normal"});
        Self { name: "vouch", folder: folder.to_owned(), settings: &QUIET, topic, load: load.clone() }
    }

    /// Starts it anew: nothing of its log is mapped yet, so that what is read first is read from the disk.
    pub(super) fn start(&self) -> anyhow::Result<Running> {
        let process = start_node(&self.folder, self.settings)?;
        let http = HttpClient::new(&process.http()?, None)?;
        create_topics(&http, &self.load, &self.topic)?;
        let (name, address, load) = (self.name, process.grpc()?, self.load.clone());
        let contestant = Contestant { name, address, load, process: Some(process) };
        let running = Running { contestant, http, log: ShardFolder::of(&self.folder, ShardId::FIRST).log() };
        forget_sealed(&running.log)?;
        Ok(running)
    }
}

/// A node in its turn.
pub(super) struct Running {
    pub(super) contestant: Contestant,
    http: HttpClient,
    log: PathBuf,
}

impl Running {
    /// The process, of which its use of the disk is read.
    fn process(&self) -> anyhow::Result<&Server> {
        self.contestant.process.as_ref().context("the node is not a process of ours")
    }

    /// Waits until it writes nothing any more: what is prepared ahead is filled up.
    pub(super) fn wait_until_still(&self) -> anyhow::Result<()> {
        let written = || Ok::<_, anyhow::Error>(self.process()?.disk_use(|_| true)?.written_bytes);
        let give_up_at = Instant::now() + STILL_WITHIN;
        let (mut before, mut since) = (written()?, Instant::now());
        while since.elapsed() < STILL_FOR {
            if Instant::now() > give_up_at {
                bail!("the node still writes {STILL_WITHIN:?} after its start");
            }
            std::thread::sleep(STILL_FOR / 10);
            let now = written()?;
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// What it has done so far.
    pub(super) fn look(&self) -> anyhow::Result<Done> {
        let metrics = self.http.get_bytes("/metrics")?;
        let done = Done::parse(&String::from_utf8_lossy(&metrics));
        let done = done.context("the node's metrics lack what is counted here")?;
        Ok(Done { disk: self.process()?.disk_use(is_background)?, ..done })
    }

    /// Reads the oldest messages, page after page; gives the number of pages.
    pub(super) fn read_cold(&self, stop: &AtomicBool) -> anyhow::Result<u64> {
        let path = format!("/v1/messages/{}", segment(&self.contestant.load.topics[0]));
        let (mut after, mut pages): (Option<String>, u64) = (None, 0);
        paced(PAGES_PER_SECOND, stop, || {
            // What was read around the page before.
            forget_sealed(&self.log)?;
            let parameters = [("limit", Some(PAGE_MESSAGES)), ("after", after.as_deref())];
            let page = self.http.get(&format!("{path}{}", query(&parameters)))?;
            pages += u64::from(page.body["items"].as_array().is_some_and(|items| !items.is_empty()));
            after = page.body["next"].as_str().map(str::to_owned);
            Ok(())
        })?;
        Ok(pages)
    }

    /// Stops it; what it prepared ahead stays for its next turn.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.contestant.process.map_or(Ok(()), Server::stop)
    }
}

/// Whether a thread of a node does not append: the shard and the log's own threads do.
fn is_background(thread: &str) -> bool {
    !thread.starts_with("vouch-shard") && !thread.starts_with("log-")
}

/// Lets the page cache forget all segments but those that are or will be written: the last two.
fn forget_sealed(log: &Path) -> anyhow::Result<()> {
    let names = std::fs::read_dir(log).context("cannot look into the node's log")?;
    let mut segments: Vec<PathBuf> = names.filter_map(|name| Some(name.ok()?.path())).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    for path in segments.iter().rev().skip(2) {
        // One may be released meanwhile.
        let Ok(file) = File::open(path) else { continue };
        rustix::fs::fadvise(&file, 0, None::<NonZeroU64>, Advice::DontNeed).context("cannot empty the page cache")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP vouch_lookup_builds Files.\n# TYPE vouch_lookup_builds counter\n\
        vouch_lookup_builds_total 7\nvouch_lookup_files 3\nvouch_retention_segments_total 5\n# EOF\n";

    #[test]
    fn what_was_done_is_the_difference_of_two_looks_at_the_metrics() {
        let after = Done::parse(METRICS).unwrap();
        assert_eq!(after, Done { lookup_files: 7, segments: 5, ..Done::default() });
        let before = Done { lookup_files: 3, segments: 5, ..Done::default() };
        assert_eq!(after.since(before), Done { lookup_files: 4, ..Done::default() });
        assert_eq!(Done::parse("vouch_lookup_builds_total 7\n"), None, "a counter that is not there is no zero");
    }

    #[test]
    fn a_turn_in_which_one_kind_of_work_did_not_happen_is_told() {
        let done = Done { lookup_files: 1, segments: 1, pages: 1, ..Done::default() };
        assert_eq!(done.missing(), None);
        assert_eq!(Done { segments: 0, ..done }.missing(), Some("no segment was released"));
        assert_eq!(Done { pages: 0, ..done }.missing(), Some("nothing was read"));
        assert_eq!(Done { lookup_files: 0, ..done }.missing(), Some("no snapshot was made"));
    }

    #[test]
    fn what_appends_is_no_background() {
        assert!(["vouch-snapshot", "vouch-lookup", "vouch-scrub", "tokio-rt-worker"].into_iter().all(is_background));
        assert!(!["vouch-shard-0", "log-sync-1", "log-fill"].into_iter().any(is_background));
    }

    #[test]
    fn only_sealed_segments_are_forgotten_and_a_folder_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0.log", "1.log", "2.log", "horizon"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        forget_sealed(folder.path()).unwrap();
        assert!(forget_sealed(&folder.path().join("other")).is_err());
    }
}
