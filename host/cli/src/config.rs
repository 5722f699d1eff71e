//! Settings of a node: flag over environment over file over default, each with one name.
//!
//! A setting `grpc_addr` in the file is `VOUCH_GRPC_ADDR` in the environment and `--grpc-addr` on the command line. What
//! settings there are stands in one place, [`table`]; flags, variables, keys, defaults and documents are made of it.

mod args;
mod defaults;
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
#[cfg(test)]
pub(crate) use defaults::CONFIG_VARIABLE;
pub(crate) use defaults::{DATA_DIR, GRPC_ADDR, HTTP_ADDR};
pub(crate) use log_lines::{LogFormat, filter};
pub(crate) use names::unknown_variables;
pub(crate) use resolved::Resolved;
#[cfg(test)]
pub(crate) use {setting::SettingRow, table::SETTINGS};
