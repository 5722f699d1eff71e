//! Components, as they are uploaded.

use bytes::Bytes;

/// One component file for upload.
#[derive(Clone, Debug)]
pub struct PluginUpload {
    /// Name of the plugin.
    pub name: String,
    /// The tag that shall point at it.
    pub tag: String,
    /// The component.
    pub wasm: Bytes,
    /// Digest that the tag must point at now (`If-Match`), as `sha256:…`.
    pub expected: Option<String>,
}
