//! What an upload is told.

use bytes::Bytes;
use vouch_plugin::{BindingSpec, ByteSize, UploadRefused, World};

use crate::{
    guests::{self, CHECKBACK, check, commit},
    support::{self, House},
};

async fn refused(wasm: impl Into<Bytes>) -> UploadRefused {
    support::refused(House::new().engine.inspect(wasm.into()).await)
}

#[tokio::test]
async fn a_good_component_gets_a_verdict() {
    let house = House::new();
    let wasm = check(&commit());
    let verdict = house.engine.inspect(wasm.clone()).await.unwrap();
    assert_eq!(verdict.worlds, [World::Checkback]);
    assert_eq!(verdict.exports, ["vouch:plugin/checkback@0.1.0"]);
    assert!(verdict.imports_wanted.is_empty());
    assert_eq!(verdict.size, wasm.len() as u64);
    assert!(verdict.digest.len() == 71 && verdict.digest.starts_with("sha256:"), "{}", verdict.digest);
    let json = serde_json::to_value(&verdict).unwrap();
    assert_eq!(json["worlds"][0], "checkback");
    assert!(json["compile_ms"].is_u64());
    let again = house.engine.inspect(wasm).await.unwrap();
    assert_eq!(again.digest, verdict.digest);
}

#[tokio::test]
async fn what_is_no_component_is_refused_with_what_it_is() {
    let core = wat::parse_str("(module)").unwrap();
    for (wasm, word) in [
        (Bytes::new(), "empty"),
        (Bytes::from_static(b"#!/bin/sh"), "does not begin"),
        (Bytes::from_static(b"\0as"), "does not begin"),
        (Bytes::from_static(b"(component)"), "does not begin"),
        (Bytes::from_static(b"\0asm\x09\0\x07\0"), "unknown version"),
        (core.into(), "core module"),
    ] {
        let refusal = refused(wasm).await;
        assert_eq!(refusal.kind(), "not-a-component");
        assert!(refusal.to_string().contains(word), "{refusal}");
    }
}

#[tokio::test]
async fn a_broken_component_is_invalid() {
    let good = check(&commit());
    for cut in [9, good.len() / 2, good.len() - 1] {
        assert_eq!(refused(good.slice(..cut)).await.kind(), "invalid", "{cut} bytes");
    }
    let mut garbage = b"\0asm\x0d\0\x01\0".to_vec();
    garbage.extend([0xff; 100]);
    assert_eq!(refused(garbage).await.kind(), "invalid");
}

#[tokio::test]
async fn a_component_of_another_world_is_refused() {
    let package = "package test:other; interface greet { hi: func() -> string; } world w { export greet; }";
    let refusal = refused(guests::dummy("test:other/w", &[package])).await;
    assert!(
        matches!(&refusal, UploadRefused::NoKnownInterface { exports } if exports == &["test:other/greet"]),
        "{refusal}"
    );
    let nothing = refused(wat::parse_str("(component)").unwrap()).await;
    assert_eq!(nothing.kind(), "no-known-interface");
    assert!(nothing.to_string().contains("nothing"), "{nothing}");
}

#[tokio::test]
async fn a_component_may_consume_and_settle_transactions_as_well() {
    let consumer = "include vouch:plugin/consumer-plugin@0.1.0;";
    let both = format!("package test:w; world w {{ {consumer} include {CHECKBACK}; }}");
    for (wasm, worlds) in [
        (guests::dummy("vouch:plugin/consumer-plugin@0.1.0", &[]), vec![World::Consumer]),
        (guests::dummy("test:w/w", &[&both]), vec![World::Checkback, World::Consumer]),
    ] {
        let house = House::new();
        let verdict = house.engine.inspect(wasm.clone()).await.unwrap();
        assert_eq!(verdict.worlds, worlds);
        assert_eq!(serde_json::to_value(&verdict).unwrap()["worlds"][worlds.len() - 1], "consumer");
        let plugin = house.load(wasm).await;
        assert_eq!(plugin.worlds(), worlds);
        let binding = plugin.bind(BindingSpec::new("b")).unwrap();
        assert!(binding.consumes() && binding.answers_checks() == worlds.contains(&World::Checkback));
    }
}

#[tokio::test]
async fn an_interface_of_the_right_name_and_another_shape_is_invalid() {
    let package = "package test:shape; world w { export vouch:plugin/checkback@0.1.0; }";
    // The dummy has the right shape; of the wrong shape is this one, which exports an instance without `check`.
    assert!(House::new().engine.inspect(guests::dummy("test:shape/w", &[package])).await.is_ok());
    for interface in ["checkback", "checkback-batch", "consumer"] {
        let text =
            format!(r#"(component (instance $none) (export "vouch:plugin/{interface}@0.1.0" (instance $none)))"#);
        assert_eq!(refused(wat::parse_str(text).unwrap()).await.kind(), "invalid", "{interface}");
    }
}

#[tokio::test]
async fn an_interface_of_an_unknown_version_is_not_known() {
    for name in ["vouch:plugin/checkback@0.2.0", "vouch:plugin/checkback@1.0.0", "vouch:plugin/checkback"] {
        let text = format!(r#"(component (instance $none) (export "{name}" (instance $none)))"#);
        let refusal = refused(wat::parse_str(text).unwrap()).await;
        assert_eq!(refusal.kind(), "other-version", "{name}");
        let said = refusal.to_string();
        assert!(said.contains(&format!("exports {name}")) && said.contains("vouch:plugin 0.1; generate"), "{said}");
    }
}

#[tokio::test]
async fn an_import_that_no_one_can_grant_is_refused_by_name() {
    for (interface, package) in [
        ("test:evil/store", "package test:evil; interface store { get: func() -> u32; }".to_owned()),
        ("wasi:http/incoming-handler@0.2.12", String::new()),
    ] {
        let world = format!("package test:w; world w {{ include {CHECKBACK}; import {interface}; }}");
        let packages: Vec<&str> = [package.as_str(), &world].into_iter().filter(|text| !text.is_empty()).collect();
        let refusal = refused(guests::dummy("test:w/w", &packages)).await;
        assert_eq!(refusal, UploadRefused::ImportNotGrantable { name: interface.to_owned() });
        assert!(refusal.to_string().contains(interface), "{refusal}");
    }
}

#[tokio::test]
async fn what_was_made_for_another_version_is_refused_with_what_is_offered_and_how_to_get_there() {
    for (import, offered, setting) in [
        ("wasi:cli/environment@0.3.0", "has WASI 0.2", "wasm32-wasip2"),
        ("wasi:http/types@0.3.0-rc-2025-09-16", "has WASI 0.2", "TinyGo"),
        ("vouch:plugin/sql@0.2.0", "has vouch:plugin 0.1", "wit/"),
    ] {
        let text = format!(
            r#"(component (import "{import}" (instance)) (instance $none) (export "vouch:plugin/checkback@0.1.0" (instance $none)))"#
        );
        let refusal = refused(wat::parse_str(&text).unwrap()).await;
        let said = refusal.to_string();
        assert_eq!(refusal.kind(), "other-version", "{said}");
        assert!(
            said.contains(&format!("imports {import}")) && said.contains(offered) && said.contains(setting),
            "{said}"
        );
    }
    // The functions of WASI 0.3 are asynchronous, which the engine does not even read.
    let text = r#"(component
        (core func (canon task.return)) (instance $none) (export "vouch:plugin/checkback@0.1.0" (instance $none)))"#;
    let asynchronous = refused(wat::parse_str(text).unwrap()).await;
    assert_eq!(asynchronous.kind(), "other-version", "{asynchronous}");
    assert!(asynchronous.to_string().contains("WASI 0.2"), "{asynchronous}");
}

#[tokio::test]
async fn what_a_binding_can_grant_is_listed_as_wanted_and_inert_wasi_is_not() {
    let world = format!(
        "package test:w; world w {{ include {CHECKBACK}; include vouch:plugin/capabilities@0.1.0;
            include wasi:cli/imports@0.2.12; import wasi:http/outgoing-handler@0.2.12; }}"
    );
    let verdict = House::new().engine.inspect(guests::dummy("test:w/w", &[&world])).await.unwrap();
    let mut wanted = verdict.imports_wanted;
    wanted.sort();
    assert_eq!(
        wanted,
        [
            "vouch:plugin/outbox@0.1.0",
            "vouch:plugin/sql@0.1.0",
            "vouch:plugin/state@0.1.0",
            "wasi:http/outgoing-handler@0.2.12"
        ]
    );
}

#[tokio::test]
async fn the_size_of_a_file_is_bounded() {
    let wasm = check(&commit());
    let size = wasm.len() as u64;
    for (limit, fits) in [(size, true), (size - 1, false)] {
        let house = House::with(|config| config.max_component_size = ByteSize(limit));
        match house.engine.inspect(wasm.clone()).await {
            Ok(_) => assert!(fits),
            refused => {
                let refusal = support::refused(refused);
                assert!(!fits, "{refusal}");
                assert_eq!(refusal.kind(), "too-large");
            }
        }
    }
}

#[tokio::test]
async fn looking_at_uploads_does_not_block_the_caller() {
    // A single-threaded runtime: if `inspect` compiled on the caller's thread, `beat` could not run in between.
    let house = House::new();
    let wasm = guests::dummy(
        "test:w/w",
        &[&format!("package test:w; world w {{ include {CHECKBACK}; include wasi:cli/imports@0.2.12; }}")],
    );
    let inspecting = house.engine.inspect(wasm);
    tokio::pin!(inspecting);
    let mut beats = 0;
    loop {
        tokio::select! {
            biased;
            verdict = &mut inspecting => {
                verdict.unwrap();
                break;
            }
            () = tokio::task::yield_now() => beats += 1,
        }
    }
    assert!(beats > 0);
}

/// The component with a section of its own behind it, that says what it reads.
fn declaring(wasm: &Bytes, json: &str) -> Bytes {
    let name = "vouch:config";
    let leb = |mut left: usize| {
        let mut bytes = Vec::new();
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        bytes
    };
    let content = [&leb(name.len()), name.as_bytes(), json.as_bytes()].concat();
    [&wasm[..], &[0], &leb(content.len()), &content].concat().into()
}

#[tokio::test]
async fn a_component_says_what_it_reads_of_its_config() {
    let house = House::new();
    let plain = check(&commit());
    let spec = |entries: &[(&str, &str)]| {
        let config = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        BindingSpec { config, ..BindingSpec::new("b") }
    };
    assert_eq!(house.engine.inspect(plain.clone()).await.unwrap().config, None);
    assert_eq!(house.load(plain.clone()).await.check_config(&spec(&[("any", "thing")])), Ok(()));

    let wasm = declaring(&plain, r#"[{"name":"region","required":true},{"name":"wait","type":"duration"}]"#);
    // The second time from the cache, where it must be as well.
    for _ in 0..2 {
        let verdict = house.engine.inspect(wasm.clone()).await.unwrap();
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["config"][0], serde_json::json!({"name": "region", "type": "text", "required": true}));
        let plugin = house.engine.load(&verdict.digest, wasm.clone()).await.unwrap();
        assert_eq!(plugin.check_config(&spec(&[("region", "eu"), ("wait", "1s")])), Ok(()));
        let error = plugin.check_config(&spec(&[("regoin", "eu")])).unwrap_err().to_string();
        assert!(error.contains("did you mean `region`?"), "{error}");
        assert!(plugin.check_config(&spec(&[("region", "eu"), ("wait", "long")])).is_err());
    }
    let other = House { engine: vouch_plugin::Engine::start(cached(&house)).unwrap(), folder: house.folder };
    let digest = other.engine.inspect(wasm.clone()).await.unwrap().digest;
    let plugin = other.engine.load(&digest, wasm).await.unwrap();
    assert_eq!(plugin.compiled_from(), vouch_plugin::CompiledFrom::Cache);
    assert!(plugin.check_config(&spec(&[])).is_err());
}

/// Settings of an engine on the same cache.
fn cached(house: &House) -> vouch_plugin::EngineConfig {
    let mut config = vouch_plugin::EngineConfig::new(house.folder.path().join("compiled"));
    config.concurrency = 8;
    config
}

#[tokio::test]
async fn what_only_a_later_version_knows_of_its_config_is_said_and_refuses_nothing() {
    let house = House::new();
    let wasm = declaring(&check(&commit()), r#"[{"name":"moon","type":"phase","at-most":3}]"#);
    // The second time from the cache, where it must be as well.
    for _ in 0..2 {
        let verdict = house.engine.inspect(wasm.clone()).await.unwrap();
        assert_eq!(verdict.warnings.len(), 2, "{:?}", verdict.warnings);
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["config"][0], serde_json::json!({"name": "moon", "type": "phase", "at-most": 3}));
        let plugin = house.engine.load(&verdict.digest, wasm.clone()).await.unwrap();
        let config = [("moon".to_owned(), "full".to_owned())].into();
        assert_eq!(plugin.check_config(&BindingSpec { config, ..BindingSpec::new("b") }), Ok(()));
    }
}

#[tokio::test]
async fn what_cannot_be_read_of_its_config_is_refused() {
    let plain = check(&commit());
    let good = declaring(&plain, "[]");
    for (wasm, words) in [
        (declaring(&plain, "region"), "cannot be read"),
        (declaring(&plain, r#"[{"name":"a"},{"name":"a"}]"#), "`a`"),
        (declaring(&good, "[]"), "more than one section"),
    ] {
        let refusal = refused(wasm).await;
        assert_eq!(refusal.kind(), "invalid");
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
}
