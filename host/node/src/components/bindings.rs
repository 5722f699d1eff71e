//! Bindings: set, removed, listed.

use std::collections::BTreeSet;

use vouch_broker::record::{BindingDelete, BindingPaused, BindingPut};
use vouch_broker::state::BindingEntry;
use vouch_broker::{MessageKind, NotDone, Refusal, ResourceName, State};
use vouch_registry::{Digest, Reference, ReferenceError, Target};

use super::Components;
use super::bound::bind;
use super::document::{BindingDocument, refuse_masked};
use super::joining::check_exports;
use super::pending::Answerer;
use crate::written::written;
use crate::{Expect, Written};

/// A binding that was set.
pub struct PutBinding {
    /// What was written.
    pub written: Written,
    /// The digest of the component that answers.
    pub digest: String,
    /// What its owner should know: what the component wants and is not granted, what its databases may forget, that it could not
    /// be tried.
    pub warnings: Vec<String>,
    /// Why nobody knows whether it works, if so: it stands untried, and is tried again.
    pub untried: Option<String>,
    /// How many messages wait for its groups, if it consumes.
    pub waiting: Option<u64>,
}

/// One that can be set.
struct Bindable {
    digest: Digest,
    secrets: BTreeSet<String>,
    document: BindingDocument,
    /// Made for its trial.
    answerer: Answerer,
}

impl Components {
    /// Sets a binding. It is loaded, held against its config, and tried first: what cannot answer is not set.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a document that cannot be read or does not fit its component, or whose trial found what stays
    /// wrong; [`Refusal::NotFound`] for a plugin that is not there; a refusal of topics that are not there, or that have a
    /// binding already.
    pub async fn put_binding(&self, name: &str, spec: &str, expect: Expect) -> Result<PutBinding, NotDone> {
        self.writable.check()?;
        vouch_registry::check_binding_name(name)
            .map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
        let Bindable { digest, secrets, document, answerer } = self.try_bind(name, spec).await?;
        let mut warnings = answerer.binding.warnings();
        let mut untried = None;
        if !document.unchecked {
            let (seen, why) = self.try_before_it_stands(&answerer, &document).await?;
            warnings.extend(seen);
            warnings.extend(
                why.as_ref().map(|why| format!("the binding stands untried, and is tried again once a minute: {why}")),
            );
            untried = why;
        }
        warnings.extend(self.missing_targets(&document).await?);
        self.check_unchanged(name, expect).await?;
        self.join_groups(name, &document).await?;
        let put = BindingPut {
            name: name.to_owned(),
            digest: digest.0,
            spec: spec.to_owned(),
            expected_revision: expect.revision(),
            secrets,
            keeps: document.keeps(name),
            names_life: true,
        };
        let written = written(&self.shard, |out| put.encode(out)).await?;
        if let Some(why) = untried.clone() {
            self.stands_untried(name, written.revision, why).await;
        }
        let waiting = if document.groups.is_empty() { None } else { self.waiting(name).await? };
        Ok(PutBinding { written, digest: digest.to_string(), warnings, untried, waiting })
    }

    /// Lets a binding pause, or go on: nothing is asked of its component meanwhile, and what waits for it waits.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn pause_binding(&self, name: &str, paused: bool) -> Result<(), NotDone> {
        self.writable.check()?;
        let record = BindingPaused { name: name.to_owned(), paused };
        self.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// All bindings by name, each with whether its operator lets it pause.
    pub async fn pauses(&self) -> Result<Vec<(String, bool)>, NotDone> {
        let list = |state: &State| {
            state.plugins().bindings().map(|(name, binding)| (name.to_owned(), binding.paused)).collect()
        };
        self.shard.read(list).await
    }

    /// Removes a binding. What it was asked and did not answer before is asked again, of whoever is bound then: when this
    /// resolves the binding decides nothing any more.
    pub async fn delete_binding(&self, name: &str) -> Result<(), NotDone> {
        self.writable.check()?;
        let record = BindingDelete { name: name.to_owned() };
        self.shard.propose_one(|out| record.encode(out)).await?;
        // With its component go its connections to databases. It is deleted whatever becomes of this.
        let _ = self.bound.forget_removed().await;
        Ok(())
    }

    /// Bindings in the order of their names, after a name; at most `limit`.
    pub async fn bindings(&self, after: Option<String>, limit: usize) -> Result<Vec<(String, BindingEntry)>, NotDone> {
        let list = move |state: &State| {
            let bindings = state.plugins().bindings();
            let bindings = bindings.filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after));
            bindings.take(limit).map(|(name, binding)| (name.to_owned(), binding.clone())).collect()
        };
        self.shard.read(list).await
    }

    /// A binding; `None` if there is none by that name.
    pub async fn binding(&self, name: &str) -> Result<Option<BindingEntry>, NotDone> {
        let name = name.to_owned();
        self.shard.read(move |state| state.plugins().binding(&name).cloned()).await
    }

    /// Names of bindings that use a plugin, in their order, with the digests that answer.
    pub async fn bindings_of_plugin(&self, plugin: &str, limit: usize) -> Result<Vec<(String, Digest)>, NotDone> {
        let plugin = plugin.to_owned();
        let list = move |state: &State| {
            let bindings = state.plugins().bindings().filter(|(_, binding)| binding.plugin == plugin);
            bindings.take(limit).map(|(name, binding)| (name.to_owned(), Digest(binding.digest))).collect()
        };
        self.shard.read(list).await
    }

    /// A binding that was asked on this node, which has the log of what its component said, and its revision: with each
    /// revision a new log begins.
    pub async fn binding_log(&self, name: &str) -> Option<(u64, vouch_plugin::Binding)> {
        self.bound.logs_of(name)
    }

    /// A binding as it would be, without setting it. Refuses one that cannot do what it is set for.
    async fn try_bind(&self, name: &str, spec: &str) -> Result<Bindable, NotDone> {
        refuse_masked(spec)?;
        let document = BindingDocument::parse(spec)?;
        let digest = self.resolve(&document.plugin).await?;
        let plugin = self.bound.load(digest).await?;
        // First what bounds how much there is to look through.
        let secrets = document.secrets();
        let opened = self.bound.opened(&secrets).await?;
        let answerer = bind(&plugin, &document, (name, 0, 0), &opened, None)?;
        let spec = document.spec(name, &opened)?;
        let checked = tokio::task::spawn_blocking(move || plugin.check_config(&spec)).await;
        checked
            .map_err(|error| NotDone::internal(format!("the config cannot be checked: {error}")))?
            .map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
        self.check_topics(&document.topics).await?;
        self.check_subscriptions(&document).await?;
        check_exports(&answerer.binding, &document)?;
        Ok(Bindable { digest, secrets, document, answerer })
    }

    /// Refuses early what the log would refuse: what belongs to the binding is made before it is recorded.
    async fn check_unchanged(&self, name: &str, expect: Expect) -> Result<(), NotDone> {
        let current = self.binding(name).await?.map_or(0, |binding| binding.revision);
        match expect.revision() {
            Some(expected) if expected != current => Err(NotDone::Refused(Refusal::PreconditionFailed(format!(
                "binding {name} was changed meanwhile; read it, then send its ETag in If-Match"
            )))),
            _ => Ok(()),
        }
    }

    /// Refuses topics that do not exist, and those of which no transaction can come: a component is never asked about them.
    async fn check_topics(&self, topics: &[String]) -> Result<(), NotDone> {
        let names: Vec<ResourceName> = topics.iter().map(|topic| ResourceName::parse(topic)).collect();
        let look = move |state: &State| {
            names.iter().try_for_each(|name| {
                let topic_type = state.topics().named(name)?.config.topic_type;
                if topic_type.takes(MessageKind::Transaction) {
                    return Ok(());
                }
                Err(Refusal::Invalid(format!(
                    "topic {name} has type {}, which takes no half messages: the component would never be asked about it; \
                     name topics of type transaction or mixed",
                    topic_type.as_str()
                )))
            })
        };
        Ok(self.shard.read(look).await??)
    }

    /// The digest that a reference means now (ruling 7).
    async fn resolve(&self, reference: &str) -> Result<Digest, NotDone> {
        let Reference { name, target } = reference
            .parse()
            .map_err(|error: ReferenceError| NotDone::Refused(Refusal::Invalid(format!("\"plugin\": {error}"))))?;
        let missing = NotDone::Refused(Refusal::NotFound(format!(
            "plugin {reference} does not exist; push it with: vouch plugin push"
        )));
        let find = move |state: &State| {
            let plugins = state.plugins();
            match target {
                Target::Tag(tag) => plugins.tag(&name, &tag).map(|tag| Digest(tag.digest)),
                Target::Digest(digest) => plugins
                    .plugin(&name)
                    .filter(|plugin| plugin.tags.values().flatten().any(|tag| tag.digest == digest.0))
                    .map(|_| digest),
            }
        };
        self.shard.read(find).await?.ok_or(missing)
    }
}
