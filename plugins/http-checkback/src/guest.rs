//! The component: joins the logic with the broker's WIT world and with `wasi:http`.

use crate::{
    answer::{Decision, decide},
    redirect::{MAX_REDIRECTS, Target, is_redirect},
    settings::Settings,
    template::Facts,
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

struct Plugin;

bindings::export!(Plugin with_types_in bindings);

impl Guest for Plugin {
    fn check(pending: Pending) -> Result<Verdict, String> {
        tell_panics();
        let settings = Settings::read(host::config)?;
        let half = &pending.half;
        let facts = Facts {
            keys: &half.keys,
            id: &half.id,
            transaction: &pending.transaction_id,
            properties: &half.properties,
        };
        let url = settings.url.fill(&facts)?;
        let (target, status, body) = ask(&settings, &url)?;
        let age_ms = pending.asked_at.saturating_sub(pending.opened_at);
        let decision = decide(&settings, status, &body, age_ms);
        let asked = target.url();
        host::log(Level::Debug, &format!("GET {asked} answered {status}: {decision:?}"));
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

/// Asks, following redirects, and returns who answered, the status and the body.
fn ask(settings: &Settings, url: &str) -> Result<(Target, u16, Vec<u8>), String> {
    let first = Target::parse(url).ok_or_else(|| format!("`{url}` is not a URL"))?;
    let mut target = first.clone();
    for _ in 0..=MAX_REDIRECTS {
        let authorization = settings.authorization.as_deref().filter(|_| first.same_origin(&target));
        let response = get(&target, authorization)?;
        let status = response.status();
        let listed = |values: &[String]| settings.field.is_none() && values.iter().any(|v| *v == status.to_string());
        let wanted = listed(&settings.commit) || listed(&settings.rollback);
        let next = if is_redirect(status) && !wanted { location(&response, &target) } else { None };
        match next {
            Some(next) => target = next,
            None => {
                let body = if settings.field.is_some() { read(&response, &target)? } else { Vec::new() };
                return Ok((target, status, body));
            }
        }
    }
    Err(format!("{url}: more than {MAX_REDIRECTS} redirects"))
}

fn location(response: &IncomingResponse, from: &Target) -> Option<Target> {
    let values = response.headers().get("location");
    from.join(std::str::from_utf8(values.first()?).ok()?.trim())
}

fn get(target: &Target, authorization: Option<&str>) -> Result<IncomingResponse, String> {
    let failed = |what: &dyn std::fmt::Debug| format!("{}: {what:?}", target.url());
    let headers = Fields::new();
    let set = |name: &str, value: &str| headers.append(name, value.as_bytes()).map_err(|error| failed(&error));
    set("accept", "application/json")?;
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

fn read(response: &IncomingResponse, target: &Target) -> Result<Vec<u8>, String> {
    let failed = |what: &str| format!("{}: {what}", target.url());
    let body = response.consume().map_err(|()| failed("the body was taken twice"))?;
    let stream = body.stream().map_err(|()| failed("the body was taken twice"))?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(READ) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => return Err(failed(&error.to_debug_string())),
        }
        if bytes.len() > MAX_BODY {
            return Err(failed("the body is longer than 1 MiB"));
        }
    }
}
