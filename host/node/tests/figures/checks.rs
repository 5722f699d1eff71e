//! How many checks a second a node makes of one core, and what a batch saves: a benchmark, not a verdict.
//!
//! Transactions that are all due are bound, and settled; counted is the processor time of the whole process, from the first due one
//! to the last that is recorded, their records in the log among it. Run it on a machine that does nothing else:
//!
//! ```text
//! cargo test --release --locked --workspace --test figures -- --ignored --nocapture checks
//! ```
//!
//! `VOUCH_FIGURES_POSTGRES` (`postgres://user@localhost/shop?socket=/folder`): also on that database, which has the tables that `vouch
//! sql fence-table` prints and, in the fence, a row `committed` for each of `c0`, `c1`, … up to `VOUCH_FIGURES_CHECKS` (20000).
//! `VOUCH_FIGURES_LANGUAGES`: also components in other languages, from that folder, in which `host/node/tests/languages/build` made
//! them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::figures::{languages, median, used};
use crate::common::{half, prepare, topic};
use crate::guests;
use bytes::Bytes;
use rusqlite::Connection;
use tokio::task::JoinSet;
use vouch_node::{Dialect, Expect, Node, NodeConfig, PluginUpload, fence_tables};

/// Sends at a time, while the transactions are made.
const SENDS_AT_ONCE: usize = 512;

/// What is measured.
struct Case<'a> {
    name: &'a str,
    wasm: &'a Bytes,
    grants: serde_json::Value,
    config: serde_json::Value,
}

async fn open(node: &Arc<Node>, count: usize) {
    let mut sends = JoinSet::new();
    for n in 0..count {
        if sends.len() == SENDS_AT_ONCE {
            sends.join_next().await.unwrap().unwrap();
        }
        let node = node.clone();
        sends.spawn(async move { prepare(&node, "t", half(&format!("c{n}"), "order")).await });
    }
    while sends.join_next().await.is_some() {}
}

/// One case: what it took of a core for each check, and the calls.
async fn measure(case: &Case<'_>, count: usize, sqlite_dir: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let config = NodeConfig { sqlite_dirs: vec![sqlite_dir.to_owned()], ..NodeConfig::new(folder.path()) };
    let node = Arc::new(Node::start(config).unwrap());
    topic(&node, "t", r#"{"type":"transaction","transaction":{"immunity":"1s","interval":"1h"}}"#).await;
    let upload = PluginUpload { name: "p".to_owned(), tag: "1".to_owned(), wasm: case.wasm.clone(), expected: None };
    node.components.upload(upload).await.unwrap();
    open(&node, count).await;
    // All of them are due when the last one is.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let spec = serde_json::json!({
        "plugin": "p:1", "topics": ["t"], "unchecked": true, "grants": case.grants, "config": case.config,
        "limits": {"deadline": "10s"},
    });
    let (began, before) = (Instant::now(), used());
    node.components.put_binding("b", &spec.to_string(), Expect::Absent).await.unwrap();
    while node.status.numbers().await.unwrap().open_transactions > 0 {
        assert!(began.elapsed() < Duration::from_secs(600), "{}: not all were settled", case.name);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (took, cpu) = (began.elapsed().as_secs_f64(), (used() - before).as_secs_f64());
    let calls = node.metrics.check_calls.counts();
    let all: u64 = calls.buckets.iter().sum();
    let median = median(&calls);
    println!(
        "| {} | {:.0} | {:.0} | {:.1} | {:.1} | {median} |",
        case.name,
        count as f64 / took,
        count as f64 / cpu,
        cpu * 1e6 / count as f64,
        count as f64 / all as f64,
    );
    Arc::into_inner(node).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark of about a minute"]
async fn checks_of_a_core() {
    let count = std::env::var("VOUCH_FIGURES_CHECKS").map_or(20_000, |count| count.parse().unwrap());
    let read = |path: &str| Bytes::from(std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap());
    // The one answers about many at once, the other, of before, about one.
    let (many, single) =
        (read("../../plugins/dist/sql-checkback.wasm"), read("../plugin/tests/fixtures/sql-checkback-wit-0.1.0.wasm"));
    let (plain, batch) = (guests::check(&guests::commit()), guests::batch());
    let shop = tempfile::tempdir().unwrap();
    let file = shop.path().join("shop.db");
    let mut database = Connection::open(&file).unwrap();
    database.execute_batch(&fence_tables(Dialect::Sqlite, false)).unwrap();
    let rows = database.transaction().unwrap();
    for n in 0..count {
        let row = format!("insert into vouch_fence (fence_key, outcome) values ('c{n}', 'committed')");
        rows.execute(&row, []).unwrap();
    }
    rows.commit().unwrap();
    let none = || serde_json::json!({});
    let languages = languages();
    let mut cases = vec![
        Case { name: "a few instructions, one by one", wasm: &plain, grants: none(), config: none() },
        Case { name: "the same, many at once", wasm: &batch, grants: none(), config: none() },
    ];
    let mut databases = vec![("SQLite", format!("sqlite:{}", file.display()), "?")];
    if let Ok(url) = std::env::var("VOUCH_FIGURES_POSTGRES") {
        databases.push(("PostgreSQL", url, "$1"));
    }
    let names: Vec<[String; 3]> = databases
        .iter()
        .map(|(name, ..)| {
            ["a statement, one by one", "the fence, one by one", "the fence, many at once"]
                .map(|how| format!("{name}: {how}"))
        })
        .collect();
    for ((_, url, parameter), [plain, one, all]) in databases.iter().zip(&names) {
        let grants = || serde_json::json!({"sql": {"shop": {"url": url, "fence": "vouch_fence", "pool": 8}}});
        let statement = format!("select outcome from vouch_fence where fence_key = {parameter}");
        let asks = serde_json::json!({
            "database": "shop", "fence": "off", "statement": statement, "params": "{id}", "commit": "committed",
        });
        let fence = || serde_json::json!({"database": "shop"});
        cases.push(Case { name: plain, wasm: &single, grants: grants(), config: asks });
        cases.push(Case { name: one, wasm: &single, grants: grants(), config: fence() });
        cases.push(Case { name: all, wasm: &many, grants: grants(), config: fence() });
    }
    for (name, wasm) in &languages {
        cases.push(Case { name, wasm, grants: none(), config: none() });
    }
    println!(
        "\n| {count} checks | a second | a second of a core | µs of a core for each | checks a call | half of the calls |"
    );
    println!("|---|---|---|---|---|---|");
    for case in &cases {
        measure(case, count, shop.path()).await;
    }
}
