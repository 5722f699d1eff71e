//! `/v1/secrets`: values that bindings name and that nobody is shown again (ruling 24).
//!
//! A value is sealed by the node to which it comes: it is never passed on readable.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use vouch_broker::Refusal;
use vouch_node::{SecretValue, SecretView};

use super::App;
use super::answer::{self, etag, written};
use super::precondition::Preconditions;
use super::problem::Problem;
use super::request::{Params, PathNames, document, object};

/// How a key is changed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyChange {
    /// Keys that seal nothing any more go from all nodes.
    #[serde(default)]
    forget_old: bool,
}

/// A secret as it is shown, and never its value.
fn shown(secret: &SecretView) -> Value {
    let SecretView { name, revision: _, key, opens_here, bindings } = secret;
    json!({"name": name, "key": key, "opens_here": opens_here, "bindings": bindings})
}

/// The refusal that says how to set one.
fn missing(name: &str) -> Refusal {
    Refusal::NotFound(format!("there is no secret {name}; set one with: vouch secret set {name}"))
}

/// `GET /v1/secrets`.
pub(crate) async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Response, Problem> {
    let page = params.page()?;
    let mut found = app.node.secrets.list(page.after, page.limit + 1).await?;
    let more = found.len() > page.limit;
    found.truncate(page.limit);
    let next = found.last().filter(|_| more).map(|secret| secret.name.clone());
    Ok(answer::list(found.iter().map(shown).collect::<Vec<_>>(), next))
}

/// `GET /v1/secrets/{name}`: all but its value.
pub(crate) async fn show(State(app): State<Arc<App>>, PathNames(name): PathNames<String>) -> Result<Response, Problem> {
    let secret = app.node.secrets.secret(&name).await?.ok_or_else(|| missing(&name))?;
    Ok((etag(secret.revision), Json(shown(&secret))).into_response())
}

/// `PUT /v1/secrets/{name}`: the body is the value, every byte of it. From the next call on, bindings that name it use it.
///
/// # Errors
/// The value is empty or too long, a precondition does not hold, the key file cannot be used, or too few nodes have the key.
pub(crate) async fn replace(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    params: Params,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let new_key = params.switch("new_key")?;
    let value = SecretValue::new(body.to_vec()).map_err(|why| Refusal::Invalid(why.to_string()))?;
    drop(body);
    let secrets = &app.node.secrets;
    let current = secrets.secret(&name).await?.map(|secret| secret.revision);
    let expect = Preconditions::of(&headers)?.expect(&format!("secret {name}"), current)?;
    let (done, warnings) = match new_key {
        true => secrets.set_with_new_key(&name, value, expect).await?,
        false => secrets.set(&name, value, expect).await?,
    };
    let told = json!({"name": name, "warnings": warnings});
    Ok((written(done.created), etag(done.revision), Json(told)).into_response())
}

/// `DELETE /v1/secrets/{name}`.
///
/// # Errors
/// A binding names it.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
) -> Result<StatusCode, Problem> {
    app.node.secrets.delete(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/secret-key/rotate`: another key seals, and all secrets are sealed with it.
///
/// # Errors
/// The key file cannot be used, or too few nodes are reached; asked for again it goes on where it was.
pub(crate) async fn rotate_key(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, Problem> {
    let KeyChange { forget_old } = document(object(&body)?)?;
    let done = app.node.secrets.rotate_key(forget_old).await?;
    let without: Vec<u64> = done.without.iter().map(|node| node.0).collect();
    let with_old: Vec<u64> = done.with_old.iter().map(|node| node.0).collect();
    Ok(Json(json!({
        "key": done.key,
        "resealed": done.resealed,
        "kept": done.kept,
        "forgotten": done.forgotten,
        "nodes_without": without,
        "nodes_with_old": with_old,
    })))
}
