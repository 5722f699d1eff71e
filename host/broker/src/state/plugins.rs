//! Components, their names and tags, and the bindings that let them answer.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::snapshot::Snapshot;
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::record::{BindingPut, PluginChunk, PluginPublish};
use crate::{Millis, Refusal};

/// SHA-256 of a component.
pub type Digest = [u8; 32];

/// Most plugins (names) in a cluster.
pub const PLUGINS_MAX: usize = 10_000;
/// Most tags of one plugin.
pub const TAGS_MAX: usize = 1_000;
/// Most bindings in a cluster.
pub const BINDINGS_MAX: usize = 10_000;

/// A component as the log holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Artifact {
    /// Bytes of the whole component.
    pub total: u64,
    /// Log position and offset in the component of each chunk record, ascending by offset.
    pub chunks: Vec<(u64, u64)>,
    /// Bytes that are there.
    pub received: u64,
    /// Verdict of the upload, as JSON; empty until it is published.
    pub verdict: String,
}

/// Where a tag points, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The component.
    pub digest: Digest,
    /// When it was set.
    pub since: Millis,
}

/// One plugin: a name with tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginEntry {
    /// Tags with their history, the current one last.
    pub tags: BTreeMap<String, Vec<Tag>>,
}

/// A binding as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingEntry {
    /// The component that answers: what `plugin` resolved to when the binding was set.
    pub digest: Digest,
    /// The whole binding as the user wrote it, as JSON.
    pub spec: String,
    /// Topics for which it answers checks.
    pub topics: Vec<String>,
    /// Log position of the record that set it.
    pub revision: u64,
}

/// The part of a binding that decides who answers.
#[derive(Deserialize)]
struct BindingTargets {
    #[serde(default)]
    topics: Vec<String>,
}

/// Everything about components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plugins {
    artifacts: BTreeMap<Digest, Artifact>,
    plugins: BTreeMap<String, PluginEntry>,
    bindings: BTreeMap<String, BindingEntry>,
}

impl Plugins {
    /// The component with this digest.
    pub fn artifact(&self, digest: &Digest) -> Option<&Artifact> {
        self.artifacts.get(digest)
    }

    /// All components.
    pub fn artifacts(&self) -> impl Iterator<Item = (&Digest, &Artifact)> {
        self.artifacts.iter()
    }

    /// The plugin with this name.
    pub fn plugin(&self, name: &str) -> Option<&PluginEntry> {
        self.plugins.get(name)
    }

    /// All plugins in the order of their names.
    pub fn plugins(&self) -> impl Iterator<Item = (&str, &PluginEntry)> {
        self.plugins.iter().map(|(name, plugin)| (name.as_str(), plugin))
    }

    /// Where a tag points now.
    pub fn tag(&self, name: &str, tag: &str) -> Option<Tag> {
        self.plugins.get(name)?.tags.get(tag)?.last().copied()
    }

    /// The binding with this name.
    pub fn binding(&self, name: &str) -> Option<&BindingEntry> {
        self.bindings.get(name)
    }

    /// All bindings in the order of their names.
    pub fn bindings(&self) -> impl Iterator<Item = (&str, &BindingEntry)> {
        self.bindings.iter().map(|(name, binding)| (name.as_str(), binding))
    }

    /// The binding that answers for a topic.
    pub fn binding_of_topic(&self, topic: &str) -> Option<(&str, &BindingEntry)> {
        self.bindings().find(|(_, binding)| binding.topics.iter().any(|bound| bound == topic))
    }

    pub(super) fn chunk(&mut self, position: u64, chunk: &PluginChunk) {
        let artifact = self.artifacts.entry(chunk.digest).or_default();
        // A second upload of the same component, after one that was cut off, adds only what is missing.
        if chunk.offset == artifact.received {
            artifact.total = chunk.total;
            artifact.received += chunk.data.len() as u64;
            artifact.chunks.push((position, chunk.offset));
        }
    }

    /// Publishes a component. Returns whether the tag is new.
    pub(super) fn publish(&mut self, publish: &PluginPublish, now: Millis) -> Result<bool, Refusal> {
        let complete = self.artifacts.get(&publish.digest).is_some_and(|a| a.total > 0 && a.received == a.total);
        if !complete {
            return Err(Refusal::Conflict("the component's bytes are not all here; upload it again".to_owned()));
        }
        let current = self.tag(&publish.name, &publish.tag).map(|tag| tag.digest);
        if current != publish.expected && current != Some(publish.digest) {
            return Err(Refusal::PreconditionFailed(format!(
                "tag {} of plugin {} points at another component; read it, then send its digest in If-Match",
                publish.tag, publish.name
            )));
        }
        if !self.plugins.contains_key(&publish.name) && self.plugins.len() >= PLUGINS_MAX {
            return Err(Refusal::TooMany(format!("there are {PLUGINS_MAX} plugins already; delete one first")));
        }
        let tags = &mut self.plugins.entry(publish.name.clone()).or_default().tags;
        if !tags.contains_key(&publish.tag) && tags.len() >= TAGS_MAX {
            return Err(Refusal::TooMany(format!(
                "plugin {} has {TAGS_MAX} tags already; delete one first",
                publish.name
            )));
        }
        if let Some(artifact) = self.artifacts.get_mut(&publish.digest) {
            artifact.verdict.clone_from(&publish.verdict);
        }
        if current != Some(publish.digest) {
            tags.entry(publish.tag.clone()).or_default().push(Tag { digest: publish.digest, since: now });
        }
        Ok(current.is_none())
    }

    pub(super) fn delete_tag(&mut self, name: &str, tag: &str) -> Result<(), Refusal> {
        let digest =
            self.tag(name, tag).ok_or_else(|| Refusal::NotFound(format!("plugin {name} has no tag {tag}")))?.digest;
        let entry = self.plugins.get_mut(name).expect("the plugin has the tag");
        if entry.tags.len() == 1 {
            if let Some(binding) = self.bound_by(&digest) {
                return Err(in_use(name, &binding));
            }
            self.plugins.remove(name);
        } else {
            entry.tags.remove(tag);
        }
        self.drop_unused();
        Ok(())
    }

    pub(super) fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        let entry = self.plugins.get(name).ok_or_else(|| Refusal::NotFound(format!("there is no plugin {name}")))?;
        let digests: Vec<Digest> = entry.tags.values().flatten().map(|tag| tag.digest).collect();
        if let Some(binding) = digests.iter().find_map(|digest| self.bound_by(digest)) {
            return Err(in_use(name, &binding));
        }
        self.plugins.remove(name);
        self.drop_unused();
        Ok(())
    }

    fn bound_by(&self, digest: &Digest) -> Option<String> {
        self.bindings.iter().find(|(_, binding)| binding.digest == *digest).map(|(name, _)| name.clone())
    }

    /// Components that neither a tag nor a binding needs are gone.
    fn drop_unused(&mut self) {
        let Self { artifacts, plugins, bindings } = self;
        artifacts.retain(|digest, artifact| {
            artifact.verdict.is_empty()
                || bindings.values().any(|binding| binding.digest == *digest)
                || plugins.values().flat_map(|plugin| plugin.tags.values().flatten()).any(|tag| tag.digest == *digest)
        });
    }

    /// Sets a binding. Returns whether it is new.
    pub(super) fn bind(&mut self, put: &BindingPut, revision: u64) -> Result<bool, Refusal> {
        let targets: BindingTargets = serde_json::from_str(&put.spec)
            .map_err(|error| Refusal::Invalid(format!("the binding cannot be read: {error}")))?;
        if self.artifacts.get(&put.digest).is_none_or(|artifact| artifact.verdict.is_empty()) {
            return Err(Refusal::NotFound("the plugin of this binding was deleted; push it again".to_owned()));
        }
        for topic in &targets.topics {
            if let Some((other, _)) = self.binding_of_topic(topic).filter(|(other, _)| *other != put.name) {
                return Err(Refusal::Conflict(format!(
                    "topic {topic} is already answered by binding {other}; delete that one, or take the topic out of it"
                )));
            }
        }
        if !self.bindings.contains_key(&put.name) && self.bindings.len() >= BINDINGS_MAX {
            return Err(Refusal::TooMany(format!("there are {BINDINGS_MAX} bindings already; delete one first")));
        }
        let entry = BindingEntry { digest: put.digest, spec: put.spec.clone(), topics: targets.topics, revision };
        let new = self.bindings.insert(put.name.clone(), entry).is_none();
        self.drop_unused();
        Ok(new)
    }

    pub(super) fn unbind(&mut self, name: &str) -> Result<(), Refusal> {
        self.bindings.remove(name).ok_or_else(|| Refusal::NotFound(format!("there is no binding {name}")))?;
        self.drop_unused();
        Ok(())
    }
}

fn in_use(plugin: &str, binding: &str) -> Refusal {
    Refusal::Conflict(format!("plugin {plugin} is used by binding {binding}; delete the binding first"))
}

impl Writer<'_> {
    fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(digest);
    }
}

impl Reader<'_> {
    fn digest(&mut self) -> Result<Digest, DecodeError> {
        Ok(self.take(32, "digest")?.try_into().expect("thirty-two bytes were taken"))
    }
}

impl Snapshot for Plugins {
    const SECTION: u16 = 6;

    fn write(&self, w: &mut Writer<'_>) {
        w.varint(self.artifacts.len() as u64);
        for (digest, artifact) in &self.artifacts {
            w.digest(digest);
            w.u64(artifact.total);
            w.u64(artifact.received);
            w.text(&artifact.verdict);
            w.varint(artifact.chunks.len() as u64);
            for (position, offset) in &artifact.chunks {
                w.u64(*position);
                w.u64(*offset);
            }
        }
        w.varint(self.plugins.len() as u64);
        for (name, plugin) in &self.plugins {
            w.text(name);
            w.varint(plugin.tags.len() as u64);
            for (tag, history) in &plugin.tags {
                w.text(tag);
                w.varint(history.len() as u64);
                for tag in history {
                    w.digest(&tag.digest);
                    w.u64(tag.since.0);
                }
            }
        }
        w.varint(self.bindings.len() as u64);
        for (name, binding) in &self.bindings {
            w.text(name);
            w.digest(&binding.digest);
            w.text(&binding.spec);
            w.varint(binding.topics.len() as u64);
            binding.topics.iter().for_each(|topic| w.text(topic));
            w.u64(binding.revision);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut plugins = Plugins::default();
        for _ in 0..r.count("components")? {
            let digest = r.digest()?;
            let artifact = Artifact {
                total: r.u64("total")?,
                received: r.u64("received")?,
                verdict: r.string("verdict")?,
                chunks: r.list("chunks", |r| Ok((r.u64("position")?, r.u64("offset")?)))?,
            };
            plugins.artifacts.insert(digest, artifact);
        }
        for _ in 0..r.count("plugins")? {
            let name = r.string("plugin name")?;
            let tags = r.list("tags", |r| {
                let tag = r.string("tag")?;
                let history = r.list("history", |r| Ok(Tag { digest: r.digest()?, since: Millis(r.u64("since")?) }))?;
                Ok((tag, history))
            })?;
            plugins.plugins.insert(name, PluginEntry { tags: tags.into_iter().collect() });
        }
        for _ in 0..r.count("bindings")? {
            let name = r.string("binding name")?;
            let binding = BindingEntry {
                digest: r.digest()?,
                spec: r.string("binding")?,
                topics: r.list("topics", |r| r.string("topic"))?,
                revision: r.u64("revision")?,
            };
            plugins.bindings.insert(name, binding);
        }
        Ok(plugins)
    }
}
