//! How components and bindings lie in a snapshot.

use std::collections::BTreeSet;

use super::{Artifact, BindingEntry, ComponentDigest, PluginEntry, Plugins, Tag};
use crate::record::KeepGrant;
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::state::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::{Millis, RecordPosition};

impl Writer<'_> {
    fn digest(&mut self, digest: &ComponentDigest) {
        self.0.extend_from_slice(digest);
    }
}

impl Reader<'_> {
    fn digest(&mut self) -> Result<ComponentDigest, DecodeError> {
        Ok(self.take(32, "digest")?.try_into().expect("thirty-two bytes were taken"))
    }
}

impl Snapshot for Plugins {
    const SECTION: u16 = 6;
    const VERSION: u8 = 3;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        let Self { artifacts, plugins, bindings } = self;
        w.varint(artifacts.len() as u64);
        for (digest, Artifact { total, chunks, received, verdict }) in artifacts {
            w.digest(digest);
            w.u64(*total);
            w.u64(*received);
            w.text(verdict);
            w.varint(chunks.len() as u64);
            for (position, offset) in chunks {
                w.u64(position.0);
                w.u64(*offset);
            }
        }
        w.varint(plugins.len() as u64);
        for (name, PluginEntry { tags }) in plugins {
            w.text(name);
            w.varint(tags.len() as u64);
            for (tag, history) in tags {
                w.text(tag);
                w.varint(history.len() as u64);
                for Tag { digest, since } in history {
                    w.digest(digest);
                    w.u64(since.0);
                }
            }
        }
        w.varint(bindings.len() as u64);
        for (name, entry) in bindings {
            let BindingEntry { plugin, digest, spec, topics, groups, revision, secrets, created, keeps, paused } =
                entry;
            w.text(name);
            w.text(plugin);
            w.digest(digest);
            w.text(spec);
            for names in [topics, groups] {
                w.varint(names.len() as u64);
                names.iter().for_each(|name| w.text(name));
            }
            w.u64(*revision);
            w.texts(secrets);
            w.u64(*created);
            w.option(keeps.as_ref(), |w, keeps| keeps.write(w));
            w.u8(u8::from(*paused));
        }
    }

    fn read(r: &mut Reader<'_>, source: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let mut plugins = Plugins::default();
        for _ in 0..r.count("components")? {
            let digest = r.digest()?;
            let artifact = Artifact {
                total: r.u64("total")?,
                received: r.u64("received")?,
                verdict: r.string("verdict")?,
                chunks: r.list("chunks", |r| Ok((RecordPosition(r.u64("position")?), r.u64("offset")?)))?,
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
            plugins.bindings.insert(name, read_binding(r, source.version)?);
        }
        Ok(plugins)
    }
}

/// Reads a binding as this version of the section has it: secrets came with the second, what a binding keeps with the third.
fn read_binding(r: &mut Reader<'_>, version: u8) -> Result<BindingEntry, DecodeError> {
    // One of before bindings had a life has none, whether it is read here or set by a record of then: a replica that replays more
    // of the log knows no better.
    let mut binding = BindingEntry {
        plugin: r.string("plugin name")?,
        digest: r.digest()?,
        spec: r.string("binding")?,
        topics: r.list("topics", |r| r.string("topic"))?,
        groups: r.list("groups", |r| r.string("group"))?,
        revision: r.u64("revision")?,
        secrets: if version < 2 { BTreeSet::new() } else { r.texts("secrets")? },
        created: 0,
        keeps: None,
        paused: false,
    };
    if version >= 3 {
        binding.created = r.u64("created")?;
        binding.keeps = r.option("keeps", KeepGrant::read)?;
        binding.paused = r.flag("paused")?;
    }
    Ok(binding)
}
