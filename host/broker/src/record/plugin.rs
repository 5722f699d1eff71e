//! Records about components and bindings.

use std::collections::BTreeSet;

use super::Fields;
use super::codec::{DecodeError, Reader, Writer};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! plugin_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// A piece of a component.
            PluginChunk,
            /// A component got a name and a tag.
            PluginPublish,
            /// A tag was removed.
            TagDelete,
            /// A plugin was removed.
            PluginDelete,
            /// A binding was set.
            BindingPut,
            /// A binding was removed.
            BindingDelete,
            /// A binding pauses, or goes on.
            BindingPaused,
        }
    };
}
pub(crate) use plugin_kinds;

/// A piece of a component's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginChunk {
    /// SHA-256 of the whole component.
    pub digest: [u8; 32],
    /// Where the piece lies in the component.
    pub offset: u64,
    /// Bytes of the whole component.
    pub total: u64,
    /// The piece.
    pub data: Vec<u8>,
}

impl Fields for PluginChunk {
    const KIND: u16 = 64;

    fn write(&self, w: &mut Writer<'_>) {
        w.0.extend_from_slice(&self.digest);
        w.u64(self.offset);
        w.u64(self.total);
        w.bytes(&self.data);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            digest: digest(r)?,
            offset: r.u64("offset")?,
            total: r.u64("total")?,
            data: r.bytes("data")?.to_vec(),
        })
    }
}

fn digest(r: &mut Reader<'_>) -> Result<[u8; 32], DecodeError> {
    Ok(r.take(32, "digest")?.try_into().expect("thirty-two bytes were taken"))
}

/// Gives a component a name and a tag. All its chunks come before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginPublish {
    /// Name of the plugin.
    pub name: String,
    /// The tag that now points at the component.
    pub tag: String,
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// Only if the tag points at this digest (`If-Match`).
    pub expected: Option<[u8; 32]>,
    /// The verdict of the upload, as JSON.
    pub verdict: String,
}

impl Fields for PluginPublish {
    const KIND: u16 = 65;

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.text(&self.tag);
        w.0.extend_from_slice(&self.digest);
        w.option(self.expected, |w, digest| w.0.extend_from_slice(&digest));
        w.text(&self.verdict);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.string("plugin name")?,
            tag: r.string("tag")?,
            digest: digest(r)?,
            expected: r.option("expected digest", digest)?,
            verdict: r.string("verdict")?,
        })
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident = $kind:literal { $($(#[$field_doc:meta])* $field:ident),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: String),+ }

        impl Fields for $name {
            const KIND: u16 = $kind;

            fn write(&self, w: &mut Writer<'_>) {
                $(w.text(&self.$field);)+
            }

            fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self { $($field: r.string(stringify!($field))?),+ })
            }
        }
    };
}

named! {
    /// Removes a tag; the component stays while another tag or a binding needs it.
    TagDelete = 66 {
        /// Name of the plugin.
        name,
        /// The tag.
        tag
    }
}

named! {
    /// Removes a plugin with all its tags; refused while a binding uses one of its components.
    PluginDelete = 67 {
        /// Name of the plugin.
        name
    }
}

/// Sets a binding: which component answers for which topics or groups (ruling 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingPut {
    /// Name of the binding.
    pub name: String,
    /// The digest that `plugin` resolved to when the binding was set.
    pub digest: [u8; 32],
    /// The whole binding as the user wrote it, as JSON.
    pub spec: String,
    /// Only if the binding still has this revision; 0: only if it does not exist.
    pub expected_revision: Option<u64>,
    /// Names of the secrets that `spec` refers to (`{"secret": "orders-db"}`). Whoever read the document says which of its
    /// texts are such names, so that the log decides by a list and not by what it takes a document to mean.
    pub secrets: BTreeSet<String>,
    /// Where it may keep what, if it may; `None` unless [`Self::names_life`].
    pub keeps: Option<KeepGrant>,
    /// A binding that it creates is told from others of its name by the position of this record. Records of before that was
    /// written create bindings that are all alike.
    pub names_life: bool,
}

/// Where a binding may keep state, and how much: what `spec` says of it, for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepGrant {
    /// The namespace; several bindings may share one.
    pub namespace: String,
    /// Most bytes that the namespace may have after what this binding writes.
    pub quota: u64,
}

impl KeepGrant {
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.namespace);
        w.u64(self.quota);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { namespace: r.string("namespace")?, quota: r.u64("quota")? })
    }
}

impl Fields for BindingPut {
    const KIND: u16 = 68;
    const VERSION: u8 = 3;

    /// The first version has no secrets, the second one keeps nothing and names no life.
    fn version(&self) -> u8 {
        match (self.secrets.is_empty(), self.names_life) {
            (_, true) => 3,
            (true, false) => 1,
            (false, false) => 2,
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.0.extend_from_slice(&self.digest);
        w.text(&self.spec);
        w.option(self.expected_revision, |w, revision| w.u64(revision));
        if self.version() > 1 {
            w.texts(&self.secrets);
        }
        if self.names_life {
            w.option(self.keeps.as_ref(), |w, keeps| keeps.write(w));
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.string("binding name")?,
            digest: digest(r)?,
            spec: r.string("binding")?,
            expected_revision: r.option("expected revision", |r| r.u64("expected revision"))?,
            secrets: BTreeSet::new(),
            keeps: None,
            names_life: false,
        })
    }

    fn read_version(r: &mut Reader<'_>, version: u8) -> Result<Self, DecodeError> {
        let mut put = Self::read(r)?;
        if version > 1 {
            put.secrets = r.texts("secrets")?;
        }
        if version == 2 && put.secrets.is_empty() {
            return Err(DecodeError::Value { field: "secrets", value: 0 });
        }
        if version > 2 {
            (put.keeps, put.names_life) = (r.option("keeps", KeepGrant::read)?, true);
        }
        Ok(put)
    }
}

named! {
    /// Removes a binding.
    BindingDelete = 69 {
        /// Name of the binding.
        name
    }
}

/// An operator lets a binding pause, or go on: nothing is asked of its component meanwhile. That outlives its next
/// [`BindingPut`], and ends with the binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingPaused {
    /// Name of the binding.
    pub name: String,
    /// It pauses from now on; otherwise it goes on.
    pub paused: bool,
}

impl Fields for BindingPaused {
    const KIND: u16 = 71;

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.u8(u8::from(self.paused));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: r.string("binding name")?, paused: r.flag("paused")? })
    }
}
