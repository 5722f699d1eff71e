//! Settles a transaction by asking an HTTP service for the thing behind the half message.
//!
//! The binding's `config` is all it wants:
//!
//! | name | meaning |
//! |---|---|
//! | `url` | whom to ask, with `{key}`, `{id}`, `{transaction}`, `{property.NAME}` filled in percent-encoded |
//! | `field` | JSON pointer into a 2xx answer, such as `/status`; absent: the status code is the value |
//! | `commit` | comma-separated values that commit |
//! | `rollback` | comma-separated values that roll back |
//! | `rollback-missing-after` | a 404 on a transaction at least this old rolls back (`30s`, `10m`, `2h`); absent: 404 is *unknown* |
//! | `authorization` | sent as the `authorization` header, if set |
//!
//! Any other value is *unknown*. What is not the service's own, whole and unambiguous word is no answer; see [`answer`].
//! Where `field` is set, up to five redirects are followed; the host checks each against the binding's grants.
//!
//! The modules hold the logic without any WebAssembly in it; `guest` joins it with the broker.

pub mod answer;
pub mod field;
pub mod redirect;
pub mod settings;
pub mod template;

#[cfg(target_arch = "wasm32")]
mod guest;
