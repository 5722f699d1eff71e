//! `vouch message`: send and receive over gRPC like an official client, and look at a stored message over HTTP.
//!
//! Sending and receiving is what official clients do, so what a message goes through here it goes through with them.
//! Looking at messages changes nothing: nobody's progress, and no lease.

mod look;
mod receive;
mod send;

use anyhow::Context;
use clap::Subcommand;

use crate::http::HttpArgs;
use crate::resource::PageArgs;
use look::{list, show, since};
use receive::{ReceiveCommand, receive_some};
use send::{SendCommand, send_one};

/// What can be done with messages.
#[derive(Debug, Subcommand)]
pub(crate) enum MessageCommand {
    /// Send one message; with --transaction, as a half message.
    #[command(after_help = "\
Examples:
  vouch message send greetings --body hello --tag first
  vouch message send orders --body '{\"id\":17}' --key 17 --transaction leave-open")]
    Send(Box<SendCommand>),
    /// Receive messages for a group and acknowledge them.
    #[command(after_help = "\
Examples:
  vouch message receive orders --group shipping --count 10 --wait 30s
  vouch message receive tenant/orders --group tenant/shipping

On a terminal what is in a body and would act on the terminal is escaped; into a file or a pipe it goes as it was sent.")]
    Receive(Box<ReceiveCommand>),
    /// Show where a message is, by its id.
    #[command(after_help = "Example:\n  vouch message show orders 01AB12CD34EF56007F0C3B2A1900000001")]
    Show {
        topic: String,
        id: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// List messages: with --key those that have it, newest first; without, in the order of their queues, merged by time.
    #[command(after_help = "\
Examples:
  vouch message list --topic orders --key 17
  vouch message list --topic orders --since 10m --limit 20
  vouch message list --topic orders --since 2026-01-31T10:00:00Z --json")]
    List {
        /// The topic.
        #[arg(long, value_name = "TOPIC")]
        topic: String,
        /// Only messages with this key; open transactions are among them.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Only messages stored since then: a time in UTC, milliseconds since 1970, or how long ago, for example 10m.
        #[arg(long, value_name = "TIME", value_parser = since)]
        since: Option<String>,
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
}

impl MessageCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Send(send) => send.json,
            Self::Receive(receive) => receive.json,
            Self::Show { http, .. } | Self::List { http, .. } => http.json,
        }
    }
}

/// Runs `vouch message`.
pub(crate) fn run(command: MessageCommand) -> anyhow::Result<()> {
    match command {
        MessageCommand::Send(send) => runtime()?.block_on(send_one(&send)),
        MessageCommand::Receive(receive) => runtime()?.block_on(receive_some(&receive)),
        MessageCommand::Show { topic, id, http } => show(&topic, &id, &http),
        MessageCommand::List { topic, key, since, page, http } => {
            list(&topic, &[("key", key.as_deref()), ("since", since.as_deref())], &page, &http)
        }
    }
}

/// A runtime of one thread: a command makes its calls one after the other.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the network runtime")
}
