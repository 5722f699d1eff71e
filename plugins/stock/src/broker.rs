//! What the broker does for a call: what it keeps, and what it sends.

/// A message that is sent together with the acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where to.
    pub topic: String,
    /// The business key under which it is found.
    pub key: String,
    /// What it says.
    pub body: Vec<u8>,
}

/// The broker's `state` and `outbox`. What is written and published happens with the answer of the call, or not at all; reads see
/// what the call wrote. An error of any of them ends the call: the delivery failed, and nothing happened.
pub trait Broker {
    /// What is kept under a key.
    ///
    /// # Errors
    /// The broker cannot tell, or must not.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String>;

    /// Keeps a value for so long.
    ///
    /// # Errors
    /// The broker does not keep it.
    fn set(&mut self, key: &str, value: &[u8], expires_after_ms: u32) -> Result<(), String>;

    /// Adds to a number, which is 0 if it is not there, and tells the sum.
    ///
    /// # Errors
    /// The broker does not keep it.
    fn add(&mut self, key: &str, delta: i64) -> Result<i64, String>;

    /// Publishes a message.
    ///
    /// # Errors
    /// The broker does not take it.
    fn publish(&mut self, draft: Draft) -> Result<(), String>;
}

/// A broker in memory.
#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeMap;

    use super::{Broker, Draft};

    /// What a call staged, or what is wrong.
    #[derive(Debug, Default)]
    pub(crate) struct InMemory {
        pub(crate) kept: BTreeMap<String, String>,
        pub(crate) published: Vec<Draft>,
        pub(crate) is_away: bool,
    }

    impl InMemory {
        pub(crate) fn with(kept: &[(&str, &str)]) -> Self {
            let kept = kept.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            Self { kept, ..Self::default() }
        }

        /// Everything that is kept, in the order of its keys.
        pub(crate) fn all(&self) -> Vec<(&str, &str)> {
            self.kept.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
        }

        fn is_there(&self) -> Result<(), String> {
            if self.is_away { Err("unavailable: no leader".to_owned()) } else { Ok(()) }
        }
    }

    impl Broker for InMemory {
        fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
            self.is_there()?;
            Ok(self.kept.get(key).map(|value| value.clone().into_bytes()))
        }

        fn set(&mut self, key: &str, value: &[u8], expires_after_ms: u32) -> Result<(), String> {
            self.is_there()?;
            let value = format!("{} for {expires_after_ms} ms", String::from_utf8_lossy(value));
            self.kept.insert(key.to_owned(), value);
            Ok(())
        }

        fn add(&mut self, key: &str, delta: i64) -> Result<i64, String> {
            self.is_there()?;
            let sum = self.kept.get(key).map_or(0, |number| number.parse().unwrap()) + delta;
            self.kept.insert(key.to_owned(), sum.to_string());
            Ok(sum)
        }

        fn publish(&mut self, draft: Draft) -> Result<(), String> {
            self.is_there()?;
            self.published.push(draft);
            Ok(())
        }
    }
}
