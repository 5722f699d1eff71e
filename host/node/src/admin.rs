//! What administrators see and do.

use bytes::Bytes;
use vouch_broker::record::{BindingDelete, BindingPut, PluginDelete, TagDelete};
use vouch_broker::state::{BindingEntry, PluginEntry};
use vouch_broker::{NotDone, Refusal, State};
use vouch_plugin::UploadVerdict;
use vouch_registry::Digest;

use crate::node::{Components, Status};
use crate::plugins::UploadError;
use crate::shard::{Leader, Standing};
use crate::written::written;
use crate::{Expect, PluginUpload, Written};

impl Components {
    /// Takes a component: inspected, kept in the log, published under its tag.
    pub async fn upload(&self, upload: PluginUpload) -> Result<(UploadVerdict, Written), UploadError> {
        // Before anything is compiled or kept.
        self.0.writable.check()?;
        self.0.plugins.upload(&self.0, upload).await
    }

    /// The digest that a tag points at.
    pub async fn tag(&self, name: &str, tag: &str) -> Result<Option<String>, NotDone> {
        let (name, tag) = (name.to_owned(), tag.to_owned());
        let find = move |state: &State| state.plugins().tag(&name, &tag);
        Ok(self.0.shard.read(find).await?.map(|tag| Digest(tag.digest).to_string()))
    }

    /// Plugins in the order of their names, after a name.
    pub async fn plugins(&self, after: Option<String>, limit: usize) -> Result<Vec<(String, PluginEntry)>, NotDone> {
        let list = move |state: &State| {
            let plugins = state.plugins().plugins();
            let plugins = plugins.filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after));
            plugins.take(limit).map(|(name, plugin)| (name.to_owned(), plugin.clone())).collect()
        };
        self.0.shard.read(list).await
    }

    /// A plugin; `None` if there is none by that name.
    pub async fn plugin(&self, name: &str) -> Result<Option<PluginEntry>, NotDone> {
        let name = name.to_owned();
        self.0.shard.read(move |state| state.plugins().plugin(&name).cloned()).await
    }

    /// The file of a component.
    pub async fn file(&self, digest: Digest) -> Result<Bytes, NotDone> {
        self.0.plugins.component(&self.0, digest).await
    }

    /// Verdict of a component's upload, as JSON; `None` if the component is not here.
    pub async fn verdict(&self, digest: &str) -> Result<Option<String>, NotDone> {
        let digest: Digest = digest
            .parse()
            .map_err(|error: vouch_registry::DigestError| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
        let find = move |state: &State| state.plugins().artifact(&digest.0).map(|artifact| artifact.verdict.clone());
        Ok(self.0.shard.read(find).await?.filter(|verdict| !verdict.is_empty()))
    }

    /// Removes a tag.
    pub async fn delete_tag(&self, name: &str, tag: &str) -> Result<(), NotDone> {
        self.0.writable.check()?;
        let record = TagDelete { name: name.to_owned(), tag: tag.to_owned() };
        self.0.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Removes a plugin with all its tags.
    pub async fn delete_plugin(&self, name: &str) -> Result<(), NotDone> {
        self.0.writable.check()?;
        let record = PluginDelete { name: name.to_owned() };
        self.0.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Sets a binding. Returns what was written, the digest that answers, and what the component wants and is not
    /// granted.
    pub async fn put_binding(
        &self,
        name: &str,
        spec: &str,
        expect: Expect,
    ) -> Result<(Written, String, Vec<String>), NotDone> {
        self.0.writable.check()?;
        vouch_registry::check_binding_name(name)
            .map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
        let (digest, warnings) = self.0.plugins.try_bind(&self.0, name, spec).await?;
        let put = BindingPut {
            name: name.to_owned(),
            digest: digest.0,
            spec: spec.to_owned(),
            expected_revision: expect.revision(),
        };
        let written = written(&self.0.shard, |out| put.encode(out)).await?;
        Ok((written, digest.to_string(), warnings))
    }

    /// Removes a binding.
    pub async fn delete_binding(&self, name: &str) -> Result<(), NotDone> {
        self.0.writable.check()?;
        let record = BindingDelete { name: name.to_owned() };
        self.0.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Bindings in the order of their names, after a name.
    pub async fn bindings(&self, after: Option<String>, limit: usize) -> Result<Vec<(String, BindingEntry)>, NotDone> {
        let list = move |state: &State| {
            let bindings = state.plugins().bindings();
            let bindings = bindings.filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after));
            bindings.take(limit).map(|(name, binding)| (name.to_owned(), binding.clone())).collect()
        };
        self.0.shard.read(list).await
    }

    /// A binding; `None` if there is none by that name.
    pub async fn binding(&self, name: &str) -> Result<Option<BindingEntry>, NotDone> {
        let name = name.to_owned();
        self.0.shard.read(move |state| state.plugins().binding(&name).cloned()).await
    }

    /// Names of bindings that use a plugin, in their order, with the digests that answer.
    pub async fn bindings_of_plugin(&self, plugin: &str, limit: usize) -> Result<Vec<(String, Digest)>, NotDone> {
        let plugin = plugin.to_owned();
        let list = move |state: &State| {
            let bindings = state.plugins().bindings().filter(|(_, binding)| binding.plugin == plugin);
            bindings.take(limit).map(|(name, binding)| (name.to_owned(), Digest(binding.digest))).collect()
        };
        self.0.shard.read(list).await
    }

    /// A binding that was asked on this node, which has the log of what its component said, and its revision: with each
    /// revision a new log begins.
    pub async fn binding_log(&self, name: &str) -> Option<(u64, vouch_plugin::Binding)> {
        self.0.plugins.logs_of(name)
    }
}

impl Status {
    /// Numbers for metrics and the cluster's status.
    pub async fn numbers(&self) -> Result<Numbers, NotDone> {
        let Standing { appended, durable, applied, waiting_polls, .. } = self.0.shard.standing().await?;
        let look = move |state: &State, leader: &mut Leader| {
            let (resends, reused_ids) = state.resends();
            Numbers {
                appended,
                durable,
                applied,
                topics: state.topics().len(),
                groups: state.groups().len(),
                open_transactions: state.open_transactions().len(),
                parked_transactions: state.open_transactions().parked(),
                ended_transactions: state.outcomes().len(),
                asking: leader.schedule.asking(),
                waiting_polls,
                resends,
                reused_ids,
                doubted_ms: state.leaps().doubted_ms(),
            }
        };
        self.0.shard.lead(look).await
    }
}

/// Numbers of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Numbers {
    /// Log position after the last entry.
    pub appended: u64,
    /// Everything before this log position is durable.
    pub durable: u64,
    /// Everything before this log position is applied.
    pub applied: u64,
    /// Topics.
    pub topics: usize,
    /// Groups.
    pub groups: usize,
    /// Open transactions, parked ones included.
    pub open_transactions: usize,
    /// Parked transactions.
    pub parked_transactions: usize,
    /// Ended transactions whose outcome is remembered.
    pub ended_transactions: usize,
    /// Asks under way.
    pub asking: usize,
    /// Receives that wait.
    pub waiting_polls: usize,
    /// Resends that were recognised and stored once.
    pub resends: u64,
    /// Message ids that were used again for other content.
    pub reused_ids: u64,
    /// Time of the log, in ms, that makes nothing older while nobody knows whether it passed.
    pub doubted_ms: u64,
}
