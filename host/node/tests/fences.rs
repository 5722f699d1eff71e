//! Fence tables of bindings, on a real database: what of them is deleted, and what is needed still.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{config, half, prepare, topic};
use rusqlite::Connection;
use vouch_broker::record::EndedBy;
use vouch_broker::{NotDone, Refusal, TransactionOutcome};
use vouch_node::{
    CleanedFence, Dialect, EndRequest, Expect, Node, NodeConfig, PluginUpload, SampleHalf, TimeSource, fence_tables,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// 2026-05-28T20:26:40Z.
const BEGIN_MS: u64 = 1_780_000_000_000;

/// A machine's clock that a test moves.
struct Days(AtomicU64);

impl TimeSource for Days {
    fn since_boot(&self) -> Duration {
        self.since_1970() - Duration::from_millis(BEGIN_MS) + DAY
    }

    fn since_1970(&self) -> Duration {
        Duration::from_millis(BEGIN_MS) + DAY * u32::try_from(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// A shop's database with a fence, and a node with a binding that has it.
struct Shop {
    node: Node,
    days: Arc<Days>,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

fn create(file: &Path) {
    Connection::open(file).unwrap().execute_batch(&fence_tables(Dialect::Sqlite, false)).unwrap();
}

impl Shop {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shop.db");
        create(&file);
        let days = Arc::new(Days(AtomicU64::new(0)));
        let config = NodeConfig { sqlite_dirs: vec![folder.path().to_owned()], ..config(&folder.path().join("data")) };
        let node = Node::start_with(config, days.clone()).unwrap();
        for name in ["orders", "others"] {
            topic(&node, name, r#"{"type":"transaction","transaction":{"max_checks":0}}"#).await;
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/sql-checkback.wasm");
        let wasm = std::fs::read(path).unwrap().into();
        let upload = PluginUpload { name: "check".to_owned(), tag: "1".to_owned(), wasm, expected: None };
        node.components.upload(upload).await.unwrap();
        let shop = Self { node, days, file, _folder: folder };
        shop.bind("orders", "orders", r#", "fence": "vouch_fence""#, r#"{"database": "shop"}"#).await;
        shop
    }

    async fn bind(&self, name: &str, topic: &str, more: &str, config: &str) {
        let url = format!("sqlite:{}", self.file.display());
        let spec = format!(
            r#"{{"plugin": "check:1", "topics": ["{topic}"], "grants": {{"sql": {{"shop": {{"url": "{url}"{more}}}}}}}, "config": {config}}}"#
        );
        self.node.components.put_binding(name, &spec, Expect::Anything).await.unwrap();
    }

    /// A row that the service noted on this day.
    fn noted(&self, key: &str, day: i64) {
        let at = format!("strftime('%Y-%m-%dT%H:%M:%fZ', {}, 'unixepoch')", BEGIN_MS as i64 / 1000 + day * 86_400);
        let insert = format!("insert into vouch_fence values ('{key}', 'committed', {at})");
        Connection::open(&self.file).unwrap().execute(&insert, []).unwrap();
    }

    fn keys(&self) -> Vec<String> {
        let database = Connection::open(&self.file).unwrap();
        let mut rows = database.prepare("select fence_key from vouch_fence order by noted_at").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// How many rows of at least seven days go, or would.
    async fn clean(&self, dry: bool) -> u64 {
        let done = self.node.components.clean_fences("orders", DAY * 7, dry).await.unwrap();
        let [CleanedFence { name, rows, more: false, error: None }] = &done.databases[..] else { panic!("{done:?}") };
        assert_eq!(name, "shop");
        *rows
    }
}

#[tokio::test]
async fn rows_go_when_they_are_old_and_a_dry_run_takes_none() {
    let shop = Shop::open().await;
    (0..1_500).for_each(|number| shop.noted(&format!("old-{number}"), 1));
    shop.noted("of the eighth day", 8);
    shop.noted("young", 12);
    shop.days.0.store(15, Ordering::SeqCst);
    assert_eq!((shop.clean(true).await, shop.keys().len()), (1_500, 1_502));
    assert_eq!(
        (shop.clean(false).await, shop.keys()),
        (1_500, vec!["of the eighth day".to_owned(), "young".to_owned()])
    );
    assert_eq!(shop.clean(false).await, 0);
    shop.node.stop().await;
}

#[tokio::test]
async fn rows_stay_that_an_open_transaction_may_be_asked_about_however_old_they_are() {
    let shop = Shop::open().await;
    shop.days.0.store(10, Ordering::SeqCst);
    // Of a topic that is none of the binding's: another binding may have the same table.
    let open = prepare(&shop.node, "others", half("m1", "x")).await;
    prepare(&shop.node, "orders", half("m2", "x")).await;
    for (key, day) in [("long before", 8), ("the day before", 9), ("its own", 10), ("later", 20)] {
        shop.noted(key, day);
    }
    shop.days.0.store(60, Ordering::SeqCst);
    assert_eq!(
        (shop.clean(false).await, shop.keys()),
        (1, ["the day before", "its own", "later"].map(str::to_owned).into())
    );
    let by = EndedBy::Client { client_id: "producer-1".to_owned(), from_check: false };
    let (outcome, reason) = (TransactionOutcome::Committed, String::new());
    let end = EndRequest { topic: None, message_id: None, transaction: open, outcome, by, reason };
    shop.node.transactions.end(end).await.unwrap();
    assert_eq!((shop.clean(false).await, shop.keys().len()), (0, 3), "the other one is open still");
    shop.node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_cleaned_is_refused_and_what_a_database_says_is_told() {
    let shop = Shop::open().await;
    shop.noted("a row", 0);
    let refused = |name, older_than| shop.node.components.clean_fences(name, older_than, false);
    let early = refused("orders", DAY - Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&early, NotDone::Refused(Refusal::Invalid(why)) if why.contains("may still run")), "{early}");
    assert!(matches!(refused("none", DAY).await, Err(NotDone::Refused(Refusal::NotFound(_)))));
    let statement = r#"{"database": "shop", "statement": "select 1", "commit": "1"}"#;
    shop.bind("without", "others", "", statement).await;
    let none = refused("without", DAY).await.unwrap_err();
    assert!(
        matches!(&none, NotDone::Refused(Refusal::Invalid(why)) if why.contains("no database with a fence")),
        "{none}"
    );
    std::fs::write(&shop.file, "no database any more, whatever it was before: far too short, and without a header")
        .unwrap();
    let told = refused("orders", DAY).await.unwrap();
    assert!(told.databases[0].error.is_some() && told.databases[0].more, "{told:?}");
    shop.node.stop().await;
}

#[tokio::test]
async fn a_binding_is_tried_with_nothing_of_it_left_behind() {
    let shop = Shop::open().await;
    let tried = shop.node.components.try_binding("orders", SampleHalf::default()).await.unwrap();
    assert_eq!(tried.databases.len(), 1);
    assert!(tried.databases[0].refusals.is_empty() && tried.databases[0].error.is_none(), "{tried:?}");
    let [first, last] = &tried.calls[..] else { panic!("{tried:?}") };
    assert_eq!(
        (first.asked_as, first.answer, last.asked_as, last.answer),
        ("first check", "unknown", "last check", "rollback")
    );
    assert!(first.wrong.is_none() && last.wrong.is_none(), "{tried:?}");
    assert!(last.asked_for.iter().any(|asked| asked.starts_with("shop: close-fence")), "{last:?}");
    assert!(last.memory.0 > 0 && last.memory < last.memory_limit, "{last:?}");
    assert_eq!(shop.keys(), Vec::<String>::new());

    shop.noted("m1", 0);
    let half: SampleHalf = serde_json::from_str(r#"{"id": "m1"}"#).unwrap();
    let tried = shop.node.components.try_binding("orders", half).await.unwrap();
    assert_eq!(tried.calls.iter().map(|call| call.answer).collect::<Vec<_>>(), ["commit", "commit"]);
    std::fs::remove_file(&shop.file).unwrap();
    let away = shop.node.components.try_binding("orders", SampleHalf::default()).await.unwrap();
    assert!(away.databases[0].error.is_some() && away.databases[0].refusals.is_empty(), "{away:?}");
    assert!(away.calls.iter().all(|call| call.answer == "no answer" && call.wrong.is_none()), "{away:?}");
    let none = shop.node.components.try_binding("none", SampleHalf::default()).await;
    assert!(matches!(none, Err(NotDone::Refused(Refusal::NotFound(_)))));
    shop.node.stop().await;
}
