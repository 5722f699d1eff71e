//! Places: who gets one, who is told that there is none, and when they come free.

use vouch_plugin::{Binding, BindingSpec, ByteSize, NoAnswer};

use crate::{
    guests::{SPIN, check, commit},
    support::{COMMIT, House, no_answer, pending},
};

/// Bounds a failing test, and passes in no other.
const SOON: std::time::Duration = std::time::Duration::from_secs(10);

/// Starts a check that does not end by itself, and returns when it holds its place.
async fn occupy(binding: &Binding) -> tokio::task::JoinHandle<()> {
    let admission = binding.try_admit().unwrap();
    tokio::spawn(async move {
        admission.check(pending()).await;
    })
}

#[tokio::test]
async fn a_binding_at_its_limit_has_no_capacity() {
    let house = House::new();
    let binding = house.bind(check(SPIN), |spec| spec.limits.concurrency = 2).await;
    let first = occupy(&binding).await;
    let second = occupy(&binding).await;
    let why = no_answer(binding.check(pending()).await);
    assert!(matches!(why, NoAnswer::NoCapacity { running: 2, .. }), "{why:?}");
    assert!(!why.blames_component());
    assert!(why.to_string().contains("limits.concurrency"), "{why}");
    first.abort();
    second.abort();
}

#[tokio::test]
async fn a_binding_takes_as_many_places_as_a_small_node_has_whatever_it_may_take_elsewhere() {
    let house = House::with(|config| config.concurrency = 1);
    let binding = house.bind(check(&commit()), |_| {}).await;
    assert_eq!(binding.limits().concurrency, 1);
    assert_eq!(binding.check(pending()).await, COMMIT);
}

#[tokio::test]
async fn a_node_at_its_limit_has_no_capacity_for_any_binding() {
    let house = House::with(|config| config.concurrency = 1);
    let spin = house.bind(check(SPIN), |spec| spec.limits.concurrency = 1).await;
    let other = house.bind(check(&commit()), |spec| spec.limits.concurrency = 1).await;
    assert_eq!(other.check(pending()).await, COMMIT);
    let occupied = occupy(&spin).await;
    assert_eq!(house.engine.running(), 1);
    let why = no_answer(other.check(pending()).await);
    assert!(why.to_string().contains("concurrency of the node"), "{why}");
    assert_eq!(other.running(), 0, "the place of the binding is given back");
    occupied.abort();
}

#[tokio::test]
async fn dropping_a_check_stops_the_guest_and_frees_its_place() {
    let house = House::with(|config| config.concurrency = 1);
    let spin = house.bind(check(SPIN), |spec| spec.limits.concurrency = 1).await;
    let other = house.bind(check(&commit()), |spec| spec.limits.concurrency = 1).await;
    let occupied = occupy(&spin).await;
    let waiting = tokio::spawn(async move { other.admit().await.check(pending()).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    occupied.abort();
    // Ends only if the guest, which never ends by itself, was stopped.
    assert_eq!(waiting.await.unwrap(), COMMIT);
}

#[tokio::test]
async fn many_checks_share_few_places_by_waiting() {
    let house = House::with(|config| config.concurrency = 2);
    let binding = house.bind(check(&commit()), |spec| spec.limits.concurrency = 2).await;
    let checks: Vec<_> = (0..200)
        .map(|_| {
            let binding = binding.clone();
            tokio::spawn(async move { binding.admit().await.check(pending()).await })
        })
        .collect();
    for check in checks {
        assert_eq!(check.await.unwrap(), COMMIT);
    }
    assert_eq!((binding.running(), house.engine.running()), (0, 0));
}

#[tokio::test]
async fn bindings_whose_checks_never_end_leave_a_place_for_another() {
    let house = House::with(|config| config.concurrency = 4);
    let named = async |name: &str, wasm| {
        let set = |spec: &mut BindingSpec| {
            spec.name = name.to_owned();
            spec.limits.concurrency = 4;
        };
        house.bind(wasm, set).await
    };
    let hung = [named("a", check(SPIN)).await, named("b", check(SPIN)).await];
    let asks: Vec<_> = hung
        .iter()
        .flat_map(|spin| (0..20).map(|_| spin.clone()))
        .map(|spin| tokio::spawn(async move { spin.admit().await.check(pending()).await }))
        .collect();
    // They take what they get before the other asks, and before it is there at all: of the other two places one is left for it,
    // and one for those that are known to be quick.
    while house.engine.running() < 2 {
        tokio::task::yield_now().await;
    }
    let healthy = named("healthy", check(&commit())).await;
    for _ in 0..3 {
        assert_eq!(tokio::time::timeout(SOON, healthy.admit()).await.unwrap().check(pending()).await, COMMIT);
        assert_eq!(healthy.check(pending()).await, COMMIT, "at once, too");
        assert_eq!(house.engine.running(), 2);
    }
    asks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_question_is_prepared_in_its_place_and_keeps_no_other_task_waiting() {
    let house = House::new();
    let binding = house.bind(check(&commit()), |spec| spec.limits.concurrency = 1).await;
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let (began, begun) = tokio::sync::oneshot::channel();
    let first = binding.admit().await.check_prepared(
        move || {
            began.send(()).unwrap();
            may_go_on.recv_timeout(SOON).unwrap();
            pending()
        },
        None,
    );
    let first = tokio::spawn(first);
    // This test has one thread: if the question were prepared on it, nothing below would ever run.
    begun.await.unwrap();
    assert_eq!(binding.running(), 1);
    assert!(matches!(binding.try_admit(), Err(NoAnswer::NoCapacity { .. })), "it holds its place meanwhile");
    go_on.send(()).unwrap();
    assert_eq!(first.await.unwrap().0, COMMIT);
    assert_eq!(binding.running(), 0);
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_holds_its_place_until_it_is_prepared() {
    let house = House::new();
    let binding = house.bind(check(&commit()), |spec| spec.limits.concurrency = 1).await;
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel();
    let first = tokio::spawn(binding.admit().await.check_prepared(
        move || {
            began.send(()).unwrap();
            may_go_on.recv_timeout(SOON).unwrap();
            pending()
        },
        None,
    ));
    begun.await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(binding.running(), 1, "what it makes is in memory still");
    go_on.send(()).unwrap();
    assert_eq!(binding.admit().await.check(pending()).await, COMMIT);
}

#[tokio::test]
async fn a_question_that_cannot_be_prepared_gets_no_answer_and_its_place_is_free_again() {
    let house = House::new();
    let binding = house.bind(check(&commit()), |spec| spec.limits.concurrency = 1).await;
    let why = no_answer(binding.admit().await.check_prepared(|| panic!("a defect"), None).await.0);
    assert!(matches!(why, NoAnswer::Host(_)) && !why.blames_component(), "{why:?}");
    assert_eq!(binding.check(pending()).await, COMMIT);
}

#[tokio::test]
async fn a_body_is_at_most_what_the_memory_leaves_beside_the_component() {
    let house = House::new();
    let binding = house.bind(check(&commit()), |spec| spec.limits.memory = ByteSize::mib(2)).await;
    // The guests of these tests start with one page.
    assert_eq!(binding.body_max(), ByteSize((2 << 20) - (64 << 10)));
}

#[tokio::test]
async fn guests_run_at_low_priority() {
    let house = House::new();
    assert_eq!(house.check(check(&commit()), |_| {}).await, COMMIT);
    let mut seen = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        // A thread of another test may end between the listing and the reading.
        let (Ok(name), Ok(stat)) =
            (std::fs::read_to_string(path.join("comm")), std::fs::read_to_string(path.join("stat")))
        else {
            continue;
        };
        if name.starts_with("vouch-guest") {
            // proc(5): the 19th field is the nice value; the 2nd is in parentheses and may hold spaces.
            let nice = stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap();
            assert_eq!(nice, "10", "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 1);
}

#[tokio::test]
async fn without_address_space_for_a_pool_checks_still_run() {
    // 1024 places of 4 memories of 4 GiB and their guards do not fit beside what the other tests reserve, or do: either
    // way checks run. What is tested is that a small reservation is obeyed and works.
    let house = House::with(|config| config.memory_reservation = Some(vouch_plugin::ByteSize::mib(1)));
    let binding = house.bind(check(&commit()), |_| {}).await;
    assert_eq!(binding.check(pending()).await, COMMIT);
}
