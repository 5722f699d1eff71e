//! The measurements in which a node is compared with another node.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use support::run;

/// One after the other: each needs the whole machine.
#[test]
fn bench_measures_many_topics_beside_one_and_a_node_with_and_without_its_background_work() {
    let load = ["--topics", "5", "--seconds", "1", "--rounds", "1", "--warmup", "100ms", "--producers", "8", "--json"];
    let measured = run(&[&["bench", "send"][..], &load].concat()).succeeded().json();
    assert_eq!(measured["load"]["topics"], 5, "{measured}");
    for server in ["vouch", "single", "bare"] {
        assert!(messages(&measured["rounds"][0][server]) > 0, "{server}: {measured}");
    }
    assert!(measured["ratios"]["single"]["messages_per_second"]["median"].as_f64().is_some(), "{measured}");

    // Large bodies, so that every kind of work falls into a short turn.
    let load = ["--background", "--seconds", "4", "--rounds", "1", "--producers", "16", "--body", "32768", "--json"];
    let measured = run(&[&["bench", "send"][..], &load].concat()).succeeded().json();
    let round = &measured["rounds"][0];
    for server in ["vouch", "vouch+", "bare", "bare+"] {
        assert!(messages(&round["servers"][server]) > 0, "{server}: {measured}");
    }
    for work in ["lookup_files", "segments_released", "pages_read"] {
        assert!(round[work].as_u64().is_some_and(|times| times > 0), "{work}: {measured}");
    }
    assert!(round["background_read_bytes_per_second"].as_f64().is_some_and(|bytes| bytes > 0.0), "{measured}");
    assert!(measured["kept"]["vouch_to_bare"]["median"].as_f64().is_some_and(|kept| kept > 0.0), "{measured}");
}

fn messages(seen: &serde_json::Value) -> u64 {
    seen["messages"].as_u64().unwrap_or_default()
}
