//! Every path of the API in one table: what is mounted, what a request to it may say, and what `openapi.json` lists.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tracing::Instrument;
use vouch_broker::Refusal;
use vouch_node::SECRET_VALUE_MAX;

use super::App;
use super::forward::PassedOn;
use super::precondition::Preconditions;
use super::problem::Problem;
use super::request::Params;
use super::resource::{self, GroupResources, TopicResources};
use super::{
    bindings, cluster, damage, forward, groups, kept, logs, members, messages, metrics, plugins, root, secrets, span,
    transactions,
};

/// Most bytes of a JSON body.
pub(crate) const JSON_MAX_BYTES: usize = 256 * 1024;
/// Most bytes of a component in a request: above what the engine takes, so that a large one gets the engine's sentence.
pub(crate) const COMPONENT_MAX_BYTES: usize = 64 << 20;
/// A JSON body has to be complete in this time.
const JSON_WITHIN: Duration = Duration::from_secs(20);
/// A component has to be complete in this time.
const COMPONENT_WITHIN: Duration = Duration::from_secs(120);

/// What a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// A document, or a decision.
    Json,
    /// Changes to a document (RFC 7396).
    MergePatch,
    /// A component.
    Wasm,
    /// The value of a secret, every byte of it.
    Secret,
}

impl Media {
    /// The content-type that a request needs. None of them can be sent by a web page that has not asked first.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MergePatch => "application/merge-patch+json",
            Self::Wasm => "application/wasm",
            Self::Secret => "application/octet-stream",
        }
    }

    /// Bytes of a body, and how long it may take to come.
    const fn bounds(self) -> (usize, Duration) {
        match self {
            Self::Json | Self::MergePatch => (JSON_MAX_BYTES, JSON_WITHIN),
            Self::Wasm => (COMPONENT_MAX_BYTES, COMPONENT_WITHIN),
            Self::Secret => (SECRET_VALUE_MAX, JSON_WITHIN),
        }
    }
}

/// One method of one path.
pub(crate) struct HttpRoute {
    /// Its name in capitals.
    pub(crate) method: &'static str,
    /// With `{names}` for what varies.
    pub(crate) path: &'static str,
    /// Query parameters that it knows; any other is refused.
    pub(crate) query: &'static [&'static str],
    /// Its body; `None` if it takes none.
    pub(crate) body: Option<Media>,
    /// Whether it honours `If-Match` and `If-None-Match`; where a write does not, they are refused.
    pub(crate) conditional: bool,
    /// What serves it.
    mount: fn() -> MethodRouter<Arc<App>>,
}

/// Made once, when the router is.
type Mount = fn() -> MethodRouter<Arc<App>>;

/// One that changes nothing.
const fn reads(path: &'static str, query: &'static [&'static str], mount: Mount) -> HttpRoute {
    HttpRoute { method: "GET", path, query, body: None, conditional: false, mount }
}

/// One that replaces a document.
const fn puts(path: &'static str, body: Media, mount: Mount) -> HttpRoute {
    HttpRoute { method: "PUT", path, query: &[], body: Some(body), conditional: true, mount }
}

/// One that changes members of a document.
const fn patches(path: &'static str, mount: Mount) -> HttpRoute {
    HttpRoute { method: "PATCH", path, query: &[], body: Some(Media::MergePatch), conditional: true, mount }
}

/// One that does something once.
const fn decides(path: &'static str, mount: Mount) -> HttpRoute {
    HttpRoute { method: "POST", path, query: &[], body: Some(Media::Json), conditional: false, mount }
}

/// One that takes something away.
const fn deletes(path: &'static str, query: &'static [&'static str], mount: Mount) -> HttpRoute {
    HttpRoute { method: "DELETE", path, query, body: None, conditional: false, mount }
}

/// What every list takes.
const PAGE: &[&str] = &["limit", "after"];

/// The API.
pub(crate) static ROUTES: &[HttpRoute] = &[
    reads("/", &[], || get(root::page)),
    reads("/healthz", &[], || get(cluster::alive)),
    reads("/readyz", &[], || get(cluster::ready)),
    reads("/metrics", &[], || get(metrics::text)),
    reads("/openapi.json", &[], || get(root::openapi)),
    reads("/v1/topics", PAGE, || get(resource::list::<TopicResources>)),
    reads("/v1/topics/{topic}", &[], || get(resource::show::<TopicResources>)),
    puts("/v1/topics/{topic}", Media::Json, || put(resource::replace::<TopicResources>)),
    patches("/v1/topics/{topic}", || patch(resource::change::<TopicResources>)),
    deletes("/v1/topics/{topic}", &["force", "by", "reason"], || delete(resource::remove_topic)),
    reads("/v1/groups", PAGE, || get(resource::list::<GroupResources>)),
    reads("/v1/groups/{group}", &[], || get(resource::show::<GroupResources>)),
    puts("/v1/groups/{group}", Media::Json, || put(resource::replace::<GroupResources>)),
    patches("/v1/groups/{group}", || patch(resource::change::<GroupResources>)),
    deletes("/v1/groups/{group}", &[], || delete(groups::remove)),
    reads("/v1/groups/{group}/progress", &[], || get(groups::progress)),
    reads("/v1/groups/{group}/gaps", &[], || get(groups::gaps)),
    reads("/v1/transactions", &["state", "topic", "older_than", "limit", "after"], || get(transactions::list)),
    reads("/v1/transactions/{id}", &[], || get(transactions::show)),
    decides("/v1/transactions/{id}/commit", || post(transactions::commit)),
    decides("/v1/transactions/{id}/rollback", || post(transactions::roll_back)),
    decides("/v1/transactions/{id}/resume", || post(transactions::resume)),
    reads("/v1/plugins", PAGE, || get(plugins::list)),
    reads("/v1/plugins/{name}", &[], || get(plugins::show)),
    deletes("/v1/plugins/{name}", &[], || delete(plugins::remove)),
    reads("/v1/plugins/{name}/tags/{tag}", &[], || get(plugins::show_tag)),
    puts("/v1/plugins/{name}/tags/{tag}", Media::Wasm, || put(plugins::upload)),
    deletes("/v1/plugins/{name}/tags/{tag}", &[], || delete(plugins::remove_tag)),
    reads("/v1/plugins/{name}/digests/{digest}", &[], || get(plugins::component)),
    deletes("/v1/plugins/{name}/digests/{digest}", &[], || delete(plugins::remove_component)),
    reads("/v1/plugins/{name}/logs", &["follow", "since"], || get(logs::stream)),
    reads("/v1/bindings", PAGE, || get(bindings::list)),
    reads("/v1/bindings/{name}", &[], || get(bindings::show)),
    puts("/v1/bindings/{name}", Media::Json, || put(bindings::replace)),
    deletes("/v1/bindings/{name}", &[], || delete(bindings::remove)),
    decides("/v1/bindings/{name}/test", || post(bindings::test)),
    decides("/v1/bindings/{name}/fence-clean", || post(bindings::clean_fences)),
    decides("/v1/bindings/{name}/pause", || post(bindings::pause)),
    decides("/v1/bindings/{name}/resume", || post(bindings::resume)),
    reads("/v1/bindings/{name}/state", &["prefix", "limit", "after"], || get(kept::list)),
    deletes("/v1/bindings/{name}/state", &["all"], || delete(kept::remove_all)),
    reads("/v1/bindings/{name}/state/{key}", &[], || get(kept::show)),
    deletes("/v1/bindings/{name}/state/{key}", &[], || delete(kept::remove)),
    reads("/v1/secrets", PAGE, || get(secrets::list)),
    reads("/v1/secrets/{name}", &[], || get(secrets::show)),
    HttpRoute { query: &["new_key"], ..puts("/v1/secrets/{name}", Media::Secret, || put(secrets::replace)) },
    deletes("/v1/secrets/{name}", &[], || delete(secrets::remove)),
    decides("/v1/secret-key/rotate", || post(secrets::rotate_key)),
    reads("/v1/messages/{topic}", &["key", "since", "limit", "after"], || get(messages::list)),
    reads("/v1/messages/{topic}/{id}", &[], || get(messages::show)),
    reads("/v1/cluster", &[], || get(cluster::show)),
    decides("/v1/cluster/nodes", || post(members::add)),
    deletes("/v1/cluster/nodes/{id}", &["force", "by", "reason"], || delete(members::remove)),
    decides("/v1/cluster/finish-upgrade", || post(members::finish_upgrade)),
    decides("/v1/cluster/leader", || post(members::lead)),
    reads("/v1/damage", &[], || get(damage::show)),
];

/// The API as a service.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mount = |router: Router<Arc<App>>, route: &'static HttpRoute| {
        let admitting = app.clone();
        let admit = from_fn(move |request, next| admit(route, admitting.clone(), request, next));
        router.route(route.path, (route.mount)().route_layer(admit))
    };
    ROUTES
        .iter()
        .fold(Router::new(), mount)
        .method_not_allowed_fallback(other_method)
        .fallback(nothing_here)
        .layer(from_fn_with_state(app.clone(), enter))
        // Every route has its own limit.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// The first thing that happens to every request: it gets its span, and is let in or not.
async fn enter(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let span = span::of(&request);
    let answering = async {
        let unheard = span::Unheard::begin();
        let is_let_in = request.extensions().get::<PassedOn>().is_some();
        let let_in = if is_let_in { Ok(()) } else { app.doors.now().check(request.uri(), request.headers()) };
        let response = match let_in {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        };
        unheard.tell(&response);
        response
    };
    answering.instrument(span).await
}

/// Holds a request against its route, then hands it on with its whole body.
///
/// # Errors
/// The request says something that this path does not know: it is refused before the handler sees it, and nothing is
/// done.
async fn admit(route: &'static HttpRoute, app: Arc<App>, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    span::record_route(route.path, parts.uri.path());
    check_query(route, parts.uri.query().unwrap_or_default())?;
    if !route.conditional && route.method != "GET" && !Preconditions::of(&parts.headers)?.is_empty() {
        return Err(Refusal::NotBuilt("If-Match or If-None-Match on this request").into());
    }
    let Some(media) = route.body else {
        check_no_body(&parts.headers)?;
        return Ok(forward::run(&app, (route.method, route.path), parts, Bytes::new(), next).await);
    };
    check_media(media, &parts.headers)?;
    let _place = match media {
        // Where it came from another node, or from this one, that holds a place for it.
        Media::Wasm if parts.extensions.get::<PassedOn>().is_none() => Some(app.upload_place()?),
        Media::Wasm | Media::Json | Media::MergePatch | Media::Secret => None,
    };
    let body = read(body, &parts.headers, media).await?;
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(forward::run(&app, (route.method, route.path), parts, body, next).await)
}

/// # Errors
/// A parameter that the path does not know: one that is misspelt must not be passed over, since it would change what is
/// done.
fn check_query(route: &HttpRoute, query: &str) -> Result<(), Problem> {
    let params = Params::parse(query)?;
    let Some(unknown) = params.names().find(|name| !route.query.contains(name)) else { return Ok(()) };
    let known = match route.query {
        [] => "this path takes none".to_owned(),
        known => format!("this path takes {}", known.join(", ")),
    };
    Err(Problem::parameter(format!("`{unknown}` is not a query parameter here; {known}")))
}

/// # Errors
/// There is one where none means anything.
fn check_no_body(headers: &HeaderMap) -> Result<(), Problem> {
    let length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if length || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Problem::malformed("this request takes no body; send it without"));
    }
    Ok(())
}

/// # Errors
/// The body is said to be something else. None of the types can be sent by a web page unasked, so this keeps foreign
/// pages out, too.
fn check_media(media: Media, headers: &HeaderMap) -> Result<(), Problem> {
    let said = headers.get(header::CONTENT_TYPE).map(|said| said.to_str().unwrap_or("(not text)"));
    let essence = said.and_then(|said| said.split(';').next()).map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case(media.content_type())) {
        return Ok(());
    }
    Err(Problem::media_type(media.content_type(), said))
}

/// The whole body, within its bounds.
///
/// # Errors
/// It is too large, comes too slowly, or is cut off.
async fn read(body: Body, headers: &HeaderMap, media: Media) -> Result<Bytes, Problem> {
    let (limit, within) = media.bounds();
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > limit as u64) {
        return Err(Problem::too_large(limit));
    }
    match tokio::time::timeout(within, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(limit)),
        Ok(Err(error)) => Err(Problem::malformed(format!("the body was cut off: {error}"))),
        Err(_) => Err(Problem::slow_body(within)),
    }
}

/// A path that exists, with a method that it has not.
async fn other_method(method: Method, path: MatchedPath) -> Problem {
    let path = path.as_str();
    let methods: Vec<_> = ROUTES.iter().filter(|route| route.path == path).map(|route| route.method).collect();
    Problem::method_not_allowed(method.as_str(), path, &methods.join(", "))
}

/// A path that does not exist: what is near is named.
async fn nothing_here(uri: Uri) -> Problem {
    let mut parts = uri.path().split('/').skip(1);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let below = format!("/{first}/{second}");
    let near = |path: &&str| **path == below || path.strip_prefix(&below).is_some_and(|rest| rest.starts_with('/'));
    let mut paths: Vec<&str> = ROUTES.iter().map(|route| route.path).filter(near).collect();
    if paths.is_empty() {
        paths = ROUTES.iter().map(|route| route.path).filter(|path| !path.contains('{')).collect();
    }
    paths.dedup();
    Problem::no_such_path(format!(
        "there is nothing at {}; there is {} (all of it: /openapi.json; a / inside a name is written %2F)",
        uri.path(),
        paths.join(", ")
    ))
}

#[cfg(test)]
mod tests;
