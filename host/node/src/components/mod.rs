//! Components in the broker: uploads into the log, files and compiled code out of it, bindings ready to be asked.
//!
//! The log has the bytes of every component; the file in this node's folder is a copy, made again from the log where it
//! is missing or damaged. No whole component is read, hashed, written or synced on a thread that serves calls.

mod answerers;
mod batches;
mod bindings;
mod bound;
mod cleaning;
mod comparing;
mod document;
mod engine;
mod file;
mod joining;
mod kept;
mod pending;
mod standing;
mod there;
mod trying;
mod upload;

use std::sync::Arc;

use bytes::Bytes;
use vouch_broker::record::{PluginDelete, TagDelete};
use vouch_broker::state::PluginEntry;
use vouch_broker::{NotDone, Refusal, State};
use vouch_plugin::Engine;
use vouch_registry::Digest;

use crate::consumers::ConsumerStandings;
use crate::effects::Effects;
use crate::shortages::Shortages;
use crate::transactions::{EndSample, Halves};
use crate::writable::Writable;
pub(crate) use batches::{BatchAnswer, JoinedAsk, WaitingAsk};
pub use bindings::PutBinding;
pub(crate) use bound::BoundComponents;
pub use cleaning::{CleanedFence, FenceCleaning};
pub(crate) use comparing::{Compared, EndedByProducer, compare, note};
pub use document::limits_in_force;
pub(crate) use document::{consumer_limits, subscriptions_of};
pub(crate) use engine::{check_settings, open_store, remove_unused, start_engine};
pub(crate) use file::ComponentFiles;
pub use kept::{KeptPage, KeptView};
pub(crate) use pending::{Answerer, CheckQuestion};
pub use standing::{BindingStanding, Contradiction};
pub(crate) use there::BindingsThen;
pub use trying::{BindingTrial, EndedOnes, SampleHalf, TriedCall, TriedDatabase};
pub use upload::UploadError;
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

/// Plugins with their components and tags, and bindings. What changes something resolves when that is durable, and is
/// refused with [`NothingStored`](vouch_broker::NothingStored) where nothing can be written.
pub struct Components {
    pub(crate) shard: Arc<Shard>,
    /// The files of components.
    pub(crate) files: ComponentFiles,
    /// Looks at uploads.
    pub(crate) engine: Engine,
    /// Bindings that are ready to be asked.
    pub(crate) bound: Arc<BoundComponents>,
    /// Finds half messages of transactions that ended.
    pub(crate) halves: Arc<Halves>,
    /// Some that producers end.
    pub(crate) sample: Arc<EndSample>,
    pub(crate) writable: Writable,
    pub(crate) clock: Arc<Clock>,
    /// An upload can wait where the disk is full.
    pub(crate) shortages: Arc<Shortages>,
    /// What components stage.
    pub(crate) effects: Arc<Effects>,
    /// How bindings fare that consume.
    pub(crate) consumers: Arc<ConsumerStandings>,
}

impl Components {
    /// The digest that a tag points at, as `sha256:…`; `None` if there is no such tag.
    pub async fn tag(&self, name: &str, tag: &str) -> Result<Option<String>, NotDone> {
        let (name, tag) = (name.to_owned(), tag.to_owned());
        let find = move |state: &State| state.plugins().tag(&name, &tag);
        Ok(self.shard.read(find).await?.map(|tag| Digest(tag.digest).to_string()))
    }

    /// Plugins in the order of their names, after a name; at most `limit`.
    pub async fn plugins(&self, after: Option<String>, limit: usize) -> Result<Vec<(String, PluginEntry)>, NotDone> {
        let list = move |state: &State| {
            let plugins = state.plugins().plugins();
            let plugins = plugins.filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after));
            plugins.take(limit).map(|(name, plugin)| (name.to_owned(), plugin.clone())).collect()
        };
        self.shard.read(list).await
    }

    /// A plugin; `None` if there is none by that name.
    pub async fn plugin(&self, name: &str) -> Result<Option<PluginEntry>, NotDone> {
        let name = name.to_owned();
        self.shard.read(move |state| state.plugins().plugin(&name).cloned()).await
    }

    /// The file of a component, from this node's folder or from the log.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] where the log has no such component; an internal error where its file or its chunks cannot
    /// be read.
    pub async fn file(&self, digest: Digest) -> Result<Bytes, NotDone> {
        self.files.get(digest).await
    }

    /// Verdict of a component's upload, as JSON; `None` if the component is not here.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for what is no digest.
    pub async fn verdict(&self, digest: &str) -> Result<Option<String>, NotDone> {
        let digest: Digest = digest
            .parse()
            .map_err(|error: vouch_registry::DigestError| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
        let find = move |state: &State| state.plugins().artifact(&digest.0).map(|artifact| artifact.verdict.clone());
        Ok(self.shard.read(find).await?.filter(|verdict| !verdict.is_empty()))
    }

    /// Removes a tag. The last one takes the plugin with it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; a conflict where that plugin is used by a binding.
    pub async fn delete_tag(&self, name: &str, tag: &str) -> Result<(), NotDone> {
        self.writable.check()?;
        let record = TagDelete { name: name.to_owned(), tag: tag.to_owned() };
        self.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Removes a plugin with all its tags.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; a conflict where a binding uses it, which names the binding.
    pub async fn delete_plugin(&self, name: &str) -> Result<(), NotDone> {
        self.writable.check()?;
        let record = PluginDelete { name: name.to_owned() };
        self.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }
}
