//! What a guest takes of the host's memory, in its instance and beside it.

use http::HeaderMap;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::{
    FieldMap,
    p2::{
        bindings::http::types::{Method, Scheme},
        types::{HostIncomingResponse, HostOutgoingRequest},
    },
};

use crate::quantity::ByteSize;

/// Most core modules, memories and tables inside one component: what tools make of a guest, with room to spare.
pub(crate) const MAX_CORE_INSTANCES: u32 = 32;
/// Most memories of one guest. One is what compilers make.
pub(crate) const MAX_MEMORIES: u32 = 4;
/// Most tables of one guest.
pub(crate) const MAX_TABLES: u32 = 16;
/// Most elements in all tables of one instance.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Bytes of one set of header fields, names and values with what the host keeps of each.
pub(crate) const MAX_FIELDS: usize = 64 << 10;
/// Most bytes that the guest may hand over in one write to a request's body.
pub(crate) const BODY_CHUNK: usize = 16 << 10;
/// Writes to a request's body that the host keeps until the server takes them.
pub(crate) const BODY_CHUNKS: usize = 1;
/// What a request's body takes while it is not sent: the writes kept, and the one under way.
pub(crate) const BODY_HELD: usize = (BODY_CHUNKS + 1) * BODY_CHUNK;
/// What the host keeps of one field besides its bytes: its place in the table and in the index, grown to the next size.
const FIELD_HELD: usize = 256;

/// Sums what the memories and tables of one instance take, which the engine's own limits count each alone, and what the host
/// holds of what the guest handed to it.
///
/// What is handed over is added at once; what the guest lets go of is noticed when the sum reaches the limit, by counting
/// again what is there. So a count costs nothing until it is needed.
pub(crate) struct MemoryCap {
    limit: ByteSize,
    memory_bytes: usize,
    table_elements: usize,
    /// No less than what the resources of the guest hold.
    held: usize,
    /// Handed over and out of sight: it counts until the call ends.
    kept: usize,
}

/// The guest asked for more than its cap. An error of its own, so that it is told from a trap.
#[derive(Debug, thiserror::Error)]
#[error("more memory than the binding's limit of {0}")]
pub(crate) struct OverMemory(ByteSize);

impl MemoryCap {
    /// A guest that holds nothing yet.
    pub(crate) fn new(limit: ByteSize) -> Self {
        Self { limit, memory_bytes: 0, table_elements: 0, held: 0, kept: 0 }
    }

    /// The guest hands over so many bytes that one of its resources holds from now on.
    pub(crate) fn hold(&mut self, bytes: usize, resources: &mut ResourceTable) -> wasmtime::Result<()> {
        self.held = self.held.saturating_add(bytes);
        if self.is_over(0) {
            // Not there yet, so not in the sum.
            self.held = weigh(resources).saturating_add(bytes);
        }
        self.refuse_if(self.is_over(0))
    }

    /// The guest hands over so many bytes that nobody can count again.
    pub(crate) fn keep(&mut self, bytes: usize, resources: &mut ResourceTable) -> wasmtime::Result<()> {
        self.kept = self.kept.saturating_add(bytes);
        self.hold(0, resources)
    }

    /// What is counted now.
    pub(crate) fn taken(&self) -> usize {
        self.memory_bytes.saturating_add(self.held).saturating_add(self.kept)
    }

    /// Whether so many more bytes would be too many, by what is counted so far: which may count what the guest has let
    /// go of.
    fn is_over(&self, more: usize) -> bool {
        let sum = self.memory_bytes.saturating_add(self.held).saturating_add(self.kept).saturating_add(more);
        sum > self.limit.as_usize()
    }

    /// Stops the guest, for good, if it is over.
    fn refuse_if(&self, is_over: bool) -> wasmtime::Result<()> {
        // Refusing with a value lets the guest go on with half a data structure, which most answer with an abort that names no
        // cause. An error stops it here and says why.
        if is_over { Err(OverMemory(self.limit).into()) } else { Ok(()) }
    }

    /// The guest's memories grow by so many bytes.
    pub(crate) fn grow(&mut self, by: usize, resources: &mut ResourceTable) -> wasmtime::Result<()> {
        if self.is_over(by) {
            self.held = weigh(resources);
        }
        self.refuse_if(self.is_over(by))?;
        self.memory_bytes += by;
        Ok(())
    }

    /// The guest's tables grow by so many elements, if they may.
    pub(crate) fn grow_table(&mut self, by: usize) -> bool {
        let wanted = self.table_elements.saturating_add(by);
        if wanted > MAX_TABLE_ELEMENTS {
            return false;
        }
        self.table_elements = wanted;
        true
    }
}

/// What all resources of a guest hold. Those that share what they hold count it each: the guest may make them differ.
fn weigh(resources: &mut ResourceTable) -> usize {
    resources
        .iter_mut()
        .map(|resource| {
            if let Some(fields) = resource.downcast_ref::<FieldMap>() {
                weight_of_fields(fields)
            } else if let Some(request) = resource.downcast_ref::<HostOutgoingRequest>() {
                weight_of_request(request)
            } else if let Some(response) = resource.downcast_ref::<HostIncomingResponse>() {
                weight_of_fields(&response.headers)
            } else {
                0
            }
        })
        .fold(0, usize::saturating_add)
}

/// One more field.
pub(crate) fn weight_of_field(name: &str, value: &[u8]) -> usize {
    name.len().saturating_add(value.len()).saturating_add(FIELD_HELD)
}

/// Header fields with all that the map keeps beside their bytes.
pub(crate) fn weight_of_fields(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| weight_of_field(name.as_str(), value.as_bytes())).fold(0, usize::saturating_add)
}

/// A request that the guest builds. Its body is counted by what it may buffer, not by what is in it.
fn weight_of_request(request: &HostOutgoingRequest) -> usize {
    let HostOutgoingRequest { method, scheme, authority, path_with_query, headers, body } = request;
    [
        weight_of_method(method),
        scheme.as_ref().map_or(0, weight_of_scheme),
        authority.as_ref().map_or(0, String::len),
        path_with_query.as_ref().map_or(0, String::len),
        weight_of_fields(headers),
        body.as_ref().map_or(0, |_| BODY_HELD),
    ]
    .into_iter()
    .fold(0, usize::saturating_add)
}

/// Only a method with a name of the guest's own takes anything.
pub(crate) fn weight_of_method(method: &Method) -> usize {
    if let Method::Other(name) = method { name.len() } else { 0 }
}

/// Only a scheme with a name of the guest's own takes anything.
pub(crate) fn weight_of_scheme(scheme: &Scheme) -> usize {
    if let Scheme::Other(name) = scheme { name.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn is_over(outcome: wasmtime::Result<()>) -> bool {
        outcome.is_err_and(|error| error.is::<OverMemory>())
    }

    #[test]
    fn what_the_host_holds_and_what_the_guest_holds_share_one_limit() {
        let mut resources = ResourceTable::new();
        for (memory, held, kept, fits) in [
            (LIMIT, 0, 0, true),
            (LIMIT, 1, 0, false),
            (LIMIT, 0, 1, false),
            (LIMIT - 2, 1, 1, true),
            (LIMIT - 2, 2, 1, false),
            (0, usize::MAX, 0, false),
        ] {
            let mut cap = MemoryCap::new(ByteSize(LIMIT as u64));
            cap.grow(memory, &mut resources).unwrap();
            let over = is_over(cap.keep(kept, &mut resources)) || is_over(cap.hold(held, &mut resources));
            assert_eq!(!over, fits, "{memory} {held} {kept}");
        }
        let mut fields = FieldMap::new_mutable(MAX_FIELDS);
        fields.append_raw("x".parse().unwrap(), "y".parse().unwrap()).unwrap();
        resources.push(fields).unwrap();
        let mut cap = MemoryCap::new(ByteSize(LIMIT as u64));
        cap.hold(FIELD_HELD + 2, &mut resources).unwrap();
        assert!(is_over(cap.grow(LIMIT, &mut resources)), "memory grows beside what is held");
    }

    #[test]
    fn what_the_guest_lets_go_of_counts_no_more() {
        let mut resources = ResourceTable::new();
        let mut cap = MemoryCap::new(ByteSize(LIMIT as u64));
        let value = vec![b'x'; LIMIT / 4];
        let weight = weight_of_field("x", &value);
        for _ in 0..100 {
            cap.hold(weight, &mut resources).unwrap();
            let mut map = FieldMap::new_mutable(LIMIT);
            map.append_raw("x".parse().unwrap(), value.as_slice().try_into().unwrap()).unwrap();
            let held = resources.push(map).unwrap();
            resources.delete(held).unwrap();
        }
        let mut held = 0;
        while cap.hold(weight, &mut resources).is_ok() {
            let mut map = FieldMap::new_mutable(LIMIT);
            map.append_raw("x".parse().unwrap(), value.as_slice().try_into().unwrap()).unwrap();
            resources.push(map).unwrap();
            held += 1;
        }
        assert_eq!(held, 3, "a fourth would be over");
    }
}
