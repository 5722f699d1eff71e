//! `/v1/messages/{topic}` and `/v1/messages/{topic}/{id}`: which messages there are, and where one is.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vouch_broker::{BodyEncoding, MessageKind, NothingStored, QueueOffset, RecordPosition, TopicId};
use vouch_node::{MessageMark, MessageQuery, MessageView};
use vouch_protocol::DecompressError;
use vouch_protocol::limits::DECOMPRESSED_BODY_MAX_BYTES;

use super::App;
use super::answer::{self, time};
use super::problem::Problem;
use super::request::{Params, PathNames, time_ms};
use super::transactions::TransactionDocument;

/// Bytes of bodies in one answer, as JSON writes them; what is beyond is left out and said to be.
const BODIES_MAX_BYTES: usize = 16 << 20;
/// Bytes that are decompressed for one answer, those of bodies that are left out included.
const DECOMPRESSED_MAX_BYTES: u64 = 256 << 20;
/// Tells the mark of a list of what is in queues from that of a list by key, which is a number.
const QUEUES_MARK: &str = "queues-";

/// `GET /v1/messages/{topic}/{id}`: every message of the topic with this client id, newest first; ids are not unique.
/// The newest thousand of what is in queues, and of open transactions.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    PathNames((topic, id)): PathNames<(String, String)>,
) -> Result<Response, Problem> {
    let (turn, found) = in_turn(&app.message_pages, app.node.search.by_id(&topic, &id)).await?;
    page(turn, found, None).await
}

/// `GET /v1/messages/{topic}`: with `key` the messages that have it, newest first; without, what is in the queues, from
/// `since` on, each queue in its order and all of them merged by time.
///
/// # Errors
/// There is no such topic, or the mark is of another list.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    PathNames(topic): PathNames<String>,
    params: Params,
) -> Result<Response, Problem> {
    let page_of = params.page()?;
    let key = params.read("key", |key| match key {
        "" => Err("it must name a key; leave it out for all messages".to_owned()),
        key => Ok(key.to_owned()),
    })?;
    let (since_ms, after) = (params.read("since", time_ms)?, params.read("after", mark)?);
    let query = MessageQuery { topic, key, since_ms, after, limit: page_of.limit };
    let (turn, found) = in_turn(&app.message_pages, app.node.search.list(query)).await?;
    page(turn, found.messages, found.next.as_ref().map(mark_text)).await
}

/// What is found, in turn with others: who waits holds no messages yet.
async fn in_turn<T, E: Into<Problem>>(
    turns: &Arc<Semaphore>,
    find: impl Future<Output = Result<T, E>>,
) -> Result<(OwnedSemaphorePermit, T), Problem> {
    let turn = turns.clone().acquire_owned().await.map_err(|error| failed(&error.to_string()))?;
    let found = find.await.map_err(Into::into)?;
    Ok((turn, found))
}

/// A defect, which the log tells of.
fn failed(what: &str) -> NothingStored {
    NothingStored::Internal(format!("a page of messages was not made: {what}"))
}

/// Made aside: bodies are decompressed and written as JSON.
async fn page(turn: OwnedSemaphorePermit, found: Vec<MessageView>, next: Option<String>) -> Result<Response, Problem> {
    let making = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut room = Bodies { left: BODIES_MAX_BYTES, decompressed_left: DECOMPRESSED_MAX_BYTES };
        let items: Vec<Value> = found.into_iter().map(|view| item(view, &mut room)).collect();
        answer::list(items, next)
    });
    making.await.map_err(|error| failed(&error.to_string()).into())
}

/// The `next` of a page.
fn mark_text(mark: &MessageMark) -> String {
    match mark {
        MessageMark::Below(position) => position.to_string(),
        MessageMark::Queues { topic, next } => {
            let numbers: Vec<String> = std::iter::once(u64::from(topic.0))
                .chain(next.iter().map(|offset| offset.0))
                .map(|n| n.to_string())
                .collect();
            format!("{QUEUES_MARK}{}", numbers.join("-"))
        }
    }
}

/// Reads what [`mark_text`] wrote.
fn mark(text: &str) -> Result<MessageMark, String> {
    let read = || {
        let Some(numbers) = text.strip_prefix(QUEUES_MARK) else {
            return text.parse().ok().map(|position| MessageMark::Below(RecordPosition(position)));
        };
        let mut numbers = numbers.split('-');
        let topic = TopicId(numbers.next()?.parse().ok()?);
        let next = numbers.map(|number| number.parse().ok().map(QueueOffset)).collect::<Option<Vec<_>>>()?;
        Some(MessageMark::Queues { topic, next })
    };
    read().ok_or_else(|| "give the `next` of the page before, or leave it out".to_owned())
}

/// A message as JSON, with its body as long as there is room.
fn item(view: MessageView, room: &mut Bodies) -> Value {
    let message = view.message.message;
    let properties: Map<String, Value> =
        message.properties.into_iter().map(|(name, value)| (name, value.into())).collect();
    let place = view.place.map(|(queue, offset)| json!({"queue": queue, "offset": offset}));
    let mut item = json!({
        "id": message.message_id,
        "topic": view.topic,
        "type": kind(message.kind),
        "place": place,
        "transaction": view.transaction.map(TransactionDocument::new),
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
    let (member, value) = room.body(message.encoding, message.body);
    item[member] = value;
    item
}

/// As topics name their types.
fn kind(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Normal => "normal",
        MessageKind::Fifo => "fifo",
        MessageKind::Delay => "delay",
        MessageKind::Transaction => "transaction",
    }
}

/// What the bodies of one answer may still take.
struct Bodies {
    /// Bytes of the answer.
    left: usize,
    /// Bytes of work.
    decompressed_left: u64,
}

impl Bodies {
    /// The body as the application had it: text if it is text, else base64. One that cannot be decompressed is shown as it
    /// came. One that finds no room is left out, with its size: as it was stored where even that would take too long.
    fn body(&mut self, encoding: BodyEncoding, stored: Bytes) -> (&'static str, Value) {
        let body = match encoding {
            BodyEncoding::Identity => stored,
            BodyEncoding::Gzip => {
                let max = usize::try_from(self.decompressed_left).unwrap_or(usize::MAX).min(self.left);
                match vouch_protocol::decompress_up_to(&stored, max) {
                    Ok(plain) => {
                        self.decompressed_left -= plain.len() as u64;
                        plain
                    }
                    Err(DecompressError::TooLarge(_)) => {
                        self.decompressed_left -= max as u64;
                        return self.left_out(&stored);
                    }
                    Err(DecompressError::Format | DecompressError::Damaged) => stored,
                }
            }
        };
        let (member, len) = match std::str::from_utf8(&body) {
            Ok(text) => ("body", json_len(text)),
            Err(_) => ("body_base64", body.len().div_ceil(3) * 4),
        };
        if len > self.left {
            return ("body_left_out_bytes", body.len().into());
        }
        self.left -= len;
        match String::from_utf8(body.into()) {
            Ok(text) => (member, text.into()),
            Err(bytes) => (member, BASE64_STANDARD.encode(bytes.as_bytes()).into()),
        }
    }

    /// How large a body would be that finds no room: exactly, as long as it may still be looked at.
    fn left_out(&mut self, stored: &Bytes) -> (&'static str, Value) {
        const MOST: u64 = DECOMPRESSED_BODY_MAX_BYTES as u64;
        let mut len = stored.len() as u64;
        if self.decompressed_left >= MOST {
            let plain = vouch_protocol::decompressed_len(stored);
            self.decompressed_left -= plain.as_ref().copied().unwrap_or(MOST);
            len = plain.unwrap_or(len);
        }
        ("body_left_out_bytes", len.into())
    }
}

/// Bytes of a text as JSON writes it.
fn json_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Waker};

    use super::*;
    use vouch_broker::RecordPosition;

    #[test]
    fn marks_are_read_as_they_were_written() {
        for next in [vec![], vec![0], vec![7, u64::MAX, 9]] {
            let next = next.into_iter().map(QueueOffset).collect();
            let queues = MessageMark::Queues { topic: TopicId(3), next };
            assert_eq!(mark(&mark_text(&queues)), Ok(queues));
        }
        assert_eq!(
            mark(&mark_text(&MessageMark::Below(RecordPosition(u64::MAX)))),
            Ok(MessageMark::Below(RecordPosition(u64::MAX)))
        );
        for wrong in ["", "x", "-1", "queues-", "queues-x", "queues-1-", "queues-1--2", "18446744073709551616"] {
            assert!(mark(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_has_read_no_messages_yet() {
        let (turns, read) = (Arc::new(Semaphore::new(2)), AtomicUsize::new(0));
        let find = async || Ok::<_, NothingStored>(read.fetch_add(1, Ordering::SeqCst));
        let first = in_turn(&turns, find()).await.ok();
        let second = in_turn(&turns, find()).await.ok();
        let mut third = std::pin::pin!(in_turn(&turns, find()));
        assert!(third.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(read.load(Ordering::SeqCst), 2);
        drop(first);
        assert_eq!(third.await.ok().map(|(_, nth)| nth), Some(2));
        assert_eq!((second.map(|(_, nth)| nth), turns.available_permits()), (Some(1), 2));
    }

    fn room(left: usize) -> Bodies {
        Bodies { left, decompressed_left: DECOMPRESSED_MAX_BYTES }
    }

    #[test]
    fn a_body_is_shown_as_text_or_base64_as_long_as_there_is_room() {
        let mut room = self::room(6);
        let mut shown = |bytes: &'static [u8]| room.body(BodyEncoding::Identity, bytes.into());
        assert_eq!(shown(b"ab"), ("body", "ab".into()));
        assert_eq!(shown(b"a\0"), ("body_left_out_bytes", 2.into()));
        assert_eq!(shown(&[0xFF, 0]), ("body_base64", "/wA=".into()));
        assert_eq!(shown(b"a"), ("body_left_out_bytes", 1.into()));
        let not_gzip = self::room(99).body(BodyEncoding::Gzip, Bytes::from_static(b"not gzip"));
        assert_eq!(not_gzip, ("body", "not gzip".into()));
    }

    #[test]
    fn only_so_much_is_decompressed_for_one_answer() {
        let bomb = |bytes: usize| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &vec![b'x'; bytes]).unwrap();
            Bytes::from(encoder.finish().unwrap())
        };
        let (large, mut room) = (bomb(50 << 20), room(BODIES_MAX_BYTES));
        let left_out: Vec<_> = (0..5).map(|_| room.body(BodyEncoding::Gzip, large.clone()).1).collect();
        let (plain, stored) = (Value::from(50 << 20), Value::from(large.len()));
        assert_eq!(left_out, [plain.clone(), plain.clone(), plain, stored.clone(), stored]);
        assert_eq!(room.body(BodyEncoding::Gzip, bomb(5)), ("body", "xxxxx".into()));
    }

    #[test]
    fn the_length_of_a_text_is_that_of_its_json() {
        let all: String = (0..0x2000).filter_map(char::from_u32).collect();
        assert_eq!(json_len(&all) + 2, serde_json::to_string(&all).unwrap().len());
    }
}
