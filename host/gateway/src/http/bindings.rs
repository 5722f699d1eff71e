//! `/v1/bindings`: which component answers for which topic, which one consumes for which group, with what it may do.
//!
//! What is written is kept as it was sent; what is shown has secrets masked and defaults filled in.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vouch_broker::state::BindingEntry;
use vouch_broker::{NotDone, NothingStored, Refusal};
use vouch_node::{BindingStanding, BindingTrial, CleanedFence, PutBinding, SampleHalf};
use vouch_registry::Digest;

use super::App;
use super::answer::{self, etag, written};
use super::precondition::Preconditions;
use super::problem::Problem;
use super::request::{self, Params, PathNames, object, take_name};

/// How long rows of fences are kept where nobody says.
const FENCES_KEPT_FOR: &str = "7d";
/// Members of an answer that a request may repeat and that mean nothing in it.
const TOLD_ONLY: [&str; 6] = ["digest", "warnings", "untried", "standing", "waiting", "paused"];

/// A binding as it was written, but for its secrets (ruling 24), with its name, the digest that answers, and the defaults of
/// what was left out, those of single limits too.
fn shown(name: &str, digest: &str, spec: &str) -> Result<Map<String, Value>, Problem> {
    let defaults = json!({"topics": [], "groups": [], "subscriptions": {}, "start": "beginning", "grants": {}, "config": {},
        "body": true, "fallback": "none", "limits": {}, "unchecked": false});
    let mut written = serde_json::from_str(spec).unwrap_or(Value::Null);
    vouch_node::mask_document(&mut written);
    let Value::Object(mut document) = written else {
        return Err(NothingStored::Internal(format!("binding {name} is not a JSON object in the log")).into());
    };
    for (member, value) in defaults.as_object().into_iter().flatten() {
        document.entry(member).or_insert_with(|| value.clone());
    }
    if let Some(limits) = document.get_mut("limits") {
        *limits = vouch_node::limits_in_force(limits);
    }
    document.insert("name".to_owned(), name.into());
    document.insert("digest".to_owned(), digest.into());
    Ok(document)
}

/// A binding of the log as it is shown, with how it fares, as far as this node knows that.
async fn entry(app: &App, name: &str, entry: &BindingEntry) -> Result<Map<String, Value>, Problem> {
    let mut document = shown(name, &Digest(entry.digest).to_string(), &entry.spec)?;
    document.insert("paused".to_owned(), entry.paused.into());
    if !entry.groups.is_empty() {
        match app.node.components.waiting(name).await {
            Ok(waiting) => tell_waiting(&mut document, waiting),
            // Another version wrote what this one cannot read: that is no reason to show none of it.
            Err(NotDone::Refused(_)) => {}
            Err(why) => return Err(why.into()),
        }
    }
    if let Some(standing) = app.node.components.standing(name, entry.revision) {
        document.insert("standing".to_owned(), standing_document(&standing));
    }
    Ok(document)
}

/// How many messages wait for the groups of a binding, if it has any.
fn tell_waiting(document: &mut Map<String, Value>, waiting: Option<u64>) {
    if let Some(waiting) = waiting {
        document.insert("waiting".to_owned(), waiting.into());
    }
}

/// What a node knows of a binding that it asks; times are written as everywhere in the API.
fn standing_document(standing: &BindingStanding) -> Value {
    let mut shown = json!(standing);
    if let Some(last) = &standing.last_contradiction {
        shown["last_contradiction"]["at"] = answer::time(last.at_ms).into();
    }
    if let Some(consumer) = shown.get_mut("consumer").and_then(Value::as_object_mut)
        && let Some(since) = consumer.remove("paused_since_ms").and_then(|since| since.as_u64())
    {
        consumer.insert("paused_since".to_owned(), answer::time(since).into());
    }
    shown
}

/// The refusal that says how to set one.
fn missing(name: &str) -> Refusal {
    Refusal::NotFound(format!("there is no binding {name}; set one with: vouch binding set {name}"))
}

/// `GET /v1/bindings`.
pub(crate) async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Response, Problem> {
    let page = params.page()?;
    let mut found = app.node.components.bindings(page.after, page.limit + 1).await?;
    let more = found.len() > page.limit;
    found.truncate(page.limit);
    let next = found.last().filter(|_| more).map(|(name, _)| name.clone());
    let mut items = Vec::with_capacity(found.len());
    for (name, binding) in &found {
        items.push(entry(&app, name, binding).await?);
    }
    Ok(answer::list(items, next))
}

/// `GET /v1/bindings/{name}`.
pub(crate) async fn show(State(app): State<Arc<App>>, PathNames(name): PathNames<String>) -> Result<Response, Problem> {
    by_name(&app, &name).await
}

/// A binding as it is now.
async fn by_name(app: &App, name: &str) -> Result<Response, Problem> {
    let binding = app.node.components.binding(name).await?.ok_or_else(|| missing(name))?;
    let document = entry(app, name, &binding).await?;
    Ok((etag(binding.revision), Json(document)).into_response())
}

/// `PUT /v1/bindings/{name}`: from the next check or delivery on, this component answers (ruling 7: by the digest of now).
/// One that pauses goes on pausing.
///
/// # Errors
/// The document is wrong, the component does not fit it, or a precondition does not hold; the binding stays what it
/// was.
pub(crate) async fn replace(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut spec = object(&body)?;
    take_name(&mut spec, &name)?;
    TOLD_ONLY.iter().for_each(|told| drop(spec.remove(*told)));
    let spec = Value::Object(spec).to_string();
    let current = app.node.components.binding(&name).await?;
    let revision = current.as_ref().map(|binding| binding.revision);
    let expect = Preconditions::of(&headers)?.expect(&format!("binding {name}"), revision)?;
    let PutBinding { written: done, digest, warnings, untried, waiting } =
        app.node.components.put_binding(&name, &spec, expect).await?;
    let mut document = shown(&name, &digest, &spec)?;
    document.insert("warnings".to_owned(), warnings.into());
    untried.into_iter().for_each(|why| _ = document.insert("untried".to_owned(), why.into()));
    document.insert("paused".to_owned(), current.is_some_and(|before| before.paused).into());
    tell_waiting(&mut document, waiting);
    Ok((written(done.created), etag(done.revision), Json(document)).into_response())
}

/// With what a binding is tried.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HowToTry {
    half: Option<SampleHalf>,
    /// The same under the name that it has for a binding that consumes.
    message: Option<SampleHalf>,
    /// About so many transactions that ended, instead of samples.
    ended: Option<usize>,
}

/// `POST /v1/bindings/{name}/test`: its databases are looked at, and its component is asked in dry calls, of which nothing stays.
///
/// # Errors
/// It cannot be asked at all. What is wrong with it otherwise is in the answer.
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    body: Bytes,
) -> Result<Json<BindingTrial>, Problem> {
    let components = &app.node.components;
    let HowToTry { half, message, ended } = request::document(object(&body)?)?;
    let given = [("half", half.is_some()), ("message", message.is_some()), ("ended", ended.is_some())];
    let given: Vec<&str> = given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name)).collect();
    if given.len() > 1 {
        return Err(Problem::malformed(format!("the body has `{}`: send one of them", given.join("` and `"))));
    }
    let trial = match ended {
        Some(count) => components.try_ended(&name, count).await?,
        None => components.try_binding(&name, half.or(message).unwrap_or_default()).await?,
    };
    Ok(Json(trial))
}

/// What has to be said of a pause: nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NothingToSay {}

/// `POST /v1/bindings/{name}/pause`: its component is asked nothing until somebody resumes it, and what waits for it waits.
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    set_paused(&app, &name, true, &body).await
}

/// `POST /v1/bindings/{name}/resume`: it goes on. A pause of its own, after deliveries that failed, ends by itself.
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    set_paused(&app, &name, false, &body).await
}

/// # Errors
/// There is no such binding. Whether it paused already makes no difference.
async fn set_paused(app: &App, name: &str, paused: bool, body: &[u8]) -> Result<Response, Problem> {
    let NothingToSay {} = request::document(object(body)?)?;
    app.node.components.pause_binding(name, paused).await?;
    by_name(app, name).await
}

/// How old rows have to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FencesToClean {
    older_than: Option<String>,
    /// Only how many.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /v1/bindings/{name}/fence-clean`: rows of its fence tables go that nobody needs any more.
///
/// # Errors
/// It has no fence, or younger rows are asked for than may go.
pub(crate) async fn clean_fences(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let FencesToClean { older_than, dry_run } = request::document(object(&body)?)?;
    let older_than = older_than.as_deref().unwrap_or(FENCES_KEPT_FOR);
    let older_than = humantime::parse_duration(older_than).map_err(|why| {
        Refusal::Invalid(format!("older_than is {older_than:?}, which is no length of time ({why}): 7d, for one"))
    })?;
    let done = app.node.components.clean_fences(&name, older_than, dry_run).await?;
    let shown = |cleaned: &CleanedFence| {
        let CleanedFence { name, rows, more, error } = cleaned;
        let mut shown = json!({"name": name, "rows": rows, "more": more});
        if let Some(error) = error {
            shown["error"] = error.as_str().into();
        }
        shown
    };
    let databases: Vec<Value> = done.databases.iter().map(shown).collect();
    Ok(Json(json!({
        "noted_before": answer::time(done.noted_before.0), "dry_run": dry_run, "databases": databases,
    })))
}

/// `DELETE /v1/bindings/{name}`: its open transactions wait for a producer, and what is for its groups for a consumer; or both
/// for another binding.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
) -> Result<StatusCode, Problem> {
    app.node.components.delete_binding(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}
