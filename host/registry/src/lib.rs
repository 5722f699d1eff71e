//! Content-addressed plugin artifacts and their names.
//!
//! The log is the truth about components; the files here are what a node reads and can be made again from the log.

mod digest;
mod name;
mod store;

pub use digest::{Digest, DigestError};
pub use name::{
    PLUGIN_NAME_MAX, Reference, ReferenceError, TAG_MAX, Target, check_binding_name, check_plugin_name, check_tag,
};
pub use store::{ArtifactStore, StoreError};
