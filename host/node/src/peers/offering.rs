//! What this node lets others take from its disk: see `vouch_storage::PullOffer`.

use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};
use tokio::task::spawn_blocking;
use vouch_broker::NotDone;
use vouch_cluster::NodeId;
use vouch_commitlog::{LogPosition, LogReader};
use vouch_shard::{HeldLog, Shard, Takers};
use vouch_storage::{PullOffer, Requests, differs, open_offered};
use vouch_transport::{PeerIdentity, ServeFiles};

/// Under this name stands what is offered at this moment. In place of an offset it is asked for from the latest term that the node
/// noted which asks.
pub(super) const OFFER: &str = "offer";
/// Under this name stands nothing: whoever asks for it has all that he wanted.
pub(super) const TAKEN: &str = "taken";
/// Under this name stands nothing, either: whoever asks for it takes nothing of what it was offered, or no more.
pub(super) const LEFT: &str = "left";
/// Under this name stands nothing, and only where the log is whole in the stretch that is asked for. Nobody takes anything by that, and
/// nothing is kept for it.
pub(super) const HAS: &str = "has";
/// A node that takes something asks for the next stretch within this time; so long the log is kept for it.
const ASKS_WITHIN: Duration = Duration::from_secs(120);
/// One that has all starts, and is heard by then.
const STARTS_WITHIN: Duration = Duration::from_secs(300);

/// What goes to the other node, as it is read from the disk.
type Source = Pin<Box<dyn AsyncRead + Send>>;

/// Offers the shard's files, to one node at a time.
#[derive(Clone)]
pub(super) struct ShardFiles {
    /// The folder of this node, in which files are opened as they are asked for.
    data_dir: PathBuf,
    /// Says how far this node is, and keeps what is taken.
    shard: Arc<Shard>,
    /// What is asked for before it is taken is read there.
    log: LogReader,
    /// Who takes something at the moment; all connections know of the same one.
    takers: Arc<Takers>,
    /// Knows whether this node is in doubt.
    snapshots: Arc<Requests>,
}

impl ServeFiles for ShardFiles {
    async fn open(
        &self,
        peer: PeerIdentity,
        name: &str,
        from: u64,
        len: u64,
    ) -> io::Result<impl AsyncRead + Send + Unpin + 'static> {
        let node = NodeId(peer.node);
        match name {
            OFFER => self.offer(node, from).await,
            TAKEN => Ok(self.taken(node)),
            LEFT => Ok(self.left(node)),
            HAS => self.has(node, LogPosition(from)..LogPosition(from + len)).await,
            name => self.file(node, name, from, len).await,
        }
    }
}

impl ShardFiles {
    /// Those of this shard, which lies below the folder. Nobody takes anything of it yet: who began with an earlier life of this node
    /// begins anew.
    pub(super) fn of(data_dir: PathBuf, shard: Arc<Shard>, log: LogReader, snapshots: Arc<Requests>) -> Self {
        Self { data_dir, shard, log, takers: Arc::new(Takers::new(ASKS_WITHIN)), snapshots }
    }

    /// Lets the shard keep this stretch of the log for another node, for so long from now on. It takes the place of what was kept for
    /// that one before.
    fn hold(&self, by: NodeId, taken: Range<LogPosition>, within: Duration) {
        self.shard.hold(HeldLog { by, taken, until: Instant::now() + within });
    }

    /// Whether what is here may be another node's as well: what is wrong here must not become what two nodes know.
    ///
    /// # Errors
    /// It may not, for now or for good.
    fn may_give(&self, node: NodeId) -> io::Result<()> {
        if differs(&self.data_dir) {
            // Of a pull that began before that was found nothing is kept, either.
            self.left(node);
            return Err(other(
                "this node knows something else than the others, and gives what it has to nobody".to_owned(),
            ));
        }
        match self.snapshots.comparison().doubt() {
            Some(_) => Err(other(
                "this node knows something else than another one, and gives what it has to nobody until it is known who is right"
                    .to_owned(),
            )),
            None => Ok(()),
        }
    }

    /// What there is, for this node, which was in this term. From now on the log is kept for it, until it has asked for nothing for a
    /// while.
    ///
    /// # Errors
    /// Another node takes something, or the folder is just being tidied: to be asked for again.
    async fn offer(&self, node: NodeId, term: u64) -> io::Result<Source> {
        self.may_give(node)?;
        self.shard.hear_term(term, node).await.map_err(refused)?;
        let busy = |taker| other(format!("node {taker} is taking the log from this one; ask again when it has it"));
        self.takers.may_begin(node, Instant::now()).map_err(busy)?;
        // All stays while it is looked at.
        self.hold(node, LogPosition::START..LogPosition::BEYOND, ASKS_WITHIN);
        let offer = self.look().await;
        let Ok(offer) = offer else {
            self.hold(node, LogPosition::BEYOND..LogPosition::BEYOND, Duration::ZERO);
            return offer.map(|_| unreachable!("it is none"));
        };
        let log = LogPosition(offer.log_start)..LogPosition(offer.log_end);
        tracing::info!(
            %node,
            files = offer.files.len(),
            from = log.start.0,
            to = log.end.0,
            "offering the log to another node, which lacks some of it"
        );
        self.takers.begin(node, log.clone(), Instant::now());
        self.hold(node, log, ASKS_WITHIN);
        let document: Source = Box::pin(io::Cursor::new(offer.encode()));
        Ok(document)
    }

    /// Lets a node know whether this stretch of the log is whole here, which begins where a segment does; and by an empty one whether it
    /// would get anything at all.
    ///
    /// # Errors
    /// Why it would not.
    async fn has(&self, node: NodeId, stretch: Range<LogPosition>) -> io::Result<Source> {
        self.may_give(node)?;
        let (data_dir, log) = (self.data_dir.clone(), self.log.clone());
        // Whoever asked may be gone, and then nobody reads on for it.
        let goes_on = Arc::new(());
        let asked = Arc::downgrade(&goes_on);
        let looked = spawn_blocking(move || {
            if stretch.is_empty() {
                // What is damaged behind the newest snapshot stands against giving anything.
                let offer = PullOffer::or_word_of_folder(&data_dir).map_err(|why| why.to_string())?;
                return if offer.is_word() { Err("its own log is damaged, too".to_owned()) } else { Ok(()) };
            }
            is_whole(&log, &stretch, || asked.strong_count() > 0)
        });
        let looked = looked.await;
        drop(goes_on);
        looked.map_err(|error| other(error.to_string()))?.map_err(other)?;
        Ok(Box::pin(tokio::io::empty()))
    }

    /// The files, and how far this node is. What it knows to be committed stays so, whoever leads: so any member may offer it. That it
    /// leads is asked before the end of its log: what it hears of others later was not acknowledged to it then.
    async fn look(&self) -> io::Result<PullOffer> {
        let data_dir = self.data_dir.clone();
        let offer = spawn_blocking(move || PullOffer::or_word_of_folder(&data_dir)).await;
        let mut offer = offer.map_err(|error| other(error.to_string()))?.map_err(|why| other(why.to_string()))?;
        let last_index = match offer.is_word() {
            true => Some(0),
            false => self.shard.index_before(LogPosition(offer.log_end)).await.map_err(refused)?,
        };
        let last_index = last_index.ok_or_else(|| other("what is committed here moved on; ask again".to_owned()))?;
        let group = self.shard.group().await.map_err(refused)?;
        offer.by = group.offers(last_index);
        Ok(offer)
    }

    /// The node has all that it wanted, and starts with it: until it is heard of, what follows is kept.
    fn taken(&self, node: NodeId) -> Source {
        if let Some(log_end) = self.takers.end(node) {
            tracing::info!(%node, to = log_end.0, "another node has the log that it took from this one");
            self.hold(node, log_end..log_end, STARTS_WITHIN);
        }
        Box::pin(tokio::io::empty())
    }

    /// The node goes without, for now: another one may take something, and nothing is kept for it.
    fn left(&self, node: NodeId) -> Source {
        if self.takers.end(node).is_some() {
            self.hold(node, LogPosition::BEYOND..LogPosition::BEYOND, Duration::ZERO);
        }
        Box::pin(tokio::io::empty())
    }

    /// A stretch of a file that was offered to this node.
    ///
    /// # Errors
    /// It has no offer any more, the name is none of an offer, or the file is gone; or what is here may be wrong.
    async fn file(&self, node: NodeId, name: &str, from: u64, len: u64) -> io::Result<Source> {
        self.may_give(node)?;
        let now = Instant::now();
        let held = self.takers.goes_on(node, now);
        let held =
            held.ok_or_else(|| other("what was offered is not kept any more; ask for another offer".to_owned()))?;
        self.hold(node, held, ASKS_WITHIN);
        let (data_dir, name) = (self.data_dir.clone(), name.to_owned());
        let opened = spawn_blocking(move || open_offered(&data_dir, &name)).await;
        let mut file = File::from_std(opened.map_err(|error| other(error.to_string()))??);
        file.seek(SeekFrom::Start(from)).await?;
        Ok(Box::pin(file.take(len)))
    }
}

/// Reads a stretch of the log, from the begin of a segment on, for as long as somebody wants to know. In place of what was released a
/// node gives a snapshot.
fn is_whole(log: &LogReader, stretch: &Range<LogPosition>, goes_on: impl Fn() -> bool) -> Result<(), String> {
    if stretch.start < log.start() {
        return Ok(());
    }
    if log.end() < stretch.end {
        return Err("its log does not go as far".to_owned());
    }
    let mut entries = log.entries_from(stretch.start);
    while goes_on() && entries.position() < stretch.end {
        match entries.next() {
            // Behind the last entry of a segment comes the first one of the next, which was not asked for.
            Some(Err(error)) if entries.position() < stretch.end => {
                return Err(format!("its own log is damaged, too: {error}"));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    Ok(())
}

/// The shard does not answer, and says why.
fn refused(why: NotDone) -> io::Error {
    other(why.to_string())
}

/// What the node that asks is told, in a sentence for its log.
fn other(why: String) -> io::Error {
    io::Error::other(why)
}

#[cfg(test)]
mod tests {
    use vouch_broker::RecordPosition;
    use vouch_broker::record::SealedAt;
    use vouch_storage::note_differs;

    use super::*;
    use crate::{Node, NodeConfig};

    #[tokio::test]
    async fn a_node_in_doubt_gives_nothing_to_anybody_not_even_the_rest_of_what_it_offered() {
        let folder = tempfile::tempdir().unwrap();
        let config = NodeConfig { segment_size: Some(4 << 20), zero_ahead: 1 << 20, ..NodeConfig::new(folder.path()) };
        let node = Node::start(config).unwrap();
        let snapshots = node.cluster.snapshots.clone();
        let files = ShardFiles::of(
            folder.path().to_owned(),
            node.cluster.shard.clone(),
            node.cluster.log.clone(),
            snapshots.clone(),
        );
        let refusals = async || {
            let answers = [files.offer(NodeId(2), 0).await, files.file(NodeId(2), "log", 0, 1).await];
            answers.map(|answer| answer.err().map(|why| why.to_string()).unwrap_or_default())
        };
        let nothing_is_kept = |said: &[String]| said[1].contains("ask for another offer");
        assert!(nothing_is_kept(&refusals().await));
        let had = |state| SealedAt { position: RecordPosition(10), since: 0, part: None, state };
        snapshots.comparison().has(&[had(1)]);
        snapshots.comparison().told([had(2)]);
        let said = refusals().await;
        assert!(said.iter().all(|why| why.contains("until it is known who is right")), "{said:?}");
        snapshots.comparison().decided(RecordPosition(10));
        assert!(nothing_is_kept(&refusals().await));
        vouch_storage::note_differs(folder.path(), "it was outvoted").unwrap();
        let said = refusals().await;
        assert!(said.iter().all(|why| why.contains("gives what it has to nobody")), "{said:?}");
        node.stop().await;
    }

    #[tokio::test]
    async fn a_stretch_is_whole_where_each_entry_that_begins_in_it_is_and_the_log_goes_as_far() {
        let folder = tempfile::tempdir().unwrap();
        let config = NodeConfig { segment_size: Some(4 << 20), zero_ahead: 1 << 20, ..NodeConfig::new(folder.path()) };
        let node = Node::start(config).unwrap();
        let log = node.cluster.log.clone();
        let (start, end) = (log.start(), log.end());
        let looks = |stretch: Range<LogPosition>| is_whole(&log, &stretch, || true);
        assert_eq!(looks(start..end), Ok(()));
        let beyond = looks(start..LogPosition(end.0 + 8)).unwrap_err();
        assert!(beyond.contains("does not go as far"), "{beyond}");
        let last = log.entries_from(start).last().unwrap().unwrap().position;
        let segment = folder.path().join(format!("shards/0/log/{:020}.log", 0));
        let file = std::fs::File::options().write(true).open(segment).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xA5; 8], last.0 + 8).unwrap();
        let damaged = looks(start..end).unwrap_err();
        assert!(damaged.contains("its own log is damaged, too"), "{damaged}");
        assert_eq!(looks(start..last), Ok(()), "what is wrong behind it was not asked for");
        assert_eq!(is_whole(&log, &(start..end), || false), Ok(()), "nobody wants to know any more");
    }

    /// Longer than a node takes to note how far its log is durable.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Asks until something is offered: a node that has just begun has noted nothing yet.
    async fn offered(files: &ShardFiles, node: NodeId) -> PullOffer {
        let began = Instant::now();
        loop {
            match files.offer(node, 0).await {
                Ok(mut document) => {
                    let mut bytes = Vec::new();
                    document.read_to_end(&mut bytes).await.unwrap();
                    return PullOffer::decode(&bytes).unwrap();
                }
                Err(why) => assert!(began.elapsed() < PATIENCE, "never: {why}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_node_that_is_found_to_differ_gives_no_more_of_what_it_offered_before() {
        let folder = tempfile::tempdir().unwrap();
        let sizes = NodeConfig { segment_size: Some(4 << 20), zero_ahead: 1 << 20, ..NodeConfig::new(folder.path()) };
        let node = Node::start(sizes).unwrap();
        let files = ShardFiles::of(
            folder.path().to_owned(),
            node.cluster.shard.clone(),
            node.cluster.log.clone(),
            node.cluster.snapshots.clone(),
        );
        let taker = NodeId(2);
        let offer = offered(&files, taker).await;
        let name = &offer.files[0].source;
        assert!(files.file(taker, name, 0, 16).await.is_ok());
        note_differs(folder.path(), "what is known of topics").unwrap();
        let refused = files.file(taker, name, 0, 16).await.err().unwrap().to_string();
        assert!(refused.contains("knows something else than the others"), "{refused}");
        assert_eq!(files.takers.end(taker), None, "nothing is kept for it any more");
        assert!(files.offer(taker, 0).await.is_err());
        node.stop().await;
    }
}
