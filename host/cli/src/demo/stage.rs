//! The stage: a node, the shop's processes and what was agreed between them. Steps are shown as they happen.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::database;
use super::event::{self, DemoEvent, DemoMoment};
use super::screen::{Screen, Style};
use super::service::{Hold, NewOrder};
use super::watch::Watch;
use crate::child::{ChildStart, Server};
use crate::http::{HttpClient, segment};
use crate::{plugin, resource};

/// Topic of the half messages.
pub(super) const TOPIC: &str = "orders";
/// Group of the consumer.
pub(super) const GROUP: &str = "shipping";
/// The component that ships with the broker.
const COMPONENT: &[u8] = include_bytes!("../../../../plugins/dist/http-checkback.wasm");
/// Under this name it is uploaded.
const COMPONENT_NAME: &str = "http-checkback";
/// Letters of a component's digest that tell it from others on a screen.
pub(super) const DIGEST_SHOWN: usize = 19;
/// No step may take longer.
const STEP_WITHIN: Duration = Duration::from_secs(60);
/// How often transactions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// How long the broker waits.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Before it asks for the first time: so long the service has to write a row.
    pub(super) immunity: &'static str,
    /// Between two questions.
    pub(super) interval: &'static str,
}

/// An order of the story.
pub(super) struct Played {
    /// Its number.
    pub(super) order: String,
    /// Its transaction.
    pub(super) watch: Watch,
}

/// Everything that plays.
pub(super) struct DemoStage {
    /// Where the story is told.
    pub(super) screen: Screen,
    /// The orders so far, as they were placed.
    pub(super) played: Vec<Played>,
    /// What an operator has: asks the node.
    pub(super) http: HttpClient,
    pub(super) http_address: String,
    pub(super) grpc_address: String,
    pub(super) orders_api: String,
    /// The beginning of the component's digest.
    pub(super) component: String,
    pub(super) pace: Pace,
    /// Holds everything that is on disk; gone at the end.
    folder: TempDir,
    /// None while it is dead.
    service: Option<Server>,
    /// The consumer; none once the shop has closed.
    shipping: Option<Server>,
    /// The orders API.
    others: Vec<Server>,
    node: Server,
    events: Receiver<DemoEvent>,
    teller: Sender<DemoEvent>,
}

impl DemoStage {
    /// Starts everything but the order service.
    pub(super) fn build(pace: Pace) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("vouch-demo-").tempdir().context("no temporary folder")?;
        let (teller, events) = channel();
        let node = start_node(folder.path())?;
        let (grpc_address, http_address) = (node.grpc()?, node.http()?);
        let http = HttpClient::new(&http_address, None)?;
        database::create(&folder.path().join("orders.db")).context("cannot make the database")?;
        let mut stage = Self {
            screen: Screen::new(),
            played: Vec::new(),
            http,
            http_address,
            grpc_address,
            orders_api: String::new(),
            component: String::new(),
            pace,
            folder,
            service: None,
            shipping: None,
            others: Vec::new(),
            node,
            events,
            teller,
        };
        let api = stage.start("demo-orders-api", "orders-api", &["--database"], &[])?;
        stage.orders_api = format!("http://{}", api.http()?);
        stage.others.push(api);
        stage.agree()?;
        let shipping = stage.start("demo-shipping", "shipping", &[], &["--topic", TOPIC, "--group", GROUP])?;
        stage.shipping = Some(shipping);
        Ok(stage)
    }

    /// Topic, component and binding, over HTTP like an operator.
    fn agree(&mut self) -> anyhow::Result<()> {
        let transaction = json!({"immunity": self.pace.immunity, "interval": self.pace.interval});
        let topic = json!({"type": "transaction", "transaction": transaction});
        self.http.put(&format!("/v1/topics/{TOPIC}"), &topic, &[]).context("cannot create the topic")?;
        let (verdict, _) = plugin::put_tag(&self.http, COMPONENT_NAME, "1.0", COMPONENT.to_vec(), false)
            .context("cannot upload the component")?;
        let digest = verdict.body.get("digest").and_then(Value::as_str).unwrap_or_default();
        self.component = digest.chars().take(DIGEST_SHOWN).collect();
        let config = json!({
            "url": format!("{}/orders/{{key}}?message={{id}}", self.orders_api),
            "field": "/status",
            "commit": database::PAID,
            "rollback": database::CANCELLED,
        });
        let binding = json!({
            "plugin": format!("{COMPONENT_NAME}:1.0"),
            "topics": [TOPIC],
            "grants": {"http": [self.orders_api]},
            "config": config,
        });
        self.http.put("/v1/bindings/orders", &binding, &[]).context("cannot set the binding")?;
        Ok(())
    }

    /// The database file.
    pub(super) fn database(&self) -> PathBuf {
        self.folder.path().join("orders.db")
    }

    /// The consumer's log.
    pub(super) fn shipping_log(&self) -> PathBuf {
        self.folder.path().join("shipping.log")
    }

    /// Starts the order service.
    pub(super) fn start_service(&mut self) -> anyhow::Result<()> {
        let service = self.start("demo-service", "service", &["--database"], &["--topic", TOPIC])?;
        self.screen.step("service", "starts, connects to the broker as a producer")?;
        self.service = Some(service);
        Ok(())
    }

    /// A customer orders. Does not wait: the service may be held or killed before it answers.
    pub(super) fn order(&mut self, id: &str, item: &str, status: &str, hold: Hold) -> anyhow::Result<()> {
        self.screen.step("customer", &format!("orders {item}: {id}"))?;
        let service = self.service.as_ref().context("no service runs")?;
        let http = HttpClient::new(&service.http()?, None)?;
        let order = NewOrder { id: id.to_owned(), item: item.to_owned(), status: status.to_owned(), hold };
        let document = serde_json::to_value(order)?;
        std::thread::spawn(move || {
            // The customer's answer is part of the story only in the events that the service tells.
            let _ = http.post("/orders", &document);
        });
        self.until(id, DemoMoment::HalfStored)
    }

    /// Lets a held service go on.
    pub(super) fn go_on(&mut self) -> anyhow::Result<()> {
        self.service.as_mut().context("no service runs")?.tell("go on")
    }

    /// Kills the order service like a crash would.
    pub(super) fn kill_service(&mut self, why: &str) -> anyhow::Result<()> {
        let mut service = self.service.take().context("no service runs")?;
        service.kill()?;
        Ok(self.screen.strong_step("service", why, Style::Bad)?)
    }

    /// Lets the order service and the consumer end as they would on any evening.
    pub(super) fn close_shop(&mut self) -> anyhow::Result<()> {
        self.screen.step("service", "ends, and so does shipping: the rest needs neither")?;
        self.service.take().into_iter().chain(self.shipping.take()).try_for_each(Server::stop)
    }

    /// Kills the node like a crash would.
    pub(super) fn kill_node(&mut self, why: &str) -> anyhow::Result<()> {
        self.node.kill()?;
        Ok(self.screen.strong_step("broker", why, Style::Bad)?)
    }

    /// Starts the node again, on the folder that it had. The system gives it other ports.
    pub(super) fn restart_node(&mut self) -> anyhow::Result<()> {
        self.node = start_node(self.folder.path())?;
        (self.grpc_address, self.http_address) = (self.node.grpc()?, self.node.http()?);
        self.http = HttpClient::new(&self.http_address, None)?;
        Ok(self.screen.strong_step("broker", "starts again on the same folder", Style::Good)?)
    }

    /// Shows and runs a command of this program against the node, as somebody at a terminal would. Returns what it printed.
    ///
    /// # Errors
    /// It failed: with what it said.
    pub(super) fn command(&self, who: &str, words: &[&str]) -> anyhow::Result<String> {
        let typed: Vec<String> = words.iter().map(|word| typed(word)).collect();
        self.screen.step(who, &format!("vouch {}", typed.join(" ")))?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(words).env("VOUCH_HTTP_ADDR", &self.http_address).env("VOUCH_GRPC_ADDR", &self.grpc_address);
        let ran = command.stdin(Stdio::null()).output().context("cannot run a command")?;
        if !ran.status.success() {
            bail!("vouch {} failed:\n{}", typed.join(" "), String::from_utf8_lossy(&ran.stderr));
        }
        String::from_utf8(ran.stdout).context("a command printed what is no text")
    }

    /// Looks until there is something to see.
    pub(super) fn until_seen<T>(
        &self,
        what: &str,
        look: impl Fn(&HttpClient) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let give_up_at = Instant::now() + STEP_WITHIN;
        while Instant::now() < give_up_at {
            if let Some(seen) = look(&self.http)? {
                return Ok(seen);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.give_up(what)
    }

    /// Everything that there is for this group is delivered and acknowledged, says the broker.
    pub(super) fn until_quiet(&self, group: &str) -> anyhow::Result<()> {
        let what = format!("the last acknowledgement of group {group}");
        self.until_seen(&what, |_| Ok((self.lag(group)? == 0).then_some(())))
    }

    /// Messages that the broker has for this group and that it did not acknowledge yet.
    pub(super) fn lag(&self, group: &str) -> anyhow::Result<u64> {
        let progress = self.http.get(&format!("/v1/groups/{}/progress", segment(group)))?.body;
        Ok(resource::items(&progress).iter().filter_map(|topic| topic.get("lag")?.as_u64()).sum())
    }

    /// Plays until this event happened.
    pub(super) fn until(&mut self, order: &str, what: DemoMoment) -> anyhow::Result<()> {
        let give_up_at = Instant::now() + STEP_WITHIN;
        while Instant::now() < give_up_at {
            if let Some(event) = self.next()?
                && event.order == order
                && event.what == what
            {
                return Ok(());
            }
        }
        self.give_up(&format!("{what:?} of {order}"))
    }

    /// Plays until a transaction is as wanted.
    pub(super) fn until_watched(&mut self, order: &str, wanted: impl Fn(&Watch) -> bool) -> anyhow::Result<()> {
        let give_up_at = Instant::now() + STEP_WITHIN;
        while Instant::now() < give_up_at {
            self.next()?;
            if self.played.iter().any(|played| played.order == order && wanted(&played.watch)) {
                return Ok(());
            }
        }
        self.give_up(&format!("the transaction of {order}"))
    }

    /// Shows what happens next, if something does soon.
    fn next(&mut self) -> anyhow::Result<Option<DemoEvent>> {
        match self.events.recv_timeout(LOOK_EVERY) {
            Ok(event) => {
                // What is received was committed before: tell that first.
                if event.what == DemoMoment::Received {
                    self.look()?;
                }
                if let Some(transaction) = &event.transaction {
                    let watch = Watch::new(transaction.clone());
                    self.played.push(Played { order: event.order.clone(), watch });
                }
                let style = (event.what == DemoMoment::Failed).then_some(Style::Bad);
                match style {
                    Some(style) => self.screen.strong_step(&event.who, &event.text, style)?,
                    None => self.screen.step(&event.who, &event.text)?,
                }
                Ok(Some(event))
            }
            Err(RecvTimeoutError::Timeout) => self.look().map(|()| None),
            Err(RecvTimeoutError::Disconnected) => bail!("every process of the demo has ended"),
        }
    }

    /// Tells what is new about transactions that have not ended.
    fn look(&mut self) -> anyhow::Result<()> {
        for played in &mut self.played {
            if !played.watch.has_ended() {
                for line in played.watch.look(&self.http)? {
                    match line.style {
                        Some(style) => self.screen.strong_step(line.who, &line.text, style)?,
                        None => self.screen.step(line.who, &line.text)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// The story cannot go on; the node's log says why, if anything does.
    fn give_up<T>(&self, what: &str) -> anyhow::Result<T> {
        bail!("waited {STEP_WITHIN:?} for {what} in vain; the node's last words:\n{}", self.node.last_messages())
    }

    /// Starts one of the shop's processes; flags in `with_database` get the database's path.
    fn start(
        &self,
        command: &str,
        name: &'static str,
        with_database: &[&str],
        more: &[&str],
    ) -> anyhow::Result<Server> {
        let folder = self.folder.path().join(name);
        let mut arguments: Vec<OsString> = vec![command.into(), "--dir".into(), folder.clone().into()];
        for flag in with_database {
            arguments.extend([(*flag).into(), self.database().into()]);
        }
        arguments.extend(more.iter().map(Into::into));
        if command != "demo-orders-api" {
            arguments.extend(["--grpc".into(), self.grpc_address.clone().into()]);
        }
        if command == "demo-shipping" {
            arguments.extend(["--log".into(), self.shipping_log().into()]);
        }
        let mut server = Server::start(ChildStart { name, arguments, folder: &folder, environment: &[] })?;
        let lines = server.lines.take().context("the process has no output")?;
        let teller = self.teller.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || event::forward(lines, &teller))?;
        Ok(server)
    }

    /// Stops everything; each process must end by itself and well.
    pub(super) fn strike(self) -> anyhow::Result<()> {
        self.service.into_iter().chain(self.shipping).chain(self.others).try_for_each(Server::stop)?;
        self.node.stop()
    }
}

/// A word of a command as one has to type it in a shell.
fn typed(word: &str) -> String {
    if word.contains(['{', '"', ' ']) { format!("'{word}'") } else { word.to_owned() }
}

/// The node, as `vouch serve` starts it.
fn start_node(folder: &Path) -> anyhow::Result<Server> {
    let folder = folder.join("broker");
    let flags = ["serve", "--stop-with-parent", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
    let mut arguments: Vec<OsString> = flags.map(Into::into).into();
    // A small log is enough for five orders and sixty sales, and quicker to make than the default.
    arguments.extend(["--segment-size".into(), "16MiB".into(), "--zero-ahead".into(), "1MiB".into()]);
    arguments.extend(["--data-dir".into(), folder.clone().into()]);
    Server::start(ChildStart { name: "the node", arguments, folder: &folder, environment: &[] })
}
