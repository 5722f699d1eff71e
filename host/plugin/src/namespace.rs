//! The namespace of state that a binding grants, as it is written.

use std::fmt;

use serde::{Deserializer, Serialize, Serializer, de};

/// Whose state a binding's component has: `"state": true`, or `"state": "NAME"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateGrant {
    /// Its own, in a namespace that is called as the binding is.
    Own,
    /// That of this name, which other bindings may grant as well: letters, digits, `_`, `.` and `-`, at most
    /// [`StateGrant::MAX_NAME`].
    Named(String),
}

impl StateGrant {
    /// Most characters in the name of a namespace.
    pub const MAX_NAME: usize = 128;

    /// The namespace of this name.
    ///
    /// # Errors
    /// A sentence for whoever writes the binding.
    fn named(name: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if (1..=Self::MAX_NAME).contains(&name.len()) && name.bytes().all(plain) {
            return Ok(Self::Named(name.to_owned()));
        }
        Err(format!(
            "grants.state names a namespace in a way that none is called: letters, digits, _ . - and 1 to {} of them; or write true for \
             one of the binding's own",
            Self::MAX_NAME
        ))
    }

    /// Reads what a binding writes; `false` grants none.
    pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

/// Takes `true`, `false` or a name.
struct Written;

impl de::Visitor<'_> for Written {
    type Value = Option<StateGrant>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, or the name of a namespace that bindings share, as \"state\" of the grants")
    }

    fn visit_bool<E: de::Error>(self, own: bool) -> Result<Self::Value, E> {
        Ok(own.then_some(StateGrant::Own))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        StateGrant::named(name).map(Some).map_err(E::custom)
    }
}

impl Serialize for StateGrant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Own => serializer.serialize_bool(true),
            Self::Named(name) => serializer.serialize_str(name),
        }
    }
}
