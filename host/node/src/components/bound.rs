//! Bindings that are ready to be asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vouch_broker::state::BindingEntry;
use vouch_broker::{NotDone, Refusal, ResourceName, State};
use vouch_leader::Leader;
use vouch_plugin::{Binding, Engine, Plugin};
use vouch_registry::Digest;

use super::answerers::{Answerers, MadeOf};
use super::document::{BindingDocument, Fallback};
use super::file::ComponentFiles;
use super::pending::Answerer;
use super::there::BindingsThen;
use crate::effects::Settler;
use crate::secrets::{OpenedSecrets, SealedSecretsHere};
use vouch_shard::Shard;

/// Components, loaded and joined with the grants of their bindings.
pub(crate) struct BoundComponents {
    shard: Arc<Shard>,
    files: ComponentFiles,
    engine: Engine,
    /// What bindings name.
    secrets: Arc<SealedSecretsHere>,
    /// By the name of the binding.
    answerers: Answerers<Answerer>,
}

impl BoundComponents {
    /// None is made yet.
    pub(crate) fn new(
        shard: Arc<Shard>,
        files: ComponentFiles,
        engine: Engine,
        secrets: Arc<SealedSecretsHere>,
    ) -> Self {
        Self { shard, files, engine, secrets, answerers: Answerers::default() }
    }

    /// This binding, loaded and joined with its grants and secrets. Made once for each time that it is set, or that a secret
    /// which it names gets another value: who comes meanwhile
    /// waits for the one that makes it. `entry`: the binding as the asker knows it; the shard is not asked for it
    /// again.
    ///
    /// # Errors
    /// Why it cannot be asked: its component is gone, or does not load, or is not what the binding needs, or this node cannot open
    /// its secrets. The next caller tries again.
    pub(crate) async fn answerer(&self, name: &str, entry: &BindingEntry) -> Result<Answerer, NotDone> {
        let of = MadeOf { revision: entry.revision, values: self.secrets.value_ids(&entry.secrets).await? };
        let before = self.answerers.get(name).filter(|before| before.revision == entry.revision);
        let make = async {
            self.forget_removed().await?;
            let document = BindingDocument::parse(&entry.spec)?;
            let plugin = self.load(Digest(entry.digest)).await?;
            let opened = self.secrets.opened(&document.secrets()).await?;
            bind(&plugin, &document, (name, entry.revision, entry.created), &opened, before.as_ref())
        };
        self.answerers.get_or_make(name, of, make).await
    }

    /// Whether this is what is asked now. Where that cannot be made, it is not.
    pub(crate) async fn is_current(&self, name: &str, entry: &BindingEntry, answerer: &Answerer) -> bool {
        let now = self.answerer(name, entry).await;
        now.is_ok_and(|now| now.binding.is(&answerer.binding) || now.revision != answerer.revision)
    }

    /// What was made of bindings that are gone goes when the next one is made.
    pub(super) async fn forget_removed(&self) -> Result<(), NotDone> {
        let then = BindingsThen::look(&self.shard).await?;
        self.answerers.retain(|name, revision| !then.had_lost(name, revision));
        Ok(())
    }

    /// A binding as it was set then, if this node asked it since.
    pub(super) fn made(&self, name: &str, revision: u64) -> Option<Answerer> {
        self.answerers.get(name).filter(|answerer| answerer.revision == revision)
    }

    /// Topics of bindings whose component said last of an ended transaction what its producer had not said.
    pub(crate) async fn contradicted(&self) -> Result<BTreeSet<ResourceName>, NotDone> {
        let all = self.answerers.all();
        let contradicted = all.iter().filter(|answerer| answerer.notes.is_contradicted());
        let named: Vec<_> = contradicted.map(|each| (each.binding.name().to_owned(), each.revision)).collect();
        if named.is_empty() {
            return Ok(BTreeSet::new());
        }
        let look = move |state: &State| {
            let entries = named.iter().filter_map(|(name, revision)| {
                state.plugins().binding(name).filter(|entry| entry.revision == *revision)
            });
            entries.flat_map(|entry| &entry.topics).map(|topic| ResourceName::parse(topic)).collect()
        };
        self.shard.read(look).await
    }

    /// Whether this node leads, and the binding is as it was set then.
    pub(super) async fn asks(&self, name: &str, revision: u64) -> bool {
        let name = name.to_owned();
        let look = move |state: &State, _: &mut Leader| {
            state.plugins().binding(&name).is_some_and(|entry| entry.revision == revision)
        };
        self.shard.lead(look).await == Ok(true)
    }

    /// What was noted of bindings, and connections to their databases, are for whoever leads: one that does not has neither.
    pub(crate) fn rest(&self) {
        for answerer in self.answerers.all() {
            answerer.notes.forget(|hold| answerer.binding.hold_fences(hold));
            answerer.binding.close_idle_connections(Duration::ZERO);
        }
    }

    /// Closes connections to databases that nobody used for so long.
    pub(crate) fn close_idle_connections(&self, idle_for: Duration) {
        self.answerers.all().iter().for_each(|answerer| answerer.binding.close_idle_connections(idle_for));
    }

    /// A binding that was asked on this node, with its revision.
    pub(super) fn logs_of(&self, name: &str) -> Option<(u64, Binding)> {
        self.answerers.get(name).map(|answerer| (answerer.revision, answerer.binding))
    }

    /// The values of secrets.
    ///
    /// # Errors
    /// One does not exist, or this node cannot open it.
    pub(super) async fn opened(&self, names: &BTreeSet<String>) -> Result<OpenedSecrets, NotDone> {
        self.secrets.opened(names).await
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

/// A component with the grants of a binding, in the place of the same one with other values of its secrets if there was one
/// `before`: its log goes on, and what is known of its answers.
pub(super) fn bind(
    plugin: &Plugin,
    document: &BindingDocument,
    (name, revision, created): (&str, u64, u64),
    opened: &OpenedSecrets,
    before: Option<&Answerer>,
) -> Result<Answerer, NotDone> {
    let spec = document.spec(name, opened)?;
    let bound = match before {
        Some(before) => plugin.bind_again(spec, &before.binding),
        None => plugin.bind(spec),
    };
    Ok(Answerer {
        binding: bound.map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?,
        fallback_to_producer: document.fallback == Fallback::Producer,
        revision,
        settler: Settler {
            binding: name.to_owned(),
            created,
            namespace: document.keeps(name).map(|keeps| keeps.namespace),
        },
        answered_at: before.map(|before| before.answered_at.clone()).unwrap_or_default(),
        notes: before.map(|before| before.notes.clone()).unwrap_or_default(),
        batches: before.map(|before| before.batches.clone()).unwrap_or_default(),
    })
}
