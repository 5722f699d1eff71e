//! Runs guest components: engine, limits, capabilities.
//!
//! The crate knows the WIT world `vouch:plugin` (the folder `wit/`), not the broker. Four steps lead to an answer:
//!
//! 1. [`Engine::inspect`] looks at an uploaded file and says what it is, or why it is refused;
//! 2. [`Engine::load`] compiles it, or takes the compiled code from the cache;
//! 3. [`Plugin::bind`] joins it with what one binding grants, limits and configures;
//! 4. [`Binding::check`] asks one question in a fresh instance and tells an answer from *no answer* (ruling 1);
//!    [`Admission::consume_prepared`] hands it a message.
//!
//! What a call reads of the broker it is lent by a [`CallReach`]; what it changes there is [`Staged`], and whoever runs it records
//! that together with the answer.
//!
//! Guest code and the guests' outgoing connections run on threads that the engine owns, at low priority: a guest that spins
//! takes what the rest of the process leaves over. Components are compiled in a process of its own for each, with limits on
//! memory and time ([`CompilerProgram`]): the bytes of a component are read nowhere else.

mod binding;
mod bindings;
mod cache;
mod call;
mod capability;
mod code;
mod compile;
mod config;
mod core;
mod databases;
mod declared;
mod dry;
mod engine;
mod error;
mod error_text;
mod grants;
mod guest;
mod guest_code;
mod handed;
mod http;
mod inspect;
mod lent;
mod limits;
mod log;
mod memory;
mod namespace;
mod outcome;
mod places;
mod plugin;
mod quantity;
mod question;
mod reach;
mod secrets;
mod spec;
mod staged;
mod threads;
mod upload;
mod worked;

pub use binding::{Admission, Binding};
pub use compile::{CompiledFrom, compiler_process};
pub use config::{
    CompilerProgram, DEFAULT_GUEST_THREADS, DEFAULT_NODE_CONCURRENCY, EngineConfig, MAX_GUEST_THREADS, Program,
};
pub use databases::{DatabaseGrant, ExaminedDatabase, FenceTable};
pub use declared::{Case, DeclaredConfig, Setting, SettingType};
pub use dry::Tried;
pub use engine::Engine;
pub use error::{BindError, EngineError, InspectError, LoadError};
pub use grants::{Grants, HttpGrant, Origin, OriginError};
pub use http::{Resolver, Resolving, SystemResolver};
pub use limits::{LimitError, Limits, MAX_NODE_CONCURRENCY};
pub use log::{LogLine, LogSource};
pub use namespace::StateGrant;
pub use outcome::{Answered, Checked, Consumed, ConsumerVerdict, NoAnswer, Verdict};
pub use plugin::Plugin;
pub use quantity::{ByteSize, QuantityError};
pub use question::{ConsumerDelivery, Message, Pending};
pub use reach::{CallReach, DraftRefused, StateValue};
pub use secrets::{HiddenValues, MASK, is_secret_name, mask_document, mask_urls, masked_member, named_secret};
pub use spec::BindingSpec;
pub use staged::{Draft, Staged, StateExpiry, StateWrite};
pub use upload::{UploadRefused, UploadVerdict, World};
pub use vouch_sql::{DatabasePassword, Dialect, SqlError, fence_tables};
