//! How many deliveries a second a node makes of one core to components that consume. The long one is a benchmark, not a verdict; the
//! short one sees that all of it works.
//!
//! Messages that are all there are delivered; counted is the processor time of the whole process, from the first delivery to the
//! last that is recorded, their records in the log among it, and without that of the service that `http-push` talks to. Run it on a
//! machine that does nothing else:
//!
//! ```text
//! cargo test --release --locked --workspace --test figures -- --ignored --nocapture deliveries
//! ```
//!
//! `VOUCH_FIGURES_POSTGRES` (`postgres://user@localhost/shop?socket=/folder`): also on that database, which has the tables that `vouch
//! sql fence-table` prints, and `create table orders (id text primary key, body text)`. `VOUCH_FIGURES_LANGUAGES`: also components in
//! other languages, from that folder, in which `host/node/tests/languages/build` made them. `VOUCH_FIGURES_DELIVERIES`: how many
//! (20000).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::figures::{languages, median, used};
use crate::common::{message, receive, topic};
use crate::guests::commit;
use crate::keepers::{DELIVERY_KEY, RETURNED, consumer, or_trap, publish};
use bytes::Bytes;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use vouch_broker::{NewMessage, ResourceName};
use vouch_node::{
    DeliveryCounts, Dialect, Expect, Node, NodeConfig, PluginUpload, ReceiveRequest, SendRequest, fence_tables,
};

/// Messages in one send, and sends at a time, while the messages are stored.
const IN_EACH: usize = 16;
const SENDS_AT_ONCE: usize = 32;
/// Deliveries of a binding at a time, which is what a binding has by itself, and messages that the client without a component has.
const AT_ONCE: usize = 8;
/// Loops of that client.
const LOOPS: usize = 2;
/// Bounds a run that hangs.
const NEVER_LONGER: Duration = Duration::from_secs(600);

/// What is measured.
#[derive(Clone)]
struct Case {
    name: String,
    wasm: Bytes,
    grants: Value,
    config: Value,
    limits: Value,
    /// The body of each message, by its number.
    body: fn(usize) -> String,
    /// What is kept afterwards: so many keys for so many messages, and numbers that come to as much.
    keeps: Option<fn(usize) -> usize>,
    /// Each delivery publishes a message to `audit`.
    publishes: bool,
}

impl Case {
    /// One that is granted state and outbox, and is told nothing.
    fn new(name: &str, wasm: Bytes) -> Self {
        let grants = json!({"state": true, "publish": ["audit"]});
        let body = |_| "x".repeat(256);
        let (name, limits) = (name.to_owned(), json!({"deadline": "10s"}));
        Self { name, wasm, grants, config: json!({}), limits, body, keeps: None, publishes: false }
    }

    fn keeping(self, keys: fn(usize) -> usize) -> Self {
        Self { keeps: Some(keys), ..self }
    }

    fn configured(self, grants: Value, config: Value) -> Self {
        Self { grants, config, ..self }
    }
}

/// What was seen of one case.
struct Seen {
    took: Duration,
    cpu: Duration,
    counts: DeliveryCounts,
    half_of_the_calls: String,
}

impl Seen {
    /// µs of a core for each.
    fn each(&self, count: usize) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count as f64
    }

    /// A line of the table; `probe` is what a message takes of a core without a component.
    fn print(&self, name: &str, count: usize, probe: f64) {
        let (a_second, a_core) = (count as f64 / self.took.as_secs_f64(), count as f64 / self.cpu.as_secs_f64());
        let (each, stale) = (self.each(count), self.counts.stale as f64 / count as f64);
        let (times, half) = (each / probe, &self.half_of_the_calls);
        println!("| {name} | {a_second:.0} | {a_core:.0} | {each:.1} | {times:.1} | {stale:.2} | {half} |");
    }
}

/// A node of its own with the topics `goods` and `audit`.
async fn start(folder: &Path, sqlite_dir: &Path) -> Arc<Node> {
    let config = NodeConfig { sqlite_dirs: vec![sqlite_dir.to_owned()], ..NodeConfig::new(folder) };
    let node = Arc::new(Node::start(config).unwrap());
    for name in ["goods", "audit"] {
        topic(&node, name, "{}").await;
    }
    node
}

async fn stop(node: Arc<Node>) {
    Arc::into_inner(node).unwrap().stop().await;
}

/// Stores so many messages, whose ids begin so.
async fn fill(node: &Arc<Node>, ids: &str, count: usize, body: fn(usize) -> String) {
    let mut sends = JoinSet::new();
    for first in (0..count).step_by(IN_EACH) {
        if sends.len() == SENDS_AT_ONCE {
            sends.join_next().await.unwrap().unwrap();
        }
        let each = |n: usize| NewMessage { body: body(n).into(), ..message(&format!("{ids}{n}"), "") };
        let messages = (first..count.min(first + IN_EACH)).map(each).collect();
        let request = SendRequest { topic: ResourceName::plain("goods"), producer: "producer-1".to_owned(), messages };
        let node = node.clone();
        sends.spawn(async move { node.messages.send(request).await.unwrap().len() });
    }
    while let Some(sent) = sends.join_next().await {
        sent.unwrap();
    }
}

fn counts(node: &Node) -> DeliveryCounts {
    *node.metrics.deliveries.counts().of("b".to_owned())
}

/// Waits until so many messages are acknowledged by the binding, and nothing else became of any.
async fn are_done(node: &Node, name: &str, count: usize) {
    let began = Instant::now();
    loop {
        let counts = counts(node);
        let DeliveryCounts { ack, stale: _, late: 0, failed: 0, retry: 0, reject: 0, dead_letter: 0, not_run: 0 } =
            counts
        else {
            panic!("{name}: {counts:?} {:?}", node.components.consumer_standings());
        };
        if ack >= count as u64 {
            return assert_eq!(ack, count as u64, "{name}");
        }
        assert!(began.elapsed() < NEVER_LONGER, "{name}: {counts:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One case: what so many deliveries took. `other` is processor time of this process that is not the node's.
async fn measure(case: &Case, count: usize, sqlite_dir: &Path, other: &dyn Fn() -> Duration) -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), sqlite_dir).await;
    let upload = PluginUpload { name: "p".to_owned(), tag: "1".to_owned(), wasm: case.wasm.clone(), expected: None };
    node.components.upload(upload).await.unwrap();
    let spec = json!({
        "plugin": "p:1", "groups": ["g"], "subscriptions": {"goods": "*"}, "unchecked": true, "grants": case.grants,
        "config": case.config, "limits": case.limits,
    });
    node.components.put_binding("b", &spec.to_string(), Expect::Absent).await.unwrap();
    // Its code is there, and it is connected to what it talks to.
    fill(&node, "first", AT_ONCE, case.body).await;
    are_done(&node, &case.name, AT_ONCE).await;
    node.components.pause_binding("b", true).await.unwrap();
    fill(&node, "c", count, case.body).await;
    let (began, before) = (Instant::now(), used() - other());
    node.components.pause_binding("b", false).await.unwrap();
    are_done(&node, &case.name, AT_ONCE + count).await;
    let (took, cpu) = (began.elapsed(), used() - other() - before);
    let half_of_the_calls = median(&node.metrics.delivery_calls.counts());
    let seen = Seen { took, cpu, counts: counts(&node), half_of_the_calls };
    if let Some(keys) = case.keeps {
        is_kept(&node, &case.name, keys(AT_ONCE + count), AT_ONCE + count).await;
    }
    if case.publishes {
        assert_eq!(published(&node).await, AT_ONCE + count, "{}: each once", case.name);
    }
    stop(node).await;
    seen
}

/// The binding keeps numbers under so many keys, which come to this.
async fn is_kept(node: &Node, name: &str, keys: usize, sum: usize) {
    let (mut found, mut numbers, mut after) = (0, 0, None::<String>);
    loop {
        let page = node.components.kept("b", (String::new(), after), 1000).await.unwrap();
        let Some(last) = page.keys.last() else { break };
        after = Some(last.key.clone());
        found += page.keys.len();
        let number = |value: &[u8]| std::str::from_utf8(value).unwrap().parse::<usize>().unwrap();
        numbers += page.keys.iter().map(|kept| number(&kept.value)).sum::<usize>();
    }
    assert_eq!((found, numbers), (keys, sum), "{name}: each delivery counts once");
}

/// How many messages `audit` has.
async fn published(node: &Node) -> usize {
    let request = ReceiveRequest { wait: Duration::ZERO, ..receive("audit", "looks") };
    let mut all = 0;
    loop {
        let batch = node.messages.receive(request.clone()).await.unwrap();
        if batch.is_empty() {
            return all;
        }
        all += batch.len();
    }
}

/// What receiving and acknowledging alone take, each message in a record of its own as a binding has it: no component, no wire.
async fn without_a_component(count: usize) -> Seen {
    let (folder, none) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = start(folder.path(), none.path()).await;
    fill(&node, "c", count, |_| "x".repeat(256)).await;
    let (began, before) = (Instant::now(), used());
    let mut loops = JoinSet::new();
    for _ in 0..LOOPS {
        let node = node.clone();
        loops.spawn(async move {
            let request = ReceiveRequest { max: AT_ONCE as u32, wait: Duration::ZERO, ..receive("goods", "g") };
            let mut done = 0;
            loop {
                let batch = node.messages.receive(request.clone()).await.unwrap();
                if batch.is_empty() {
                    return done;
                }
                done += batch.len();
                let mut acks = JoinSet::new();
                for delivery in batch {
                    let node = node.clone();
                    acks.spawn(async move { node.messages.ack(&[delivery.handle]).await.unwrap() });
                }
                while let Some(acked) = acks.join_next().await {
                    assert!(acked.unwrap().iter().all(Result::is_ok));
                }
            }
        });
    }
    let mut done = 0;
    while let Some(each) = loops.join_next().await {
        done += each.unwrap();
    }
    let (took, cpu) = (began.elapsed(), used() - before);
    assert_eq!(done, count);
    stop(node).await;
    Seen { took, cpu, counts: DeliveryCounts::default(), half_of_the_calls: "–".to_owned() }
}

/// A service that takes whatever it is sent, on one thread of its own, whose processor time is told.
struct Service {
    address: SocketAddr,
    thread: String,
}

impl Service {
    fn start() -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let thread = std::fs::read_link("/proc/thread-self").unwrap();
                tell.send((listener.local_addr().unwrap(), thread.to_str().unwrap().to_owned())).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(take(stream));
                }
            });
        });
        let (address, thread) = told.recv().unwrap();
        Self { address, thread }
    }

    /// Processor time that it took so far.
    fn used(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", self.thread)).unwrap();
        Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
    }
}

/// One request, whose body is as long as it says.
async fn take(mut stream: TcpStream) {
    let (mut request, mut whole) = (Vec::new(), None);
    while whole.is_none_or(|whole| request.len() < whole) {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        if let (None, Some(head)) = (whole, request.windows(4).position(|window| window == b"\r\n\r\n")) {
            let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            whole = Some(head + 4 + length.unwrap_or(0));
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
}

/// Components of a few instructions, and what each does.
fn small() -> Vec<Case> {
    let returned = format!("(i32.const {RETURNED})");
    let does = |data: &str, code: String| consumer(data, &format!("{code} {} {}", or_trap(), commit()));
    let add = |key: &str| does("n", format!("(call $add {key} (i64.const 1) {returned})"));
    let set = does(
        "1",
        format!("(call $set {DELIVERY_KEY} (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) {returned})"),
    );
    let (publishes, ack) = (does("audit", publish((0, 5), (4096, 256))), consumer("", &commit()));
    vec![
        Case::new("a few instructions", ack),
        Case::new("and sets a key of its own", set).keeping(|count| count),
        Case::new("and adds to a key of its own", add(DELIVERY_KEY)).keeping(|count| count),
        Case::new("and adds to one key for all", add("(i32.const 0) (i32.const 1)")).keeping(|_| 1),
        Case { publishes: true, ..Case::new("and publishes a message of 256 B", publishes) },
    ]
}

/// Components in Rust: the stock keeper, and those that are ready made.
fn in_rust(service: SocketAddr, databases: &[(&str, String, [&str; 2])]) -> Vec<Case> {
    let read = |name: &str| {
        Bytes::from(std::fs::read(format!("{}/../../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))).unwrap())
    };
    let stock = |name: &str, body| Case { body, ..Case::new(name, read("stock")) };
    let url = format!("http://{service}/{{key}}");
    let push = (json!({"http": [format!("http://{service}")]}), json!({"url": url}));
    let signed = json!({"url": url, "secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"});
    let mut cases = vec![
        stock("stock keeper: adds to a key of its own", |n| json!({"sku": n.to_string(), "quantity": 1}).to_string())
            .keeping(|count| count - AT_ONCE),
        stock("stock keeper: adds to one of a hundred keys", |n| {
            json!({"sku": (n % 100).to_string(), "quantity": 1}).to_string()
        })
        .keeping(|count| count.min(100)),
        Case::new("`http-push`", read("http-push")).configured(push.0.clone(), push.1),
        Case::new("`http-push`, signed", read("http-push")).configured(push.0, signed),
    ];
    for (name, url, [first, second]) in databases {
        let grants = json!({"sql": {"shop": {"url": url, "once": "vouch_once", "write": true, "pool": AT_ONCE}}});
        let statement = format!("insert into orders (id, body) values ({first}, {second})");
        let config = json!({"database": "shop", "statement": statement, "params": "{delivery}, {body}"});
        let apply = Case::new(&format!("`sql-apply`, {name}: one row"), read("sql-apply"));
        let mut apply = apply.configured(grants, config);
        if *name == "SQLite" {
            // It lets one write at a time.
            apply.limits = json!({"deadline": "10s", "concurrency": 1});
        }
        cases.push(apply);
    }
    cases
}

/// A database file with the tables that are needed.
fn sqlite(folder: &Path) -> String {
    let file = folder.join("shop.db");
    let database = Connection::open(&file).unwrap();
    database.execute_batch(&fence_tables(Dialect::Sqlite, false)).unwrap();
    database.execute_batch("create table orders (id text primary key, body text)").unwrap();
    format!("sqlite:{}", file.display())
}

/// All cases, one after the other, with a table of them.
async fn table(cases: &[Case], service: &Service, count: usize, sqlite_dir: &Path) {
    println!(
        "\n| {count} deliveries | a second | a second of a core | µs of a core for each | times | stale | half of the calls |"
    );
    println!("|---|---|---|---|---|---|---|");
    let probe = without_a_component(count).await;
    let each = probe.each(count);
    probe.print("received and acknowledged, no component", count, each);
    for case in cases {
        let seen = measure(case, count, sqlite_dir, &|| service.used()).await;
        seen.print(&case.name, count, each);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_hundred_deliveries_to_each_kind_of_component_are_each_done_once() {
    let (shop, service) = (tempfile::tempdir().unwrap(), Service::start());
    let databases = [("SQLite", sqlite(shop.path()), ["?", "?"])];
    let cases = [small(), in_rust(service.address, &databases)].concat();
    table(&cases, &service, 200, shop.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark of some minutes"]
async fn deliveries_of_a_core() {
    let count = std::env::var("VOUCH_FIGURES_DELIVERIES").map_or(20_000, |count| count.parse().unwrap());
    let (shop, service) = (tempfile::tempdir().unwrap(), Service::start());
    let mut databases = vec![("SQLite", sqlite(shop.path()), ["?", "?"])];
    if let Ok(url) = std::env::var("VOUCH_FIGURES_POSTGRES") {
        databases.push(("PostgreSQL", url, ["$1", "$2"]));
    }
    let mut cases = [small(), in_rust(service.address, &databases)].concat();
    for (name, wasm) in languages() {
        cases.push(Case::new(&format!("{name}: says yes"), wasm.clone()));
        let counts = Case::new(&format!("{name}: and adds to a key of its own"), wasm);
        cases.push(counts.configured(json!({"state": true}), json!({"count": "yes"})).keeping(|count| count));
    }
    table(&cases, &service, count, shop.path()).await;
}
