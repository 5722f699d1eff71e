//! The stage: the nodes, the shop's processes and what was agreed between them. Steps are shown as they happen.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::database;
use super::event::{self, DemoEvent, DemoMoment};
use super::nodes::DemoNodes;
use super::screen::{Screen, Style};
use super::service::{Hold, NewOrder};
use super::watch::Watch;
use crate::child::{ChildStart, Server};
use crate::failure::ProblemAnswer;
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
pub(super) const STEP_WITHIN: Duration = Duration::from_secs(60);
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
    /// The orders so far, with their transactions.
    pub(super) played: Vec<Played>,
    /// The numbers of those that customers placed.
    ordered: Vec<String>,
    /// The broker.
    pub(super) nodes: DemoNodes,
    /// What an operator has: asks a node, the one that leads if it is known.
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
    /// Chapters that were begun.
    chapters: usize,
    events: Receiver<DemoEvent>,
    /// Those that were heard and are not shown yet.
    unshown: VecDeque<DemoEvent>,
    teller: Sender<DemoEvent>,
}

impl DemoStage {
    /// Starts a node, which is to have others where there are `several`, and the orders API.
    pub(super) fn build(pace: Pace, several: bool) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("vouch-demo-").tempdir().context("no temporary folder")?;
        let (teller, events) = channel();
        let nodes = DemoNodes::start(folder.path(), several)?;
        let (grpc_address, http_address) = (nodes.node(0).grpc_address.clone(), nodes.node(0).http_address.clone());
        let http = HttpClient::new(&http_address, None)?;
        database::create(&folder.path().join("orders.db")).context("cannot make the database")?;
        let mut stage = Self {
            screen: Screen::new(),
            played: Vec::new(),
            ordered: Vec::new(),
            nodes,
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
            chapters: 0,
            events,
            unshown: VecDeque::new(),
            teller,
        };
        let api = stage.start("demo-orders-api", "orders-api", &["--database"], &[])?;
        stage.orders_api = format!("http://{}", api.http()?);
        stage.others.push(api);
        stage.agree()?;
        Ok(stage)
    }

    /// Begins a chapter; they are numbered.
    pub(super) fn chapter(&mut self, title: &str, about: &str) -> anyhow::Result<()> {
        self.chapters += 1;
        Ok(self.screen.chapter(&format!("{}  {title}", self.chapters), about)?)
    }

    /// From now on this node is asked.
    pub(super) fn turn_to(&mut self, at: usize) -> anyhow::Result<()> {
        let node = self.nodes.node(at);
        (self.grpc_address, self.http_address) = (node.grpc_address.clone(), node.http_address.clone());
        self.http = HttpClient::new(&self.http_address, None)?;
        Ok(())
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

    /// Where something lies on disk.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The database file.
    pub(super) fn database(&self) -> PathBuf {
        self.path("orders.db")
    }

    /// The consumer's log.
    pub(super) fn shipping_log(&self) -> PathBuf {
        self.path("shipping.log")
    }

    /// Starts the consumer.
    pub(super) fn start_shipping(&mut self) -> anyhow::Result<()> {
        let shipping = self.start("demo-shipping", "shipping", &[], &["--topic", TOPIC, "--group", GROUP])?;
        self.shipping = Some(shipping);
        Ok(())
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
        self.ordered.push(id.to_owned());
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

    /// Shows and runs a command of this program against the node, as somebody at a terminal would, in the folder of the demo.
    /// Returns what it printed.
    ///
    /// # Errors
    /// It failed: with what it said.
    pub(super) fn command(&self, who: &str, words: &[&str]) -> anyhow::Result<String> {
        let typed: Vec<String> = words.iter().map(|word| typed(word)).collect();
        self.screen.step(who, &format!("vouch {}", typed.join(" ")))?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(words).env("VOUCH_HTTP_ADDR", &self.http_address).env("VOUCH_GRPC_ADDR", &self.grpc_address);
        let ran =
            command.current_dir(self.folder.path()).stdin(Stdio::null()).output().context("cannot run a command")?;
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
            if let Some(seen) = self.bearing(look(&self.http))?.flatten() {
                return Ok(seen);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.give_up(what)
    }

    /// What was asked; `None` where a cluster could not say just now, since another node is to lead. A node alone has no such
    /// excuse.
    fn bearing<T>(&self, answer: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        let may_pass =
            |error: &anyhow::Error| error.downcast_ref::<ProblemAnswer>().is_some_and(ProblemAnswer::may_pass);
        match answer {
            Err(error) if self.nodes.are_several() && may_pass(&error) => Ok(None),
            answer => answer.map(Some),
        }
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
        let event = self.happened()?;
        if event.is_none() {
            self.look()?;
        }
        Ok(event)
    }

    /// Shows the next event, if one comes soon.
    fn happened(&mut self) -> anyhow::Result<Option<DemoEvent>> {
        let event = match self.unshown.pop_front() {
            Some(event) => Some(event),
            None => self.hear()?,
        };
        if let Some(event) = &event {
            self.show(event)?;
        }
        Ok(event)
    }

    /// While no node leads: shows who goes on with which node, and keeps all else for later. Whoever asks about an order knows of a
    /// new leader before the stage does, and that is to be told first.
    pub(super) fn hear_who_moved(&mut self) -> anyhow::Result<()> {
        match self.hear()? {
            Some(event) if event.what == DemoMoment::Moved => self.show(&event),
            event => {
                self.unshown.extend(event);
                Ok(())
            }
        }
    }

    /// The next event, if one comes soon.
    fn hear(&self) -> anyhow::Result<Option<DemoEvent>> {
        match self.events.recv_timeout(LOOK_EVERY) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("every process of the demo has ended"),
        }
    }

    /// Shows an event of the story. That a binding is tried when it is set, with an order that nobody placed, is none.
    fn show(&mut self, event: &DemoEvent) -> anyhow::Result<()> {
        if event.what == DemoMoment::Asked && !self.ordered.contains(&event.order) {
            return Ok(());
        }
        // What is received was committed before: tell that first.
        if event.what == DemoMoment::Received {
            self.look()?;
        }
        if let Some(transaction) = &event.transaction {
            let watch = Watch::new(transaction.clone());
            self.played.push(Played { order: event.order.clone(), watch });
        }
        let text = match event.what {
            DemoMoment::Moved => self.nodes.named(&event.text),
            _ => event.text.clone(),
        };
        let style = (event.what == DemoMoment::Failed).then_some(Style::Bad);
        match style {
            Some(style) => self.screen.strong_step(&event.who, &text, style)?,
            None => self.screen.step(&event.who, &text)?,
        }
        Ok(())
    }

    /// Tells what is new about transactions that have not ended.
    fn look(&mut self) -> anyhow::Result<()> {
        let mut played = std::mem::take(&mut self.played);
        let looked = played.iter_mut().try_for_each(|played| self.look_at(&mut played.watch));
        self.played = played;
        looked
    }

    /// Tells what is new about one.
    fn look_at(&self, watch: &mut Watch) -> anyhow::Result<()> {
        if !watch.has_ended() {
            for line in self.bearing(watch.look(&self.http))?.unwrap_or_default() {
                match line.style {
                    Some(style) => self.screen.strong_step(line.who, &line.text, style)?,
                    None => self.screen.step(line.who, &line.text)?,
                }
            }
        }
        Ok(())
    }

    /// Whether the transaction of this order is open, says the broker.
    pub(super) fn is_open(&mut self, order: &str) -> anyhow::Result<bool> {
        self.look()?;
        Ok(self.played.iter().any(|played| played.order == order && !played.watch.has_ended()))
    }

    /// The story cannot go on; a node's log says why, if anything does.
    pub(super) fn give_up<T>(&self, what: &str) -> anyhow::Result<T> {
        bail!("waited {STEP_WITHIN:?} for {what} in vain; last words of\n{}", self.nodes.last_words())
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
            for address in self.brokers() {
                arguments.extend(["--broker".into(), address.into()]);
            }
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

    /// Addresses for clients: that of the node that is asked, then those of the others.
    fn brokers(&self) -> Vec<String> {
        let others = self.nodes.all().iter().map(|node| node.grpc_address.clone());
        let others = others.filter(|address| *address != self.grpc_address);
        std::iter::once(self.grpc_address.clone()).chain(others).collect()
    }

    /// Stops everything; each process must end by itself and well.
    pub(super) fn strike(self) -> anyhow::Result<()> {
        self.service.into_iter().chain(self.shipping).chain(self.others).try_for_each(Server::stop)?;
        self.nodes.stop()
    }
}

/// A word of a command as one has to type it in a shell.
fn typed(word: &str) -> String {
    if word.contains(['{', '"', ' ']) { format!("'{word}'") } else { word.to_owned() }
}
