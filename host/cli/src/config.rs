//! Settings of a node: flag over environment over file over default, each with one name.
//!
//! A setting `grpc_addr` in the file is `VOUCH_GRPC_ADDR` in the environment and `--grpc-addr` on the command line. What
//! settings there are stands in one place, [`table`]; flags, variables, keys, defaults and documents are made of it.

mod args;
mod file;
mod forms;
mod log_lines;
mod names;
#[cfg(test)]
mod page;
mod resolved;
mod setting;
mod table;

pub(crate) use args::SettingArgs;
pub(crate) use log_lines::{LogFormat, filter};
pub(crate) use names::unknown_variables;
pub(crate) use resolved::Resolved;
#[cfg(test)]
pub(crate) use {setting::Setting, table::SETTINGS};

/// Where a node keeps everything, if nobody says otherwise; commands that work on a data folder look there, too.
pub(crate) const DATA_DIR: &str = "./vouch-data";
/// Where the gRPC service is, if nobody says otherwise: of a node, and for those who call it.
pub(crate) const GRPC_ADDR: &str = "127.0.0.1:8081";
/// Where the HTTP API is, if nobody says otherwise.
pub(crate) const HTTP_ADDR: &str = "127.0.0.1:8080";
/// The variable that names the file with the settings.
pub(crate) const CONFIG_VARIABLE: &str = "VOUCH_CONFIG";
