//! A loaded component, and its joining with a binding.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    binding::Binding, code::PluginCode, compile::CompiledFrom, core::EngineCore, databases::DatabaseGrant,
    error::BindError, grants::Grants, secrets::BindingSecrets, spec::BindingSpec, upload::World,
};

/// A component ready to be bound. Cheap to clone; plugins of the same digest share their code.
#[derive(Clone)]
pub struct Plugin {
    engine: Arc<EngineCore>,
    code: Arc<PluginCode>,
}

impl Plugin {
    /// A component that was looked at and compiled. It keeps its code in memory, as its bindings do.
    pub(crate) fn new(engine: Arc<EngineCore>, code: Arc<PluginCode>) -> Self {
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

    /// Whether the component can work with the config of a binding and with what it is granted, as far as it says what it reads.
    /// To be asked when a binding is set: one that stands is asked whatever its component has come to say since. The text of a
    /// refusal has no value of a secret in it, whatever the component says of such a value.
    ///
    /// # Errors
    /// [`BindError::Config`].
    pub fn check_config(&self, spec: &BindingSpec) -> Result<(), BindError> {
        let BindingSpec { config, grants, hidden, .. } = spec;
        let declared = self.code.declared.as_ref();
        declared.map_or(Ok(()), |declared| declared.check(config, &grants.http)).map_err(|mut why| {
            BindingSecrets::of(&BTreeMap::new(), hidden).hide(&mut why);
            BindError::Config(why)
        })
    }

    /// Joins it with a binding. Takes microseconds and runs nothing.
    ///
    /// # Errors
    /// [`BindError`]: what in the binding is out of bounds.
    pub fn bind(&self, spec: BindingSpec) -> Result<Binding, BindError> {
        self.validate(&spec)?;
        Binding::new(Arc::clone(&self.engine), Arc::clone(&self.code), spec, None)
    }

    /// The same in the place of a binding that was made of the same document, when the secrets that it names had other values: what
    /// its component said stays in its log, which goes on.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_again(&self, spec: BindingSpec, before: &Binding) -> Result<Binding, BindError> {
        self.validate(&spec)?;
        Binding::new(Arc::clone(&self.engine), Arc::clone(&self.code), spec, Some(before))
    }

    /// Whether a binding can be what its spec says. All of it is checked before anything is stored or started.
    ///
    /// # Errors
    /// A sentence for whoever sets the binding. It tells no values of secrets.
    fn validate(&self, spec: &BindingSpec) -> Result<(), BindError> {
        let settings = &self.engine.config;
        spec.limits.validate(settings.max_memory)?;
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
        at_most("the number of databases in grants.sql", spec.grants.sql.len(), Grants::MAX_SQL)?;
        at_most("the number of topics in grants.publish", spec.grants.publish.len(), Grants::MAX_PUBLISH)?;
        if self.engine.config.has_others && spec.grants.sql.values().any(DatabaseGrant::is_a_file) {
            return Err(BindError::FileOfOneNode);
        }
        for (name, value) in &spec.config {
            at_most("the name of a config entry", name.len(), BindingSpec::MAX_CONFIG_NAME)?;
            at_most(&format!("the value of config entry `{name}`"), value.len(), BindingSpec::MAX_CONFIG_VALUE)?;
        }
        Ok(())
    }
}

/// Refuses what is larger than its bound, and names both.
fn at_most(what: &str, size: usize, limit: usize) -> Result<(), BindError> {
    if size <= limit { Ok(()) } else { Err(BindError::TooLarge { what: what.to_owned(), size, limit }) }
}
