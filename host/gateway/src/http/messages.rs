//! `/v1/messages/{topic}/{id}`: where a message is.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use vouch_broker::{BodyEncoding, MessageKind};
use vouch_node::MessageView;

use super::App;
use super::answer::{self, time};
use super::problem::Problem;
use super::request::Names;
use super::transactions::TransactionDocument;

/// Bytes of bodies in one answer; what is beyond is left out and said to be.
const BODIES_MAX_BYTES: usize = 16 << 20;

/// `GET /v1/messages/{topic}/{id}`: every message of the topic with this client id, newest first; ids are not unique.
/// Looked for in the last million messages of the topic and in its open transactions.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Names((topic, id)): Names<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.node.messages(&topic, &id).await?;
    let (shard, mut room) = (app.node.shard(), BODIES_MAX_BYTES);
    let items: Vec<Value> = found.into_iter().map(|view| item(shard, view, &mut room)).collect();
    Ok(answer::list(items, None))
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
