//! The end of a replica that was told what cannot be.

use std::any::Any;

/// The algorithm failed, which it does rather than go on with what cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the replica cannot go on, since what it was told cannot be: {0}")]
pub struct Broken(pub String);

impl Broken {
    /// By a panic, which says why.
    pub(crate) fn by(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Self(text.unwrap_or("it did not say why").to_owned())
    }
}
