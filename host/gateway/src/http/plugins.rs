//! `/v1/plugins`: components under names and tags.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use vouch_broker::state::{PluginEntry, used_by_bindings};
use vouch_broker::{NothingStored, Refusal};
use vouch_node::PluginUpload;
use vouch_registry::{Digest, check_plugin_name, check_tag};

use super::App;
use super::answer::{self, etag, time, written};
use super::precondition::Preconditions;
use super::problem::Problem;
use super::request::{Params, PathNames};

fn invalid(error: impl std::fmt::Display) -> Problem {
    Refusal::Invalid(error.to_string()).into()
}

/// The components that any tag of a plugin points at or pointed at.
fn digests(plugin: &PluginEntry) -> BTreeSet<Digest> {
    plugin.tags.values().flatten().map(|tag| Digest(tag.digest)).collect()
}

/// Name, tags with the digest of each, digests.
fn summary(name: &str, plugin: &PluginEntry) -> Value {
    let tags: Map<String, Value> = plugin
        .tags
        .iter()
        .filter_map(|(tag, history)| Some((tag.clone(), Digest(history.last()?.digest).to_string().into())))
        .collect();
    let digests: Vec<String> = digests(plugin).iter().map(ToString::to_string).collect();
    json!({"name": name, "tags": tags, "digests": digests})
}

/// What an upload found out about a component, in the words of the API.
fn verdict(mut found: Map<String, Value>) -> Map<String, Value> {
    if let Some(imports) = found.remove("imports_wanted") {
        found.insert("imports".to_owned(), imports);
    }
    let world = found.get("worlds").and_then(|worlds| worlds.get(0)).cloned().unwrap_or_default();
    found.insert("world".to_owned(), world);
    found
}

/// The verdict that was recorded with a component.
async fn recorded_verdict(app: &App, digest: &str) -> Result<Map<String, Value>, Problem> {
    let missing = || Refusal::NotFound(format!("there is no component {digest}"));
    let recorded = app.node.components.verdict(digest).await?.ok_or_else(missing)?;
    let parsed = serde_json::from_str(&recorded)
        .map_err(|error| NothingStored::Internal(format!("the verdict on {digest} cannot be read: {error}")))?;
    Ok(verdict(parsed))
}

/// # Errors
/// There is no such plugin.
async fn found(app: &App, name: &str) -> Result<PluginEntry, Problem> {
    let missing = || Refusal::NotFound(format!("there is no plugin {name}; push it with: vouch plugin push"));
    Ok(app.node.components.plugin(name).await?.ok_or_else(missing)?)
}

/// `GET /v1/plugins`.
pub(crate) async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Response, Problem> {
    let page = params.page()?;
    let mut found = app.node.components.plugins(page.after, page.limit + 1).await?;
    let more = found.len() > page.limit;
    found.truncate(page.limit);
    let next = found.last().filter(|_| more).map(|(name, _)| name.clone());
    let items: Vec<Value> = found.iter().map(|(name, plugin)| summary(name, plugin)).collect();
    Ok(answer::list(items, next))
}

/// `GET /v1/plugins/{name}`: tags, components with their verdicts.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
) -> Result<Json<Value>, Problem> {
    let plugin = found(&app, &name).await?;
    let mut components = Vec::new();
    for digest in digests(&plugin) {
        components.push(recorded_verdict(&app, &digest.to_string()).await?);
    }
    let mut document = summary(&name, &plugin);
    document["components"] = json!(components);
    Ok(Json(document))
}

/// `DELETE /v1/plugins/{name}`: with all its tags; refused while a binding uses it.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
) -> Result<StatusCode, Problem> {
    app.node.components.delete_plugin(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/plugins/{name}/tags/{tag}`: what the tag points at, the verdict on it, and what it pointed at before.
pub(crate) async fn show_tag(
    State(app): State<Arc<App>>,
    PathNames((name, tag)): PathNames<(String, String)>,
) -> Result<Response, Problem> {
    let plugin = found(&app, &name).await?;
    let missing = || Refusal::NotFound(format!("plugin {name} has no tag {tag}"));
    let history = plugin.tags.get(&tag).filter(|history| !history.is_empty()).ok_or_else(missing)?;
    let moves: Vec<(String, String)> =
        history.iter().rev().map(|tag| (Digest(tag.digest).to_string(), time(tag.since.0))).collect();
    let mut document = recorded_verdict(&app, &moves[0].0).await?;
    document.insert("name".to_owned(), name.into());
    document.insert("tag".to_owned(), tag.into());
    let history: Vec<Value> = moves.iter().map(|(digest, since)| json!({"digest": digest, "since": since})).collect();
    document.insert("history".to_owned(), history.into());
    Ok((etag(&moves[0].0), Json(document)).into_response())
}

/// The digest of a component, taken on a thread where that may take time.
async fn digest_of(wasm: Bytes) -> Result<String, NothingStored> {
    let taken = tokio::task::spawn_blocking(move || Digest::of(&wasm).to_string()).await;
    taken.map_err(|error| NothingStored::Internal(format!("the component cannot be hashed: {error}")))
}

/// `PUT /v1/plugins/{name}/tags/{tag}`: 201 for a new tag, 200 for the same component; another one needs `If-Match` with
/// the digest that the tag points at now (428 without, 412 with a wrong one).
pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    PathNames((name, tag)): PathNames<(String, String)>,
    headers: HeaderMap,
    wasm: Bytes,
) -> Result<Response, Problem> {
    check_plugin_name(&name).map_err(invalid)?;
    check_tag(&tag).map_err(invalid)?;
    let demands = Preconditions::of(&headers)?;
    let current = app.node.components.tag(&name, &tag).await?;
    let what = format!("tag {tag} of plugin {name}");
    demands.check(&what, current.as_deref())?;
    if let Some(current) = &current
        && !demands.says_what_it_replaces()
        && *current != digest_of(wasm.clone()).await?
    {
        return Err(Problem::precondition_required(format!(
            "{what} points at another component; to move it, send If-Match: \"{current}\""
        )));
    }
    let upload = PluginUpload { name: name.clone(), tag: tag.clone(), wasm, expected: current };
    let (found, done) = app.node.components.upload(upload).await?;
    let digest = found.digest.clone();
    let found = serde_json::to_value(found).ok().and_then(|found| found.as_object().cloned());
    let mut document = verdict(found.unwrap_or_default());
    document.insert("name".to_owned(), name.into());
    document.insert("tag".to_owned(), tag.into());
    Ok((written(done.created), etag(digest), Json(document)).into_response())
}

/// `DELETE /v1/plugins/{name}/tags/{tag}`.
pub(crate) async fn remove_tag(
    State(app): State<Arc<App>>,
    PathNames((name, tag)): PathNames<(String, String)>,
) -> Result<StatusCode, Problem> {
    app.node.components.delete_tag(&name, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The component of a plugin that a digest in the path names.
async fn component_of(app: &App, name: &str, digest: &str) -> Result<(PluginEntry, Digest), Problem> {
    let digest: Digest = digest.parse().map_err(invalid)?;
    let plugin = found(app, name).await?;
    if !digests(&plugin).contains(&digest) {
        return Err(Refusal::NotFound(format!("plugin {name} has no component {digest}")).into());
    }
    Ok((plugin, digest))
}

/// `GET /v1/plugins/{name}/digests/{digest}`: the component's file.
pub(crate) async fn component(
    State(app): State<Arc<App>>,
    PathNames((name, digest)): PathNames<(String, String)>,
) -> Result<Response, Problem> {
    let (_, digest) = component_of(&app, &name, &digest).await?;
    let wasm = app.node.components.file(digest).await?;
    Ok((etag(digest), [(header::CONTENT_TYPE, "application/wasm")], wasm).into_response())
}

/// `DELETE /v1/plugins/{name}/digests/{digest}`: every tag that points at it now; refused while a binding uses it.
pub(crate) async fn remove_component(
    State(app): State<Arc<App>>,
    PathNames((name, digest)): PathNames<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (plugin, digest) = component_of(&app, &name, &digest).await?;
    let bindings = app.node.components.bindings_of_plugin(&name, usize::MAX).await?;
    let users = bindings.iter().filter(|(_, answers)| *answers == digest).map(|(binding, _)| binding.as_str());
    if let Some(refusal) = used_by_bindings(&format!("component {digest} of plugin {name}"), users) {
        return Err(refusal.into());
    }
    let points = |history: &[vouch_broker::state::Tag]| history.last().is_some_and(|tag| tag.digest == digest.0);
    let tags: Vec<&String> = plugin.tags.iter().filter(|(_, history)| points(history)).map(|(tag, _)| tag).collect();
    if tags.is_empty() {
        let text = format!("no tag of plugin {name} points at {digest} any more; it goes with the tags that once did");
        return Err(Refusal::Conflict(text).into());
    }
    for tag in tags {
        app.node.components.delete_tag(&name, tag).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
