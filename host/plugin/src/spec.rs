//! What one binding adds to a component.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;
use vouch_sql::DatabasePassword;

use crate::{grants::Grants, limits::Limits, secrets::HiddenValues};

/// What one binding adds to a component. `grants`, `limits`, `config` and `body` read as in a binding's JSON.
#[derive(Clone, PartialEq, Eq, Deserialize)]
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
    /// Passwords of the databases in its grants, by their names there; not part of what is written.
    #[serde(skip)]
    pub passwords: BTreeMap<String, DatabasePassword>,
    /// Values of the secrets that it names, wherever they are used; not part of what is written.
    #[serde(skip)]
    pub hidden: HiddenValues,
}

/// The names of its config alone: values of secrets are among the others.
impl fmt::Debug for BindingSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config: Vec<&String> = self.config.keys().collect();
        f.debug_struct("BindingSpec").field("name", &self.name).field("config", &config).finish_non_exhaustive()
    }
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
            passwords: BTreeMap::new(),
            hidden: HiddenValues::default(),
        }
    }
}
