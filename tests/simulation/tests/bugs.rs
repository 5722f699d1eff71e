//! Mistakes that are made on purpose: the simulator finds each. The seeds that found them are replayed; with
//! `VOUCH_SIMULATION_BUGS=1` each is searched for anew, and a table is printed.

use std::time::{Duration, Instant};

use vouch_simulation::bugs::ALL;
use vouch_simulation::{Failure, Injected, Plan, run};

/// A bug must be found within this long, on one core.
const WITHIN: Duration = Duration::from_secs(60);

/// By which seed each was found first.
const FOUND: &[(&str, u64)] = &[
    ("ack before fsync", 1),
    ("vote not synced", 1),
    ("vote answered before it is saved", 1),
    ("hard state after applied", 9),
    ("tail readable but not durable after kill -9", 8),
    ("fsync retried after an error", 38),
    ("conflicting suffix not cut before overwrite", 4),
    ("off by one in the cut", 3),
    ("a sync of before the cut counted (log)", 139),
    ("a report of before the cut counted", 4),
    ("what is cut off still counts as durable", 9),
    ("marks trusted on a follower", 74),
    ("a mark written by a follower", 1),
    ("applied beyond commit", 1),
    ("proposal accepted as follower (shard)", 1),
    ("leader change reported as failure", 3),
    ("a proposal dropped and never answered", 9),
    ("apply reading a clock", 1),
    ("an empty append acknowledged early", 1),
    ("heartbeats beside the ordered path", 1),
    ("a wiped node voting under its old id", 19),
    ("a sync completion of an earlier incarnation", 4),
    ("mapped bytes handed out above the commit position", 3),
    ("a segment prepared anew at start", 1),
    ("who asks a leader that cannot begin waits for ever", 95),
    ("the first entry of a term sent before it is written", 1),
    ("an acknowledged delete that was not durable", 4),
    ("a recycled first segment created empty", 92),
    ("a segment used before its name is durable", 3),
    ("a note written over the one before", 242),
    ("damage below what is noted taken for a torn tail", 2),
    ("entries read and sent without a look at their checksums", 52),
    ("one copy of a note read", 42),
    ("a leader that cannot read what it is to send leads on", 52),
    ("a leader that was taken out of the group leads on", 700),
    ("a start that counts on the members of long ago", 1),
    ("what was pulled takes its place before it is durable", 14),
    ("a pulled log without the note of its node", 8),
    ("a damaged node takes part before it is repaired", 28),
    ("released what a follower needs", 8),
    ("released what is being pulled", 71),
    ("an offer taken that ends too early", 58),
    ("a wiped node pulls under its old id", 13),
    ("a second pull begun over the first", 236),
    ("effects applied with a repeated end", 1),
    ("effects applied with a stale check number", 1),
    ("effects applied with an acked lease", 1),
    ("a version not compared", 1),
    ("a refused record's message found by key", 1),
    ("the same outbox id for two checks", 7),
    ("an effect of a call that outlived its lease", 1),
];

/// Those that are made where nodes come and go, and nowhere else.
const OF_MEMBERS: [&str; 2] =
    ["a leader that was taken out of the group leads on", "a start that counts on the members of long ago"];

/// Those that are made where guests are asked, and nowhere else.
const OF_GUESTS: [&str; 7] = [
    "effects applied with a repeated end",
    "effects applied with a stale check number",
    "effects applied with an acked lease",
    "a version not compared",
    "a refused record's message found by key",
    "the same outbox id for two checks",
    "an effect of a call that outlived its lease",
];

/// Those that are made where what is gone is taken from others' disks, and nowhere else.
const OF_PULLS: [&str; 8] = [
    "what was pulled takes its place before it is durable",
    "a pulled log without the note of its node",
    "a damaged node takes part before it is repaired",
    "released what a follower needs",
    "released what is being pulled",
    "an offer taken that ends too early",
    "a wiped node pulls under its old id",
    "a second pull begun over the first",
];

/// Short runs and long ones, of three voters and of five.
fn plan(name: &str, seed: u64, bug: Option<Injected>) -> Plan {
    let pulls = OF_PULLS.contains(&name);
    let changes = OF_MEMBERS.contains(&name);
    let nodes = if seed.is_multiple_of(4) && !changes { 5 } else { 3 };
    let faults_ms = [4_000, 8_000, 15_000][(seed % 3) as usize];
    Plan {
        seed,
        nodes,
        faults_ms,
        clients: 6,
        changes,
        replaces: false,
        guests: OF_GUESTS.contains(&name),
        pulls,
        names: false,
        bug,
    }
}

fn search(name: &str, bug: Injected) -> Option<(u64, Duration, Box<Failure>)> {
    let began = Instant::now();
    for seed in 1.. {
        if began.elapsed() > WITHIN {
            return None;
        }
        if let Err(failure) = run(plan(name, seed, Some(bug))) {
            return Some((seed, began.elapsed(), failure));
        }
    }
    None
}

#[test]
fn each_bug_is_found_by_the_seed_that_found_it() {
    let mut missed = Vec::new();
    for (name, seed) in FOUND {
        let (_, bug) = ALL.iter().find(|(known, _)| known == name).expect("a bug of the list");
        match run(plan(name, *seed, Some(*bug))) {
            Ok(_) => missed.push(name),
            Err(failure) => println!("{name}: {}", failure.wrong),
        }
        // And it is the bug that is found.
        run(plan(name, *seed, None)).unwrap_or_else(|failure| panic!("{failure}"));
    }
    assert!(
        missed.is_empty(),
        "what is decided changed, and other seeds find these (VOUCH_SIMULATION_BUGS=1): {missed:?}"
    );
}

#[test]
fn each_bug_is_found_anew() {
    if std::env::var_os("VOUCH_SIMULATION_BUGS").is_none() {
        return;
    }
    let only = std::env::var("VOUCH_SIMULATION_BUG").ok();
    let mut missed = Vec::new();
    println!("| bug | seed | virtual time | wall time | what was found |\n|---|---|---|---|---|");
    for (name, bug) in ALL.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only.as_str()))) {
        match search(name, *bug) {
            Some((seed, wall, failure)) => println!(
                "| {name} | {seed} | {:.1} s | {:.1} s | {} |",
                failure.virtual_ms as f64 / 1000.0,
                wall.as_secs_f64(),
                failure.wrong.lines().next().unwrap_or_default()
            ),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not found within {WITHIN:?}: {missed:?}");
}
