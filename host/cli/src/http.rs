//! The HTTP client of the operator's commands: addresses, encoding of names, problems as errors.
//!
//! Waits are bounded: 5 s for the connection, 30 s for an answer, ten minutes for an upload. The proxies that the
//! environment names are not used: administration goes to the node that was named, and to no other.

use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request, Response, StatusCode};

use crate::config::HTTP_ADDR;
use crate::escape;
use crate::failure::{ProblemAnswer, WrongUsage};
use crate::ports;
use crate::text;

/// How long a node may take to answer an operator's request.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to an uploaded component's verdict: a compilation may have 60 s of processor time, and wait four
/// times as long for it, behind another one.
const UPLOADED_WITHIN: Duration = Duration::from_secs(600);
/// How long the connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes: a component file is the largest thing the API gives out.
const LARGEST_ANSWER: u64 = 256 << 20;
/// Everything but the unreserved characters of RFC 3986: names may hold `/` and `%`.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the HTTP API is, and how the answer is shown.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HttpArgs {
    /// Address of the node's HTTP API.
    #[arg(long, env = "VOUCH_HTTP_ADDR", value_name = "ADDR", default_value = HTTP_ADDR)]
    http: String,
    /// Token of the HTTP API, where the node asks for one.
    #[arg(long = "http-token", env = "VOUCH_HTTP_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print JSON; a refusal is printed as the node's problem document.
    #[arg(long)]
    pub(crate) json: bool,
}

impl HttpArgs {
    /// A client for these settings.
    pub(crate) fn client(&self) -> anyhow::Result<HttpClient> {
        HttpClient::new(&self.http, self.token.clone())
    }
}

/// An answer with what is needed to change what it describes.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    /// The document; `Null` if the answer had no body.
    pub(crate) body: Value,
    /// The entity tag, for `If-Match`.
    pub(crate) etag: Option<String>,
    /// Whether the node created something new (201).
    pub(crate) created: bool,
}

/// Asks one node. Every method turns a refusal into a [`ProblemAnswer`] and an unreachable node into one that says what
/// to do.
pub(crate) struct HttpClient {
    agent: Agent,
    base: String,
    token: Option<String>,
}

/// What makes requests; `None` waits as long as the node sends.
fn agent(answer_within: Option<Duration>) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_global(answer_within)
        .user_agent(concat!("vouch/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

impl HttpClient {
    /// A client of the node at `address`: `host:port`, or a URL.
    pub(crate) fn new(address: &str, token: Option<String>) -> anyhow::Result<Self> {
        Ok(Self { agent: agent(Some(ANSWER_WITHIN)), base: base_url(address)?, token })
    }

    /// Reads a document.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<HttpAnswer> {
        self.document(self.request(Method::GET, path, &[]), Vec::new())
    }

    /// Reads a file.
    pub(crate) fn get_bytes(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut answer = self.send(self.request(Method::GET, path, &[]), Vec::new())?;
        Ok(answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec()?)
    }

    /// Reads an answer line by line, as long as it lasts.
    pub(crate) fn lines(&self, path: &str) -> anyhow::Result<impl Iterator<Item = io::Result<String>> + use<>> {
        let patient = Self { agent: agent(None), base: self.base.clone(), token: self.token.clone() };
        let answer = patient.send(self.request(Method::GET, path, &[]), Vec::new())?;
        Ok(BufReader::new(answer.into_body().into_reader()).lines())
    }

    /// Replaces a document. `headers` carry a precondition, if any.
    pub(crate) fn put(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> anyhow::Result<HttpAnswer> {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.document(self.request(Method::PUT, path, &all), body.to_string().into_bytes())
    }

    /// Changes the members that are named (RFC 7396).
    pub(crate) fn patch(&self, path: &str, changes: &Value) -> anyhow::Result<HttpAnswer> {
        let headers = [("content-type", "application/merge-patch+json")];
        self.document(self.request(Method::PATCH, path, &headers), changes.to_string().into_bytes())
    }

    /// Uploads a file.
    pub(crate) fn put_bytes(&self, path: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> anyhow::Result<HttpAnswer> {
        let patient = Self { agent: agent(Some(UPLOADED_WITHIN)), base: self.base.clone(), token: self.token.clone() };
        patient.document(self.request(Method::PUT, path, headers), body)
    }

    /// Asks for something to be done.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<HttpAnswer> {
        let headers = [("content-type", "application/json")];
        self.document(self.request(Method::POST, path, &headers), body.to_string().into_bytes())
    }

    /// The same for what takes its time.
    pub(crate) fn post_patiently(&self, path: &str, body: &Value) -> anyhow::Result<HttpAnswer> {
        let patient = Self { agent: agent(Some(UPLOADED_WITHIN)), base: self.base.clone(), token: self.token.clone() };
        patient.post(path, body)
    }

    /// Deletes.
    pub(crate) fn delete(&self, path: &str) -> anyhow::Result<HttpAnswer> {
        self.document(self.request(Method::DELETE, path, &[]), Vec::new())
    }

    /// A request to a path of the API, with the token if there is one.
    fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> ureq::http::request::Builder {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    /// Sends a request and reads the document that answers it.
    ///
    /// # Errors
    /// As `send`; or the answer is no JSON, so that it is hardly a node's.
    fn document(&self, request: ureq::http::request::Builder, body: Vec<u8>) -> anyhow::Result<HttpAnswer> {
        let mut answer = self.send(request, body)?;
        let etag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let created = answer.status() == StatusCode::CREATED;
        let text = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string()?;
        let body = if text.trim().is_empty() { Value::Null } else { document(&text)? };
        Ok(HttpAnswer { body, etag, created })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`ProblemAnswer`]: the node's refusal, or what to do about a node that does not answer.
    fn send(&self, request: ureq::http::request::Builder, body: Vec<u8>) -> anyhow::Result<Response<ureq::Body>> {
        let request =
            request.body(body).map_err(|error| WrongUsage::error(format!("the request is malformed: {error}")))?;
        let mut answer = self.agent.run(request).map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string().unwrap_or_default();
        Err(refusal(status, &text))
    }

    /// What to do about a node that does not answer: it may not run, or the address may be that of its gRPC port.
    fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        // Something listens there, and what it says or does is not what an HTTP server would.
        if let ureq::Error::Protocol(_) | ureq::Error::Io(_) = error {
            let host = self.base.strip_prefix("http://").unwrap_or(&self.base);
            if let Some(wrong_port) = ports::taken_for_http(host) {
                return wrong_port;
            }
        }
        ProblemAnswer::local(
            "unreachable",
            &format!("no answer from a Vouch node at {}: {error}", self.base),
            "start a node with: vouch serve; or name the one you mean with --http ADDR or VOUCH_HTTP_ADDR".to_owned(),
        )
    }
}

/// A name as one path segment: `%DLQ%g` becomes `%25DLQ%25g`.
pub(crate) fn segment(name: &str) -> String {
    utf8_percent_encode(name, NAME).to_string()
}

/// `?a=1&b=2` of the parameters that are set.
pub(crate) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(&format!("{name}={}", segment(value)));
        }
    }
    text
}

/// The address as the beginning of a URL.
///
/// # Errors
/// [`WrongUsage`]: it is none, or one with a path, a user or TLS, which the API does not have.
fn base_url(address: &str) -> anyhow::Result<String> {
    let address = address.trim().trim_end_matches('/');
    let host = address.strip_prefix("http://").unwrap_or(address);
    if host.is_empty() || host.contains(['/', ' ', '?', '#', '@']) {
        return Err(WrongUsage::error(format!(
            "`{address}` is not the address of an HTTP API; write host:port, for example {HTTP_ADDR}"
        )));
    }
    Ok(format!("http://{host}"))
}

/// The node's problem document, or what came instead: a proxy answers with a page of its own.
fn refusal(status: StatusCode, text: &str) -> anyhow::Error {
    let document: Option<Value> = serde_json::from_str(text).ok();
    if let Some(problem) = document.and_then(ProblemAnswer::from_document) {
        return problem.into();
    }
    unexpected(&format!("the node answered {status} without a problem document"), text)
}

/// The document of an answer that says that all went well.
fn document(text: &str) -> anyhow::Result<Value> {
    text::json(text).map_err(|why| unexpected(&format!("what the node answered {why}"), text))
}

/// Whoever answered so is no node, or something stands between: its first words tell which.
fn unexpected(title: &str, text: &str) -> anyhow::Error {
    let start: String = text.trim().chars().take(200).collect();
    ProblemAnswer::local(
        "unexpected-answer",
        title,
        if start.is_empty() { "the answer was empty".to_owned() } else { escape::line(&start).into_owned() },
    )
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
