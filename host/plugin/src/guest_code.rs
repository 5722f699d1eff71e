//! A component that is linked, and how it is asked.

use wasmtime::{
    Store,
    component::{Instance, InstancePre},
};

use crate::{
    bindings::{checkback, checkback_batch, consumer},
    guest::CallState,
    upload::World,
};

/// The interface of single asks, as files name it.
pub(crate) const CHECKBACK: &str = "vouch:plugin/checkback@0.1.0";

/// A component that is linked, with what it exports of ours.
#[derive(Clone)]
pub(crate) struct GuestCode {
    pre: InstancePre<CallState>,
    single: Option<checkback::GuestIndices>,
    batch: Option<checkback_batch::GuestIndices>,
    consumer: Option<consumer::GuestIndices>,
}

impl GuestCode {
    /// Of a component of these worlds.
    ///
    /// # Errors
    /// What it exports has another shape.
    pub(crate) fn new(pre: InstancePre<CallState>, worlds: &[World]) -> wasmtime::Result<Self> {
        let single = worlds.contains(&World::Checkback).then(|| checkback::GuestIndices::new(&pre)).transpose()?;
        let batch =
            worlds.contains(&World::CheckbackBatch).then(|| checkback_batch::GuestIndices::new(&pre)).transpose()?;
        let consumer = worlds.contains(&World::Consumer).then(|| consumer::GuestIndices::new(&pre)).transpose()?;
        Ok(Self { pre, single, batch, consumer })
    }

    /// Whether it answers about many at once.
    pub(crate) fn takes_batches(&self) -> bool {
        self.batch.is_some()
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        self.pre.engine()
    }

    /// A fresh instance.
    pub(crate) async fn instantiate(&self, store: &mut Store<CallState>) -> wasmtime::Result<Instance> {
        self.pre.instantiate_async(store).await
    }

    /// How it is asked about one transaction, if it is asked so.
    pub(crate) fn single(&self) -> Option<&checkback::GuestIndices> {
        self.single.as_ref()
    }

    /// How it is asked about many.
    pub(crate) fn batch(&self) -> Option<&checkback_batch::GuestIndices> {
        self.batch.as_ref()
    }

    /// How it is handed a message.
    pub(crate) fn consumer(&self) -> Option<&consumer::GuestIndices> {
        self.consumer.as_ref()
    }
}
