//! The component: joins the logic with the broker's WIT world and with `wasi:http`.

use plugin_config::{HalfFacts, Target};

use crate::{
    answer::{Answer, Decision, decide, may_be_an_answer},
    redirect::{MAX_REDIRECTS, is_redirect},
    settings::Settings,
};

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package vouch:http-checkback;
            world plugin {
                include vouch:plugin/checkback-plugin@0.1.0;
                import wasi:http/outgoing-handler@0.2.12;
            }
        ",
        world: "vouch:http-checkback/plugin",
        generate_all,
    });
}

use bindings::{
    exports::vouch::plugin::checkback::{Guest, Pending, Verdict},
    vouch::plugin::{
        host::{self, Level},
        types::Postponement,
    },
    wasi::{
        http::{
            outgoing_handler,
            types::{Fields, IncomingResponse, OutgoingRequest, Scheme},
        },
        io::streams::StreamError,
    },
};

/// Most bytes of a body that are read; the answer to one question is small.
const MAX_BODY: usize = 1 << 20;
/// Bytes asked for in one read.
const READ: u64 = 64 << 10;

/// Read by the host when the component is uploaded.
#[used]
#[unsafe(link_section = "vouch:config")]
static DECLARED: [u8; crate::CONFIG.len()] = *include_bytes!("../config.json");

struct Plugin;

bindings::export!(Plugin with_types_in bindings);

impl Guest for Plugin {
    fn check(pending: Pending) -> Result<Verdict, String> {
        tell_panics();
        let settings = Settings::read(host::config)?;
        let half = &pending.half;
        let facts = HalfFacts {
            keys: &half.keys,
            id: &half.id,
            transaction: &pending.transaction_id,
            properties: &half.properties,
        };
        let url = settings.url.fill(&facts)?;
        let response = ask(&settings, &url)?;
        let age_ms = pending.asked_at.saturating_sub(pending.opened_at);
        let decision = decide(&settings, &response.answer(), age_ms);
        let asked = response.from.url();
        host::log(Level::Debug, &format!("GET {asked} answered {}: {decision:?}", response.status));
        match decision {
            Ok(Decision::Commit) => Ok(Verdict::Commit),
            Ok(Decision::Rollback(reason)) => Ok(Verdict::Rollback(format!("{asked}: {reason}"))),
            Ok(Decision::Unknown(reason)) => {
                Ok(Verdict::Unknown(Postponement { reason: format!("{asked}: {reason}"), retry_after: None }))
            }
            Err(reason) => Err(format!("{asked}: {reason}")),
        }
    }
}

/// Where no standard error exists (wasm32-unknown-unknown), a panic's text would be lost: send it to the plugin's log.
fn tell_panics() {
    #[cfg(not(target_os = "wasi"))]
    std::panic::set_hook(Box::new(|panic| host::log(Level::Error, &panic.to_string())));
}

/// A response, and who gave it.
struct Response {
    from: Target,
    redirected: bool,
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Response {
    fn answer(&self) -> Answer<'_> {
        Answer { status: self.status, headers: &self.headers, body: &self.body, redirected: self.redirected }
    }
}

/// Asks. Where the settings name a field, redirects are followed: what they lead to has to have that field. Without one
/// any page would do, the one to log in for example, so they are left to `decide`.
fn ask(settings: &Settings, url: &str) -> Result<Response, String> {
    let first = Target::parse(url).ok_or_else(|| format!("`{url}` is not a URL"))?;
    let mut from = first.clone();
    for hop in 0..=MAX_REDIRECTS {
        let authorization = settings.authorization.as_deref().filter(|_| first.same_origin(&from));
        let incoming = get(&from, authorization)?;
        let status = incoming.status();
        let headers = incoming.headers().entries();
        if settings.field.is_some() && is_redirect(status) {
            from = next(&from, status, &headers)?;
            continue;
        }
        // What can be no answer is not waited for.
        let body =
            if may_be_an_answer(status) { read(&incoming, &from, settings.field.is_some())? } else { Vec::new() };
        return Ok(Response { from, redirected: hop > 0, status, headers, body });
    }
    Err(format!("{url}: more than {MAX_REDIRECTS} redirects"))
}

/// Where a redirect leads: to one place that it names.
fn next(from: &Target, status: u16, headers: &[(String, Vec<u8>)]) -> Result<Target, String> {
    let mut locations = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("location"));
    let target = match (locations.next(), locations.next()) {
        (Some((_, location)), None) => std::str::from_utf8(location).ok().and_then(|text| from.join(text.trim())),
        _ => None,
    };
    target.ok_or_else(|| format!("{}: status {status} without one address to go to", from.url()))
}

fn get(target: &Target, authorization: Option<&str>) -> Result<IncomingResponse, String> {
    let failed = |what: &dyn std::fmt::Debug| format!("{}: {what:?}", target.url());
    let headers = Fields::new();
    let set = |name: &str, value: &str| headers.append(name, value.as_bytes()).map_err(|error| failed(&error));
    set("accept", "application/json")?;
    set("accept-encoding", "identity")?;
    // What a cache keeps was true once.
    set("cache-control", "no-cache")?;
    set("user-agent", concat!("vouch-http-checkback/", env!("CARGO_PKG_VERSION")))?;
    if let Some(value) = authorization {
        set("authorization", value)?;
    }
    let request = OutgoingRequest::new(headers);
    let scheme = if target.https { Scheme::Https } else { Scheme::Http };
    let built = request
        .set_scheme(Some(&scheme))
        .and_then(|()| request.set_authority(Some(&target.authority)))
        .and_then(|()| request.set_path_with_query(Some(&target.path_with_query)));
    built.map_err(|()| format!("`{}` is not a URL", target.url()))?;
    let response = outgoing_handler::handle(request, None).map_err(|error| failed(&error))?;
    loop {
        match response.get() {
            Some(Ok(outcome)) => return outcome.map_err(|error| failed(&error)),
            Some(Err(())) => return Err(failed(&"the response was taken twice")),
            None => response.subscribe().block(),
        }
    }
}

/// The body, or nothing of it unless it is to be kept. In either case it has come whole: a service that dies while it
/// answers has not answered.
fn read(response: &IncomingResponse, target: &Target, keep: bool) -> Result<Vec<u8>, String> {
    let failed = |what: &str| format!("{}: {what}", target.url());
    let body = response.consume().map_err(|()| failed("the body was taken twice"))?;
    let stream = body.stream().map_err(|()| failed("the body was taken twice"))?;
    let mut bytes = Vec::new();
    let mut length = 0;
    loop {
        match stream.blocking_read(READ) {
            Ok(chunk) => {
                length += chunk.len();
                if keep {
                    bytes.extend_from_slice(&chunk);
                }
            }
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => return Err(failed(&error.to_debug_string())),
        }
        if length > MAX_BODY {
            return Err(failed("the body is longer than 1 MiB"));
        }
    }
}
