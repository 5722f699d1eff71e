//! Runs of the simulator: some seeds that are fixed, and fresh ones for some time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vouch_simulation::checks::Fate;
use vouch_simulation::{Plan, Pulls, Report, run};

fn plan(seed: u64) -> Plan {
    let nodes = if seed.is_multiple_of(3) { 5 } else { 3 };
    let (changes, pulls) = (seed.is_multiple_of(2), seed / 4 % 2 == 1);
    Plan {
        seed,
        nodes,
        faults_ms: 15_000,
        clients: 6,
        changes,
        replaces: false,
        guests: false,
        pulls,
        names: false,
        bug: None,
    }
}

/// The same where what is gone is taken from others' disks.
fn with_pulls(seed: u64) -> Plan {
    Plan { pulls: true, ..plan(seed) }
}

/// The same with guests.
fn with_guests(seed: u64) -> Plan {
    Plan { guests: true, pulls: false, ..plan(seed) }
}

/// The same in which nodes come for the places of others.
fn with_replacements(seed: u64) -> Plan {
    Plan { changes: true, replaces: true, ..plan(seed) }
}

fn must(plan: Plan) -> Report {
    run(plan).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn seeds_that_are_fixed() {
    let (mut recycled, mut from_snapshots) = (0, 0);
    for seed in 1..=20 {
        let report = must(plan(seed));
        recycled += report.recycled;
        from_snapshots += report.from_snapshots;
    }
    // Segments leave logs, come back under other names, and nodes go on from snapshots.
    println!("{recycled} segments were recycled, {from_snapshots} starts went on from a snapshot");
    assert!(recycled > 0 && from_snapshots > 0);
}

#[test]
fn seeds_with_pulls() {
    let mut pulls = Pulls::default();
    for seed in 1..=30 {
        pulls.add(must(with_pulls(seed)).pulls);
    }
    // What is gone is taken from others' disks, by all who may lack it; and not all goes well.
    println!("taken from others' disks: {pulls:?}");
    let Pulls { done, joins, repairs, cut_short, deaths } = pulls;
    assert!(joins > 0 && repairs > 0 && done > joins + repairs && cut_short > 0 && deaths > 0);
}

#[test]
fn seeds_with_replacements() {
    let mut came = 0;
    for seed in 1..=20 {
        came += must(with_replacements(seed)).faults.0.get("a node comes for another").copied().unwrap_or_default();
    }
    println!("{came} nodes came for the places of others");
    assert!(came >= 10);
}

#[test]
fn seeds_in_which_positions_are_named() {
    let mut compared = 0;
    for plan in (1..=10).flat_map(|seed| [plan(seed), with_pulls(seed), with_replacements(seed), with_guests(seed)]) {
        compared += must(Plan { names: true, ..plan }).compared;
    }
    println!("{compared} times a machine had what its leader told");
    assert!(compared > 100);
}

#[test]
fn seeds_with_guests() {
    let mut answers = BTreeMap::<_, u64>::new();
    for seed in 1..=10 {
        for (fate, count) in must(with_guests(seed)).answers {
            *answers.entry(fate).or_default() += count;
        }
    }
    println!("answers of guests: {answers:?}");
    // All that may come of an answer came of some.
    assert!([Fate::Late, Fate::Stale, Fate::Refused, Fate::Happens].iter().all(|fate| answers.contains_key(fate)));
}

/// Seeds that failed once, through a fault of the broker or of what checks it.
#[test]
fn seeds_that_failed_once() {
    for seed in [1_795_920_571_303_664_226, 1_795_922_810_549_792_123] {
        must(plan(seed));
    }
    // A group of which all but one left: nobody read again the names that the next one to come needs.
    must(Plan { pulls: false, ..plan(1_796_025_887_782_135_256) });
    // Damaged nodes that waited for ever: for a leader whose own log was damaged, and for one of a later term.
    let pulls = |nodes, seed| Plan { nodes, changes: false, ..with_pulls(seed) };
    for plan in [pulls(5, 308), pulls(3, 20_063)] {
        must(plan);
    }
    // A leader whose log was damaged asked another one to lead. That did not hear it, or led and was gone again; it was not asked anew.
    must(Plan { names: true, ..with_guests(1_796_077_371_307_879_355) });
    must(with_guests(1_796_079_393_866_270_567));
    must(with_pulls(1_796_079_393_876_444_302));
    // The only member could not note its vote, and wrote an entry of the term.
    must(Plan { names: true, ..with_guests(1_796_080_238_940_050_966) });
    for seed in [1_059, 4_132, 1_796_025_296_203_973_307] {
        must(with_pulls(seed));
    }
}

#[test]
fn a_seed_repeats_a_run_to_the_bit() {
    for plan in [plan(4), with_guests(4), with_pulls(2)] {
        let digests = [plan, plan].map(|plan| must(plan).digest);
        assert_eq!(digests[0], digests[1]);
    }
}

#[test]
fn fresh_seeds() {
    let seconds =
        std::env::var("VOUCH_SIMULATION_SECONDS").map_or(10, |text| text.parse().expect("a number of seconds"));
    let first = std::env::var("VOUCH_SEED").ok().map(|text| text.parse().expect("a seed"));
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let only_pulls = std::env::var("VOUCH_SIMULATION_KIND").is_ok_and(|kind| kind == "pulls");
    let (began, mut seed) = (Instant::now(), first.unwrap_or_else(clock));
    println!("the first seed is {seed}; VOUCH_SEED repeats it, VOUCH_SIMULATION_SECONDS says for how long");
    let mut all = Report::default();
    while began.elapsed() < Duration::from_secs(seconds) {
        let next = match seed % 8 {
            0 | 4 if seed / 8 % 2 == 0 => with_replacements(seed),
            0 | 1 | 4 | 5 => plan(seed),
            _ => with_guests(seed),
        };
        let next = Plan { names: seed / 16 % 2 == 1, ..next };
        let report = must(if only_pulls { with_pulls(seed) } else { next });
        all.pulls.add(report.pulls);
        all.virtual_ms += report.virtual_ms;
        all.calls += report.calls;
        all.done += report.done;
        all.terms += report.terms;
        all.recycled += report.recycled;
        all.from_snapshots += report.from_snapshots;
        for (fate, count) in report.answers {
            *all.answers.entry(fate).or_default() += count;
        }
        for (kind, count) in report.faults.0 {
            *all.faults.0.entry(kind).or_default() += count;
        }
        seed += 1;
    }
    let wall = began.elapsed().as_secs_f64();
    let a_second = |number: u64| (number as f64 / wall).round();
    println!("taken from others' disks in all: {:?}", all.pulls);
    println!(
        "{:.0} s of virtual time in {wall:.0} s; in each: {} calls ({} done), {} faults, {} leaders, {} segments recycled, {} starts \
         from a snapshot\nanswers of guests in all: {:?}\n{:?}",
        all.virtual_ms as f64 / 1000.0,
        a_second(all.calls),
        a_second(all.done),
        a_second(all.faults.total()),
        a_second(all.terms),
        a_second(all.recycled),
        a_second(all.from_snapshots),
        all.answers,
        all.faults.0
    );
}
