//! Values of secrets, opened for a binding that names them.

use std::collections::BTreeMap;

use vouch_broker::{NotDone, Refusal};
use vouch_secrets::SecretValue;

/// Values by the names of their secrets. They are wiped when they are dropped, and printed by nobody.
#[derive(Debug, Default)]
pub(crate) struct OpenedSecrets(BTreeMap<String, SecretValue>);

impl OpenedSecrets {
    pub(super) fn new(values: BTreeMap<String, SecretValue>) -> Self {
        Self(values)
    }

    /// A value as text, which configs and passwords are.
    ///
    /// # Errors
    /// It is none, or is not among them.
    pub(crate) fn text(&self, name: &str) -> Result<&str, NotDone> {
        let missing = || NotDone::internal(format!("secret {name} was not opened"));
        self.0.get(name).ok_or_else(missing)?.reveal_text().ok_or_else(|| {
            NotDone::Refused(Refusal::Invalid(format!(
                "secret {name} is no text (UTF-8), and a value of a config or a password is one; set the secret again"
            )))
        })
    }

    /// All that are text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.values().filter_map(SecretValue::reveal_text)
    }

    #[cfg(test)]
    pub(crate) fn of<'a>(values: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Self {
        let value = |(name, bytes): (&str, _)| (name.to_owned(), SecretValue::new(bytes).expect("a value"));
        Self(values.into_iter().map(value).collect())
    }
}
