//! `/v1/plugins/{name}/logs`: what the components of a plugin say, as server-sent events.

use std::collections::{HashMap, VecDeque};
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
use super::request::{Params, PathNames, time_or_ago};
use crate::listener::stopped;

/// Pause between two looks for new lines.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Most bindings of one plugin whose logs one reader reads.
const BINDINGS_MAX: usize = 1000;

/// `GET /v1/plugins/{name}/logs`: the lines that are kept of every binding of the plugin that was asked on this node, one
/// binding after another, then each new one; with `follow=false` it ends before those. An event is named `log` and holds
/// the line with its binding and digest.
///
/// # Errors
/// There is no such plugin, or as many readers as there may be.
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    params: Params,
) -> Result<Response, Problem> {
    let follow = params.switch_or("follow", true)?;
    let since_ms = params.read("since", time_or_ago)?.unwrap_or(0);
    let missing = || Refusal::NotFound(format!("there is no plugin {name}; push it with: vouch plugin push"));
    app.node.components.plugin(&name).await?.ok_or_else(missing)?;
    let place = app.log_reader_place()?;
    let reader = BindingLogReader {
        app,
        plugin: name,
        since_ms,
        follow,
        read: HashMap::new(),
        to_read: VecDeque::new(),
        first: true,
        place,
    };
    Ok(Sse::new(reader.events()).keep_alive(KeepAlive::default()).into_response())
}

/// One reader and how far it is. Nothing is sent to it twice, and nothing is missed as long as it reads faster than 256
/// lines come between two looks.
struct BindingLogReader {
    /// Where bindings are found.
    app: Arc<App>,
    /// Whose components are read.
    plugin: String,
    /// Lines from before this time are left out.
    since_ms: u64,
    /// Whether it goes on when all is read.
    follow: bool,
    /// How far the log of each binding was read: the revision of the binding, with each of which a new log begins, and the
    /// number of the last line.
    read: HashMap<String, (u64, u64)>,
    /// Bindings that this look has still to read.
    to_read: VecDeque<String>,
    /// The first look is made at once.
    first: bool,
    /// Given back when the reader goes away.
    #[expect(dead_code, reason = "held, not read")]
    place: OwnedSemaphorePermit,
}

impl BindingLogReader {
    /// What it sends, for as long as it lasts.
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        let batches = futures_util::stream::unfold(self, |mut reader| async move {
            let lines = reader.next().await?;
            Some((futures_util::stream::iter(lines), reader))
        });
        futures_util::StreamExt::flatten(batches)
    }

    /// The next lines of one binding, so that no more than these are held at once; `None` at the end.
    async fn next(&mut self) -> Option<Vec<Result<Event, Infallible>>> {
        loop {
            while let Some(name) = self.to_read.pop_front() {
                let lines = self.lines_of(&name).await;
                if !lines.is_empty() {
                    return Some(lines);
                }
            }
            self.look().await?;
        }
    }

    /// Begins the next look; `None` if there is none: what is kept was read, the node stops, or it cannot be asked.
    async fn look(&mut self) -> Option<()> {
        if !std::mem::take(&mut self.first) {
            if !self.follow {
                return None;
            }
            let mut stopping = self.app.stopping.clone();
            tokio::select! {
                () = stopped(&mut stopping) => return None,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
        let bound = self.app.node.components.bindings_of_plugin(&self.plugin, BINDINGS_MAX).await.ok()?;
        self.to_read = bound.into_iter().map(|(name, _)| name).collect();
        self.read.retain(|name, _| self.to_read.contains(name));
        Some(())
    }

    /// The lines of one binding that were not sent yet.
    async fn lines_of(&mut self, name: &str) -> Vec<Result<Event, Infallible>> {
        let Some((revision, binding)) = self.app.node.components.binding_log(name).await else { return Vec::new() };
        let read = self.read.entry(name.to_owned()).or_default();
        if read.0 != revision {
            *read = (revision, 0);
        }
        let mut events = Vec::new();
        for line in binding.logs_after(read.1) {
            read.1 = line.number;
            if line.at_ms < self.since_ms {
                continue;
            }
            let at = time(line.at_ms);
            let Ok(Value::Object(mut members)) = serde_json::to_value(&line) else { continue };
            members.remove("at_ms");
            members.insert("at".to_owned(), at.into());
            members.insert("binding".to_owned(), name.into());
            members.insert("digest".to_owned(), binding.digest().into());
            events.push(Ok(event(&members.into())));
        }
        events
    }
}

/// JSON has no line breaks in it, so one line of data holds it.
fn event(document: &Value) -> Event {
    Event::default().event("log").data(document.to_string())
}
