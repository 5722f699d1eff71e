//! `vouch message receive`: messages for a group, acknowledged one by one as they are printed.
//!
//! A message is acknowledged after it is printed, so what is cut short comes again, and nothing is lost on the way to a
//! file or a pipe.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};
use vouch_protocol::wire;

use crate::output;
use crate::rpc::calls::{Fetch, acknowledge, fetch_messages};
use crate::rpc::{GrpcArgs, RpcRole, RpcSession};
use crate::text;

/// Messages asked for in one receive: the most the protocol gives.
const BATCH: u32 = 32;
/// The longest a single receive waits at the broker.
const LONGEST_POLL: Duration = Duration::from_secs(20);

/// What is received, how many and for how long.
#[derive(Debug, Args)]
pub(crate) struct ReceiveCommand {
    topic: String,
    /// Consumer group.
    #[arg(long)]
    group: String,
    /// Stop after this many messages.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Stop when nothing more came for this long.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = text::length)]
    wait: Duration,
    /// How long the messages stay invisible to others; a node takes no less than its receive_invisible_min, 10s by default.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = text::length)]
    invisible: Duration,
    /// Tags to receive, for example 'paid || refunded'; `*` is all.
    #[arg(long, value_name = "TAGS", default_value = "*")]
    filter: String,
    /// Do not acknowledge: the messages come again after the invisible time.
    #[arg(long)]
    no_ack: bool,
    #[command(flatten)]
    grpc: GrpcArgs,
    /// Print one JSON document per line and message.
    #[arg(long)]
    pub(super) json: bool,
}

/// Receives until as many came as were asked for, or nothing more comes.
///
/// # Errors
/// The node does not answer or refuses; what was printed before is acknowledged, unless `--no-ack` is set.
pub(super) async fn receive_some(receive: &ReceiveCommand) -> anyhow::Result<()> {
    let role = RpcRole::SimpleConsumer {
        group: receive.group.clone(),
        topic: receive.topic.clone(),
        expression: receive.filter.clone(),
    };
    let received =
        RpcSession::with(&receive.grpc.grpc, role, async |session| receive_in(session, receive).await).await?;
    if received == 0 {
        output::note(format_args!("nothing to receive from {} within {:?}", receive.topic, receive.wait))?;
    }
    Ok(())
}

/// How many were received.
async fn receive_in(session: &mut RpcSession, receive: &ReceiveCommand) -> anyhow::Result<u32> {
    let mut left = receive.count;
    let mut give_up_at = Instant::now() + receive.wait;
    while left > 0 {
        let patience = give_up_at.saturating_duration_since(Instant::now());
        let fetch = Fetch {
            topic: &receive.topic,
            group: &receive.group,
            filter: &receive.filter,
            batch: left.min(BATCH),
            poll: patience.min(LONGEST_POLL),
            invisible: receive.invisible,
        };
        let messages = fetch_messages(&mut session.client, &fetch).await?;
        for message in &messages {
            print_message(receive, message)?;
            if !receive.no_ack {
                acknowledge(&mut session.client, &receive.topic, &receive.group, message).await?;
            }
        }
        left = left.saturating_sub(u32::try_from(messages.len()).unwrap_or(u32::MAX));
        if !messages.is_empty() {
            give_up_at = Instant::now() + receive.wait;
        } else if Instant::now() >= give_up_at {
            break;
        }
    }
    Ok(receive.count - left)
}

/// One message: a line for a person, a document for a script.
fn print_message(receive: &ReceiveCommand, message: &wire::Message) -> anyhow::Result<()> {
    if receive.json {
        return Ok(output::json_line(&as_json(message))?);
    }
    let system = message.system_properties.clone().unwrap_or_default();
    let attempt = system.delivery_attempt.unwrap_or(1);
    let again = if attempt > 1 { format!(", delivery {attempt}") } else { String::new() };
    let tag = system.tag.map(|tag| format!(", tag {tag}")).unwrap_or_default();
    let keys = if system.keys.is_empty() { String::new() } else { format!(", keys {}", system.keys.join(",")) };
    Ok(output::body(&format!("{}{tag}{keys}{again}: ", system.message_id), &message.body)?)
}

/// A message for scripts. A body that is not UTF-8 is given in Base64 under another name.
fn as_json(message: &wire::Message) -> Value {
    let system = message.system_properties.clone().unwrap_or_default();
    let mut document = Map::new();
    document.insert("message_id".to_owned(), json!(system.message_id));
    document.insert("tag".to_owned(), json!(system.tag));
    document.insert("keys".to_owned(), json!(system.keys));
    document.insert("properties".to_owned(), json!(message.user_properties));
    document.insert("queue".to_owned(), json!(system.queue_id));
    document.insert("offset".to_owned(), json!(system.queue_offset));
    document.insert("attempt".to_owned(), json!(system.delivery_attempt));
    document.insert("receipt_handle".to_owned(), json!(system.receipt_handle));
    match std::str::from_utf8(&message.body) {
        Ok(text) => document.insert("body".to_owned(), json!(text)),
        Err(_) => document.insert("body_base64".to_owned(), json!(STANDARD.encode(&message.body))),
    };
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::calls::new_message;

    #[test]
    fn a_body_that_is_not_text_is_given_in_base64() {
        let text = as_json(&new_message("t", b"hello".to_vec(), wire::MessageType::Normal));
        assert_eq!((text["body"].as_str(), text.get("body_base64")), (Some("hello"), None));
        let binary = as_json(&new_message("t", vec![0xFF, 0x00], wire::MessageType::Normal));
        assert_eq!((binary.get("body"), binary["body_base64"].as_str()), (None, Some("/wA=")));
    }
}
