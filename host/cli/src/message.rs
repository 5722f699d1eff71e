//! `vouch message`: send and receive over gRPC like an official client, and look at a stored message over HTTP.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use vouch_protocol::wire;

use crate::escape;
use crate::failure::{Problem, Usage};
use crate::http::{HttpArgs, segment};
use crate::output::{self, Table, cell};
use crate::resource::Page;
use crate::rpc::calls::{Fetch, Resolution, acknowledge, end_transaction, fetch_messages, new_message, send_message};
use crate::rpc::{GrpcArgs, Role, Session};
use crate::text;

/// Messages asked for in one receive: the most the protocol gives.
const BATCH: u32 = 32;
/// Letters of a body that a list shows.
const BODY_SHOWN: usize = 60;
/// The longest a single receive waits at the broker.
const LONGEST_POLL: Duration = Duration::from_secs(20);

#[derive(Debug, Subcommand)]
pub(crate) enum MessageCommand {
    /// Send one message; with --transaction, as a half message.
    #[command(after_help = "\
Examples:
  vouch message send greetings --body hello --tag first
  vouch message send orders --body '{\"id\":17}' --key 17 --transaction leave-open")]
    Send(Box<Send>),
    /// Receive messages for a group and acknowledge them.
    #[command(after_help = "\
Examples:
  vouch message receive orders --group shipping --count 10 --wait 30s
  vouch message receive tenant/orders --group tenant/shipping

On a terminal what is in a body and would act on the terminal is escaped; into a file or a pipe it goes as it was sent.")]
    Receive(Box<Receive>),
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
        page: Page,
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

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("content").required(true))]
pub(crate) struct Send {
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
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Receive {
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
    json: bool,
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

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the network runtime")
}

async fn send_one(send: &Send) -> anyhow::Result<()> {
    let message = build(send)?;
    let session = Session::open(&send.grpc.grpc, Role::Producer { topics: vec![send.topic.clone()] }).await?;
    let sent = session
        .until_done(async |session| {
            let receipt = send_message(&mut session.client, message).await?;
            if let (Some(resolution), false) = (send.transaction, receipt.transaction_id.is_empty()) {
                end_transaction(&mut session.client, &send.topic, &receipt, resolution).await?;
            }
            Ok(receipt)
        })
        .await;
    print_receipt(send, &sent?)
}

fn build(send: &Send) -> anyhow::Result<wire::Message> {
    let kind = if send.transaction.is_some() { wire::MessageType::Transaction } else { wire::MessageType::Normal };
    let mut message = new_message(&send.topic, read_body(send)?, kind);
    message.user_properties = send.properties.iter().cloned().collect();
    if let Some(system) = &mut message.system_properties {
        system.tag.clone_from(&send.tag);
        system.keys.clone_from(&send.keys);
    }
    Ok(message)
}

fn read_body(send: &Send) -> anyhow::Result<Vec<u8>> {
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
        return Err(Usage::error("the body is empty; a message has at least one byte"));
    }
    Ok(body)
}

fn print_receipt(send: &Send, receipt: &wire::SendResultEntry) -> anyhow::Result<()> {
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

async fn receive_some(receive: &Receive) -> anyhow::Result<()> {
    let role = Role::SimpleConsumer {
        group: receive.group.clone(),
        topic: receive.topic.clone(),
        expression: receive.filter.clone(),
    };
    let session = Session::open(&receive.grpc.grpc, role).await?;
    let received = session.until_done(async |session| receive_in(session, receive).await).await?;
    if received == 0 {
        output::note(format_args!("nothing to receive from {} within {:?}", receive.topic, receive.wait))?;
    }
    Ok(())
}

/// How many were received.
async fn receive_in(session: &mut Session, receive: &Receive) -> anyhow::Result<u32> {
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

fn print_message(receive: &Receive, message: &wire::Message) -> anyhow::Result<()> {
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

fn show(topic: &str, id: &str, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/messages/{}/{}", segment(topic), segment(id)))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let found = crate::resource::items(&answer.body).iter().map(output::describe).collect::<Vec<_>>();
    if found.is_empty() {
        let title = format!("no message of {topic} has the id {id}");
        let detail = "looked for in what the topic's queues hold and in its open transactions";
        return Err(Problem::local("not-found", &title, detail.to_owned()));
    }
    Ok(output::line(found.join("\n\n"))?)
}

/// A time as the API takes it. How long ago is taken from this machine's clock.
fn since(text: &str) -> Result<String, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) || humantime::parse_rfc3339_weak(text).is_ok() {
        return Ok(text.to_owned());
    }
    let wrong = |error| format!("{error}; or write a time in UTC such as 2026-01-31T10:00:00Z");
    let ago = text::length(text).map_err(wrong)?;
    let then = SystemTime::now().checked_sub(ago).filter(|then| *then >= SystemTime::UNIX_EPOCH);
    let then = then.ok_or_else(|| format!("`{text}` ago is before 1970"))?;
    Ok(humantime::format_rfc3339_millis(then).to_string())
}

fn list(topic: &str, filters: &[(&str, Option<&str>)], page: &Page, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/messages/{}{}", segment(topic), page.query(filters)))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = Table::new(&["ID", "STORED", ">QUEUE", ">OFFSET", "TAG", "KEYS", "BODY"]);
    for message in crate::resource::items(&answer.body) {
        let place = message.get("place").unwrap_or(&Value::Null);
        let before = [cell(message, "id"), cell(message, "stored_at"), cell(place, "queue"), cell(place, "offset")];
        table.row(before.into_iter().chain([cell(message, "tag"), cell(message, "keys"), body(message)]));
    }
    table.print()?;
    page.more(&answer.body)
}

/// The beginning of a body, on one line.
fn body(message: &Value) -> String {
    let Some(text) = message.get("body").and_then(Value::as_str) else {
        return if message.get("body_base64").is_some() { "(binary)" } else { "(left out)" }.to_owned();
    };
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    output::beginning(&line, BODY_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_given_as_such_or_as_how_long_ago() {
        assert_eq!(since("1700000000007").unwrap(), "1700000000007");
        assert_eq!(since("2026-01-31T10:00:00Z").unwrap(), "2026-01-31T10:00:00Z");
        let ago = humantime::parse_rfc3339(&since("1h").unwrap()).unwrap().elapsed().unwrap();
        assert!((3600..3700).contains(&ago.as_secs()), "{ago:?}");
        assert!(since("yesterday").is_err() && since("1000000years").is_err());
    }

    #[test]
    fn a_list_shows_the_beginning_of_a_body_on_one_line() {
        assert_eq!(body(&json!({"body": "a\nb"})), "a b");
        assert_eq!(body(&json!({"body": "x".repeat(61)})), format!("{}…", "x".repeat(59)));
        assert_eq!(body(&json!({"body_base64": "/wA="})), "(binary)");
        assert_eq!(body(&json!({"body_left_out_bytes": 7})), "(left out)");
    }

    #[test]
    fn a_body_that_is_not_text_is_given_in_base64() {
        let text = as_json(&new_message("t", b"hello".to_vec(), wire::MessageType::Normal));
        assert_eq!((text["body"].as_str(), text.get("body_base64")), (Some("hello"), None));
        let binary = as_json(&new_message("t", vec![0xFF, 0x00], wire::MessageType::Normal));
        assert_eq!((binary.get("body"), binary["body_base64"].as_str()), (None, Some("/wA=")));
    }
}
