//! Components, their names and tags, and the bindings that let them answer.

mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::record::{BindingPut, KeepGrant, PluginChunk, PluginPublish};
use crate::{Millis, RecordPosition, Refusal, ResourceName};

/// SHA-256 of a component.
pub type ComponentDigest = [u8; 32];

/// Most plugins (names) in a cluster.
pub const PLUGINS_MAX: usize = 10_000;
/// Most tags of one plugin.
pub const TAGS_MAX: usize = 1_000;
/// Components that a tag is remembered to have pointed at, the latest.
pub const TAG_HISTORY_MAX: usize = 1_000;
/// Most bindings in a cluster.
pub const BINDINGS_MAX: usize = 10_000;
/// Most components whose upload is not finished; a further one drops the oldest.
pub const UPLOADS_MAX: usize = 1_000;
/// Most bindings that the refusal to delete what they use names.
const USERS_NAMED: usize = 10;

/// A component as the log holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Artifact {
    /// Bytes of the whole component.
    pub total: u64,
    /// Log position and offset in the component of each chunk record, ascending by offset.
    pub chunks: Vec<(RecordPosition, u64)>,
    /// Bytes that are there.
    pub received: u64,
    /// Verdict of the upload, as JSON; empty until it is published.
    pub verdict: String,
}

impl Artifact {
    /// Whether all its bytes are there.
    pub fn is_complete(&self) -> bool {
        self.total > 0 && self.received == self.total
    }
}

/// Where a tag points, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The component.
    pub digest: ComponentDigest,
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
    /// Name of the plugin, which stays while it is bound.
    pub plugin: String,
    /// The component that answers: what the plugin's tag pointed at when the binding was set.
    pub digest: ComponentDigest,
    /// The whole binding as the user wrote it, as JSON.
    pub spec: String,
    /// Topics for which it answers checks, as the user wrote them ([`ResourceName::parse`]).
    pub topics: Vec<String>,
    /// Groups for which it consumes.
    pub groups: Vec<String>,
    /// Log position of the record that set it.
    pub revision: u64,
    /// Secrets that it names. Each is there for as long as the binding is.
    pub secrets: BTreeSet<String>,
    /// Log position of the record that created it: of two that had its name, one after the other, it tells one from the other. 0
    /// for one of before that was told.
    pub created: u64,
    /// Where it may keep what, if it may.
    pub keeps: Option<KeepGrant>,
    /// An operator let it pause.
    pub paused: bool,
}

/// The part of a binding that decides who answers.
#[derive(Deserialize)]
struct BindingTargets {
    /// `name`, `name:tag` or `name@digest`.
    #[serde(default)]
    plugin: String,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
}

/// Everything about components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plugins {
    artifacts: BTreeMap<ComponentDigest, Artifact>,
    plugins: BTreeMap<String, PluginEntry>,
    bindings: BTreeMap<String, BindingEntry>,
}

impl Plugins {
    /// The component with this digest.
    pub fn artifact(&self, digest: &ComponentDigest) -> Option<&Artifact> {
        self.artifacts.get(digest)
    }

    /// All components.
    pub fn artifacts(&self) -> impl Iterator<Item = (&ComponentDigest, &Artifact)> {
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
    pub fn binding_of_topic(&self, topic: &ResourceName) -> Option<(&str, &BindingEntry)> {
        self.bindings().find(|(_, binding)| binding.topics.iter().any(|bound| topic.is_written(bound)))
    }

    /// The binding that consumes for a group.
    pub fn binding_of_group(&self, group: &str) -> Option<(&str, &BindingEntry)> {
        self.bindings().find(|(_, binding)| binding.groups.iter().any(|bound| bound == group))
    }

    /// The bindings that name a secret.
    pub fn bindings_with_secret(&self, secret: &str) -> impl Iterator<Item = (&str, &BindingEntry)> {
        self.bindings().filter(move |(_, binding)| binding.secrets.contains(secret))
    }

    /// Adds a piece of a component. A second upload of the same one, after one that was cut off, adds only what is
    /// missing; if it is cut into other pieces, or says another length, it begins anew.
    pub(super) fn chunk(&mut self, position: RecordPosition, chunk: &PluginChunk) {
        if !self.artifacts.contains_key(&chunk.digest) {
            self.make_room_for_upload();
        }
        let artifact = self.artifacts.entry(chunk.digest).or_default();
        if artifact.is_complete() {
            return;
        }
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        let fits = |artifact: &Artifact| {
            artifact.received == 0
                || artifact.total == chunk.total
                    && (end == artifact.received || artifact.chunks.iter().any(|(_, offset)| *offset == end))
        };
        if chunk.offset == 0 && !fits(artifact) {
            *artifact = Artifact::default();
        }
        if chunk.offset == artifact.received
            && end <= chunk.total
            && (artifact.received == 0 || artifact.total == chunk.total)
            && !chunk.data.is_empty()
        {
            artifact.total = chunk.total;
            artifact.received = end;
            artifact.chunks.push((position, chunk.offset));
        }
    }

    /// A piece of a component lies there now.
    pub(super) fn carry(
        &mut self,
        digest: &ComponentDigest,
        offset: u64,
        from: RecordPosition,
        position: RecordPosition,
    ) {
        let chunks = self.artifacts.get_mut(digest).map(|artifact| artifact.chunks.iter_mut());
        for (place, at) in chunks.into_iter().flatten() {
            // A piece that was uploaded anew meanwhile lies elsewhere, and stays there.
            if *at == offset && *place == from {
                *place = position;
            }
        }
    }

    /// Drops the oldest upload that nobody finished, if there are too many.
    fn make_room_for_upload(&mut self) {
        let unfinished = || self.artifacts.iter().filter(|(_, artifact)| artifact.verdict.is_empty());
        if unfinished().count() < UPLOADS_MAX {
            return;
        }
        let begun =
            |artifact: &Artifact| artifact.chunks.first().map_or(RecordPosition::START, |(position, _)| *position);
        let oldest = unfinished().min_by_key(|(_, artifact)| begun(artifact)).map(|(digest, _)| *digest);
        if let Some(digest) = oldest {
            self.artifacts.remove(&digest);
        }
    }

    /// Publishes a component. Returns whether the tag is new.
    pub(super) fn publish(&mut self, publish: &PluginPublish, now: Millis) -> Result<bool, Refusal> {
        let complete = self.artifacts.get(&publish.digest).is_some_and(Artifact::is_complete);
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
            let history = tags.entry(publish.tag.clone()).or_default();
            history.push(Tag { digest: publish.digest, since: now });
            if history.len() > TAG_HISTORY_MAX {
                history.remove(0);
                self.drop_unused();
            }
        }
        Ok(current.is_none())
    }

    /// Removes a tag, and with the last one the plugin.
    pub(super) fn delete_tag(&mut self, name: &str, tag: &str) -> Result<(), Refusal> {
        let no_tag = || Refusal::NotFound(format!("plugin {name} has no tag {tag}"));
        let entry = self.plugins.get_mut(name).filter(|entry| entry.tags.contains_key(tag)).ok_or_else(no_tag)?;
        if entry.tags.len() == 1 {
            return self.delete(name);
        }
        entry.tags.remove(tag);
        self.drop_unused();
        Ok(())
    }

    /// Removes a plugin with all its tags.
    pub(super) fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        if !self.plugins.contains_key(name) {
            return Err(Refusal::NotFound(format!("there is no plugin {name}")));
        }
        let users = self.bindings().filter(|(_, binding)| binding.plugin == name).map(|(binding, _)| binding);
        if let Some(refusal) = used_by_bindings(&format!("plugin {name}"), users) {
            return Err(refusal);
        }
        self.plugins.remove(name);
        self.drop_unused();
        Ok(())
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
            let named = ResourceName::parse(topic);
            if let Some((other, _)) = self.binding_of_topic(&named).filter(|(other, _)| *other != put.name) {
                return Err(Refusal::Conflict(format!(
                    "topic {topic} is already answered by binding {other}; delete that one, or take the topic out of it"
                )));
            }
        }
        for group in &targets.groups {
            if let Some((other, _)) = self.binding_of_group(group).filter(|(other, _)| *other != put.name) {
                return Err(Refusal::Conflict(format!(
                    "group {group} is already served by binding {other}; delete that one, or take the group out of it"
                )));
            }
        }
        if !self.bindings.contains_key(&put.name) && self.bindings.len() >= BINDINGS_MAX {
            return Err(Refusal::TooMany(format!("there are {BINDINGS_MAX} bindings already; delete one first")));
        }
        let BindingTargets { plugin, topics, groups } = targets;
        let plugin = plugin_name(&plugin).to_owned();
        let (digest, spec, secrets, keeps) = (put.digest, put.spec.clone(), put.secrets.clone(), put.keeps.clone());
        let before = self.bindings.get(&put.name);
        let born = if put.names_life { revision } else { 0 };
        let (created, paused) = before.map_or((born, false), |before| (before.created, before.paused));
        let entry = BindingEntry { plugin, digest, spec, topics, groups, revision, secrets, created, keeps, paused };
        let new = self.bindings.insert(put.name.clone(), entry).is_none();
        self.drop_unused();
        Ok(new)
    }

    /// Lets a binding pause, or go on.
    pub(super) fn pause(&mut self, name: &str, paused: bool) -> Result<(), Refusal> {
        let binding = self.bindings.get_mut(name);
        binding.ok_or_else(|| Refusal::NotFound(format!("there is no binding {name}")))?.paused = paused;
        Ok(())
    }

    pub(super) fn unbind(&mut self, name: &str) -> Result<(), Refusal> {
        self.bindings.remove(name).ok_or_else(|| Refusal::NotFound(format!("there is no binding {name}")))?;
        self.drop_unused();
        Ok(())
    }
}

/// The name in `name`, `name:tag` or `name@digest`.
fn plugin_name(reference: &str) -> &str {
    reference.split_once(['@', ':']).map_or(reference, |(name, _)| name)
}

/// The refusal to delete what these bindings use, which names them; `None` if there are none.
pub fn used_by_bindings<'a>(what: &str, bindings: impl Iterator<Item = &'a str>) -> Option<Refusal> {
    let mut bindings = bindings;
    let named: Vec<&str> = bindings.by_ref().take(USERS_NAMED).collect();
    let text = match (named.as_slice(), bindings.count()) {
        ([], _) => return None,
        ([one], _) => format!("{what} is used by binding {one}; delete the binding first"),
        (several, 0) => format!("{what} is used by bindings {}; delete these first", several.join(", ")),
        (several, more) => {
            format!("{what} is used by bindings {} and {more} more; delete these first", several.join(", "))
        }
    };
    Some(Refusal::Conflict(text))
}
