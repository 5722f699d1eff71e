//! `vouch plugin`: upload components, look at them, move tags, read what they say, delete.
//!
//! A tag is put with the component itself, so that a tag never names what the node has not looked through. What a
//! component is refused for comes back as the node's sentence.

mod logs;
mod push;
mod reference;
mod shown;

use std::path::PathBuf;

use clap::Subcommand;

use crate::failure::WrongUsage;
use crate::http::HttpArgs;
use crate::resource::{self, PageArgs};
use logs::{LogsArgs, logs};
pub(crate) use push::put_tag;
use push::{push, retag};
pub(crate) use reference::ComponentReference;
use reference::path;
use shown::{list, show};

/// What can be done with plugins.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Upload a component under a name and a tag; prints the node's verdict on it.
    #[command(after_help = "\
Example:
  vouch plugin push order-checkback:1.0 \\
      target/wasm32-wasip2/release/order_checkback.wasm")]
    Push {
        /// Name and tag.
        #[arg(value_name = "NAME:TAG", value_parser = ComponentReference::parse)]
        reference: ComponentReference,
        /// The component, a .wasm file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// If the tag names another component, move it.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// List the plugins.
    #[command(after_help = "Example:\n  vouch plugin list")]
    List {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Show a plugin: its tags and components, what they import and export; or one component, and since when a tag names it.
    #[command(after_help = "\
Examples:
  vouch plugin show order-checkback
  vouch plugin show order-checkback:1.0")]
    Show {
        /// NAME, or NAME:TAG.
        #[arg(value_name = "NAME[:TAG]")]
        reference: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Give a component that was uploaded before another tag.
    #[command(after_help = "\
Example:
  vouch plugin tag order-checkback:1.0 stable --replace

A binding keeps the component it was set with; set it again to follow the tag.")]
    Tag {
        /// The component: by tag, or by digest as NAME@sha256:HEX.
        #[arg(value_name = "NAME:TAG", value_parser = ComponentReference::parse)]
        source: ComponentReference,
        /// The new tag.
        #[arg(value_name = "NEW_TAG")]
        tag: String,
        /// If the tag names another component, move it.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Show what the components of a plugin said lately: the last 256 lines of each binding that was asked.
    #[command(after_help = "\
Examples:
  vouch plugin logs order-checkback --since 10m
  vouch plugin logs order-checkback --follow --json | jq .text

A line is kept in the memory of the node that asked, until 256 newer ones came, the binding is set again or \
deleted, or the node stops. Binding by binding, oldest first; with --follow each new line as it comes.

Control characters are written out; with --json each line is one document, with the text as it was.")]
    Logs(LogsArgs),
    /// Delete a plugin or one of its components, which is refused while a binding uses it; or a tag, and with the last one
    /// the plugin.
    #[command(after_help = "\
Examples:
  vouch plugin delete order-checkback:0.9
  vouch plugin delete order-checkback")]
    Delete {
        /// NAME, NAME:TAG or NAME@sha256:HEX.
        #[arg(value_name = "NAME[:TAG]")]
        reference: String,
        #[command(flatten)]
        http: HttpArgs,
    },
}

impl PluginCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Push { http, .. }
            | Self::List { http, .. }
            | Self::Show { http, .. }
            | Self::Tag { http, .. }
            | Self::Delete { http, .. } => http.json,
            Self::Logs(args) => args.http.json,
        }
    }
}

/// Runs `vouch plugin`.
pub(crate) fn run(command: PluginCommand) -> anyhow::Result<()> {
    match command {
        PluginCommand::Push { reference, file, replace, http } => push(&reference, &file, replace, &http),
        PluginCommand::List { page, http } => list(&page, &http),
        PluginCommand::Show { reference, http } => show(&reference, &http),
        PluginCommand::Tag { source, tag, replace, http } => retag(&source, &tag, replace, &http),
        PluginCommand::Logs(args) => logs(&args),
        PluginCommand::Delete { reference, http } => delete(&reference, &http),
    }
}

/// Deletes a plugin, a tag or a component.
///
/// # Errors
/// [`WrongUsage`]: it is none of the three. The node refuses while a binding uses the component.
fn delete(reference: &str, http: &HttpArgs) -> anyhow::Result<()> {
    resource::delete(http, "plugin", &path_of(reference)?, reference)
}

/// Where the API has a plugin, a tag or a component: which of them the form of the reference says.
///
/// # Errors
/// [`WrongUsage`]: it is none of the three.
fn path_of(reference: &str) -> anyhow::Result<String> {
    match ComponentReference::parse(reference) {
        Ok(reference) => Ok(reference.path()),
        Err(_) if !reference.contains([':', '@']) => Ok(path(reference)),
        Err(error) => Err(WrongUsage::error(error)),
    }
}
