//! The main job and the measurements, as a user runs them. One after the other: both need the whole machine.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::run;

/// Until this is dropped no other test of this file runs.
fn the_whole_machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // Of one that failed nothing is left.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays the story; what it printed fits a terminal.
fn demo(flags: &[&str]) -> String {
    let demo = run(&[&["demo", "--fast"], flags].concat()).succeeded();
    for line in demo.stdout.lines() {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
    }
    assert!(!demo.stdout.contains('\x1b'), "no colour where there is no terminal");
    demo.stdout
}

#[test]
fn the_demo_adds_up_and_fits_a_terminal_and_bench_measures_all_three_servers() {
    let _machine = the_whole_machine();
    let demo = demo(&[]);
    for expected in ["is killed (kill -9)", "decided by the component", "decided by the client", "It adds up: 4 rows"] {
        assert!(demo.contains(expected), "{expected}: {demo}");
    }
    let (healthy, _) = demo.split_once("2  The database goes down").unwrap();
    assert!(!healthy.contains("asked by http-checkback"), "nobody asks about a healthy order: {demo}");
    let said = assert_that_the_broker_died_in_between(&demo);
    let (_, after) = said.split_once("broker starts again").unwrap();
    assert_that_each_sale_counted_once(after);
    assert!(demo.contains("The broker died in the middle of 60 sales: of 100 lamps 40 are left, and\n60"), "{demo}");
    bench("send", &["--batch", "2"]);
    bench("transaction", &[]);
    bench("send", &["--rate", "200"]);
    let log = run(&["bench", "log", "--rounds", "1", "--seconds", "1", "--json"]).succeeded().json();
    assert!(log["ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{log}");
}

/// Whoever leads is found and killed, once between a half message and its commit and once while a component consumes. Each time
/// another node leads, and nothing is lost or done twice.
#[test]
fn three_nodes_become_one_broker_and_another_one_leads_when_the_one_that_leads_is_killed() {
    let _machine = the_whole_machine();
    let demo = demo(&["--nodes", "3"]);
    let said = words(&demo);
    let (cluster, _) = said.split_once("2 A healthy order").unwrap();
    for step in ["vouch cluster add --token-file node-3.token", "node 3 joins with it", "all three vote"] {
        assert!(cluster.contains(step), "{step}: {demo}");
    }

    // What stands between two things that happen, in the order in which they do.
    let mut rest = said.as_str();
    let mut until = |next: &str| {
        let (before, after) =
            rest.split_once(next).unwrap_or_else(|| panic!("no {next:?} behind what was before: {demo}"));
        rest = after;
        before
    };
    until("customer orders a shelf: A-1006");
    until("service half message stored");
    let killed = until("leads, and is killed (kill -9)").rsplit_once("node ").unwrap().1.trim().to_owned();
    let led = until("leads in term ");
    assert!(!led.contains("decided"), "nobody decides while nobody leads: {demo}");
    let next = led.rsplit_once("node ").unwrap().1.trim().to_owned();
    assert_ne!(killed, next, "{demo}");
    until("committed, decided by the component");
    until("shipping receives A-1006");
    // Clients are led to whoever leads when they start.
    if cluster.contains(&format!("cluster node {killed} leads in term ")) {
        let left = format!("service gets no further with node {killed}, goes on with node ");
        assert!(until("service tells the broker: commit").contains(&left), "the commit comes by another node: {demo}");
    }
    until("shipping receives A-1007");
    until(&format!("node {killed} starts again on the same folder"));
    until(&format!("node {killed} has all of the log: its lag is 0 bytes"));
    let after = assert_that_the_broker_died_in_between(&demo);
    let (before, after) = after.split_once(" leads in term").unwrap();
    assert!(before.contains("node "), "another one leads: {demo}");
    assert_that_each_sale_counted_once(after);
    let (_, ledger) = after.split_once("The ledger").unwrap();
    for node in 1..=3 {
        assert!(ledger.contains(&format!("node {node} 6 60 40")), "all have the same: {demo}");
    }
    assert!(ledger.contains("It adds up: 6 rows, 6 messages committed, 6 delivered, each once"), "{demo}");
}

/// Without what only a terminal needs.
fn words(stdout: &str) -> String {
    stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The last chapter: the broker dies between the first sale and the last. Returns what comes behind that.
fn assert_that_the_broker_died_in_between(stdout: &str) -> String {
    let said = words(stdout);
    let [_, of] = said.split("in the middle of it: ").collect::<Vec<_>>()[..] else {
        panic!("it is killed once: {stdout}");
    };
    let done: u32 = of.split(' ').next().unwrap().parse().unwrap();
    assert!((1..60).contains(&done) && of.contains("of 60 sales were done"), "killed in between: {stdout}");
    of.to_owned()
}

/// What the component keeps and published is as if nothing had died.
fn assert_that_each_sale_counted_once(after: &str) {
    // What commands print, as they print it.
    assert!(after.contains("vouch binding state stock list KEY VALUE VERSION EXPIRES stock:lamp 40 "), "{after}");
    assert!(after.contains("warehouse has 60 reservations, such as {\"order\":\"S-"), "{after}");
    assert!(after.contains("100 lamps 40 are left, and 60 reservations came, one for each sale."), "{after}");
}

fn bench(kind: &str, flags: &[&str]) {
    let common = ["bench", kind, "--seconds", "1", "--rounds", "1", "--warmup", "100ms", "--producers", "8", "--json"];
    let measured = run(&[&common[..], flags].concat()).succeeded().json();
    for server in ["vouch", "null", "bare"] {
        let seen = &measured["rounds"][0][server];
        assert!(seen["messages"].as_u64().is_some_and(|messages| messages > 0), "{server}: {measured}");
        assert_eq!(seen["failures"], 0, "{server}: {measured}");
        assert!(seen["p99_us"].as_u64() >= seen["p50_us"].as_u64(), "{server}: {measured}");
    }
    assert!(measured["ratios"]["bare"]["messages_per_second"]["median"].as_f64().is_some(), "{measured}");
}
