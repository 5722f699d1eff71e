//! How this node takes from another one's disk what it lacks, before a replica of it runs: see `vouch_storage::PullStage`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};
use vouch_cluster::NodeId;
use vouch_storage::{
    BackupError, MissingFile, PullError, PullOffer, PullStage, StartError, StartProgress, StartStep, StorageConfig,
};
use vouch_transport::{
    ANY_NODE, Caller, PeerAdmission, PeerHello, PeerIdentity, PullFailed, Transport, TransportBounds, TransportConfig,
    TransportTiming,
};

use super::calls::{NodeAnswer, NodeAsk, NodeRequest};
use super::joining::connected;
use super::lacking::Lacking;
use super::offering::{LEFT, OFFER, TAKEN};
use super::removal::tells_removal;
use super::runtime::PeerRuntime;
use super::settings::PeerSettings;
use super::sources::{Patience, Sources};
use super::speaking::is_own;
use super::told::ToldNodes;

/// Bytes that are asked for at once: so often the other node hears that this one goes on.
const STRETCH: u64 = 64 << 20;
/// An offer is a line for each file.
const OFFER_MAX: u64 = 64 << 20;
/// Before others are asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses, of which each is twice as long as the one before.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Who knows who leads says so within this time.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// So often the other node hears that this one goes on, while it reads what it has.
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// Between two looks whether the start was given up.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What became of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// All came: the folder holds a log that goes as far as theirs did.
    All,
    /// Nobody had it, or gave it in time. The folder is as it was.
    Nothing,
}

/// Nobody connects to a node that runs no replica.
struct NobodyComes;

impl PeerAdmission for NobodyComes {
    fn admit(&self, _: &PeerHello, _: Option<&vouch_transport::CertificateName>) -> Result<(), String> {
        Err("this node takes the log from another one and serves nobody meanwhile".to_owned())
    }
}

/// Takes what the node lacks, from whoever has it.
///
/// # Errors
/// The folder cannot be used, the disk refuses, or the start is given up. That nobody leads, or is reached, is waited for, unless the
/// node can do without what it lacks.
pub(crate) fn pull(
    storage: &StorageConfig,
    settings: &PeerSettings,
    lacking: Lacking,
    progress: &StartProgress,
) -> Result<Pulled, StartError> {
    let stage = PullStage::of_folder(storage, &lacking.damaged, progress)?;
    let transport = transport(settings, &stage)?;
    let runtime = PeerRuntime::start().map_err(StartError::Thread)?;
    let others = Others {
        transport,
        lacking,
        data_dir: storage.data_dir.clone(),
        missing_bytes: Arc::new(AtomicU64::new(u64::MAX)),
    };
    // Whoever starts a node may be on a thread of a runtime, which must not wait for another one.
    let pulled = thread::scope(|scope| {
        scope.spawn(|| runtime.handle().block_on(others.pull_or_give_up(stage, progress))).join()
    });
    pulled.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn transport(settings: &PeerSettings, stage: &PullStage) -> Result<Transport, StartError> {
    let identity = PeerIdentity {
        cluster: stage.cluster_id(),
        cluster_incarnation: stage.cluster_incarnation().0,
        node: stage.node().0,
        // Later than the life of this start, and earlier than that of the next.
        incarnation: stage.incarnation().max(1) << 32 | u64::from(u32::MAX),
    };
    let security = settings.security.clone();
    let own = vouch_transport::CertificateName { cluster: identity.cluster, node: identity.node };
    let shown = security.shows().map_err(|error| StartError::Peers(error.to_string()))?;
    is_own(shown, &own).map_err(StartError::Peers)?;
    let (timing, bounds) = (TransportTiming::default(), TransportBounds::default());
    let config = TransportConfig { identity, security, admission: Arc::new(NobodyComes), timing, bounds };
    Transport::new(config).map_err(|error| StartError::Peers(error.to_string()))
}

/// The others, of which any may have what is lacking.
#[derive(Clone)]
struct Others {
    transport: Transport,
    lacking: Lacking,
    /// Of this node.
    data_dir: PathBuf,
    /// The fewest bytes that were missing of an offer so far. What comes of segments stays; snapshots come again each time.
    missing_bytes: Arc<AtomicU64>,
}

/// What became of asking them so far.
#[derive(Default)]
struct Asked {
    sources: Sources,
    /// Why each gave nothing, as was told.
    told: BTreeMap<u64, String>,
}

impl Asked {
    fn tell(&mut self, node: u64, why: String) {
        if self.told.get(&node) != Some(&why) {
            tracing::warn!(
                node,
                why,
                "nothing can be taken from this node now; others are asked, and it is asked again"
            );
            self.told.insert(node, why);
        }
    }

    /// What each said at last.
    fn all_told(&self) -> String {
        let told: Vec<String> = self.told.iter().map(|(node, why)| format!("node {node}: {why}")).collect();
        if told.is_empty() { "no other node is known".to_owned() } else { told.join("; ") }
    }
}

/// Asks a node who leads, and where nodes are; `None`: it is not reached, or says nothing of that.
async fn told_who_leads(caller: &Caller) -> Option<ToldNodes> {
    let deadline = tokio::time::Instant::now() + TOLD_WITHIN;
    // A call on a link that is not up yet is not sent at all.
    timeout_at(deadline, connected(caller)).await.ok()?.ok()?.ok()?;
    let request = NodeRequest { forwarded: false, ask: NodeAsk::WhoLeads { address: String::new() } };
    let answer = caller.call(vec![request.encode()], deadline).await;
    match NodeAnswer::decode(answer.ok()?) {
        Ok(NodeAnswer::Done(told)) => Some(told),
        _ => None,
    }
}

/// Why a node is not taken from now.
enum NotNow {
    /// It is not reached, or there is nothing to be had from it, or something is missing here: it is asked again in a moment, or another
    /// one is.
    Later(String),
    /// It is there, and gives nothing now.
    Refused(String),
    /// What came from it is not what a start could go on with; it may be so for long.
    Unsound(String),
    Ended(StartError),
}

impl From<PullFailed> for NotNow {
    fn from(failed: PullFailed) -> Self {
        match &failed {
            PullFailed::Refused(_) => Self::Refused(failed.to_string()),
            PullFailed::Broken(_) => Self::Later(failed.to_string()),
        }
    }
}

impl NotNow {
    /// A node that is none of the cluster's any more hears that, and notes it in its folder, which no start takes again.
    fn or_removed(self, node: NodeId, data_dir: &Path) -> Self {
        let (Self::Later(why) | Self::Refused(why)) = &self else { return self };
        if !tells_removal(why, node) {
            return self;
        }
        if let Err(error) = vouch_storage::note_removed(data_dir) {
            tracing::error!(%error, "that this node was removed cannot be noted in its folder");
        }
        Self::Ended(StartError::Removed(data_dir.to_owned()))
    }
}

impl From<PullError> for NotNow {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Shard(BackupError::Io { action, path, source }) => {
                Self::Ended(StartError::Io { action, path, source })
            }
            PullError::Offer(_)
            | PullError::TooShort { .. }
            | PullError::NoRoom { .. }
            | PullError::Short { .. }
            | PullError::Shard(_) => Self::Later(error.to_string()),
            PullError::Unsound(_) => Self::Unsound(error.to_string()),
            PullError::Replica(error) => Self::Ended(StartError::Replica(error)),
        }
    }
}

impl Others {
    /// Dropping what is under way ends it, whatever it waits for.
    async fn pull_or_give_up(self, stage: PullStage, progress: &StartProgress) -> Result<Pulled, StartError> {
        let given_up = async {
            loop {
                sleep(LOOK_EVERY).await;
                if let Err(given_up) = progress.go_on() {
                    return given_up;
                }
            }
        };
        tokio::select! {
            pulled = self.pull(stage, progress) => pulled,
            given_up = given_up => Err(given_up),
        }
    }

    /// Asks one after the other, until one has given all.
    async fn pull(self, mut stage: PullStage, progress: &StartProgress) -> Result<Pulled, StartError> {
        for (node, address) in &self.lacking.nodes {
            self.transport.peers().set(node.0, address);
        }
        let any = self.lacking.any.iter().map(|address| (ANY_NODE, address));
        any.for_each(|(node, address)| self.transport.peers().set(node, address));
        let (mut asked, mut pause) = (Asked::default(), PAUSE);
        let mut patience = Patience::begins(Instant::now());
        while !self.asks_all(&mut asked, &mut stage, progress).await? {
            let told = asked.all_told();
            let is_over = patience.is_over(self.missing_bytes.load(Ordering::Relaxed), Instant::now());
            if is_over && self.lacking.can_do_without {
                tracing::error!(
                    told,
                    "nobody gives this node what is damaged here; it starts with what it has, if a snapshot covers the damage, and asks \
                     again in an hour: see \
                     `vouch log damage`, and damage.md"
                );
                return Ok(Pulled::Nothing);
            }
            progress.enter(StartStep::Asking { told });
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        stage.end();
        Ok(Pulled::All)
    }

    /// Asks each that may be asked now, the one that leads first. Whether one has given all.
    async fn asks_all(
        &self,
        asked: &mut Asked,
        stage: &mut PullStage,
        progress: &StartProgress,
    ) -> Result<bool, StartError> {
        let nodes: Vec<u64> = self.transport.peers().all().into_keys().collect();
        let leader = self.who_leads(&nodes, stage.node()).await;
        for node in asked.sources.in_order(&nodes, leader, Instant::now()) {
            let pulled = self.pull_from(node, stage, progress).await;
            let Err(why) = pulled.map_err(|why| why.or_removed(stage.node(), &self.data_dir)) else { return Ok(true) };
            let refuses = matches!(why, NotNow::Refused(_));
            // What is wrong with a file of this node is no better with another one, whose log may end before what the leader still has.
            let is_of_this_node = matches!(&why, NotNow::Unsound(_)) && !stage.blames_other();
            match why {
                NotNow::Later(why) | NotNow::Refused(why) => asked.tell(node, why),
                NotNow::Unsound(why) => {
                    tracing::error!(node, why, "what came from another node cannot be gone on with");
                    // What was wrong may have been a file of this node's own: that is not used any more.
                    if stage.blames_other() {
                        asked.sources.was_unsound(node, Instant::now());
                    }
                    asked.tell(node, why);
                }
                NotNow::Ended(error) => return Err(error),
            }
            // Whoever is only damaged lacks nothing that the one that leads might let go meanwhile.
            let waits = !asked.sources.asks_others(refuses, Instant::now()) && !self.lacking.can_do_without;
            if leader == Some(node) && (is_of_this_node || waits) {
                break;
            }
        }
        Ok(false)
    }

    /// Who leads, as that node says itself, or else as the one says that knows most of the log; `None`: nobody who is reached knows.
    async fn who_leads(&self, nodes: &[u64], me: NodeId) -> Option<u64> {
        let mut asked = JoinSet::new();
        for node in nodes.iter().copied() {
            let caller = self.transport.caller(node);
            asked.spawn(async move { (node, told_who_leads(&caller).await) });
        }
        let mut newest: Option<(NodeId, ToldNodes)> = None;
        while let Some(answered) = asked.join_next().await {
            let Ok((node, Some(told))) = answered else { continue };
            let Some(leader) = told.leader.filter(|leader| *leader != me) else { continue };
            if leader.0 == node {
                return Some(node);
            }
            if newest.as_ref().is_none_or(|(_, known)| known.as_of < told.as_of) {
                newest = Some((leader, told));
            }
        }
        let (leader, told) = newest?;
        // It may have come while this node was away.
        if let Some(address) = told.nodes.get(&leader).filter(|_| !nodes.contains(&leader.0)) {
            self.transport.peers().set(leader.0, address);
        }
        Some(leader.0)
    }

    /// Takes all from one node. Where that does not come about, the other hears that it need not wait.
    async fn pull_from(&self, node: u64, stage: &mut PullStage, progress: &StartProgress) -> Result<(), NotNow> {
        let offer = self.offer(node, stage.term()).await?;
        let taken = self.take_offered(node, &offer, stage, progress).await;
        // If it does not hear that, it notices.
        self.say(node, if taken.is_ok() { TAKEN } else { LEFT }).await;
        if taken.is_ok() {
            tracing::info!(node, to = offer.log_end, "this node has what it lacked of the log, and goes on with it");
        }
        taken
    }

    async fn take_offered(
        &self,
        node: u64,
        offer: &PullOffer,
        stage: &mut PullStage,
        progress: &StartProgress,
    ) -> Result<(), NotNow> {
        let missing = stage.take(offer)?;
        let total_bytes: u64 = offer.files.iter().map(|file| file.data).sum();
        let missing_bytes = missing.iter().map(|file| file.end() - file.from).sum::<u64>();
        self.missing_bytes.fetch_min(missing_bytes, Ordering::Relaxed);
        let mut done_bytes = total_bytes - missing_bytes;
        let (from, to) = (offer.log_start, offer.log_end);
        tracing::info!(
            node,
            total_bytes,
            here = done_bytes,
            from,
            to,
            "taking the log from another node; what this one has of it stays"
        );
        for mut file in missing {
            while let Some(bytes) = self
                .stretch(node, stage, &file, &mut |bytes| {
                    done_bytes += bytes;
                    progress.enter(StartStep::Pulling { done_bytes, total_bytes });
                })
                .await?
            {
                file.from += bytes;
            }
        }
        // To read a long log takes longer than the other waits for a word.
        let renewing = tokio::spawn(self.clone().renew(node, offer.files.first().map(|file| file.source.clone())));
        let finished = stage.finish(offer, progress);
        renewing.abort();
        Ok(finished?)
    }

    /// Asks for nothing of a file, again and again: the log is kept for this node meanwhile.
    async fn renew(self, node: u64, file: Option<String>) {
        let Some(file) = file else { return };
        loop {
            sleep(RENEW_EVERY).await;
            self.say(node, &file).await;
        }
    }

    /// Lets the other node hear something, if it does.
    async fn say(&self, node: u64, name: &str) {
        if let Ok(mut said) = self.transport.pull(node, name, 0, 0).await {
            let _ = said.next().await;
        }
    }

    /// Asks a node what it has, and says in which term this one was at last: whoever leads in an earlier one does so no more then.
    ///
    /// # Errors
    /// It is not reached, gives nothing now, or says what this version does not read.
    async fn offer(&self, node: u64, term: u64) -> Result<PullOffer, NotNow> {
        let mut pull = self.transport.pull(node, OFFER, term, OFFER_MAX).await?;
        let mut document = Vec::new();
        while let Some(chunk) = pull.next().await? {
            document.extend_from_slice(&chunk);
        }
        Ok(PullOffer::decode(&document)?)
    }

    /// Takes the next stretch of a file, and says how long it is; nothing when all is here.
    async fn stretch(
        &self,
        node: u64,
        stage: &mut PullStage,
        file: &MissingFile,
        on_bytes: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Option<u64>, NotNow> {
        let wanted = STRETCH.min(file.end() - file.from);
        if wanted == 0 {
            // An empty file is there, too.
            stage.append(file, &[])?;
            return Ok(None);
        }
        let mut pull = self.transport.pull(node, file.source(), file.from, wanted).await?;
        while let Some(chunk) = pull.next().await? {
            stage.append(file, &chunk)?;
            on_bytes(chunk.len() as u64);
        }
        let came = pull.offset() - file.from;
        match came == wanted {
            true => Ok(Some(came)),
            false => Err(NotNow::Later(format!("{} is shorter than was offered", file.source()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use vouch_commitlog::Shortage;

    use super::*;

    #[test]
    fn what_passes_is_waited_for_and_what_is_broken_ends_the_start() {
        let short = PullError::Short { failed: "cannot write it".to_owned(), shortage: Shortage::Space };
        let full = NotNow::from(short);
        assert!(matches!(&full, NotNow::Later(why) if why.contains("free some space")), "the disk is full");
        assert!(matches!(NotNow::from(PullError::NoRoom { needed: 9, free: 1 }), NotNow::Later(_)));
        let source = io::Error::other("the disk is broken");
        let broken = PullError::Shard(BackupError::Io { action: "write", path: "log".into(), source });
        assert!(matches!(NotNow::from(broken), NotNow::Ended(StartError::Io { .. })));
    }

    #[test]
    fn a_node_that_is_there_and_busy_is_told_from_one_that_is_not_reached() {
        assert!(matches!(NotNow::from(PullFailed::Refused("busy".to_owned())), NotNow::Refused(_)));
        assert!(matches!(NotNow::from(PullFailed::Broken("gone".to_owned())), NotNow::Later(_)));
    }
}
