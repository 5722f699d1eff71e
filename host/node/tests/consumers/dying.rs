//! A node that dies while a component answers, at each step of the way of that answer into the log. When it begins again all of the
//! answer happened, with what was staged, or nothing; in the end it happened once, and a delivery counts that it died of.
//!
//! The node that dies is a process of its own: this suite's binary, which runs the same test and finds by its environment who it is.

#![allow(clippy::print_stdout, reason = "a child says to the test how far it is")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vouch_broker::ResourceName;
use vouch_broker::record::{Frame, Record};
use vouch_commitlog::{LogFolder, LogPosition};
use vouch_node::{Expect, Node, NodeConfig, PluginUpload};
use vouch_shard::faults::{FaultPoint, die_at};

use crate::common::gate::Gate;
use crate::common::{config, half, message, prepare, send, topic};
use crate::scripted::{COUNTS, ids};
use crate::scripts::{Script, Written};
use crate::{all_is_done, bind, kept, wait_until, waiting};

/// Says to a child in which folder it is a node.
const FOLDER: &str = "VOUCH_TEST_DIES_IN";
/// And how it dies: the name of a [`Death`].
const DEATH: &str = "VOUCH_TEST_DIES_BY";
/// What a child says when it is as far as it comes by itself.
const READY: &str = "it is ready to die";

/// Asked again soon where nothing came of an ask.
const CHECKED: &str = r#"{"type":"transaction","transaction":{"immunity":"50ms","interval":"100ms","max_checks":3}}"#;

/// When it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// It is to be asked, and there is no place to run.
    BeforeTheCall,
    /// Its component has staged something, and waits for a service.
    InTheCall,
    /// Its answer is at this point.
    At(FaultPoint),
    /// Its answer is written, and with the power everything is lost that was not durable.
    PowerCut,
}

const DEATHS: [Death; 8] = [
    Death::BeforeTheCall,
    Death::InTheCall,
    Death::At(FaultPoint::Answered),
    Death::At(FaultPoint::Proposed),
    Death::PowerCut,
    Death::At(FaultPoint::Written),
    Death::At(FaultPoint::Durable),
    Death::At(FaultPoint::Applied),
];

impl Death {
    fn named(name: &str) -> Self {
        DEATHS.into_iter().find(|death| format!("{death:?}") == name).unwrap()
    }

    /// Whether the answer is in the log that is found then.
    fn is_after_the_record(self) -> bool {
        matches!(self, Self::At(FaultPoint::Written | FaultPoint::Durable | FaultPoint::Applied))
    }

    /// Lets this process die so: now, or where its answer comes to that point.
    fn dies(self) {
        match self {
            Self::BeforeTheCall | Self::InTheCall => std::process::abort(),
            Self::PowerCut => die_at(FaultPoint::Written),
            Self::At(point) => die_at(point),
        }
    }
}

/// What is asked of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// To take a message.
    Delivery,
    /// What becomes of a transaction.
    Check,
}

/// The two services that components ask here.
struct Services {
    /// The component that stages something waits for it, when it has.
    gate: Gate,
    /// Whoever asks this one keeps the only place of a node.
    hangs: Gate,
}

/// A node that is set up and stopped: a component counts, publishes, and asks a service, for messages of `goods` and for transactions of
/// `orders`. A message is delivered so often.
async fn set_up(folder: &Path, services: &Services, asked: Asked, attempts: u32) {
    let node = Node::start(config(folder)).unwrap();
    for name in ["goods", "audit", "ballast", "blocks"] {
        topic(&node, name, "{}").await;
    }
    topic(&node, "orders", CHECKED).await;
    let authority = services.gate.address.to_string();
    let staged = Script::new().raw(COUNTS).publish(&Written { topic: "audit", body: 3, ..Written::default() });
    let upload = |name: &str, wasm| PluginUpload { name: name.to_owned(), tag: "1.0".to_owned(), wasm, expected: None };
    node.components.upload(upload("staging", staged.ask(&authority).asking())).await.unwrap();
    let hangs = Script::new().ask(&services.hangs.address.to_string()).asking();
    node.components.upload(upload("hanging", hangs)).await.unwrap();
    let group = serde_json::from_value(serde_json::json!({"max_attempts": attempts, "backoff": ["0s"]})).unwrap();
    node.settings.put_group("stock", group, Expect::Anything).await.unwrap();
    let (grants, limits) = (
        serde_json::json!({"state": true, "publish": ["audit"], "http": [format!("http://{authority}")]}),
        serde_json::json!({"deadline": "60s"}),
    );
    let spec = match asked {
        Asked::Delivery => serde_json::json!({
            "plugin": "staging:1.0", "groups": ["stock"], "subscriptions": {"goods": "*"}, "unchecked": true,
            "grants": grants, "limits": limits,
        }),
        Asked::Check => serde_json::json!({
            "plugin": "staging:1.0", "topics": ["orders"], "unchecked": true, "grants": grants, "limits": limits,
        }),
    };
    bind(&node, "stock", spec).await;
    let blocks = serde_json::json!({
        "plugin": "hanging:1.0", "groups": ["blocks"], "subscriptions": {"blocks": "*"}, "unchecked": true,
        "grants": {"http": [format!("http://{}", services.hangs.address)]}, "limits": limits,
    });
    bind(&node, "blocks", blocks).await;
    node.stop().await;
}

/// A child, from its start to its death. What it said.
fn lives_and_dies(test: &str, folder: &Path, death: Death, services: &Services) -> String {
    let asked = (services.gate.asked(), services.hangs.asked());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(DEATH, format!("{death:?}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut says = BufReader::new(child.stdout.take().unwrap());
    if death == Death::BeforeTheCall {
        // Its only place is taken: now it may get what it is to be asked about.
        comes(&mut child, || services.hangs.asked() > asked.1);
        goes_on(&mut child);
    } else {
        comes(&mut child, || services.gate.asked() > asked.0);
        goes_on(&mut child);
        while !told.contains(READY) && death != Death::InTheCall {
            assert!(says.read_line(&mut told).unwrap() > 0, "{death:?}: {told}");
        }
        if death != Death::InTheCall {
            services.gate.answer(asked.0 + 1);
        }
    }
    let ended = child.wait().unwrap();
    says.read_to_string(&mut told).unwrap();
    // SIGABRT, on every Unix.
    assert_eq!(ended.signal(), Some(6), "{death:?}: {told}");
    told
}

/// Waits until something is so, which a child is to bring about.
fn comes(child: &mut Child, is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        assert!(began.elapsed() < crate::NEVER_LONGER, "it never comes so far");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tells a child that waits for it.
fn goes_on(child: &mut Child) {
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
}

/// Waits until the parent says so.
async fn is_told() {
    let read = || std::io::stdin().read_line(&mut String::new()).unwrap();
    assert!(tokio::task::spawn_blocking(read).await.unwrap() > 0, "nobody waits for this one");
}

/// The node that dies.
async fn live_and_die(folder: &Path, asked: Asked) {
    let death = Death::named(&std::env::var(DEATH).unwrap());
    let places = if death == Death::BeforeTheCall { 1 } else { NodeConfig::new(folder).plugin_concurrency };
    let node = Node::start(NodeConfig { plugin_concurrency: places, ..config(folder) }).unwrap();
    if death == Death::BeforeTheCall {
        send(&node, "blocks", message("b", "x")).await;
        is_told().await;
    }
    // What an earlier life was to be asked about this one is asked about, too.
    match asked {
        Asked::Delivery if waiting(&node, "stock").await == 0 => drop(send(&node, "goods", message("m", "x")).await),
        Asked::Delivery => {}
        Asked::Check => drop(prepare(&node, "orders", half("h", "x")).await),
    }
    if death == Death::BeforeTheCall && asked == Asked::Delivery {
        wait_until("it has the message in its hands", || async {
            let standings = node.components.consumer_standings();
            standings.iter().any(|(name, standing)| name == "stock" && standing.in_flight == 1)
        })
        .await;
    }
    if death != Death::BeforeTheCall {
        is_told().await;
    }
    // When this is answered all that was written before is durable, the lease among it.
    send(&node, "ballast", message("durable", "x")).await;
    death.dies();
    println!("{READY}");
    std::future::pending::<()>().await;
}

/// Who this process is: the child that dies, or nothing.
fn is_child(asked: Asked) -> bool {
    let Some(folder) = std::env::var_os(FOLDER) else { return false };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(live_and_die(Path::new(&folder), asked));
    true
}

/// Takes away what was not durable when the power went.
fn cut_the_power(folder: &Path, told: &str) {
    let durable = told.lines().find_map(|line| line.strip_prefix("durable to ")).unwrap();
    let durable: u64 = durable.parse().unwrap();
    let log = LogFolder::open(&folder.join("shards/0/log")).unwrap();
    for segment in log.segments().unwrap() {
        let from = durable.saturating_sub(segment.start.0);
        if from < segment.size {
            let file = File::options().write(true).open(&segment.file).unwrap();
            file.write_all_at(&vec![0; usize::try_from(segment.size - from).unwrap()], from).unwrap();
        }
    }
}

/// Deliveries that counted when whoever had them was gone, and answers with what was staged.
fn counted_and_settled(folder: &Path) -> (usize, usize) {
    let log = LogFolder::open(&folder.join("shards/0/log")).unwrap();
    let (mut counted, mut settled) = (0, 0);
    for entry in log.entries(LogPosition(0), LogPosition::BEYOND).unwrap() {
        let entry = entry.unwrap();
        let mut rest = &entry.payload[..];
        while !rest.is_empty() {
            let (frame, behind) = Frame::split(rest).unwrap();
            match Record::decode(&frame).unwrap() {
                Record::ChangeInvisible(change) => counted += usize::from(!change.uncounted),
                Record::Settled(_) => settled += 1,
                _ => {}
            }
            rest = behind;
        }
    }
    (counted, settled)
}

/// What is kept and published.
async fn staged(node: &Node, looks: &str) -> (Option<String>, usize) {
    (kept(node, "stock").await.remove("n"), ids(node, "audit", looks).await.len())
}

/// Messages that nobody could take.
async fn dead_letters(node: &Node) -> usize {
    match node.settings.topic(&ResourceName::plain("%DLQ%stock")).await {
        Err(_) => 0,
        Ok(_) => ids(node, "%DLQ%stock", "looks").await.len(),
    }
}

/// Whether the message is done, or the transaction committed: then its message is there for this group.
async fn is_done(node: &Node, asked: Asked, looks: &str) -> bool {
    match asked {
        Asked::Delivery => waiting(node, "stock").await == 0,
        Asked::Check => !ids(node, "orders", looks).await.is_empty(),
    }
}

/// Dies of each death, and holds the ledger against what is found then.
fn dies_of_each(test: &str, asked: Asked) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for death in DEATHS {
        let folder = tempfile::tempdir().unwrap();
        let services = Services { gate: Gate::begin(), hangs: Gate::begin() };
        runtime.block_on(set_up(folder.path(), &services, asked, 2));
        let told = lives_and_dies(test, folder.path(), death, &services);
        if death == Death::PowerCut {
            cut_the_power(folder.path(), &told);
        }
        runtime.block_on(adds_up(folder.path(), death, asked, &services));
    }
}

/// The lives after a death.
async fn adds_up(folder: &Path, death: Death, asked: Asked, services: &Services) {
    let found = death.is_after_the_record();
    let node = Node::start(config(folder)).unwrap();
    // Nobody is answered yet: what is there now was found.
    let (done, (count, published)) = (is_done(&node, asked, "finds").await, staged(&node, "finds").await);
    let all_or_nothing = if found { (true, Some("1"), 1) } else { (false, None, 0) };
    assert_eq!((done, count.as_deref(), published), all_or_nothing, "{death:?}");
    services.hangs.open_from(1);
    services.gate.open_from(1);
    match asked {
        Asked::Delivery => all_is_done(&node, "stock").await,
        Asked::Check => {
            wait_until("it is committed", || async { is_done(&node, asked, "waits").await || found }).await;
        }
    }
    all_is_done(&node, "blocks").await;
    assert_eq!(staged(&node, "looks").await, (Some("1".to_owned()), 1), "{death:?}: once");
    assert_eq!(dead_letters(&node).await, 0, "{death:?}");
    let asks = if death == Death::BeforeTheCall || found { 1 } else { 2 };
    assert_eq!(services.gate.asked(), asks, "{death:?}: what is recorded is not asked again");
    if asked == Asked::Check {
        assert_eq!(ids(&node, "orders", "looks").await.len(), 1, "{death:?}: one transaction, one message");
    }
    node.stop().await;
    // What was in its hands when it died counts; also what blocked it, if it had that.
    let in_hand = usize::from(asked == Asked::Delivery && !found) + usize::from(death == Death::BeforeTheCall);
    assert_eq!(counted_and_settled(folder), (in_hand, 1), "{death:?}");
    let node = Node::start(config(folder)).unwrap();
    assert_eq!(staged(&node, "looks-again").await, (Some("1".to_owned()), 1), "{death:?}: nothing happens again");
    node.stop().await;
}

#[test]
fn a_delivery_of_which_a_node_dies_is_done_with_all_that_it_staged_or_not_at_all_and_once_in_the_end() {
    if !is_child(Asked::Delivery) {
        let name = "a_delivery_of_which_a_node_dies_is_done_with_all_that_it_staged_or_not_at_all_and_once_in_the_end";
        dies_of_each(&format!("dying::{name}"), Asked::Delivery);
    }
}

#[test]
fn a_check_of_which_a_node_dies_ends_its_transaction_with_all_that_it_staged_or_not_at_all_and_once_in_the_end() {
    if !is_child(Asked::Check) {
        let name = "a_check_of_which_a_node_dies_ends_its_transaction_with_all_that_it_staged_or_not_at_all_and_once_in_the_end";
        dies_of_each(&format!("dying::{name}"), Asked::Check);
    }
}

#[test]
fn a_message_of_which_a_node_dies_each_time_is_a_dead_letter_in_the_end_and_nothing_of_it_happens() {
    if is_child(Asked::Delivery) {
        return;
    }
    let name = "dying::a_message_of_which_a_node_dies_each_time_is_a_dead_letter_in_the_end_and_nothing_of_it_happens";
    let folder = tempfile::tempdir().unwrap();
    let services = Services { gate: Gate::begin(), hangs: Gate::begin() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(set_up(folder.path(), &services, Asked::Delivery, 2));
    for _ in 0..2 {
        lives_and_dies(name, folder.path(), Death::InTheCall, &services);
    }
    runtime.block_on(async {
        let node = Node::start(config(folder.path())).unwrap();
        all_is_done(&node, "stock").await;
        assert_eq!(dead_letters(&node).await, 1);
        assert_eq!(
            (staged(&node, "looks").await, services.gate.asked()),
            ((None, 0), 2),
            "it is not asked a third time"
        );
        node.stop().await;
    });
}
