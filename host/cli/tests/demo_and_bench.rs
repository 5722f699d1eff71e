//! The main job and the measurements, as a user runs them. One after the other: both need the whole machine.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use support::run;

#[test]
fn the_demo_adds_up_and_fits_a_terminal_and_bench_measures_all_three_servers() {
    let demo = run(&["demo", "--fast"]).succeeded();
    for line in demo.stdout.lines() {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
    }
    assert!(!demo.stdout.contains('\x1b'), "no colour where there is no terminal");
    for expected in ["is killed (kill -9)", "decided by the component", "decided by the client", "It adds up: 4 rows"] {
        assert!(demo.stdout.contains(expected), "{expected}: {demo:?}");
    }
    assert_that_each_sale_counted_once(&demo.stdout);
    bench("send", &["--batch", "2"]);
    bench("transaction", &[]);
    bench("send", &["--rate", "200"]);
    let log = run(&["bench", "log", "--rounds", "1", "--seconds", "1", "--json"]).succeeded().json();
    assert!(log["ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{log}");
}

/// The last chapter: the broker dies between the first sale and the last, and what the component keeps and published is as if
/// it had not.
fn assert_that_each_sale_counted_once(stdout: &str) {
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let said = words.join(" ");
    let [_, of] = said.split("in the middle of it: ").collect::<Vec<_>>()[..] else {
        panic!("the broker is killed once: {stdout}");
    };
    let done: u32 = of.split(' ').next().unwrap().parse().unwrap();
    assert!((1..60).contains(&done) && of.contains("of 60 sales were done"), "killed in between: {stdout}");
    let (_, after) = said.split_once("broker starts again").unwrap();
    // What commands print, as they print it.
    assert!(after.contains("vouch binding state stock list KEY VALUE VERSION EXPIRES stock:lamp 40 "), "{stdout}");
    assert!(after.contains("warehouse has 60 reservations, such as {\"order\":\"S-"), "{stdout}");
    assert!(after.contains("of 100 lamps 40 are left, and 60 reservations came, one for each sale."), "{stdout}");
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
