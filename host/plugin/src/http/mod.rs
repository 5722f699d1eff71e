//! Outgoing HTTP, to granted origins only (ruling 23).
//!
//! A request passes five doors, and a redirect that the guest follows passes them all again: scheme, host and port are in
//! the grants; the name resolves; every address it resolves to is public, unless the grant says otherwise; the connection
//! goes to one of exactly those addresses, so that a name that resolves differently the second time gains nothing; and
//! header section, body and time of the response are bounded. The host itself never follows a redirect.

mod address;
mod body;
mod client;
mod gate;
mod resolver;
mod tls;
mod trouble;

pub use resolver::{Resolver, Resolving, SystemResolver};

pub(crate) use gate::HttpGate;
pub(crate) use tls::{CaFileError, client_config};
pub(crate) use trouble::RequestTrouble;
