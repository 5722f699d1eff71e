//! `/v1/messages/{topic}` and `/v1/messages/{topic}/{id}`: which messages there are, and where one is.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use vouch_broker::{BodyEncoding, MessageKind, TopicId};
use vouch_node::{MessageMark, MessageQuery, MessageView};

use super::App;
use super::answer::{self, time};
use super::problem::Problem;
use super::request::{Names, Params};
use super::transactions::TransactionDocument;

/// Bytes of bodies in one answer; what is beyond is left out and said to be.
const BODIES_MAX_BYTES: usize = 16 << 20;
/// Tells the mark of a list of what is in queues from that of a list by key, which is a number.
const QUEUES_MARK: &str = "queues-";

/// `GET /v1/messages/{topic}/{id}`: every message of the topic with this client id, newest first; ids are not unique.
/// The newest thousand of what is in queues, and of open transactions.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Names((topic, id)): Names<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.node.messages(&topic, &id).await?;
    Ok(page(&app, found, None))
}

/// `GET /v1/messages/{topic}`: with `key` the messages that have it, newest first; without, what is in the queues, from
/// `since` on, each queue in its order and all of them merged by time.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Names(topic): Names<String>,
    params: Params,
) -> Result<Response, Problem> {
    let page_of = params.page()?;
    let key = params.read("key", |key| match key {
        "" => Err("it must name a key; leave it out for all messages".to_owned()),
        key => Ok(key.to_owned()),
    })?;
    let (since_ms, after) = (params.read("since", time_ms)?, params.read("after", mark)?);
    let query = MessageQuery { topic, key, since_ms, after, limit: page_of.limit };
    let found = app.node.list_messages(query).await?;
    Ok(page(&app, found.messages, found.next.as_ref().map(mark_text)))
}

fn page(app: &App, found: Vec<MessageView>, next: Option<String>) -> Response {
    let (shard, mut room) = (app.node.shard(), BODIES_MAX_BYTES);
    let items: Vec<Value> = found.into_iter().map(|view| item(shard, view, &mut room)).collect();
    answer::list(items, next)
}

/// Reads a time as answers write it, or in milliseconds since 1970.
fn time_ms(text: &str) -> Result<u64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let wrong = "it must be a time in UTC such as 2026-01-31T10:00:00Z, or milliseconds since 1970";
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| wrong.to_owned())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| wrong.to_owned())?;
    u64::try_from(since.as_millis()).map_err(|_| wrong.to_owned())
}

/// The `next` of a page.
fn mark_text(mark: &MessageMark) -> String {
    match mark {
        MessageMark::Below(position) => position.to_string(),
        MessageMark::Queues { topic, next } => {
            let numbers: Vec<String> =
                std::iter::once(u64::from(topic.0)).chain(next.iter().copied()).map(|n| n.to_string()).collect();
            format!("{QUEUES_MARK}{}", numbers.join("-"))
        }
    }
}

/// Reads what [`mark_text`] wrote.
fn mark(text: &str) -> Result<MessageMark, String> {
    let read = || {
        let Some(numbers) = text.strip_prefix(QUEUES_MARK) else {
            return text.parse().ok().map(MessageMark::Below);
        };
        let mut numbers = numbers.split('-');
        let topic = TopicId(numbers.next()?.parse().ok()?);
        let next = numbers.map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
        Some(MessageMark::Queues { topic, next })
    };
    read().ok_or_else(|| "give the `next` of the page before, or leave it out".to_owned())
}

fn item(shard: u16, view: MessageView, room: &mut usize) -> Value {
    let message = view.message.message;
    let properties: Map<String, Value> =
        message.properties.into_iter().map(|(name, value)| (name, value.into())).collect();
    let place = view.place.map(|(queue, offset)| json!({"queue": queue, "offset": offset}));
    let mut item = json!({
        "id": message.message_id,
        "topic": view.topic,
        "type": kind(message.kind),
        "place": place,
        "transaction": view.transaction.map(|transaction| TransactionDocument::new(shard, transaction)),
        "tag": message.tag,
        "keys": message.keys,
        "message_group": message.message_group,
        "properties": properties,
        "producer": view.message.producer,
        "born_at": time(message.born_at.0),
        "born_host": message.born_host,
        "stored_at": time(view.message.stored_at.0),
        "deliver_at": message.deliver_at.map(|at| time(at.0)),
        "trace_context": message.trace_context,
    });
    let (member, value) = body(message.encoding, message.body, room);
    item[member] = value;
    item
}

fn kind(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Normal => "normal",
        MessageKind::Fifo => "fifo",
        MessageKind::Delay => "delay",
        MessageKind::Transaction => "transaction",
    }
}

/// The body as the application had it: text if it is text, else base64. One that cannot be decompressed is shown as it
/// came.
fn body(encoding: BodyEncoding, stored: Bytes, room: &mut usize) -> (&'static str, Value) {
    let body = match encoding {
        BodyEncoding::Identity => stored,
        BodyEncoding::Gzip => vouch_protocol::decompress(&stored).unwrap_or(stored),
    };
    if body.len() > *room {
        return ("body_left_out_bytes", body.len().into());
    }
    *room -= body.len();
    match std::str::from_utf8(&body) {
        Ok(text) => ("body", text.into()),
        Err(_) => ("body_base64", BASE64_STANDARD.encode(&body).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_answers_write_it_or_in_milliseconds() {
        assert_eq!(time_ms("1700000000007"), Ok(1_700_000_000_007));
        assert_eq!(time_ms("2023-11-14T22:13:20.007Z"), Ok(1_700_000_000_007));
        assert_eq!(time_ms(&time(5)), Ok(5));
        for wrong in ["", "yesterday", "-1", "2023-11-14T22:13:20+02:00", "99999999999999999999"] {
            assert!(time_ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn marks_are_read_as_they_were_written() {
        for next in [vec![], vec![0], vec![7, u64::MAX, 9]] {
            let queues = MessageMark::Queues { topic: TopicId(3), next };
            assert_eq!(mark(&mark_text(&queues)), Ok(queues));
        }
        assert_eq!(mark(&mark_text(&MessageMark::Below(u64::MAX))), Ok(MessageMark::Below(u64::MAX)));
        for wrong in ["", "x", "-1", "queues-", "queues-x", "queues-1-", "queues-1--2", "18446744073709551616"] {
            assert!(mark(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_body_is_shown_as_text_or_base64_as_long_as_there_is_room() {
        let mut room = 4;
        let shown = |bytes: &'static [u8], room: &mut usize| body(BodyEncoding::Identity, bytes.into(), room);
        assert_eq!(shown(b"ab", &mut room), ("body", "ab".into()));
        assert_eq!(shown(b"abc", &mut room), ("body_left_out_bytes", 3.into()));
        assert_eq!(shown(&[0xFF, 0], &mut room), ("body_base64", "/wA=".into()));
        assert_eq!((room, shown(b"a", &mut room).0), (0, "body_left_out_bytes"));
        assert_eq!(body(BodyEncoding::Gzip, Bytes::from_static(b"not gzip"), &mut 99), ("body", "not gzip".into()));
    }
}
