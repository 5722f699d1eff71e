//! Compiling in a process of its own, with limits.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use vouch_plugin::{
    BindingSpec, ByteSize, CompiledFrom, CompilerProgram, Engine, EngineConfig, InspectError, Program, UploadRefused,
};

use crate::{
    guests::{self, check, commit},
    support::{COMMIT, House, pending, refused},
};

/// Bounds a failing test, and passes in no other.
const SOON: Duration = Duration::from_secs(60);

/// What the engines of these tests start as their compiler: this very program, told to run this one test. Where its input is no
/// job it is nobody's compiler, and nothing happens.
#[test]
fn stands_in_for_the_compiler() {
    let input = fs::read_link("/proc/self/fd/0").unwrap_or_default();
    if input.to_string_lossy().contains("memfd:vouch-compile") {
        vouch_plugin::compiler_process();
    }
}

fn compiler() -> CompilerProgram {
    compiler_named("of-any-test")
}

/// The same, and its processes are known by a name, which no test has.
fn compiler_named(name: &str) -> CompilerProgram {
    let arguments = ["compiler::stands_in_for_the_compiler", "--exact", "--nocapture", name];
    CompilerProgram::Process(Program {
        path: std::env::current_exe().unwrap(),
        arguments: arguments.map(Into::into).to_vec(),
    })
}

fn house(change: impl FnOnce(&mut EngineConfig)) -> House {
    House::with(|config| {
        config.compiler = compiler();
        change(config);
    })
}

/// A checkback guest whose module has one more function, which nobody calls.
fn with_function(function: &str) -> Bytes {
    let core = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
            (func (export "vouch:plugin/checkback@0.1.0#check") (param i32) (result i32) {})
            {function})"#,
        commit()
    );
    guests::component(guests::CHECKBACK, &[], &core)
}

/// Functions of loops in one another, each of which any iteration of the innermost may go back to, with as many locals that change in it:
/// the compiler has to tell apart the values of each local in each loop.
fn costly(functions: usize, loops: usize, locals: usize) -> Bytes {
    let change: String =
        (0..locals).map(|n| format!("(local.set {n} (i32.add (local.get {n}) (i32.const 1)))")).collect();
    let back: String = (0..loops).map(|n| format!("(br_if {n} (local.get 0))")).collect();
    let (open, close) = ("loop ".repeat(loops), " end".repeat(loops));
    let function = format!("(func (local{}) {open} {change} {back} {close})", " i32".repeat(locals));
    with_function(&function.repeat(functions))
}

/// Processes that this one started as compilers of this name. One has its name only when everything else is its own, too.
fn compilers(name: &str) -> Vec<u32> {
    let is_ours = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        let told = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_named = told.starts_with("vouch-compiler") && told.split('\0').any(|argument| argument == name);
        parent == Some(std::process::id()) && is_named
    };
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

fn cached(house: &House) -> usize {
    fs::read_dir(house.folder.path().join("compiled")).unwrap().count()
}

#[tokio::test]
async fn code_of_the_compilers_process_runs_and_is_kept() {
    let house = house(|_| {});
    let wasm = check(&commit());
    let verdict = house.engine.inspect(wasm.clone()).await.unwrap();
    let mut config = EngineConfig::new(house.folder.path().join("compiled"));
    config.concurrency = 8;
    let plugin = Engine::start(config).unwrap().load(&verdict.digest, wasm).await.unwrap();
    assert_eq!(plugin.compiled_from(), CompiledFrom::Cache);
    assert_eq!(plugin.bind(BindingSpec::new("b")).unwrap().check(pending()).await, COMMIT);
}

#[tokio::test]
async fn a_component_that_is_bound_is_compiled_there_too() {
    let house = house(|config| config.memory_reservation = Some(ByteSize::mib(16)));
    let wasm = check(&commit());
    let digest = House::new().engine.inspect(wasm.clone()).await.unwrap().digest;
    let plugin = house.engine.load(&digest, wasm).await.unwrap();
    assert_eq!(plugin.compiled_from(), CompiledFrom::Compiler);
    assert_eq!(plugin.bind(BindingSpec::new("b")).unwrap().check(pending()).await, COMMIT);
}

#[tokio::test]
async fn what_takes_too_much_memory_or_time_is_refused_by_name_and_ends_nothing_else() {
    let small_memory = house(|config| config.compile_memory = ByteSize::mib(64));
    let short_time = house(|config| config.compile_time = Duration::from_secs(1));
    for (house, what, limit) in [(small_memory, "memory", "64MiB"), (short_time, "processor time", "1s")] {
        let refusal = refused(house.engine.inspect(costly(8, 400, 400)).await);
        assert_eq!(refusal, UploadRefused::TooCostly { what: what.into(), limit: limit.to_owned() });
        assert_eq!(refusal.kind(), "too-costly");
        assert!(refusal.to_string().contains(&format!("{limit} of {what}")), "{refusal}");
        assert_eq!(cached(&house), 0);
        // The same limits leave room for what is no bomb.
        house.engine.inspect(costly(1, 20, 20)).await.unwrap();
        assert_eq!(cached(&house), 1);
    }
}

#[tokio::test]
async fn as_many_functions_as_a_component_may_have_compile_within_the_limits_of_the_process() {
    const MOST: usize = 100_000;
    let house = house(|_| {});
    // The guest has two of its own.
    house.engine.inspect(with_function(&"(func)".repeat(MOST - 2))).await.unwrap();
    let refusal = refused(house.engine.inspect(with_function(&"(func)".repeat(MOST - 1))).await);
    let (size, limit) = ((MOST + 1).to_string(), MOST.to_string());
    assert_eq!(refusal, UploadRefused::TooLarge { what: "number of functions".into(), size, limit });
}

#[tokio::test]
async fn what_cannot_be_read_without_overflowing_a_stack_ends_only_its_own_process() {
    // A component that holds one section of types: a type of a component, which lists one type of a component, which …
    let mut types = vec![1];
    types.extend([0x41, 1, 1].repeat(1 << 20));
    let mut length = Vec::new();
    let mut left = types.len();
    while left >= 0x80 {
        length.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    length.push(left as u8);
    let wasm = [b"\0asm\x0d\0\x01\0\x07".as_slice(), &length, &types].concat();
    let refusal = refused(house(|_| {}).engine.inspect(wasm.into()).await);
    assert!(matches!(&refusal, UploadRefused::Invalid { reason } if reason.contains("nested too deeply")), "{refusal}");
}

#[tokio::test]
async fn an_upload_that_nobody_waits_for_ends_its_compiler_and_inherits_nothing() {
    const NAME: &str = "of-an-upload-that-nobody-waits-for";
    let house = House::with(|config| config.compiler = compiler_named(NAME));
    let _opened = fs::File::create(house.folder.path().join("opened")).unwrap();
    let engine = house.engine.clone();
    let upload = tokio::spawn(async move { engine.inspect(costly(50, 400, 400)).await });
    let started = Instant::now();
    let child = loop {
        assert!(started.elapsed() < SOON && !upload.is_finished(), "no process was started");
        if let Some(pid) = compilers(NAME).pop() {
            break pid;
        }
        tokio::task::yield_now().await;
    };
    let files: Vec<PathBuf> = fs::read_dir(format!("/proc/{child}/fd"))
        .map(|fds| fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).collect())
        .unwrap_or_default();
    // What this process was started with, by whoever runs it, is not its own; what it opened is.
    assert!(!files.is_empty() && files.iter().all(|file| !file.starts_with(house.folder.path())), "{files:?}");
    assert_eq!(fs::read(format!("/proc/{child}/environ")).unwrap_or_default(), b"");
    upload.abort();
    assert!(upload.await.unwrap_err().is_cancelled());
    // Waits for the turn of the one that was given up, which ends with its process.
    tokio::time::timeout(SOON, house.engine.inspect(check(&commit()))).await.unwrap().unwrap();
    assert!(!compilers(NAME).contains(&child), "it is gone and buried");
}

#[tokio::test]
async fn a_compiler_that_cannot_be_started_is_no_fault_of_the_component() {
    let house = house(|config| {
        config.compiler = CompilerProgram::Process(Program { path: "/nowhere/compiler".into(), arguments: Vec::new() });
    });
    let error = house.engine.inspect(check(&commit())).await.unwrap_err();
    assert!(matches!(error, InspectError::Host(_)), "{error}");
    let house = House::with(|config| {
        let path = PathBuf::from("/bin/false");
        config.compiler = CompilerProgram::Process(Program { path, arguments: Vec::new() });
    });
    let error = house.engine.inspect(check(&commit())).await.unwrap_err();
    assert!(matches!(error, InspectError::Host(_)), "{error}");
}
