//! Names and settings, as records and snapshots hold them.

use super::codec::{DecodeError, Reader, Writer};
use crate::{QUEUES_MAX, ResourceName, TopicConfig};

impl Writer<'_> {
    pub(crate) fn name(&mut self, name: &ResourceName) {
        self.text(&name.namespace);
        self.text(&name.name);
    }

    pub(crate) fn json<T: serde::Serialize>(&mut self, value: &T) {
        self.bytes(&serde_json::to_vec(value).expect("settings have string keys and finite numbers only"));
    }
}

impl Reader<'_> {
    /// Settings of a topic. The number of queues is bounded here too: it decides how much memory the topic takes, and
    /// none would leave a message without a place.
    pub(crate) fn topic_config(&mut self) -> Result<TopicConfig, DecodeError> {
        let config: TopicConfig = self.json("topic settings")?;
        if !(1..=QUEUES_MAX).contains(&config.queues) {
            return Err(DecodeError::Value { field: "the number of queues", value: config.queues.into() });
        }
        Ok(config)
    }

    pub(crate) fn name(&mut self, field: &'static str) -> Result<ResourceName, DecodeError> {
        Ok(ResourceName { namespace: self.string(field)?, name: self.string(field)? })
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        serde_json::from_slice(self.bytes(field)?).map_err(|error| DecodeError::Json { field, why: error.to_string() })
    }
}
