//! `/v1/bindings/{name}/state`: what the components of bindings keep, for operators to look at and to delete.
//!
//! What is shown is what this node has applied; any node shows it. Of a namespace that several bindings share each shows the same. A
//! value is the component's own: it is shown as it is, and there are no secrets among what a binding was given, unless its component
//! put one there.
//!
//! | request | answer |
//! |---|---|
//! | `GET` with `prefix`, `after`, `limit` | keys in their order, with values, as many as fit into a page |
//! | `GET` of a key | the one, or 404 |
//! | `DELETE` of a key | 204, or 404 |
//! | `DELETE` with `all=true` | 204: the namespace is empty, and stays |

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use vouch_broker::Refusal;
use vouch_node::KeptView;

use super::App;
use super::answer;
use super::problem::Problem;
use super::request::{Params, PathNames};

/// Bytes of keys and values in one page. The key that goes beyond is the first one of the next page.
const PAGE_MAX_BYTES: usize = 8 << 20;
/// Keys that are read at once: others wait for the thread that copies them.
const STEP: usize = 64;

/// A key as JSON: its value as text if it is text, else base64, as bodies of messages are shown.
fn item(view: KeptView) -> Map<String, Value> {
    let KeptView { key, value, version, expires_at } = view;
    let (member, value) = match String::from_utf8(value) {
        Ok(text) => ("value", text),
        Err(bytes) => ("value_base64", BASE64_STANDARD.encode(bytes.as_bytes())),
    };
    let mut item = Map::new();
    item.insert("key".to_owned(), key.into());
    item.insert(member.to_owned(), value.into());
    item.insert("version".to_owned(), version.into());
    item.insert("expires_at".to_owned(), expires_at.map(|at| answer::time(at.0)).into());
    item
}

/// Whether there is room for one more in a page that has so many and so many bytes. The first one always has.
fn has_room(items: usize, bytes: usize, limit: usize) -> bool {
    items == 0 || items < limit && bytes <= PAGE_MAX_BYTES
}

/// `GET /v1/bindings/{name}/state`: what the binding's namespace holds, by key. A page is read piece by piece: what changes
/// meanwhile is in one of them and not in another.
///
/// # Errors
/// There is no such binding, or it keeps nothing.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    params: Params,
) -> Result<Json<Value>, Problem> {
    let page = params.page()?;
    let prefix = params.text("prefix").unwrap_or_default();
    let (mut items, mut bytes, mut last, mut next) = (Vec::new(), 0, page.after, None);
    let found = loop {
        // One more than fits tells whether there is a next page.
        let step = STEP.min(page.limit - items.len() + 1);
        let mut found = app.node.components.kept(&name, (prefix.to_owned(), last.clone()), step).await?;
        let keys = std::mem::take(&mut found.keys);
        let is_end = keys.len() < step;
        for view in keys {
            bytes += view.key.len() + view.value.len();
            if !has_room(items.len(), bytes, page.limit) {
                next.clone_from(&last);
                break;
            }
            last = Some(view.key.clone());
            items.push(item(view));
        }
        if is_end || next.is_some() {
            break found;
        }
    };
    let mut document = json!({
        "namespace": found.namespace, "bytes": found.bytes, "quota": found.quota, "items": items,
    });
    if let Some(next) = next {
        document["next"] = next.into();
    }
    Ok(Json(document))
}

/// `GET /v1/bindings/{name}/state/{key}`.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    PathNames((name, key)): PathNames<(String, String)>,
) -> Result<Json<Map<String, Value>>, Problem> {
    let missing = || {
        Refusal::NotFound(format!(
            "binding {name} keeps nothing under the key {key:?}; see what it keeps with: vouch binding state {name} list"
        ))
    };
    let found = app.node.components.kept_under(&name, &key).await?;
    Ok(Json(item(found.ok_or_else(missing)?)))
}

/// `DELETE /v1/bindings/{name}/state/{key}`. A component that has read it meanwhile is run again, and finds nothing there.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathNames((name, key)): PathNames<(String, String)>,
) -> Result<StatusCode, Problem> {
    app.node.components.delete_kept(&name, Some(key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/bindings/{name}/state?all=true`: all of it, that of other bindings with the same namespace included.
///
/// # Errors
/// Nobody says `all=true`: a path that lacks its key by mistake must not delete everything.
pub(crate) async fn remove_all(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    params: Params,
) -> Result<StatusCode, Problem> {
    if !params.switch("all")? {
        return Err(Problem::parameter(
            "this deletes all that the binding keeps: say so with `all=true`, or name one key in the path, as in \
             /v1/bindings/{name}/state/{key}",
        ));
    }
    app.node.components.delete_kept(&name, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_its_keys_and_its_bytes_and_one_in_any_case() {
        assert!(has_room(0, PAGE_MAX_BYTES * 2, 1) && !has_room(1, 1, 1));
        assert!(has_room(7, PAGE_MAX_BYTES, 8) && !has_room(7, PAGE_MAX_BYTES + 1, 8));
    }

    #[test]
    fn a_value_is_shown_as_text_if_it_is_text() {
        let view = |value: &[u8]| KeptView { key: "k".to_owned(), value: value.to_vec(), version: 7, expires_at: None };
        let shown = Value::Object(item(view("né".as_bytes())));
        assert_eq!(shown, json!({"key": "k", "value": "né", "version": 7, "expires_at": null}));
        let shown = item(view(&[0xff, 0]));
        assert_eq!((&shown["value_base64"], shown.contains_key("value")), (&json!("/wA="), false));
    }
}
