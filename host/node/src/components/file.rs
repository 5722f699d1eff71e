//! The files of components: kept in this node's folder, and put together from the log where they are not.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tracing::Span;
use vouch_broker::record::{DecodeError, Frame, Record, before_carried};
use vouch_broker::state::Artifact;
use vouch_broker::{NotDone, Refusal};
use vouch_commitlog::LogReader;
use vouch_registry::{ArtifactStore, Digest};

use crate::stored;
use vouch_shard::Shard;

/// The files of components. They are read, hashed, written and synced on threads where that may take time: a component has
/// megabytes.
#[derive(Clone)]
pub(crate) struct ComponentFiles {
    pub(crate) shard: Arc<Shard>,
    /// Has the chunks of every component.
    pub(crate) log: LogReader,
    /// The folder of the files.
    pub(crate) store: ArtifactStore,
}

impl ComponentFiles {
    /// A component's file, from this node's folder or from the log.
    pub(super) async fn get(&self, digest: Digest) -> Result<Bytes, NotDone> {
        let store = self.store.clone();
        let found = aside(move || store.get(&digest)).await?;
        match found.map_err(|error| NotDone::internal(error.to_string()))? {
            Some(wasm) => Ok(wasm),
            None => self.rebuild(digest).await,
        }
    }

    /// Keeps a component, whose file is durable when this resolves.
    pub(super) async fn put(&self, wasm: Bytes) -> Result<Digest, NotDone> {
        let store = self.store.clone();
        aside(move || store.put(&wasm)).await?.map_err(|error| NotDone::internal(error.to_string()))
    }

    /// Puts a component's file together from its chunks in the log.
    async fn rebuild(&self, digest: Digest) -> Result<Bytes, NotDone> {
        let artifact = self.shard.read(move |state| state.plugins().artifact(&digest.0).cloned()).await?;
        let artifact = artifact
            .ok_or_else(|| NotDone::Refused(Refusal::NotFound(format!("component {digest} is not in the log"))))?;
        let (log, store) = (self.log.clone(), self.store.clone());
        let rebuild = move || {
            let wasm = read_chunks(&log, &artifact)?;
            if Digest::of(&wasm) != digest {
                return Err(NotDone::internal(format!("the chunks of component {digest} do not make it up")));
            }
            store.put(&wasm).map_err(|error| NotDone::internal(error.to_string()))?;
            Ok(wasm)
        };
        aside(rebuild).await?
    }
}

/// Runs what reads or writes a whole component on a thread where that may take time.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotDone> {
    let span = Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(|error| NotDone::internal(format!("the component could not be handled: {error}")))
}

/// The bytes of a component out of the log, each chunk verified. They may have been carried to another place.
fn read_chunks(log: &LogReader, artifact: &Artifact) -> Result<Bytes, NotDone> {
    let mut wasm = BytesMut::with_capacity(usize::try_from(artifact.total).unwrap_or(0));
    for (position, _) in &artifact.chunks {
        let record = stored::record(log, *position)?;
        let carried = before_carried(&record);
        let record = carried.map_err(|why| NotDone::internal(why.to_string()))?.map_or(record, |(_, first)| first);
        match decode(&record)? {
            Record::PluginChunk(chunk) => wasm.extend_from_slice(&chunk.data),
            _ => return Err(NotDone::internal(format!("the record at {position} is not a piece of a component"))),
        }
    }
    Ok(wasm.freeze())
}

/// A record out of the log, verified.
fn decode(record: &Bytes) -> Result<Record, NotDone> {
    let defect = |why: DecodeError| NotDone::internal(why.to_string());
    let (frame, _) = Frame::split(record).map_err(defect)?;
    frame.verify().map_err(defect)?;
    Record::decode(&frame).map_err(defect)
}
