//! How long one call takes, one after the other and with no node around it: a benchmark, not a verdict.
//!
//! From the question to the verdict: a place, a fresh instance, the call, and its end. Run it on a machine that does nothing else:
//!
//! ```text
//! cargo test --release --locked --workspace --test suite -- --ignored --nocapture one_call
//! ```

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::time::{Duration, Instant};

use vouch_sql::{Database, DatabasePassword, SqlCall, SqlGrant, SqlSurroundings, Statement, Value};

use crate::guests;
use crate::sql_checkback::Shop;
use crate::support::{COMMIT, House, LONG, pending};

const CALLS: usize = 20_000;
/// Before any is measured: caches fill, and the processor leaves its sleep.
const CALLS_BEFORE: usize = 2_000;
/// What is asked of the database, with and without a component around it.
const STATEMENT: &str = "select outcome from vouch_fence where fence_key = ?";

/// Times that so many calls took, ascending.
async fn times(mut call: impl AsyncFnMut()) -> Vec<Duration> {
    for _ in 0..CALLS_BEFORE {
        call().await;
    }
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let began = Instant::now();
        call().await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times
}

fn tell(what: &str, times: &[Duration]) {
    let micros = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("| {what} | {:.0} | {:.0} | {:.0} |", micros(0.5), micros(0.99), micros(0.999));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark of some seconds"]
async fn one_call_after_the_other() {
    println!("\n| {CALLS} calls, one at a time: µs | p50 | p99 | p99.9 |\n|---|---|---|---|");
    let house = House::new();
    let trivial = house.bind(guests::check(&guests::commit()), |_| {}).await;
    let of_trivial = times(async || assert_eq!(trivial.check(pending()).await, COMMIT)).await;
    tell("a component of a few instructions", &of_trivial);

    let shop = Shop::open();
    let id = pending().half.id;
    shop.run(&format!("insert into vouch_fence (fence_key, outcome) values ('{id}', 'committed')")).unwrap();
    let grant = SqlGrant::new(format!("sqlite:{}", shop.file.display()).parse().unwrap());
    let dirs = vec![shop.file.parent().unwrap().to_owned()];
    let surroundings = SqlSurroundings { sqlite_dirs: dirs, ..SqlSurroundings::default() };
    let database = Database::open(&grant, DatabasePassword::default(), &surroundings).unwrap();
    let statement = Statement::new(STATEMENT, [Value::Text(id)]);
    let of_statement =
        times(async || assert_eq!(database.run(&statement, SqlCall::within(LONG)).await.unwrap().rows.len(), 1)).await;
    tell("a statement on SQLite, with no component", &of_statement);

    let settings = [("fence", "off"), ("statement", STATEMENT), ("params", "{id}"), ("commit", "committed")];
    let asking = shop.bind(shop.grants(""), &settings).await;
    let of_check = times(async || assert_eq!(asking.check(pending()).await, COMMIT)).await;
    tell("the same statement, by `sql-checkback`", &of_check);
    let over = of_check[CALLS / 2].saturating_sub(of_statement[CALLS / 2]);
    println!("half of the checks take {:.0} µs more than the statement", over.as_secs_f64() * 1e6);
}
