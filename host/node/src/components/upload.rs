//! Uploads of components, into the log.

use vouch_broker::record::{PluginChunk, PluginPublish};
use vouch_broker::{NotDone, Refusal};
use vouch_plugin::{InspectError, UploadRefused, UploadVerdict};
use vouch_registry::{Digest, ReferenceError, check_plugin_name, check_tag};

use super::Components;
use super::file::aside;
use crate::written::written;
use crate::{PluginUpload, Written};

/// Bytes of a component in one record.
const CHUNK: usize = 1 << 20;

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The component itself is refused; its author reads this.
    #[error(transparent)]
    Refused(#[from] UploadRefused),
    /// It was not stored, or nobody knows.
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl From<Refusal> for UploadError {
    fn from(refusal: Refusal) -> Self {
        Self::NotDone(refusal.into())
    }
}

impl From<InspectError> for UploadError {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Refused(refused) => Self::Refused(refused),
            InspectError::Host(_) => Self::NotDone(NotDone::internal(error.to_string())),
        }
    }
}

impl Components {
    /// Takes a component: inspected, kept in the log, published under its tag. All of that is durable when it resolves. One
    /// that was cut off goes on where it was when it is sent again.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn upload(&self, upload: PluginUpload) -> Result<(UploadVerdict, Written), UploadError> {
        // Before anything is compiled or kept.
        self.writable.check()?;
        let invalid = |error: ReferenceError| NotDone::Refused(Refusal::Invalid(error.to_string()));
        check_plugin_name(&upload.name).map_err(invalid)?;
        check_tag(&upload.tag).map_err(invalid)?;
        let expected = match &upload.expected {
            Some(text) => {
                Some(text.parse::<Digest>().map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?.0)
            }
            None => None,
        };
        self.shortages.check_disk()?;
        let verdict = self.engine.inspect(upload.wasm.clone()).await?;
        let digest = self.files.put(upload.wasm.clone()).await?;
        let received = self
            .shard
            .read(move |state| state.plugins().artifact(&digest.0).map_or(0, |artifact| artifact.received))
            .await?;
        for (number, data) in upload.wasm.chunks(CHUNK).enumerate() {
            let offset = (number * CHUNK) as u64;
            if offset < received {
                continue;
            }
            let total = upload.wasm.len() as u64;
            let data = upload.wasm.slice_ref(data);
            let encode = move || {
                let chunk = PluginChunk { digest: digest.0, offset, total, data: data.to_vec() };
                let mut record = Vec::new();
                chunk.encode(&mut record);
                record
            };
            // Its checksum is taken on the way.
            let record = aside(encode).await?;
            self.shard.propose_if_room(record).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        let publish = PluginPublish {
            name: upload.name,
            tag: upload.tag,
            digest: digest.0,
            expected,
            verdict: serde_json::to_string(&verdict).map_err(|error| NotDone::internal(error.to_string()))?,
        };
        let written = written(&self.shard, |out| publish.encode(out)).await?;
        Ok((verdict, written))
    }
}
