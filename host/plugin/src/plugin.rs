//! A loaded component, and its joining with a binding.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    binding::Binding,
    bindings::CheckbackHostPre,
    call::CallState,
    compile::Compiled,
    declared::Declared,
    engine::Engine,
    grants::Grants,
    inspect::{Face, World},
    limits::{LimitError, Limits},
    quantity::ByteSize,
};

/// A component ready to be bound. Cheap to clone; plugins of the same digest share their code.
#[derive(Clone)]
pub struct Plugin {
    engine: Engine,
    code: Arc<PluginCode>,
}

/// Where a plugin's code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompiledFrom {
    /// Compiled just now.
    Compiler,
    /// Taken from the cache.
    Cache,
}

/// Bytes in a page, the unit in which WebAssembly counts memory.
const WASM_PAGE: u64 = 64 << 10;

pub(crate) struct PluginCode {
    pub(crate) digest: String,
    pub(crate) pre: CheckbackHostPre<CallState>,
    pub(crate) worlds: Vec<World>,
    pub(crate) imports_wanted: Vec<String>,
    /// What its largest memory takes before it runs; unknown for the rare component that wants modules from its host.
    pub(crate) initial_memory: Option<ByteSize>,
    /// What it says of its config; unknown for a component that does not.
    declared: Option<Declared>,
    from: CompiledFrom,
}

impl PluginCode {
    pub(crate) fn new(digest: String, compiled: Compiled<(Face, CheckbackHostPre<CallState>)>) -> Self {
        let largest_pages = compiled.component.resources_required().and_then(|r| r.max_initial_memory_size);
        let initial_memory = largest_pages.map(|pages| ByteSize(pages.saturating_mul(WASM_PAGE)));
        let (Face { worlds, imports_wanted, .. }, pre) = compiled.accepted;
        let (declared, from) = (compiled.declared, compiled.from);
        Self { digest, pre, worlds, imports_wanted, initial_memory, declared, from }
    }
}

/// What one binding adds to a component. `grants`, `limits`, `config` and `body` read as in a binding's JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingSpec {
    /// The binding's name, for logs; 1–255 bytes.
    pub name: String,
    /// What the component may reach.
    #[serde(default)]
    pub grants: Grants,
    /// What one call may use.
    #[serde(default)]
    pub limits: Limits,
    /// What `host.config` answers; at most [`BindingSpec::MAX_CONFIG`] entries.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Whether the component gets the messages' bodies.
    #[serde(default = "with_body")]
    pub body: bool,
}

const fn with_body() -> bool {
    true
}

impl BindingSpec {
    /// Most entries in `config`.
    pub const MAX_CONFIG: usize = 128;
    /// Most bytes in the name of a config entry.
    pub const MAX_CONFIG_NAME: usize = 255;
    /// Most bytes in the value of a config entry.
    pub const MAX_CONFIG_VALUE: usize = 64 << 10;
    /// Most bytes in the name of a binding.
    pub const MAX_NAME: usize = 255;

    /// A binding of this name that grants nothing and limits by default.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            grants: Grants::default(),
            limits: Limits::default(),
            config: BTreeMap::new(),
            body: true,
        }
    }
}

/// Why a component cannot be bound so. Correct the binding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// A limit out of bounds.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The component starts with more memory than the binding allows.
    #[error("the component starts with {needs} of memory, over limits.memory of {limit}: raise it")]
    MemoryTooSmall {
        /// What it starts with.
        needs: ByteSize,
        /// What the binding allows.
        limit: ByteSize,
    },
    /// Something else is too long or too many.
    #[error("{what} is {size}, over the limit of {limit}")]
    TooLarge {
        /// What it is.
        what: String,
        /// How large it is.
        size: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The binding has no name.
    #[error("the binding has no name")]
    NoName,
    /// The component says that it cannot work with this config.
    #[error("{0}")]
    Config(String),
}

impl Plugin {
    pub(crate) fn new(engine: Engine, code: Arc<PluginCode>) -> Self {
        Self { engine, code }
    }

    /// `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.code.digest
    }

    /// What it exports.
    pub fn worlds(&self) -> &[World] {
        &self.code.worlds
    }

    /// Where its code came from when it was loaded.
    pub fn compiled_from(&self) -> CompiledFrom {
        self.code.from
    }

    /// Whether the component can work with a config, as far as it says what it reads. To be asked when a binding is set: one
    /// that stands is asked whatever its component has come to say since.
    ///
    /// # Errors
    /// [`BindError::Config`].
    pub fn check_config(&self, config: &BTreeMap<String, String>) -> Result<(), BindError> {
        self.code.declared.as_ref().map_or(Ok(()), |declared| declared.check(config)).map_err(BindError::Config)
    }

    /// Joins it with a binding. Takes microseconds and runs nothing.
    ///
    /// # Errors
    /// [`BindError`]: what in the binding is out of bounds.
    pub fn bind(&self, spec: BindingSpec) -> Result<Binding, BindError> {
        self.validate(&spec)?;
        Ok(Binding::new(self.engine.clone(), Arc::clone(&self.code), spec))
    }

    fn validate(&self, spec: &BindingSpec) -> Result<(), BindError> {
        let settings = &self.engine.0.config;
        spec.limits.validate(settings.max_memory, settings.concurrency)?;
        let limit = spec.limits.memory;
        if let Some(needs) = self.code.initial_memory.filter(|needs| *needs > limit) {
            return Err(BindError::MemoryTooSmall { needs, limit });
        }
        if spec.name.is_empty() {
            return Err(BindError::NoName);
        }
        at_most("the binding's name", spec.name.len(), BindingSpec::MAX_NAME)?;
        at_most("the number of config entries", spec.config.len(), BindingSpec::MAX_CONFIG)?;
        at_most("the number of origins in grants.http", spec.grants.http.len(), Grants::MAX_HTTP)?;
        for (name, value) in &spec.config {
            at_most("the name of a config entry", name.len(), BindingSpec::MAX_CONFIG_NAME)?;
            at_most(&format!("the value of config entry `{name}`"), value.len(), BindingSpec::MAX_CONFIG_VALUE)?;
        }
        Ok(())
    }
}

fn at_most(what: &str, size: usize, limit: usize) -> Result<(), BindError> {
    if size <= limit { Ok(()) } else { Err(BindError::TooLarge { what: what.to_owned(), size, limit }) }
}
