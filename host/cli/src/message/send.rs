//! `vouch message send`: one message, or a half message and what becomes of it.

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use vouch_protocol::wire;

use crate::escape;
use crate::failure::WrongUsage;
use crate::output;
use crate::rpc::calls::{Resolution, end_transaction, new_message, send_message};
use crate::rpc::{GrpcArgs, RpcRole, RpcSession};
use crate::text;

/// What is sent, and how.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("content").required(true))]
pub(crate) struct SendCommand {
    topic: String,
    /// The body as text.
    #[arg(long, value_name = "TEXT", group = "content")]
    body: Option<String>,
    /// The body from a file; `-` is standard input.
    #[arg(long, value_name = "FILE", group = "content")]
    file: Option<PathBuf>,
    /// Tag, for filters.
    #[arg(long)]
    tag: Option<String>,
    /// Key under which the message is found; may be repeated.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Property of the application; may be repeated.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = text::pair)]
    properties: Vec<(String, String)>,
    /// Send a half message, then do this with it.
    #[arg(long, value_enum)]
    transaction: Option<Resolution>,
    #[command(flatten)]
    grpc: GrpcArgs,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Sends one message, ends its transaction if it is a half message that is to end, and prints the receipt.
///
/// # Errors
/// The node does not answer or refuses. After a time-out the message may be stored all the same.
pub(super) async fn send_one(send: &SendCommand) -> anyhow::Result<()> {
    let message = build(send)?;
    let role = RpcRole::Producer { topics: vec![send.topic.clone()] };
    let sent = RpcSession::with(&send.grpc.grpc, role, async |session| {
        let receipt = send_message(&mut session.client, message).await?;
        if let (Some(resolution), false) = (send.transaction, receipt.transaction_id.is_empty()) {
            end_transaction(&mut session.client, &send.topic, &receipt, resolution).await?;
        }
        Ok(receipt)
    });
    print_receipt(send, &sent.await?)
}

/// The message on the wire.
fn build(send: &SendCommand) -> anyhow::Result<wire::Message> {
    let kind = if send.transaction.is_some() { wire::MessageType::Transaction } else { wire::MessageType::Normal };
    let mut message = new_message(&send.topic, read_body(send)?, kind);
    message.user_properties = send.properties.iter().cloned().collect();
    if let Some(system) = &mut message.system_properties {
        system.tag.clone_from(&send.tag);
        system.keys.clone_from(&send.keys);
    }
    Ok(message)
}

/// The body, from where the flags say.
///
/// # Errors
/// The file cannot be read. [`WrongUsage`]: it is empty, which no message may be.
fn read_body(send: &SendCommand) -> anyhow::Result<Vec<u8>> {
    let body = match (&send.body, &send.file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(path)) if path.as_os_str() == "-" => {
            let mut body = Vec::new();
            std::io::stdin().lock().read_to_end(&mut body).context("cannot read the body from standard input")?;
            body
        }
        (None, Some(path)) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        (None, None) => Vec::new(),
    };
    if body.is_empty() {
        return Err(WrongUsage::error("the body is empty; a message has at least one byte"));
    }
    Ok(body)
}

/// What became of the message, with what it is found by: offset or transaction.
fn print_receipt(send: &SendCommand, receipt: &wire::SendResultEntry) -> anyhow::Result<()> {
    let outcome = match send.transaction {
        None => "sent",
        Some(Resolution::Commit) => "committed",
        Some(Resolution::Rollback) => "rolled back",
        Some(Resolution::LeaveOpen) => "open",
    };
    if send.json {
        let mut document = json!({"topic": send.topic, "message_id": receipt.message_id, "outcome": outcome});
        if send.transaction.is_some() {
            document["transaction_id"] = json!(receipt.transaction_id);
        } else {
            document["offset"] = json!(receipt.offset);
        }
        return Ok(output::json(&document)?);
    }
    let transaction = match send.transaction {
        Some(_) => format!(", transaction {}", receipt.transaction_id),
        None => String::new(),
    };
    let receipt = format!("{outcome}: message {} on {}{transaction}", receipt.message_id, send.topic);
    Ok(output::line(escape::line(&receipt))?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        send: SendCommand,
    }

    fn line(flags: &[&str]) -> SendCommand {
        Line::try_parse_from([&["send", "t"], flags].concat()).unwrap().send
    }

    #[test]
    fn a_message_is_built_of_its_flags() {
        let flags = ["--body", "hello", "--tag", "a", "--key", "k", "--key", "l", "--property", "p=1=2"];
        let message = build(&line(&flags)).unwrap();
        let system = message.system_properties.unwrap();
        assert_eq!((message.body.as_ref(), system.tag.as_deref()), (&b"hello"[..], Some("a")));
        assert_eq!((system.keys, message.user_properties["p"].as_str()), (vec!["k".to_owned(), "l".to_owned()], "1=2"));
        assert_eq!(system.message_type, wire::MessageType::Normal as i32);
        let half = build(&line(&["--body", "x", "--transaction", "commit"])).unwrap();
        assert_eq!(half.system_properties.unwrap().message_type, wire::MessageType::Transaction as i32);
    }

    #[test]
    fn a_body_comes_from_the_flag_or_a_file_and_is_never_empty() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let from_file = line(&["--file", file.path().to_str().unwrap()]);
        assert!(read_body(&from_file).unwrap_err().is::<WrongUsage>());
        std::fs::write(file.path(), [0xFF, 0]).unwrap();
        assert_eq!(read_body(&from_file).unwrap(), [0xFF, 0]);
        assert!(read_body(&line(&["--body", ""])).unwrap_err().is::<WrongUsage>());
        assert_eq!(read_body(&line(&["--file", "/none"])).unwrap_err().to_string(), "cannot read /none");
        assert!(
            Line::try_parse_from(["send", "t"]).is_err()
                && Line::try_parse_from(["send", "t", "--body", "a", "--file", "b"]).is_err()
        );
    }
}
