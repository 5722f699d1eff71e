//! Bindings that are ready to be asked.

use std::sync::Arc;

use vouch_broker::state::BindingEntry;
use vouch_broker::{NotDone, Refusal};
use vouch_plugin::{Binding, Engine, Plugin};
use vouch_registry::Digest;

use super::answerers::Answerers;
use super::document::{BindingDocument, Fallback};
use super::file::ComponentFiles;
use super::pending::Answerer;
use super::there::BindingsThen;
use vouch_shard::Shard;

/// Components, loaded and joined with the grants of their bindings.
pub(crate) struct BoundComponents {
    shard: Arc<Shard>,
    files: ComponentFiles,
    engine: Engine,
    /// By the name of the binding.
    answerers: Answerers<Answerer>,
}

impl BoundComponents {
    /// None is made yet.
    pub(crate) fn new(shard: Arc<Shard>, files: ComponentFiles, engine: Engine) -> Self {
        Self { shard, files, engine, answerers: Answerers::default() }
    }

    /// This binding, loaded and joined with its grants. Made once for each time that it is set: who comes meanwhile
    /// waits for the one that makes it. `entry`: the binding as the asker knows it; the shard is not asked for it
    /// again.
    ///
    /// # Errors
    /// Why it cannot be asked: its component is gone, or does not load, or is not what the binding needs. The next
    /// caller tries again.
    pub(crate) async fn answerer(&self, name: &str, entry: &BindingEntry) -> Result<Answerer, NotDone> {
        let make = async {
            self.forget_removed().await?;
            let document = BindingDocument::parse(&entry.spec)?;
            let plugin = self.load(Digest(entry.digest)).await?;
            bind(&plugin, &document, name, entry.revision)
        };
        self.answerers.get_or_make(name, entry.revision, make).await
    }

    /// What was made of bindings that are gone goes when the next one is made.
    async fn forget_removed(&self) -> Result<(), NotDone> {
        let then = BindingsThen::look(&self.shard).await?;
        self.answerers.retain(|name, revision| !then.had_lost(name, revision));
        Ok(())
    }

    /// A binding that was asked on this node, with its revision.
    pub(super) fn logs_of(&self, name: &str) -> Option<(u64, Binding)> {
        self.answerers.get(name).map(|answerer| (answerer.revision, answerer.binding))
    }

    /// A component, compiled, from its file.
    ///
    /// # Errors
    /// Those of reading it, and an internal error where it does not load.
    pub(super) async fn load(&self, digest: Digest) -> Result<Plugin, NotDone> {
        let wasm = self.files.get(digest).await?;
        self.engine.load(&digest.to_string(), wasm).await.map_err(|error| NotDone::internal(error.to_string()))
    }
}

/// A component with the grants of a binding.
pub(super) fn bind(
    plugin: &Plugin,
    document: &BindingDocument,
    name: &str,
    revision: u64,
) -> Result<Answerer, NotDone> {
    let binding =
        plugin.bind(document.spec(name)?).map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
    Ok(Answerer {
        binding,
        fallback_to_producer: document.fallback == Fallback::Producer,
        revision,
        answered_at: Arc::default(),
    })
}
