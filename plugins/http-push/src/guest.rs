//! The component: joins the logic with the broker's WIT world and with `wasi:http`.

use plugin_config::{MessageFacts, Target};

use crate::{
    answer::{Answer, MAX_EXCERPT, Response, decide, tells_why},
    event,
    settings::{Method, Settings},
    signature,
};

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package vouch:http-push;
            world plugin {
                include vouch:plugin/consumer-plugin@0.1.0;
                import wasi:http/outgoing-handler@0.2.12;
            }
        ",
        world: "vouch:http-push/plugin",
        generate_all,
    });
}

use bindings::{
    exports::vouch::plugin::consumer::{Delivery, Guest, Outcome},
    vouch::plugin::{
        host::{self, Level},
        types::Postponement,
    },
    wasi::{
        http::{
            outgoing_handler,
            types::{
                Fields, FutureIncomingResponse, IncomingResponse, Method as HttpMethod, OutgoingBody, OutgoingRequest,
                Scheme,
            },
        },
        io::{poll::poll, streams::OutputStream},
    },
};

/// Bytes of a body that are handed to the host at once.
const WRITE: usize = 64 << 10;

/// Read by the host when the component is uploaded.
#[used]
#[unsafe(link_section = "vouch:config")]
static DECLARED: [u8; crate::CONFIG.len()] = *include_bytes!("../config.json");

struct Plugin;

bindings::export!(Plugin with_types_in bindings);

impl Guest for Plugin {
    fn consume(item: Delivery) -> Result<Outcome, String> {
        tell_panics();
        let settings = Settings::read(host::config)?;
        let message = &item.message;
        if message.body.is_empty() && message.body_size > 0 {
            return Err("the binding says `\"body\": false`, so there is nothing to push: take that out".to_owned());
        }
        let facts = MessageFacts {
            delivery_key: &item.delivery_key,
            keys: &message.keys,
            id: &message.id,
            topic: &message.topic,
            tag: message.tag.as_deref(),
            properties: &message.properties,
        };
        // What it lacks it will lack whenever it is delivered.
        let url = match settings.url.fill(&facts) {
            Ok(url) => url,
            Err(lacks) => return Ok(Outcome::Reject(lacks)),
        };
        let target = Target::parse(&url).ok_or_else(|| format!("`{url}` is not a URL"))?;
        let mut headers = event::headers(&settings, &facts, message.stored_at);
        headers.extend(signature::headers(&settings.keys, &item.delivery_key, host::now(), &message.body));
        headers.extend(settings.headers.iter().cloned());
        let response = push(&target, settings.method, &headers, &message.body)?;
        let answer = read(&settings, &response);
        host::log(Level::Debug, &format!("{} {url}: {answer:?}", settings.method.name()));
        Ok(match answer {
            Answer::Ack => Outcome::Ack,
            Answer::Reject(reason) => Outcome::Reject(format!("{url}: {reason}")),
            Answer::Retry { reason, after_ms } => {
                Outcome::Retry(Postponement { reason: format!("{url}: {reason}"), retry_after: after_ms })
            }
        })
    }
}

/// Where no standard error exists (wasm32-unknown-unknown), a panic's text would be lost: send it to the plugin's log.
fn tell_panics() {
    #[cfg(not(target_os = "wasi"))]
    std::panic::set_hook(Box::new(|panic| host::log(Level::Error, &panic.to_string())));
}

/// Sends one request and waits until the head of its response is there.
fn push(
    target: &Target,
    method: Method,
    headers: &[(String, String)],
    body: &[u8],
) -> Result<IncomingResponse, String> {
    let failed = |what: &dyn std::fmt::Debug| format!("{}: {what:?}", target.url());
    let fields = Fields::new();
    let set = |name: &str, value: &str| fields.append(name, value.as_bytes()).map_err(|error| failed(&(name, error)));
    set("user-agent", concat!("vouch-http-push/", env!("CARGO_PKG_VERSION")))?;
    set("content-length", &body.len().to_string())?;
    for (name, value) in headers {
        set(name, value)?;
    }
    let request = OutgoingRequest::new(fields);
    let method = match method {
        Method::Post => HttpMethod::Post,
        Method::Put => HttpMethod::Put,
        Method::Patch => HttpMethod::Patch,
    };
    let scheme = if target.https { Scheme::Https } else { Scheme::Http };
    let built = request
        .set_method(&method)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(&target.authority)))
        .and_then(|()| request.set_path_with_query(Some(&target.path_with_query)));
    built.map_err(|()| format!("`{}` is not a URL", target.url()))?;
    let outgoing = request.body().map_err(|()| failed(&"the body was taken twice"))?;
    let response = outgoing_handler::handle(request, None).map_err(|error| failed(&error))?;
    let stream = outgoing.write().map_err(|()| failed(&"the body was taken twice"))?;
    write(&stream, &response, body);
    drop(stream);
    // It fails where not all was written, because the service answered before: then the answer tells, or that there is none.
    let _ = OutgoingBody::finish(outgoing, None);
    loop {
        match response.get() {
            Some(Ok(outcome)) => return outcome.map_err(|error| failed(&error)),
            Some(Err(())) => return Err(failed(&"the response was taken twice")),
            None => response.subscribe().block(),
        }
    }
}

/// Writes the body, as far as the service takes it: one that refuses what is too large may answer before, and hang up.
fn write(stream: &OutputStream, response: &FutureIncomingResponse, mut body: &[u8]) {
    let (writable, answered) = (stream.subscribe(), response.subscribe());
    while !body.is_empty() {
        let Ok(room) = stream.check_write() else { return };
        let room = usize::try_from(room).unwrap_or(WRITE).min(WRITE).min(body.len());
        if room == 0 {
            if answered.ready() {
                return;
            }
            poll(&[&writable, &answered]);
            continue;
        }
        let (now, later) = body.split_at(room);
        if stream.write(now).is_err() {
            return;
        }
        body = later;
    }
}

/// What the response means. Of its body only what a reason tells is read, and what breaks off tells what came.
fn read(settings: &Settings, response: &IncomingResponse) -> Answer {
    let status = response.status();
    let headers = response.headers().entries();
    let excerpt = if tells_why(status) { excerpt(response) } else { Vec::new() };
    decide(&settings.reject, &Response { status, headers: &headers, excerpt: &excerpt }, host::now())
}

fn excerpt(response: &IncomingResponse) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Ok(body) = response.consume() else { return bytes };
    let Ok(stream) = body.stream() else { return bytes };
    while let Some(wanted) = MAX_EXCERPT.checked_sub(bytes.len()).filter(|wanted| *wanted > 0) {
        match stream.blocking_read(wanted as u64) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(_) => break,
        }
    }
    bytes
}
