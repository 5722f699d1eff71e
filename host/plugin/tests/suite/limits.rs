//! What one call may use, from both sides of each bound.

use std::time::{Duration, Instant};

use vouch_plugin::{BindError, BindingSpec, ByteSize, Limits, LogSource, NoAnswer};

use crate::{
    guests::{self, Guest, SPIN, check, n},
    support::{COMMIT, House, no_answer, pending, rollback},
};

#[tokio::test]
async fn a_spinning_guest_is_stopped_at_its_deadline() {
    let house = House::new();
    let deadline = Duration::from_millis(100);
    let binding = house.bind(check(SPIN), |spec| spec.limits.deadline = deadline).await;
    // On a machine that has no time for it, it cannot be blamed: then it is asked once more.
    loop {
        let started = Instant::now();
        let why = no_answer(binding.check(pending()).await);
        assert!(started.elapsed() >= deadline, "{:?}", started.elapsed());
        assert_eq!(binding.running(), 0);
        if why == (NoAnswer::TimeUsedUp { deadline }) {
            assert!(why.blames_component());
            return;
        }
        assert_eq!(why, NoAnswer::Deadline { deadline });
        assert!(!why.blames_component());
    }
}

#[tokio::test]
async fn spinning_guests_leave_room_for_others() {
    // One thread, and more guests on it that never end than it has time for.
    let house = House::with(|config| config.threads = 1);
    let spin = house.bind(check(SPIN), |_| {}).await;
    let spinning: Vec<_> = (0..4)
        .map(|_| {
            let spin = spin.clone();
            tokio::spawn(async move { spin.check(pending()).await })
        })
        .collect();
    let commit = house.bind(check(&guests::commit()), |_| {}).await;
    for _ in 0..3 {
        assert_eq!(commit.check(pending()).await, COMMIT);
    }
    spinning.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Grows memory by so many pages, one by one, and commits.
fn grow(pages: u32) -> String {
    format!(
        "(local.set $n (i32.const {pages}))
         (block $done (loop $more
            (br_if $done (i32.eqz (local.get $n)))
            (drop (memory.grow (i32.const 1)))
            (local.set $n (i32.sub (local.get $n) (i32.const 1)))
            (br $more)))
         {}",
        guests::commit()
    )
}

#[tokio::test]
async fn a_memory_hog_is_stopped_with_a_clear_reason() {
    let house = House::new();
    let limit = ByteSize::mib(2);
    // The guest starts with one page of 64 KiB; 2 MiB are 32 pages.
    for (pages, fits) in [(31, true), (32, false), (60_000, false)] {
        let checked = house.check(check(&grow(pages)), |spec| spec.limits.memory = limit).await;
        if fits {
            assert_eq!(checked, COMMIT);
        } else {
            let why = no_answer(checked);
            assert_eq!(why, NoAnswer::MemoryLimit { limit });
            assert!(why.to_string().contains("2MiB"), "{why}");
        }
    }
}

#[tokio::test]
async fn memory_is_summed_over_all_memories_of_an_instance() {
    let house = House::new();
    // Two memories, the second of 20 pages from the start; the first grows.
    let guest = |pages: u32| {
        guests::component(
            guests::CHECKBACK,
            &[],
            &format!(
                r#"(module
                    (memory (export "memory") 1)
                    (memory $other 20)
                    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
                    (func (export "vouch:plugin/checkback@0.1.0#check") (param i32) (result i32)
                        (local $n i32)
                        {}))"#,
                grow(pages)
            ),
        )
    };
    for (pages, fits) in [(11, true), (12, false)] {
        let checked = house.check(guest(pages), |spec| spec.limits.memory = ByteSize::mib(2)).await;
        assert_eq!(checked == COMMIT, fits, "{pages}: {checked:?}");
    }
}

#[tokio::test]
async fn an_oversized_answer_is_no_answer() {
    let house = House::new();
    let limit = ByteSize::kib(1);
    let kinds: [fn(&str, &str) -> String; 3] = [guests::rollback, guests::err, |p, l| guests::unknown(p, l, None)];
    for kind in kinds {
        for (length, fits) in [(1024, true), (1025, false), (6_000, false)] {
            let guest = check(&kind(&n(2048), &n(length)));
            let checked = house.check(guest, |spec| spec.limits.output = limit).await;
            let over = matches!(&checked, vouch_plugin::Checked::NoAnswer(NoAnswer::OutputTooLarge { limit: l }) if *l == limit);
            assert_eq!(!over, fits, "{length}: {checked:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_far_over_the_limit_never_reaches_the_host() {
    let house = House::new();
    let huge = format!("(drop (memory.grow (i32.const 160))) {}", guests::rollback(&n(0), &n(10 << 20)));
    let why = no_answer(house.check(check(&huge), |_| {}).await);
    assert!(matches!(why, NoAnswer::OutputTooLarge { .. }), "{why:?}");
}

/// Logs the same line so many times, and commits.
fn logs(times: u32, length: u32) -> bytes::Bytes {
    Guest {
        imports: r#"(import "vouch:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32)))"#,
        data: "hello from the guest",
        check: &format!(
            "(local.set $n (i32.const {times}))
             (block $done (loop $more
                (br_if $done (i32.eqz (local.get $n)))
                (call $log (i32.const 3) (i32.const 0) (i32.const {length}))
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br $more)))
             {}",
            guests::commit()
        ),
        ..Guest::default()
    }
    .build()
}

#[tokio::test]
async fn what_a_guest_logs_is_kept_and_bounded() {
    let house = House::new();
    for (times, lines) in [(1, 1), (64, 64), (65, 65), (100_000, 65)] {
        let binding = house.bind(logs(times, 20), |_| {}).await;
        assert_eq!(binding.check(pending()).await, COMMIT);
        let kept = binding.recent_logs();
        assert_eq!(kept.len(), lines, "{times}");
        assert_eq!(
            (kept[0].text.as_str(), kept[0].level, kept[0].source),
            ("hello from the guest", "warn", LogSource::Guest)
        );
        assert_eq!(kept[0].transaction_id, "0-4711");
        if times > 64 {
            assert!(kept[64].text.starts_with(&format!("{} more lines", times - 64)), "{}", kept[64].text);
        }
        assert_eq!(binding.logs_after(kept[0].number).len(), lines - 1);
    }
    let binding = house.bind(logs(1, 8_000), |_| {}).await;
    assert_eq!(binding.check(pending()).await, COMMIT);
    assert!(binding.recent_logs()[0].text.len() <= 4096);
}

#[tokio::test]
async fn a_binding_out_of_bounds_is_refused_by_name() {
    let house = House::with(|config| config.max_memory = ByteSize::mib(8));
    let plugin = house.load(check(&guests::commit())).await;
    let bind = |change: &dyn Fn(&mut BindingSpec)| {
        let mut spec = BindingSpec::new("b");
        spec.limits.memory = ByteSize::mib(8);
        change(&mut spec);
        plugin.bind(spec).map(|_| ())
    };
    assert_eq!(bind(&|_| {}), Ok(()));
    assert!(
        bind(&|spec| spec.limits.memory = ByteSize(8 << 20 | 1))
            .is_err_and(|e| e.to_string().contains("limits.memory"))
    );
    assert!(bind(&|spec| spec.limits.concurrency = 0).is_err_and(|e| e.to_string().contains("limits.concurrency")));
    assert_eq!(bind(&|spec| spec.name = String::new()), Err(BindError::NoName));
    for (length, fits) in [(BindingSpec::MAX_CONFIG_VALUE, true), (BindingSpec::MAX_CONFIG_VALUE + 1, false)] {
        assert_eq!(bind(&|spec| drop(spec.config.insert("k".to_owned(), "v".repeat(length)))).is_ok(), fits);
    }
    for (count, fits) in [(BindingSpec::MAX_CONFIG, true), (BindingSpec::MAX_CONFIG + 1, false)] {
        let config = (0..count).map(|n| (n.to_string(), String::new()));
        assert_eq!(bind(&|spec| spec.config.extend(config.clone())).is_ok(), fits);
    }
}

#[tokio::test]
async fn a_component_that_starts_over_the_limit_is_refused_when_bound() {
    let house = House::new();
    let guest = guests::component(
        guests::CHECKBACK,
        &[],
        &format!(
            r#"(module
                (memory (export "memory") 32)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
                (func (export "vouch:plugin/checkback@0.1.0#check") (param i32) (result i32) {}))"#,
            guests::commit()
        ),
    );
    let plugin = house.load(guest).await;
    let bind = |memory| {
        let limits = Limits { memory, ..Limits::default() };
        plugin.bind(BindingSpec { limits, ..BindingSpec::new("b") })
    };
    assert_eq!(bind(ByteSize::mib(2)).unwrap().check(pending()).await, COMMIT);
    assert!(
        matches!(bind(ByteSize::mib(1)), Err(BindError::MemoryTooSmall { needs, .. }) if needs == ByteSize::mib(2))
    );
}

#[tokio::test]
async fn config_reaches_the_guest() {
    let house = House::new();
    // config("k") leaves option<string> at 2048; without it the guest traps.
    let guest = Guest {
        imports: r#"(import "vouch:plugin/host@0.1.0" "config" (func $config (param i32 i32 i32)))"#,
        data: "k",
        check: &format!(
            "(call $config (i32.const 0) (i32.const 1) (i32.const 2048))
             (if (i32.eqz (i32.load (i32.const 2048))) (then unreachable))
             {}",
            guests::rollback("(i32.load (i32.const 2052))", "(i32.load (i32.const 2056))")
        ),
        ..Guest::default()
    }
    .build();
    let set = |spec: &mut BindingSpec| drop(spec.config.insert("k".to_owned(), "the value".to_owned()));
    assert_eq!(house.check(guest.clone(), set).await, rollback("the value"));
    assert!(matches!(no_answer(house.check(guest, |_| {}).await), NoAnswer::Trap { .. }));
}

#[tokio::test]
async fn now_goes_by_the_time_of_the_ask() {
    let house = House::new();
    // 12 000 ms is when `pending` was asked; a minute later the deadline is over.
    let guest = Guest {
        imports: r#"(import "vouch:plugin/host@0.1.0" "now" (func $now (result i64)))"#,
        check: &format!(
            "(if (i64.lt_u (call $now) (i64.const 12000)) (then unreachable))
             (if (i64.gt_u (call $now) (i64.const 72000)) (then unreachable))
             {}",
            guests::commit()
        ),
        ..Guest::default()
    }
    .build();
    assert_eq!(house.check(guest, |_| {}).await, COMMIT);
}
