//! A component's code as all its bindings share it.

use crate::{
    compile::{Compiled, CompiledFrom},
    declared::DeclaredConfig,
    guest_code::GuestCode,
    inspect::Face,
    quantity::ByteSize,
    upload::World,
};

/// Bytes in a page, the unit in which WebAssembly counts memory.
const WASM_PAGE: u64 = 64 << 10;
/// Compiled code of one component, with what the component says of itself.
pub(crate) struct PluginCode {
    pub(crate) digest: String,
    pub(crate) guest: GuestCode,
    pub(crate) worlds: Vec<World>,
    pub(crate) imports_wanted: Vec<String>,
    /// What its largest memory takes before it runs; unknown for the rare component that wants modules from its host.
    pub(crate) initial_memory: Option<ByteSize>,
    /// What it says of its config; unknown for a component that does not.
    pub(crate) declared: Option<DeclaredConfig>,
    pub(crate) from: CompiledFrom,
}

impl PluginCode {
    /// Of a component that was compiled and linked. It is shared by all bindings of the same digest.
    pub(crate) fn new(digest: String, compiled: Compiled<(Face, GuestCode)>) -> Self {
        let largest_pages = compiled.component.resources_required().and_then(|r| r.max_initial_memory_size);
        let initial_memory = largest_pages.map(|pages| ByteSize(pages.saturating_mul(WASM_PAGE)));
        let (Face { worlds, imports_wanted, .. }, guest) = compiled.accepted;
        let (declared, from) = (compiled.declared, compiled.from);
        Self { digest, guest, worlds, imports_wanted, initial_memory, declared, from }
    }
}
