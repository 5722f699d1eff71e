//! How much a guest hands to the host in one call of an imported function.
//!
//! The engine has one bound for all functions, kept before anything is copied. Where a binding may publish, a message has to pass
//! it, so all other functions look themselves at what they got.

use crate::{limits::Limits, quantity::ByteSize, staged::Staged};

/// Most bytes in one call of any function but `publish`.
pub(crate) const HOST_CALL_BYTES: ByteSize = Limits::OUTPUT.1;
/// Most bytes in one call of `publish`: all that one call of a component may publish, and what is told of more than that.
pub(crate) const PUBLISH_BYTES: ByteSize = ByteSize(HOST_CALL_BYTES.0 + Staged::MAX_DRAFTED as u64);

/// More than [`HOST_CALL_BYTES`]. An error of its own, so that it is told from a trap.
#[derive(Debug, thiserror::Error)]
#[error("more than {HOST_CALL_BYTES} in one call of a function of the host")]
pub(crate) struct HandedTooMuch;

/// A function got so many bytes.
///
/// # Errors
/// [`HandedTooMuch`], which ends the guest.
pub(crate) fn takes(bytes: usize) -> wasmtime::Result<()> {
    if bytes > HOST_CALL_BYTES.as_usize() { Err(HandedTooMuch.into()) } else { Ok(()) }
}
