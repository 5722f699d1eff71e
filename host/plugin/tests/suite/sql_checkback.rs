//! The component that settles transactions by their database, against a real one: a SQLite file.
//!
//! `VOUCH_PLUGIN_DIST` names another folder to take the component from: one that was just built.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::Connection;
use vouch_plugin::{BindError, Binding, BindingSpec, Checked, EngineConfig, Grants, NoAnswer, Pending, World};
use vouch_sql::{Dialect, fence_tables};

use crate::http_checkback::{config, rolled_back, unknown};
use crate::support::{COMMIT, House, guest_error, pending};

fn component() -> Bytes {
    let checked_in = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist"));
    let folder = std::env::var_os("VOUCH_PLUGIN_DIST").map_or_else(checked_in, PathBuf::from);
    let path = folder.join("sql-checkback.wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run plugins/build", path.display())).into()
}

/// A shop with its orders and a fence, and a house whose bindings may have it.
pub(crate) struct Shop {
    house: House,
    pub(crate) file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Shop {
    pub(crate) fn open() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shop.db");
        let shop = Connection::open(&file).unwrap();
        shop.execute_batch(&fence_tables(Dialect::Sqlite, false)).unwrap();
        shop.execute_batch("create table orders (id text primary key, status text)").unwrap();
        let dirs = vec![folder.path().to_owned()];
        let house = House::with(|config| {
            config.sqlite_dirs = dirs;
            change(config);
        });
        Self { house, file, _folder: folder }
    }

    pub(crate) fn run(&self, statement: &str) -> rusqlite::Result<usize> {
        Connection::open(&self.file)?.execute(statement, [])
    }

    pub(crate) fn grants(&self, more: &str) -> Grants {
        grants(&self.file, more)
    }

    /// Asks about a transaction of this age, of which so many checks are left.
    async fn ask(&self, grants: Grants, settings: &[(&str, &str)], when: (u64, u32)) -> Checked {
        self.bind(grants, settings).await.check(asked(when)).await
    }

    pub(crate) async fn bind(&self, grants: Grants, settings: &[(&str, &str)]) -> Binding {
        let bind = |spec: &mut BindingSpec| {
            spec.grants = grants;
            config(spec, &[("database", "shop")]);
            config(spec, settings);
        };
        self.house.bind(component(), bind).await
    }

    /// Asks about transactions with these message ids in one call.
    async fn ask_many(&self, settings: &[(&str, &str)], many: &[(&str, (u64, u32))]) -> Result<Vec<Checked>, NoAnswer> {
        let one = |(id, when): &(&str, (u64, u32))| {
            let mut one = asked(*when);
            one.transaction_id = format!("0-{id}");
            one.half.id = (*id).to_owned();
            one
        };
        let asked: Vec<Pending> = many.iter().map(one).collect();
        let binding = self.bind(self.grants(r#", "fence": "vouch_fence", "write": true"#), settings).await;
        binding.admit().await.check_many_prepared(move || asked, None).await.map(|(checked, _)| checked)
    }
}

fn asked((age_ms, checks_left): (u64, u32)) -> Pending {
    let asked = pending();
    Pending { asked_at_ms: asked.opened_at_ms + age_ms, checks_left, ..asked }
}

fn grants(file: &Path, more: &str) -> Grants {
    let url = format!("sqlite:{}", file.display());
    serde_json::from_str(&format!(r#"{{"sql": {{"shop": {{"url": "{url}"{more}}}}}}}"#)).unwrap()
}

const FENCE: &str = r#", "fence": "vouch_fence""#;
const YOUNG: (u64, u32) = (10_000, 3);
const OLD: (u64, u32) = (60_000, 3);

#[tokio::test]
async fn its_upload_verdict_says_what_it_is_and_wants() {
    let verdict = House::new().engine.inspect(component()).await.unwrap();
    assert_eq!(verdict.worlds, [World::Checkback, World::CheckbackBatch]);
    assert_eq!(verdict.imports_wanted, ["vouch:plugin/sql@0.1.0"]);
}

/// As it was built when its WIT version was published: it runs for ever.
#[tokio::test]
async fn a_component_of_a_published_version_of_the_contract_runs_as_it_did() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sql-checkback-wit-0.1.0.wasm");
    let published = Bytes::from(std::fs::read(path).unwrap());
    let shop = Shop::open();
    let verdict = shop.house.engine.inspect(published.clone()).await.unwrap();
    assert_eq!(verdict.worlds, [World::Checkback]);
    let bind = |spec: &mut BindingSpec| {
        spec.grants = shop.grants(FENCE);
        config(spec, &[("database", "shop")]);
    };
    let binding = shop.house.bind(published, bind).await;
    assert!(unknown(binding.check(asked(YOUNG)).await).contains("no row in the fence"));
    assert!(rolled_back(binding.check(asked(OLD)).await).contains("fence is closed"));
}

#[tokio::test]
async fn a_row_of_the_fence_decides_and_a_missing_one_is_closed_when_it_is_old_or_asked_about_for_the_last_time() {
    let shop = Shop::open();
    let ask = async |when| shop.ask(shop.grants(FENCE), &[], when).await;
    let reason = unknown(ask(YOUNG).await);
    assert!(reason.contains("no row in the fence"), "{reason}");
    shop.run("insert into vouch_fence (fence_key, outcome) values ('01AB', 'committed')").unwrap();
    assert_eq!(ask(YOUNG).await, COMMIT);
    assert_eq!(ask(OLD).await, COMMIT);
    for when in [OLD, (10_000, 0)] {
        let shop = Shop::open();
        let closed = rolled_back(shop.ask(shop.grants(FENCE), &[], when).await);
        assert!(closed.contains("fence is closed"), "{closed}");
        let late = shop.run("insert into vouch_fence (fence_key, outcome) values ('01AB', 'committed')");
        assert!(late.unwrap_err().to_string().contains("settled otherwise"), "the business transaction comes too late");
        let again = rolled_back(shop.ask(shop.grants(FENCE), &[], YOUNG).await);
        assert!(again.contains("fence is closed"), "{again}");
    }
}

#[tokio::test]
async fn what_is_to_happen_on_rollback_happens_with_the_row_that_closes_and_only_then() {
    let cancels =
        [("on-rollback", "update orders set status = 'CANCELLED' where id = ?"), ("on-rollback-params", "{key}")];
    let writes = r#", "fence": "vouch_fence", "write": true"#;
    for (settled, status) in [(false, "CANCELLED"), (true, "WAITING")] {
        let shop = Shop::open();
        shop.run("insert into orders values ('A 17', 'WAITING')").unwrap();
        if settled {
            shop.run("insert into vouch_fence (fence_key, outcome) values ('01AB', 'committed')").unwrap();
        }
        let checked = shop.ask(shop.grants(writes), &cancels, OLD).await;
        assert_eq!(checked == COMMIT, settled, "{checked:?}");
        let now: String =
            Connection::open(&shop.file).unwrap().query_row("select status from orders", [], |row| row.get(0)).unwrap();
        assert_eq!(now, status);
    }
    let shop = Shop::open();
    let refused = guest_error(shop.ask(shop.grants(FENCE), &cancels, OLD).await);
    assert!(refused.contains(r#"set `"write": true`"#), "{refused}");
}

#[tokio::test]
async fn a_statement_is_asked_first_and_its_rollback_closes_the_fence() {
    let shop = Shop::open();
    let asks = [
        ("statement", "select status from orders where id = ?"),
        ("params", "{key}"),
        ("commit", "PAID"),
        ("rollback", "CANCELLED"),
    ];
    let ask = async |more: &str| shop.ask(shop.grants(more), &asks, YOUNG).await;
    assert!(unknown(ask("").await).contains("no row"), "without a fence the statement alone is asked");
    shop.run("insert into orders values ('A 17', 'PAID')").unwrap();
    assert_eq!(ask("").await, COMMIT);
    assert_eq!(ask(FENCE).await, COMMIT);
    shop.run("update orders set status = 'CANCELLED'").unwrap();
    assert!(rolled_back(ask("").await).contains("the value is CANCELLED"));
    assert!(rolled_back(ask(FENCE).await).contains("the fence is closed: the value is CANCELLED"));
    shop.run("update orders set status = 'PAID'").unwrap();
    assert!(rolled_back(ask(FENCE).await).contains("the fence is closed"), "what was settled stays so");
    shop.run("update orders set status = 'WAITING'").unwrap();
    assert!(rolled_back(ask(FENCE).await).contains("the fence is closed"), "it stays so");
    assert!(unknown(ask("").await).contains("the value is WAITING"));
}

#[tokio::test]
async fn an_open_transaction_that_holds_the_row_is_no_answer() {
    let shop = Shop::open();
    let service = Connection::open(&shop.file).unwrap();
    service
        .execute_batch("begin immediate; insert into vouch_fence (fence_key, outcome) values ('01AB', 'committed')")
        .unwrap();
    let held = guest_error(shop.ask(shop.grants(FENCE), &[], OLD).await);
    assert!(held.contains("holds the row"), "{held}");
    service.execute_batch("commit").unwrap();
    assert_eq!(shop.ask(shop.grants(FENCE), &[], OLD).await, COMMIT);
}

#[tokio::test]
async fn each_of_a_batch_is_decided_by_its_own_row_and_closed_in_a_database_transaction_of_its_own() {
    let shop = Shop::open();
    shop.run("insert into orders values ('A 17', 'WAITING')").unwrap();
    for (id, outcome) in [("paid", "committed"), ("gone", "rolled_back")] {
        shop.run(&format!("insert into vouch_fence (fence_key, outcome) values ('{id}', '{outcome}')")).unwrap();
    }
    let all = [("young", YOUNG), ("paid", OLD), ("old", OLD), ("gone", YOUNG), ("last", (1, 0))];
    let answers = shop.ask_many(&[], &all).await.unwrap();
    let [young, paid, old, gone, last] = <[Checked; 5]>::try_from(answers).unwrap();
    assert!(unknown(young).contains("no row in the fence"));
    assert_eq!(paid, COMMIT);
    for closed in [old, gone, last] {
        assert!(rolled_back(closed).contains("fence is closed"));
    }
    let closed = Connection::open(&shop.file).unwrap();
    let closed =
        closed.query_row("select count(*) from vouch_fence where outcome = 'rolled_back'", [], |row| row.get(0));
    assert_eq!(closed, Ok(3), "and the young one is open still");
    // What cannot be closed leaves those alone that could be.
    let wrong = [("on-rollback", "update no_such_table set x = 1")];
    let answers = shop.ask_many(&wrong, &[("other", OLD), ("paid", OLD), ("gone", OLD)]).await.unwrap();
    assert_eq!(answers[..2], [Checked::NoAnswer(NoAnswer::LeftOut), COMMIT]);
    let all_left_out = shop.ask_many(&wrong, &[("other", OLD), ("another", OLD)]).await.unwrap_err();
    assert!(all_left_out.to_string().contains("no_such_table"), "{all_left_out}");
}

#[tokio::test]
async fn a_batch_in_which_a_row_is_held_answers_about_the_others() {
    let shop = Shop::open();
    shop.run("insert into vouch_fence (fence_key, outcome) values ('paid', 'committed')").unwrap();
    let service = Connection::open(&shop.file).unwrap();
    service
        .execute_batch("begin immediate; insert into vouch_fence (fence_key, outcome) values ('held', 'committed')")
        .unwrap();
    let both = [("held", OLD), ("paid", OLD)];
    assert_eq!(shop.ask_many(&[], &both).await.unwrap(), [Checked::NoAnswer(NoAnswer::LeftOut), COMMIT]);
    service.execute_batch("commit").unwrap();
    assert_eq!(shop.ask_many(&[], &both).await.unwrap(), [COMMIT, COMMIT]);
}

#[tokio::test]
async fn a_database_that_cannot_be_asked_is_no_answer_and_tells_no_secret() {
    let shop = Shop::open();
    let nowhere = r#"{"sql": {"shop": {"url": "postgres://someone@127.0.0.1:1/shop", "fence": "vouch_fence"}}}"#;
    let told = guest_error(shop.ask(serde_json::from_str(nowhere).unwrap(), &[], OLD).await);
    assert!(told.contains("unavailable") && !told.contains("someone") && !told.contains("127.0.0.1"), "{told}");
    let other = guest_error(shop.ask(shop.grants(FENCE), &[("database", "other")], OLD).await);
    assert!(other.contains("not granted") && other.contains("`other`"), "{other}");
    let wrong = [("statement", "drop table orders"), ("fence", "off"), ("commit", "PAID")];
    let refused = guest_error(shop.ask(shop.grants(""), &wrong, OLD).await);
    assert!(refused.contains("invalid"), "{refused}");
    let writes = [("statement", "delete from orders returning id"), ("fence", "off"), ("commit", "PAID")];
    shop.run("insert into orders values ('A 17', 'PAID')").unwrap();
    guest_error(shop.ask(shop.grants(""), &writes, OLD).await);
    assert_eq!(shop.run("delete from orders").unwrap(), 1, "a grant without write changes nothing");
}

#[tokio::test]
async fn a_grant_that_cannot_be_used_refuses_the_binding() {
    let bind = async |house: &House, grants| {
        let spec = BindingSpec { grants, ..BindingSpec::new("b") };
        house.load(component()).await.bind(spec).err().unwrap()
    };
    let shop = Shop::open();
    let elsewhere = bind(&House::new(), shop.grants(FENCE)).await;
    assert!(matches!(&elsewhere, BindError::Database { name, .. } if name == "shop"), "{elsewhere}");
    assert!(elsewhere.to_string().contains("sqlite_dirs"), "{elsewhere}");
    let cluster = Shop::with(|config| config.has_others = true);
    let of_one = bind(&cluster.house, cluster.grants(FENCE)).await;
    assert!(matches!(of_one, BindError::FileOfOneNode), "{of_one}");
}

#[tokio::test]
async fn what_a_binding_lacks_or_grants_in_vain_is_a_warning() {
    let shop = Shop::open();
    let warnings = |grants| async {
        let binding = shop.house.bind(component(), |spec| spec.grants = grants).await;
        binding.warnings()
    };
    assert_eq!(warnings(shop.grants("")).await, Vec::<String>::new());
    let lacks = warnings(Grants::default()).await;
    assert!(lacks[0].contains("vouch:plugin/sql@0.1.0 and the binding grants no database"), "{lacks:?}");
    let binding = shop.house.bind(crate::http_checkback::component(), |spec| spec.grants = shop.grants("")).await;
    assert!(
        binding.warnings().iter().any(|warning| warning.contains("grants sql and the component does not import it"))
    );
}

#[tokio::test]
async fn a_verdict_is_never_taken_from_one_of_several_rows_or_from_more_than_the_limits_allow() {
    let shop = Shop::open();
    let asks = [("statement", "select id from orders"), ("fence", "off"), ("commit", "0")];
    for each in 0..3 {
        shop.run(&format!("insert into orders values ('{each}', '')")).unwrap();
    }
    let grants = shop.grants("");
    let bind = |spec: &mut BindingSpec| {
        (spec.grants, spec.limits.sql_rows) = (grants, 2);
        config(spec, &[("database", "shop")]);
        config(spec, &asks);
    };
    let told = guest_error(shop.house.check(component(), bind).await);
    assert!(told.contains("too large"), "{told}");
    let chance = guest_error(shop.ask(shop.grants(""), &asks, YOUNG).await);
    assert!(chance.contains("more than one row"), "{chance}");
}

#[tokio::test]
async fn a_dry_call_says_what_would_be_and_leaves_the_database_as_it_is() {
    let shop = Shop::open();
    shop.run("insert into orders values ('m1', 'UNPAID')").unwrap();
    let cancel = "update orders set status = 'CANCELLED' where id = ?";
    let bind = |statement: &'static str| {
        let grants = shop.grants(&format!(r#"{FENCE}, "write": true"#));
        move |spec: &mut BindingSpec| {
            spec.grants = grants;
            config(spec, &[("database", "shop"), ("on-rollback", statement), ("on-rollback-params", "{id}")]);
        }
    };
    let asked = pending();
    let last = Pending { asked_at_ms: asked.opened_at_ms + OLD.0, checks_left: 0, ..asked };
    let tried = shop.house.bind(component(), bind(cancel)).await.try_check(last.clone(), None).await;
    assert_eq!(rolled_back(tried.checked.clone()), "the fence is closed", "{:?}", tried.asked);
    assert!(tried.asked.contains(&format!("shop: close-fence | {cancel}")), "{:?}", tried.asked);
    assert!(tried.wrong.is_none() && tried.memory.0 > 0, "{tried:?}");
    let count =
        |query: &str| -> i64 { Connection::open(&shop.file).unwrap().query_row(query, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("select count(*) from vouch_fence"), 0);
    assert_eq!(count("select count(*) from orders where status = 'UNPAID'"), 1);

    // A statement that the database does not know is wrong, and stays so.
    let wrong = shop.house.bind(component(), bind("update no_table set x = ?")).await.try_check(last, None).await;
    assert!(wrong.wrong.as_ref().is_some_and(|why| why.contains("no_table")), "{wrong:?}");
}

#[tokio::test]
async fn databases_of_a_binding_are_looked_at_and_a_fence_that_decides_nothing_is_told() {
    let shop = Shop::open();
    let examined = async |more: &str| {
        let grants = shop.grants(more);
        let bind = |spec: &mut BindingSpec| {
            spec.grants = grants;
            config(spec, &[("database", "shop"), ("statement", "select 1"), ("commit", "1")]);
        };
        shop.house.bind(component(), bind).await.examine().await.remove(0)
    };
    assert_eq!(examined("").await.found.unwrap(), vouch_sql::FenceExamination::default());
    let good = examined(FENCE).await;
    assert!(good.name == "shop" && good.found.as_ref().unwrap().refusals.is_empty(), "{good:?}");
    shop.run("create table loose (fence_key text, outcome text, noted_at text)").unwrap();
    let loose = examined(r#", "fence": "loose""#).await.found.unwrap();
    assert!(loose.refusals.iter().any(|why| why.contains("unique")), "{loose:?}");
    let missing = examined(r#", "fence": "missing""#).await.found.unwrap();
    assert!(missing.refusals.iter().any(|why| why.contains("vouch sql fence-table")), "{missing:?}");
}
