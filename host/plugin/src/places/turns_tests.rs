use super::super::member::SOON;
use super::*;

/// The moment of tests in which no time passes.
const NOW: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    Arc::from(text)
}

/// Gets in line so many times, and hands out what is free.
fn want(turns: &mut Turns, binding: &str, times: usize) -> Vec<Ticket> {
    let tickets = (0..times).map(|_| turns.wait(&name(binding))).collect();
    while turns.next(NOW).is_some() {}
    tickets
}

fn held(turns: &Turns, binding: &str) -> usize {
    turns.bindings.get(&name(binding)).map_or(0, Member::running)
}

#[test]
fn places_are_left_for_bindings_that_have_none_running() {
    // How many places, how many other bindings there are, and how many places one that asks for all of them gets.
    for (places, others, gets) in
        [(32, 0, 31), (32, 1, 30), (32, 4, 27), (32, 15, 16), (32, 100, 16), (2, 0, 1), (1, 3, 1)]
    {
        let mut turns = Turns::new(places);
        (0..others).for_each(|n| turns.join(&name(&n.to_string()), SHORT));
        want(&mut turns, "hung", 300);
        assert_eq!(held(&turns, "hung"), gets, "{places} {others}");
        assert!(!turns.try_take(&name("hung"), NOW));
        for n in 0..places - gets {
            assert!(turns.try_take(&name(&n.to_string()), NOW), "{places} {others}: {n}");
        }
        assert_eq!(turns.free, 0);
        assert!(!turns.try_take(&name("another"), NOW), "there are no more than there are");
    }
}

#[test]
fn many_bindings_that_hang_leave_a_place_for_one_that_comes() {
    let mut turns = Turns::new(32);
    for hung in ["a", "b", "c", "d"] {
        turns.join(&name(hung), SHORT);
    }
    for hung in ["a", "b", "c", "d"] {
        want(&mut turns, hung, 300);
    }
    assert!(turns.try_take(&name("new"), NOW), "{turns:?}");
    turns.give_back(&name("new"), NOW, NOW);
    assert_eq!(turns.next(NOW), None, "kept for the next");
    assert!(turns.try_take(&name("another"), NOW));
}

#[test]
fn a_binding_that_is_gone_keeps_no_place() {
    let mut turns = Turns::new(32);
    for _ in 0..2 {
        turns.join(&name("idle"), SHORT);
    }
    want(&mut turns, "busy", 300);
    assert_eq!(held(&turns, "busy"), 30);
    turns.leave(&name("idle"), SHORT);
    assert_eq!(turns.next(NOW), None, "it is there once more");
    turns.leave(&name("idle"), SHORT);
    assert!(turns.next(NOW).is_some());
    assert_eq!((held(&turns, "busy"), turns.next(NOW)), (31, None));
}

#[test]
fn a_node_of_one_place_serves_every_binding() {
    let mut turns = Turns::new(1);
    assert!(turns.try_take(&name("a"), NOW));
    want(&mut turns, "a", 2);
    let b = want(&mut turns, "b", 1);
    turns.give_back(&name("a"), NOW, NOW);
    let first = turns.next(NOW).unwrap();
    assert_ne!(first, b[0], "it came later");
    turns.give_back(&name("a"), NOW, NOW);
    assert_eq!(turns.next(NOW), Some(b[0]), "in turns: `a` had the place before");
}

#[test]
fn bindings_that_wait_take_turns_however_many_checks_they_have() {
    let mut turns = Turns::new(3);
    want(&mut turns, "hog", 2);
    let hog = want(&mut turns, "hog", 1000);
    let small = want(&mut turns, "small", 2);
    assert_eq!(held(&turns, "small"), 1, "the place that was left");
    let mut order = Vec::new();
    for binding in ["hog", "hog", "small"] {
        turns.give_back(&name(binding), NOW, NOW);
        order.extend(std::iter::from_fn(|| turns.next(NOW)));
    }
    assert!(order.contains(&hog[0]) && order.contains(&small[1]), "{order:?}");
}

#[test]
fn of_two_bindings_for_the_last_place_each_gets_it_in_turn() {
    let mut turns = Turns::new(2);
    want(&mut turns, "hung", 10);
    let (a, b) = (want(&mut turns, "a", 3), want(&mut turns, "b", 3));
    assert_eq!((held(&turns, "a"), held(&turns, "b")), (1, 0));
    let mut given = vec![a[0]];
    // `a` was in line before `b` came, so it has one turn before.
    for binding in ["a", "a", "b", "a", "b"] {
        turns.give_back(&name(binding), NOW, NOW);
        given.extend(std::iter::from_fn(|| turns.next(NOW)));
    }
    assert_eq!(given, [a[0], a[1], b[0], a[2], b[1], b[2]]);
}

#[test]
fn who_gives_up_is_never_called_and_leaves_nothing_behind() {
    let mut turns = Turns::new(1);
    assert!(turns.try_take(&name("a"), NOW));
    let b = want(&mut turns, "b", 2);
    assert!(turns.give_up(&name("b"), b[0]));
    assert!(!turns.give_up(&name("b"), b[0]), "once only");
    turns.give_back(&name("a"), NOW, NOW);
    assert_eq!(turns.next(NOW), Some(b[1]));
    assert!(!turns.give_up(&name("b"), b[1]), "it has its place");
    turns.give_back(&name("b"), NOW, NOW);
    assert!(turns.waiting.is_empty() && turns.bindings.is_empty());
    assert_eq!((turns.free, turns.held()), (1, 0));
}

/// Bindings that ask again and again, so many checks at once each.
struct Asker {
    deadline: Duration,
    at_once: usize,
    /// When it begins, and the pause between a check and the next.
    begins: Duration,
    pause: Duration,
    /// How long a check that gets its place at this moment holds it.
    holds: fn(Duration) -> Duration,
}

fn hung(deadline: Duration, holds: fn(Duration) -> Duration) -> Asker {
    Asker { deadline, at_once: 8, begins: Duration::ZERO, pause: Duration::ZERO, holds }
}

fn healthy(deadline: Duration) -> Asker {
    let (begins, pause) = (Duration::from_secs(2), Duration::from_millis(100));
    Asker { deadline, at_once: 1, begins, pause, holds: |_| Duration::from_millis(10) }
}

/// Plays so long, and says of each asker's checks when each wanted a place and how long it waited for it.
fn play(places: usize, askers: &[Asker], until: Duration) -> Vec<Vec<(Duration, Duration)>> {
    enum Event {
        Ask,
        End { since: Duration },
    }
    let mut turns = Turns::new(places);
    let names: Vec<Name> = (0..askers.len()).map(|n| name(&n.to_string())).collect();
    let (mut events, mut sequence) = (BTreeMap::new(), 0_u64..);
    for (n, asker) in askers.iter().enumerate() {
        turns.join(&names[n], asker.deadline);
        for _ in 0..asker.at_once {
            events.insert((asker.begins, sequence.next()), (n, Event::Ask));
        }
    }
    let mut waits = vec![Vec::new(); askers.len()];
    let mut waiting = BTreeMap::new();
    while let Some(((now, _), (n, event))) = events.pop_first().filter(|((now, _), _)| *now < until) {
        match event {
            Event::Ask => drop(waiting.insert(turns.wait(&names[n]), (n, now))),
            Event::End { since } => {
                turns.give_back(&names[n], since, now);
                events.insert((now + askers[n].pause, sequence.next()), (n, Event::Ask));
            }
        }
        while let Some(ticket) = turns.next(now) {
            let (n, asked) = waiting.remove(&ticket).unwrap();
            waits[n].push((asked, now - asked));
            let holds = (askers[n].holds)(now);
            let holds = turns.leash().map_or(holds, |leash| leash.min(holds));
            events.insert((now + holds, sequence.next()), (n, Event::End { since: now }));
        }
    }
    waiting.into_values().for_each(|(n, asked)| waits[n].push((asked, until - asked)));
    waits
}

fn longest(waits: &[(Duration, Duration)], from: Duration) -> Duration {
    waits.iter().filter(|(asked, _)| *asked >= from).map(|(_, waited)| *waited).max().unwrap()
}

#[test]
fn however_many_bindings_hang_one_that_answers_gets_its_place() {
    const FIVE: Duration = Duration::from_secs(5);
    let (short, five, long): (Asker, Asker, Asker) =
        (hung(SHORT, |_| SHORT), hung(FIVE, |_| FIVE), hung(LONG, |_| LONG));
    for (places, count, kind) in [
        (32, 34, &long),
        (32, 34, &five),
        (32, 100, &long),
        (4, 4, &five),
        (4, 40, &long),
        (2, 5, &long),
        (4, 9, &short),
    ] {
        let mut askers: Vec<Asker> = (0..count).map(|_| Asker { ..*kind }).collect();
        askers.push(healthy(SHORT));
        let waits = play(places, &askers, Duration::from_secs(600));
        let waited = longest(&waits[count], Duration::ZERO);
        // Who cannot hold a place for longer is taken for quick until it was asked once; others are on a leash until then.
        let most = if kind.deadline <= SHORT { SHORT } else { SOON };
        assert!(waited <= most, "{places} {count} {:?}: {waited:?}", kind.deadline);
        let then = longest(&waits[count], asked_once(count));
        assert!(then == Duration::ZERO || kind.deadline <= SHORT, "{places} {count} {:?}: {then:?}", kind.deadline);
        assert!(waits[count].len() > 4000, "{}", waits[count].len());
        // Those that hang have what is left, each its part of it.
        for hung in &waits[..count] {
            let most = kind.deadline * u32::try_from(2 * count.div_ceil(places / 2) + 1).unwrap();
            let first = hung.first().map_or(Duration::MAX, |(_, waited)| *waited);
            assert!(first <= most.min(Duration::from_secs(600)), "{places} {count}: {first:?}");
        }
    }
}

/// So long it takes at most until so many were asked on a leash.
fn asked_once(count: usize) -> Duration {
    SOON * u32::try_from(count + 1).unwrap()
}

#[test]
fn one_that_may_take_long_and_does_not_waits_once_until_those_before_it_were_asked_on_a_leash() {
    for (places, count) in [(32, 34), (4, 40), (2, 5)] {
        let mut askers: Vec<Asker> = (0..count).map(|_| hung(LONG, |_| LONG)).collect();
        askers.push(healthy(LONG));
        let waits = play(places, &askers, Duration::from_secs(1200));
        let (_, first) = waits[count][0];
        assert!(first <= asked_once(count), "{places}: {first:?}");
        let then = longest(&waits[count][1..], Duration::ZERO);
        assert!(then <= SOON, "{places}: {then:?}");
        assert_eq!(longest(&waits[count][1..], asked_once(count)), Duration::ZERO, "{places}");
    }
}

#[test]
fn one_that_takes_somewhat_longer_than_a_quick_one_does_not_wait_for_those_that_hang() {
    const SOMEWHAT: Duration = Duration::from_millis(1200);
    for (places, count) in [(32, 34), (16, 40)] {
        let mut askers: Vec<Asker> = (0..count).map(|_| hung(LONG, |_| LONG)).collect();
        askers.push(Asker { holds: |_| SOMEWHAT, ..healthy(Duration::from_secs(5)) });
        let waits = play(places, &askers, Duration::from_secs(600));
        assert!(waits[count][0].1 <= asked_once(count), "{places} {count}: {:?}", waits[count][0]);
        // It has turns of its own between those of the others.
        assert_eq!(longest(&waits[count], asked_once(2 * count)), Duration::ZERO, "{places} {count}");
    }
}

#[test]
fn when_all_services_begin_to_hang_at_once_those_with_short_deadlines_get_their_places() {
    let begin_to_hang = |now| if now < Duration::from_secs(30) { Duration::from_millis(5) } else { LONG };
    let mut askers: Vec<Asker> = (0..40).map(|_| hung(LONG, begin_to_hang)).collect();
    askers.push(healthy(SHORT));
    let waits = play(32, &askers, Duration::from_secs(300));
    let waited = longest(&waits[40], Duration::ZERO);
    assert_eq!(waited, Duration::ZERO);
}

#[test]
fn a_binding_whose_service_works_again_comes_back_by_itself() {
    let works_again = |now| if now < Duration::from_secs(600) { LONG } else { Duration::from_millis(5) };
    for (places, count) in [(32, 34), (4, 10), (2, 3)] {
        let mut askers: Vec<Asker> = (0..count).map(|_| hung(LONG, |_| LONG)).collect();
        let pause = Duration::from_millis(100);
        askers.push(Asker { pause, ..hung(LONG, works_again) });
        let waits = play(places, &askers, Duration::from_secs(1800));
        let back = longest(&waits[count], Duration::from_secs(1200));
        assert!(back <= Duration::from_millis(100), "{places} {count}: {back:?}");
    }
}

#[test]
fn a_node_of_one_place_lets_nobody_wait_for_more_than_one_that_hangs() {
    let five = Duration::from_secs(5);
    let mut askers: Vec<Asker> = (0..3).map(|_| hung(five, |_| Duration::from_secs(5))).collect();
    askers.push(healthy(SHORT));
    let waits = play(1, &askers, Duration::from_secs(600));
    let waited = longest(&waits[3], Duration::ZERO);
    assert!(waited <= five, "{waited:?}");
    for hung in &waits[..3] {
        assert!(hung.len() > 20, "it has its turns: {}", hung.len());
    }
}

/// Plays random events and looks at what must hold after each.
#[test]
fn places_are_neither_lost_nor_made_and_nobody_waits_beside_a_place_that_is_his() {
    let names: Vec<Name> = (0..5).map(|n| name(&n.to_string())).collect();
    for seed in 0..200_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |most: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % most
        };
        let places = 1 + draw(20);
        let mut turns = Turns::new(places);
        let mut waiting: BTreeMap<Ticket, Name> = BTreeMap::new();
        let mut holding: Vec<(Name, Duration)> = Vec::new();
        let mut now = Duration::ZERO;
        for binding in &names {
            turns.join(binding, [SHORT, LONG][draw(2)]);
        }
        let held_slowly = |turns: &Turns, now| turns.shares(now).slow;
        let is_slow = |turns: &Turns, binding: &Name, now| turns.bindings[binding].is_slow(now);
        for step in 0..300 {
            now += Duration::from_millis([0, 0, 1, 300, 3000][draw(5)]);
            let binding = names[draw(names.len())].clone();
            let mut taken = Vec::new();
            match draw(4) {
                0 => drop(waiting.insert(turns.wait(&binding), binding)),
                1 => taken.extend(turns.try_take(&binding, now).then_some(binding)),
                2 if !holding.is_empty() => {
                    let (binding, since) = holding.swap_remove(draw(holding.len()));
                    turns.give_back(&binding, since, now);
                }
                _ if !waiting.is_empty() => {
                    let ticket = *waiting.keys().nth(draw(waiting.len())).unwrap();
                    let binding = waiting.remove(&ticket).unwrap();
                    assert!(turns.give_up(&binding, ticket), "seed {seed} step {step}");
                }
                _ => {}
            }
            let before = held_slowly(&turns, now);
            while let Some(ticket) = turns.next(now) {
                taken.push(waiting.remove(&ticket).expect("only who waits is called"));
            }
            if held_slowly(&turns, now) > before {
                assert!(turns.shares(now).leashed <= turns.for_leashed(), "seed {seed} step {step}: {turns:?}");
                assert!(held_slowly(&turns, now) <= turns.for_all(), "seed {seed} step {step}: {turns:?}");
                assert!(taken.iter().any(|binding| is_slow(&turns, binding, now)));
            }
            holding.extend(taken.into_iter().map(|binding| (binding, now)));
            assert_eq!(turns.free + holding.len(), places, "seed {seed} step {step}");
            assert_eq!(turns.held(), holding.len(), "seed {seed} step {step}");
            let shares = turns.shares(now);
            let kept_waiting = waiting.values().any(|binding| turns.may_take(&shares, binding));
            assert!(!kept_waiting, "seed {seed} step {step}: somebody waits beside a place that is his");
        }
    }
}
