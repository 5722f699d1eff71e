//! Requests that another node answers: what changes something is done by the leader, and what is not found here is asked of it
//! (ruling 32). Who came in here is let in there.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use tower::ServiceExt;
use vouch_broker::{NotDone, NothingStored};
use vouch_node::{CallContext, HttpAnswering, HttpCall, HttpCallAnswer, Nodes, ServeHttp};

use super::App;
use super::problem::{LeadsElsewhere, Problem};
use super::span::header_of;

/// Up to which position of the log this node had applied what it shows, where another one leads.
const APPLIED: HeaderName = HeaderName::from_static("vouch-applied");
/// Bytes of an answer that another node passes on; the list with the largest pages has less.
const ANSWER_MAX_BYTES: usize = 48 << 20;
/// What each node says of itself, or alone can say.
const OF_THIS_NODE: [&str; 8] =
    ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/damage", "/v1/cluster", "/v1/plugins/{name}/logs"];
/// Writes that hold what goes to no other node as it came: the node seals it, and sees to it that a leader takes that.
const SEALED_BY_THIS_NODE: [(&str, &str); 2] = [("PUT", "/v1/secrets/{name}"), ("POST", "/v1/secret-key/rotate")];
/// What a leader knows more of than the log says: which checks are under way, what came of the last, whether a binding says
/// what producers say, and how those fare that consume. What bindings keep is in the log.
const LEADER_KNOWS_MORE: [&str; 4] =
    ["/v1/transactions", "/v1/transactions/{id}", "/v1/bindings", "/v1/bindings/{name}"];
/// What is said of a connection, and not of a request; and the token, which each node asks for itself.
const NOT_PASSED_ON: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::ORIGIN,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The node to which a request came let it in, and passed it on.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassedOn;

/// Answers a request that was held against its route: here, or by the node that leads.
///
/// With the method and the path of its route.
pub(super) async fn run(app: &App, (method, path): (&str, &str), parts: Parts, body: Bytes, next: Next) -> Response {
    let cluster = &app.node.cluster;
    let looks = method == "GET";
    let stays = looks && OF_THIS_NODE.contains(&path) || SEALED_BY_THIS_NODE.contains(&(method, path));
    let stays = stays || parts.extensions.get::<PassedOn>().is_some();
    if stays || !cluster.has_others() {
        return next.run(Request::from_parts(parts, body.into())).await;
    }
    let (leads, call) = (cluster.leads(), call_of(&parts, &body));
    let knows_more = LEADER_KNOWS_MORE.contains(&path);
    let context = CallContext {
        request_id: header_of(&parts.headers, "x-request-id").map(str::to_owned),
        traceparent: header_of(&parts.headers, "traceparent").map(str::to_owned),
        ..CallContext::default()
    };
    let there = context.within(cluster.answer_http(call));
    if !leads && !looks {
        return there.await.map_or_else(|why| Problem::from(why).into_response(), response_of);
    }
    if !leads && knows_more && cluster.leader().is_some() {
        let why = match there.await {
            Ok(answer) => return response_of(answer),
            Err(why) => why,
        };
        let here = next.run(Request::from_parts(parts, body.into())).await;
        // What is there may be shown; that it is not is for whoever leads to say.
        return match here.status() {
            StatusCode::NOT_FOUND => Problem::from(why).into_response(),
            _ => with_position(app, here).await,
        };
    }
    // One that leads just now may not have applied all that was answered before.
    let leads = leads && cluster.has_all().await.is_ok();
    let here = next.run(Request::from_parts(parts, body.into())).await;
    let elsewhere = here.extensions().get::<LeadsElsewhere>().is_some();
    let is_unknown = !leads && here.status() == StatusCode::NOT_FOUND;
    if !elsewhere && !is_unknown {
        return if leads { here } else { with_position(app, here).await };
    }
    if elsewhere && cluster.leader().is_none() {
        return here;
    }
    match there.await {
        Ok(answer) => response_of(answer),
        // That it is not there is nothing that this node can say alone (ruling 32).
        Err(why) => Problem::from(why).into_response(),
    }
}

/// Says how far this node is, which does not lead: what it shows may be older than what others were answered.
///
/// A node that stops says nothing.
async fn with_position(app: &App, mut response: Response) -> Response {
    if let Ok(numbers) = app.node.status.numbers().await {
        response.headers_mut().insert(APPLIED, numbers.applied.0.into());
    }
    response
}

/// A request, as it goes to the node that leads.
fn call_of(parts: &Parts, body: &Bytes) -> HttpCall {
    let headers = parts.headers.iter().filter(|(name, _)| !NOT_PASSED_ON.contains(name));
    HttpCall {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: headers.map(|(name, value)| (name.to_string(), Bytes::copy_from_slice(value.as_bytes()))).collect(),
        body: body.clone(),
    }
}

/// What that node answered, as it goes to whoever asked.
fn response_of(answer: HttpCallAnswer) -> Response {
    let HttpCallAnswer { status, headers, body, .. } = answer;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().extend(headers.into_iter().filter_map(header_pair));
    response
}

/// A header that came from another node; `None` if it is none.
fn header_pair((name, value): (String, Bytes)) -> Option<(HeaderName, HeaderValue)> {
    Some((name.parse().ok()?, HeaderValue::from_maybe_shared(value).ok()?))
}

/// Answers here what came to other nodes.
///
/// Its router holds the node, which holds this one until it stops.
struct HttpHere {
    /// The API.
    router: Router,
    /// Says whether this node leads.
    cluster: Arc<Nodes>,
}

impl ServeHttp for HttpHere {
    fn answer(&self, call: HttpCall) -> HttpAnswering {
        let (router, cluster) = (self.router.clone(), self.cluster.clone());
        Box::pin(async move {
            let request = request_of(call).map_err(|why| NotDone::internal(format!("a request passed on: {why}")))?;
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            if let Some(LeadsElsewhere(leader)) = response.extensions().get() {
                return Err(NothingStored::NotLeading { leader: *leader }.into());
            }
            if response.status() == StatusCode::NOT_FOUND {
                // Said only by one that leads still, and knows.
                cluster.has_all().await?;
            }
            answer_of(response).await
        })
    }
}

/// A request that another node let in.
///
/// # Errors
/// What came is none.
fn request_of(call: HttpCall) -> Result<Request, axum::http::Error> {
    let HttpCall { method, target, headers, body } = call;
    let mut request = Request::builder().method(method.as_str()).uri(target).body(Body::from(body))?;
    request.headers_mut().extend(headers.into_iter().filter_map(header_pair));
    request.extensions_mut().insert(PassedOn);
    Ok(request)
}

/// # Errors
/// It is longer than what is passed on: then nobody knows.
async fn answer_of(response: Response) -> Result<HttpCallAnswer, NotDone> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
    let body = body.map_err(|why| NotDone::Unknown(format!("the answer cannot be passed on: {why}")))?;
    let headers = parts.headers.iter().filter(|(name, _)| !NOT_PASSED_ON.contains(name));
    Ok(HttpCallAnswer {
        status: parts.status.as_u16(),
        headers: headers.map(|(name, value)| (name.to_string(), Bytes::copy_from_slice(value.as_bytes()))).collect(),
        body: body.to_bytes(),
        applied: 0,
    })
}

/// Lets other nodes have their requests answered by this router, until the node stops.
///
/// A node that has no others lets nobody, and keeps nothing.
pub(super) fn serve(app: &Arc<App>, router: &Router) {
    let cluster = app.node.cluster.clone();
    app.node.cluster.serve_http(Arc::new(HttpHere { router: router.clone(), cluster }));
}
