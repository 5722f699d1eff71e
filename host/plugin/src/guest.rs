//! What the host keeps of a guest while it runs: its resources, its memory, and what it may reach.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use wasmtime::{ResourceLimiter, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::{
    databases::SqlReach,
    http::{HttpGate, RequestTrouble},
    lent::Lent,
    limits::Limits,
    log::CallLog,
    memory::{MAX_CORE_INSTANCES, MAX_FIELDS, MAX_MEMORIES, MAX_TABLES, MemoryCap},
};

/// Most host resources (streams, requests, header fields …) that one instance may hold.
const MAX_RESOURCES: usize = 1024;

/// What the host knows during one call.
pub(crate) struct CallState {
    pub(crate) table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    gate: HttpGate,
    pub(crate) sql: SqlReach,
    pub(crate) lent: Lent,
    pub(crate) cap: MemoryCap,
    pub(crate) log: CallLog,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) started: Instant,
    pub(crate) asked_at_ms: u64,
}

impl CallState {
    pub(crate) fn new(
        wasi: WasiCtx,
        limits: &Limits,
        config: Arc<BTreeMap<String, String>>,
        (gate, sql, lent): (HttpGate, SqlReach, Lent),
        log: CallLog,
        asked_at_ms: u64,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_FIELDS);
        Self {
            table,
            wasi,
            http,
            gate,
            sql,
            lent,
            cap: MemoryCap::new(limits.memory),
            log,
            config,
            started: Instant::now(),
            asked_at_ms,
        }
    }
}

impl CallState {
    /// What befalls the guest through no fault of its own.
    pub(crate) fn trouble(&self) -> &RequestTrouble {
        &self.gate.trouble
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for CallState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.gate, table: &mut self.table, ctx: &mut self.http }
    }
}

impl ResourceLimiter for CallState {
    fn memory_growing(&mut self, current: usize, desired: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        self.cap.grow(desired.saturating_sub(current), &mut self.table)?;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.cap.grow_table(desired.saturating_sub(current)))
    }

    // The pool of places has these bounds, too; where there is no room for a pool, they hold all the same.

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}
