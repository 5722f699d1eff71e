//! Fence tables of bindings, on a real database: what of them is deleted, and what is needed still.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::checking::until;
use crate::common::{config, half, prepare, topic};
use rusqlite::Connection;
use vouch_broker::record::EndedBy;
use vouch_broker::{NotDone, Refusal, TransactionId, TransactionOutcome};
use vouch_node::{
    BindingStanding, CleanedFence, Dialect, EndRequest, Expect, Node, NodeConfig, PluginUpload, PutBinding, SampleHalf,
    TimeSource, TransactionState, fence_tables,
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
        self.put(name, topic, more, config).await.unwrap();
    }

    /// With a deadline that no machine misses: the clock stands still, and what gave no answer is not asked again.
    async fn put(&self, name: &str, topic: &str, more: &str, config: &str) -> Result<PutBinding, NotDone> {
        let url = format!("sqlite:{}", self.file.display());
        let spec = format!(
            r#"{{"plugin": "check:1", "topics": ["{topic}"], "limits": {{"deadline": "20s"}},
                "grants": {{"sql": {{"shop": {{"url": "{url}"{more}}}}}}}, "config": {config}}}"#
        );
        self.node.components.put_binding(name, &spec, Expect::Anything).await
    }

    /// What is known of a binding.
    /// Waits until a binding stands so.
    async fn stands(&self, binding: &str, what: &str, so: impl Fn(&BindingStanding) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let standing = self.standing(binding).await;
            if so(&standing) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{what}: {standing:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn standing(&self, name: &str) -> BindingStanding {
        let revision = self.node.components.binding(name).await.unwrap().unwrap().revision;
        self.node.components.standing(name, revision).unwrap()
    }

    /// Its producer ends a transaction on its own.
    async fn ends(&self, transaction: TransactionId, outcome: TransactionOutcome) {
        let by = EndedBy::Client { client_id: "producer-1".to_owned(), from_check: false };
        let end = EndRequest { topic: None, message_id: None, transaction, outcome, by, reason: String::new() };
        self.node.transactions.end(end).await.unwrap();
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
    shop.ends(open, TransactionOutcome::Committed).await;
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

const FENCE: &str = r#", "fence": "vouch_fence", "write": true"#;

#[tokio::test]
async fn a_binding_that_cannot_do_what_it_is_set_for_is_refused_and_the_one_before_stands() {
    let shop = Shop::open().await;
    let before = shop.node.components.binding("orders").await.unwrap().unwrap();
    let no_table = r#", "fence": "no_such_table""#;
    let statement = r#"{"database": "shop", "on-rollback": "update no_such_orders set x = 1"}"#;
    for (more, config, says) in
        [(no_table, r#"{"database": "shop"}"#, "no such table"), (FENCE, statement, "no_such_orders")]
    {
        let refused = shop.put("orders", "orders", more, config).await.err().unwrap();
        assert!(
            matches!(&refused, NotDone::Refused(Refusal::Invalid(why)) if why.contains(says) && why.contains("\"unchecked\": true")),
            "{refused}"
        );
        assert_eq!(shop.node.components.binding("orders").await.unwrap().unwrap(), before);
        shop.bind("others", "others", more, &format!(r#"{config}, "unchecked": true"#)).await;
    }
    assert_eq!(shop.keys(), Vec::<String>::new(), "nothing of a trial stays");
    shop.node.stop().await;
}

#[tokio::test]
async fn a_binding_whose_database_is_away_stands_untried_until_a_trial_tells_something() {
    let shop = Shop::open().await;
    let aside = shop.file.with_extension("aside");
    std::fs::rename(&shop.file, &aside).unwrap();
    let put = shop.put("others", "others", FENCE, r#"{"database": "shop"}"#).await.unwrap();
    assert!(put.warnings.iter().any(|warning| warning.contains("stands untried")), "{:?}", put.warnings);
    assert!(shop.standing("others").await.untried.is_some());
    std::fs::rename(&aside, &shop.file).unwrap();
    shop.node.components.try_binding("others", SampleHalf::default()).await.unwrap();
    assert_eq!(shop.standing("others").await.untried, None);
    shop.node.stop().await;
}

#[tokio::test]
async fn a_component_that_contradicts_producers_is_told_of_and_closes_no_fence_until_one_agrees() {
    let shop = Shop::open().await;
    topic(&shop.node, "t", r#"{"type":"transaction","transaction":{"immunity":"100ms","interval":"100ms"}}"#).await;
    shop.bind("b", "t", FENCE, r#"{"database": "shop", "fence-after": "0s"}"#).await;
    // The service forgot to write the row.
    for n in 0..9 {
        let done = prepare(&shop.node, "t", half(&format!("done-{n}"), "x")).await;
        shop.ends(done, TransactionOutcome::Committed).await;
    }
    let by_hand = prepare(&shop.node, "t", half("by-hand", "x")).await;
    let by = EndedBy::Operator { name: "ann".to_owned() };
    let (outcome, reason) = (TransactionOutcome::RolledBack, String::new());
    let end = EndRequest { topic: None, message_id: None, transaction: by_hand, outcome, by, reason };
    shop.node.transactions.end(end).await.unwrap();

    for again in 0..2 {
        let nine = shop.node.components.try_ended("b", 50).await.unwrap().ended.unwrap();
        assert_eq!((nine.asked, nine.agreed, nine.contradictions.len()), (9, 0, 9), "{nine:?}");
        // What was heard is counted by its record, a moment later.
        shop.stands("b", &format!("each is noted once, {again}"), |standing| standing.contradicted == 9).await;
    }
    let nine = shop.node.components.try_ended("b", 50).await.unwrap().ended.unwrap();
    let last = &nine.contradictions[0];
    assert_eq!((last.topic.as_str(), last.ended, last.said), ("t", "commit", "rollback"), "{last:?}");
    assert!(!shop.standing("b").await.fences_held);
    let tenth = prepare(&shop.node, "t", half("done-9", "x")).await;
    shop.ends(tenth, TransactionOutcome::Committed).await;
    let ten = shop.node.components.try_ended("b", 50).await.unwrap().ended.unwrap();
    assert_eq!((ten.asked, ten.contradictions.len()), (10, 10));
    shop.stands("b", "its fences are held", |standing| standing.fences_held).await;
    assert_eq!(shop.keys(), Vec::<String>::new(), "of what is asked so nothing stays");

    let open = prepare(&shop.node, "t", half("open", "x")).await;
    shop.days.0.store(1, Ordering::SeqCst);
    let held = until(&shop.node, open, |view| view.last_error.is_some()).await;
    assert_eq!((held.state, shop.keys().len()), (TransactionState::Open, 0), "{held:?}");
    assert!(held.last_error.as_ref().unwrap().text.contains("holds the row"), "{held:?}");
    // From now on it does; the next that ends is looked at without anybody's asking for it.
    shop.noted("mended", 0);
    let mended = prepare(&shop.node, "t", half("mended", "x")).await;
    shop.ends(mended, TransactionOutcome::Committed).await;
    shop.stands("b", "its fences are held no more", |standing| !standing.fences_held).await;
    shop.days.0.store(2, Ordering::SeqCst);
    until(&shop.node, open, |view| view.state == TransactionState::RolledBack).await;
    let standing = shop.standing("b").await;
    assert_eq!((standing.contradicted, standing.fences_held), (10, false), "{standing:?}");
    assert!(standing.agreed >= 1 && standing.last_contradiction.is_some(), "{standing:?}");
    assert_eq!(shop.keys(), ["mended", "open"]);
    let counts = shop.node.metrics.comparisons.counts();
    assert!(counts.named().any(|(binding, counts)| binding == "b" && counts.agreed >= 1), "{counts:?}");
    shop.node.stop().await;
}

#[tokio::test]
async fn what_a_component_does_not_know_contradicts_nobody() {
    let shop = Shop::open().await;
    let done = prepare(&shop.node, "orders", half("m1", "x")).await;
    shop.ends(done, TransactionOutcome::RolledBack).await;
    let agreed = shop.node.components.try_ended("orders", 50).await.unwrap().ended.unwrap();
    assert_eq!((agreed.asked, agreed.agreed, agreed.contradictions.len()), (1, 1, 0), "{agreed:?}");
    std::fs::remove_file(&shop.file).unwrap();
    let away = shop.node.components.try_ended("orders", 50).await.unwrap().ended.unwrap();
    assert_eq!((away.asked, away.undecided, away.contradictions.len()), (1, 1, 0), "{away:?}");
    assert!(away.undecided_because.is_some());
    for count in [0, 1001] {
        let refused = shop.node.components.try_ended("orders", count).await.err().unwrap();
        assert!(matches!(refused, NotDone::Refused(Refusal::Invalid(_))), "{refused}");
    }
    shop.node.stop().await;
}

#[tokio::test]
async fn a_binding_that_is_deleted_leaves_no_connection_to_its_database() {
    let shop = Shop::open().await;
    topic(&shop.node, "t", r#"{"type":"transaction","transaction":{"immunity":"100ms","interval":"100ms"}}"#).await;
    shop.bind("b", "t", FENCE, r#"{"database": "shop"}"#).await;
    shop.noted("m1", 0);
    let open = prepare(&shop.node, "t", half("m1", "x")).await;
    shop.days.0.store(1, Ordering::SeqCst);
    until(&shop.node, open, |view| view.state == TransactionState::Committed).await;
    // Files of this process that are the shop's.
    let opened = || {
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|each| std::fs::read_link(each.ok()?.path()).ok());
        links.filter(|link| *link == shop.file).count()
    };
    assert!(opened() > 0, "a connection is kept for the next check");
    shop.node.components.delete_binding("b").await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while opened() > 0 {
        assert!(std::time::Instant::now() < deadline, "{} connections stay", opened());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shop.node.stop().await;
}
