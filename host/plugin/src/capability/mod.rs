//! What a guest can call, one module per capability.

mod host;
mod http;
mod outbox;
mod sql;
mod state;
mod wasi;

use wasmtime::component::{HasSelf, Linker};

pub(crate) use wasi::inert_wasi;

use crate::{bindings, guest::CallState};

/// Links everything that may be imported. What a binding does not grant is linked as well and answers *not granted*
/// (ruling 22): a component then starts and can say so itself.
pub(crate) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    bindings::types::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    bindings::host::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    bindings::state::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    bindings::outbox::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    bindings::sql::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    // Its types alone: those that export `checkback-batch` without `checkback` have them from here.
    linker.instance(crate::guest_code::CHECKBACK)?;
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasi::tell_errors_without_backtraces(linker)?;
    wasi::bound_what_is_handed_over(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    http::count_what_is_held(linker)
}
