//! `/v1/plugins/{name}/logs`: what the components of a plugin say, as server-sent events.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use vouch_broker::Refusal;

use super::App;
use super::answer::time;
use super::problem::Problem;
use super::request::Names;
use crate::listener::stopped;

/// Pause between two looks for new lines.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Most bindings of one plugin whose logs are followed by one reader.
const BINDINGS_MAX: usize = 1000;

/// `GET /v1/plugins/{name}/logs`: the last lines of every binding of the plugin that was asked on this node, then each
/// new one. An event is named `log` and holds the line with its binding and digest.
pub(crate) async fn stream(State(app): State<Arc<App>>, Names(name): Names<String>) -> Result<Response, Problem> {
    let missing = || Refusal::NotFound(format!("there is no plugin {name}; push it with: vouch plugin push"));
    app.node.plugin(&name).await?.ok_or_else(missing)?;
    let reader = LogReader { place: app.log_reader_place()?, app, plugin: name, seen: HashMap::new(), first: true };
    Ok(Sse::new(reader.events()).keep_alive(KeepAlive::default()).into_response())
}

struct LogReader {
    app: Arc<App>,
    plugin: String,
    /// The last line seen of each binding, by its name and digest: a binding that is set again begins a new log.
    seen: HashMap<(String, String), u64>,
    first: bool,
    /// Given back when the reader goes away.
    #[expect(dead_code, reason = "held, not read")]
    place: OwnedSemaphorePermit,
}

impl LogReader {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        let batches = futures_util::stream::unfold(self, |mut reader| async move {
            let lines = reader.next().await?;
            Some((futures_util::stream::iter(lines), reader))
        });
        futures_util::StreamExt::flatten(batches)
    }

    /// The lines since the last look; `None` when the node stops.
    async fn next(&mut self) -> Option<Vec<Result<Event, Infallible>>> {
        loop {
            if !std::mem::take(&mut self.first) {
                let mut stopping = self.app.stopping.clone();
                tokio::select! {
                    () = stopped(&mut stopping) => return None,
                    () = tokio::time::sleep(LOOK_INTERVAL) => {}
                }
            }
            let lines = self.look().await.ok()?;
            if !lines.is_empty() {
                return Some(lines);
            }
        }
    }

    async fn look(&mut self) -> Result<Vec<Result<Event, Infallible>>, Refusal> {
        let mut events = Vec::new();
        for (name, _) in self.app.node.bindings_of_plugin(&self.plugin, BINDINGS_MAX).await? {
            let Some(binding) = self.app.node.binding_log(&name).await else { continue };
            let digest = binding.digest().to_owned();
            let seen = self.seen.entry((name.clone(), digest.clone())).or_default();
            for line in binding.logs_after(*seen) {
                *seen = line.number;
                let at = time(line.at_ms);
                let mut document = serde_json::to_value(&line)
                    .map_err(|error| Refusal::Internal(format!("a log line cannot be written: {error}")))?;
                if let Some(members) = document.as_object_mut() {
                    members.remove("at_ms");
                    members.insert("at".to_owned(), at.into());
                    members.insert("binding".to_owned(), name.clone().into());
                    members.insert("digest".to_owned(), digest.clone().into());
                }
                events.push(Ok(event(&document)));
            }
        }
        Ok(events)
    }
}

/// JSON has no line breaks in it, so one line of data holds it.
fn event(document: &Value) -> Event {
    Event::default().event("log").data(document.to_string())
}
