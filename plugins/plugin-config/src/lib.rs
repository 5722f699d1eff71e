//! What the ready-made plugins read of a binding's `config`: texts in which facts of the message are filled in, URLs, lists of
//! values, times, headers and places in a JSON document. Their errors are sentences that name the setting and say what to do
//! about it.

pub mod json;

mod facts;
mod target;
mod template;
mod url;
mod values;

pub use facts::{Facts, HalfFacts, MessageFacts};
pub use target::Target;
pub use template::{Template, templates};
pub use url::UrlTemplate;
pub use values::{duration_ms, header_value, list};
