//! What of the log is damaged, and what was in it.
//!
//! Reading this is cheap and changes nothing: what is known was found by a start or by the scrubber.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use vouch_node::{Damage, DamagedStretch, LostContent};

use super::App;
use super::problem::Problem;

/// `GET /v1/damage`: for a log that is served read-only what its start found, for any other what the scrubber found.
pub(crate) async fn show(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let Damage { served_to, log_end, not_served_bytes, stretches, omitted, repaired } =
        app.node.damage.report().await?;
    let stretches: Vec<Value> = stretches.into_iter().map(stretch_json).collect();
    Ok(Json(json!({
        "mode": if served_to.is_some() { "read-only" } else { "read-write" },
        "served_to": served_to.map(|position| position.0),
        "log_end": log_end.0,
        "not_served_bytes": not_served_bytes,
        "damage": stretches,
        "omitted": omitted,
        "repaired_segments": repaired.into_iter().map(|start| start.0).collect::<Vec<_>>(),
    })))
}

/// A damaged stretch; `offset` and `length` are bytes of its file, `from` and `to` positions in the log. `lost` is null
/// where nobody knows what was in it.
fn stretch_json(stretch: DamagedStretch) -> Value {
    let DamagedStretch { file, offset, length, from, to, reason, entries_lost, known } = stretch;
    json!({
        "file": file.display().to_string(),
        "offset": offset,
        "length": length,
        "from": from.0,
        "to": to.0,
        "reason": reason,
        "entries_lost": entries_lost,
        "lost": known.map(known_json),
    })
}

/// What was in it and is lost, bounded; `omitted` counts the rest.
fn known_json(known: LostContent) -> Value {
    let LostContent { messages, transactions, component_pieces, omitted } = known;
    let messages: Vec<Value> = messages
        .into_iter()
        .map(|lost| {
            let (first, last) = (*lost.offsets.start(), *lost.offsets.end());
            json!({"topic": lost.topic, "queue": lost.queue, "first_offset": first, "last_offset": last})
        })
        .collect();
    let transactions: Vec<String> = transactions.iter().map(ToString::to_string).collect();
    json!({
        "messages": messages,
        "open_transactions": transactions,
        "component_pieces": component_pieces,
        "omitted": omitted,
    })
}
