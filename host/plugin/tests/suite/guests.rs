//! Tiny components, written as text and made into components without any compiler for guests.

use bytes::Bytes;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

/// Where a guest puts its `result<verdict, string>`.
pub(crate) const RESULT: u32 = 1024;

/// The world of a guest that imports nothing but `host`.
pub(crate) const CHECKBACK: &str = "vouch:plugin/checkback-plugin@0.1.0";

/// A world of its own: the given items besides those of a checkback plugin.
fn resolve(world: &str, packages: &[&str]) -> (Resolve, WorldId) {
    let mut resolve = Resolve::default();
    // Beside the workspace's Cargo.toml, however deep the crate that uses this file lies.
    let mut folders = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("wit"));
    let (ours, _) = resolve.push_dir(folders.find(|wit| wit.join("worlds.wit").exists()).unwrap()).unwrap();
    let mut all = vec![ours];
    for (n, text) in packages.iter().enumerate() {
        all.push(resolve.push_str(format!("test-{n}.wit"), text).unwrap());
    }
    let world = resolve.select_world(&all, Some(world)).unwrap();
    (resolve, world)
}

/// Makes a component for `world` out of a core module in text form. `packages` are further WIT texts.
pub(crate) fn component(world: &str, packages: &[&str], core: &str) -> Bytes {
    let (resolve, world) = resolve(world, packages);
    let mut module = wat::parse_str(core).unwrap_or_else(|error| panic!("{error}\n{core}"));
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap().into()
}

/// A component for `world` whose every function traps.
pub(crate) fn dummy(world: &str, packages: &[&str]) -> Bytes {
    let (resolve, world) = resolve(world, packages);
    let abi = wit_parser::ManglingAndAbi::Standard32;
    let mut module = wit_component::dummy_module(&resolve, world, abi);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap().into()
}

/// A guest: what it imports, its data at address 0, and the body of its one function, `check` if nothing else is said, which gets a
/// pointer to the record that it is about as local 0 and leaves a pointer to its result.
pub(crate) struct Guest<'a> {
    pub(crate) world: &'a str,
    pub(crate) packages: &'a [&'a str],
    pub(crate) imports: &'a str,
    pub(crate) data: &'a str,
    pub(crate) export: &'a str,
    pub(crate) check: &'a str,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        let export = "vouch:plugin/checkback@0.1.0#check";
        Self { world: CHECKBACK, packages: &[], imports: "", data: "", export, check: "unreachable" }
    }
}

impl Guest<'_> {
    pub(crate) fn build(&self) -> Bytes {
        let Self { imports, data, export, check, .. } = self;
        // The allocator only moves on: an instance lives for one check.
        let core = format!(
            r#"(module
                {imports}
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 8192))
                (data (i32.const 0) "{data}")
                (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                    (global.set $next (i32.add (local.get $at) (local.get 3)))
                    (block $fits (loop $grow
                        (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
                        (br_if $grow (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
                        unreachable))
                    (local.get $at))
                (func (export "{export}") (param i32) (result i32)
                    (local $n i32)
                    {check}))"#
        );
        component(self.world, self.packages, &core)
    }
}

/// A guest that exports `checkback-batch` alone. What it does about each half message the first letter of that one's id says: `c`
/// commits, `r` rolls back, `u` does not know, `l` is left out, `t` is answered twice, `f` is answered about somebody else, `p`
/// traps, `w` computes for ever, `e` makes it answer `err` for all.
pub(crate) fn batch() -> Bytes {
    const WORLD: &str = "vouch:plugin/checkback-batch-plugin@0.1.0";
    // Sizes of the records `pending` and `answer`, and where the id of the half message lies in the first.
    const PENDING: u32 = 144;
    const ANSWER: u32 = 28;
    const HALF_ID: u32 = 8;
    let core = format!(
        r#"(module
            (memory (export "memory") 64)
            (global $next (mut i32) (i32.const 8192))
            (data (i32.const 0) "told by its id")
            (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.set $next (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            (func (export "vouch:plugin/checkback-batch@0.1.0#check-many") (param $item i32) (param $left i32) (result i32)
                (local $answers i32) (local $next i32) (local $count i32) (local $letter i32)
                (local.set $answers
                    (call $alloc (i32.const 0) (i32.const 0) (i32.const 4)
                        (i32.mul (i32.add (local.get $left) (local.get $left)) (i32.const {ANSWER}))))
                (local.set $next (local.get $answers))
                (block $all (loop $each
                    (br_if $all (i32.eqz (local.get $left)))
                    (local.set $letter (i32.load8_u (i32.load (i32.add (local.get $item) (i32.const {HALF_ID})))))
                    (if (i32.eq (local.get $letter) (i32.const 112 (; p ;))) (then unreachable))
                    (if (i32.eq (local.get $letter) (i32.const 119 (; w ;))) (then (loop $ever (br $ever))))
                    (if (i32.eq (local.get $letter) (i32.const 101 (; e ;))) (then
                        (i32.store (i32.const {RESULT}) (i32.const 1))
                        (i32.store (i32.const {}) (i32.const 0))
                        (i32.store (i32.const {}) (i32.const 14))
                        (return (i32.const {RESULT}))))
                    (if (i32.ne (local.get $letter) (i32.const 108 (; l ;))) (then
                        (i32.store (local.get $next) (i32.load (local.get $item)))
                        (i32.store offset=4 (local.get $next) (i32.load offset=4 (local.get $item)))
                        (if (i32.eq (local.get $letter) (i32.const 102 (; f ;))) (then
                            (i32.store (local.get $next) (i32.const 0))
                            (i32.store offset=4 (local.get $next) (i32.const 4))))
                        (i32.store offset=8 (local.get $next)
                            (i32.add (i32.eq (local.get $letter) (i32.const 114 (; r ;)))
                                (i32.mul (i32.const 2) (i32.eq (local.get $letter) (i32.const 117 (; u ;))))))
                        (i32.store offset=12 (local.get $next) (i32.const 0))
                        (i32.store offset=16 (local.get $next) (i32.const 14))
                        (i32.store offset=20 (local.get $next) (i32.const 0))
                        (local.set $next (i32.add (local.get $next) (i32.const {ANSWER})))
                        (local.set $count (i32.add (local.get $count) (i32.const 1)))
                        (if (i32.eq (local.get $letter) (i32.const 116 (; t ;))) (then
                            (memory.copy (local.get $next)
                                (i32.sub (local.get $next) (i32.const {ANSWER})) (i32.const {ANSWER}))
                            (i32.store offset=8 (local.get $next) (i32.const 1))
                            (local.set $next (i32.add (local.get $next) (i32.const {ANSWER})))
                            (local.set $count (i32.add (local.get $count) (i32.const 1)))))))
                    (local.set $item (i32.add (local.get $item) (i32.const {PENDING})))
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                    (br $each)))
                (i32.store (i32.const {RESULT}) (i32.const 0))
                (i32.store (i32.const {}) (local.get $answers))
                (i32.store (i32.const {}) (local.get $count))
                (i32.const {RESULT})))"#,
        RESULT + 4,
        RESULT + 8,
        RESULT + 4,
        RESULT + 8
    );
    component(WORLD, &[], &core)
}

/// A guest whose `check` does just this.
pub(crate) fn check(body: &str) -> Bytes {
    Guest { check: body, ..Guest::default() }.build()
}

fn store(offset: u32, value: &str) -> String {
    format!("(i32.store (i32.const {}) {value})", RESULT + offset)
}

/// Result: commit.
pub(crate) fn commit() -> String {
    format!("(i32.const {RESULT})")
}

/// Result: rollback with the text at these addresses (expressions).
pub(crate) fn rollback(pointer: &str, length: &str) -> String {
    format!("{}{}{}(i32.const {RESULT})", store(4, "(i32.const 1)"), store(8, pointer), store(12, length))
}

/// Result: unknown with a text and perhaps a time in ms.
pub(crate) fn unknown(pointer: &str, length: &str, retry_after_ms: Option<u32>) -> String {
    let mut code = format!("{}{}{}", store(4, "(i32.const 2)"), store(8, pointer), store(12, length));
    if let Some(ms) = retry_after_ms {
        code += &store(16, "(i32.const 1)");
        code += &store(20, &format!("(i32.const {ms})"));
    }
    code + &format!("(i32.const {RESULT})")
}

/// Result: `err` with a text.
pub(crate) fn err(pointer: &str, length: &str) -> String {
    format!("{}{}{}(i32.const {RESULT})", store(0, "(i32.const 1)"), store(4, pointer), store(8, length))
}

/// Never returns.
pub(crate) const SPIN: &str = "(loop $forever (br $forever)) unreachable";

/// A number as an expression.
pub(crate) fn n(value: u32) -> String {
    format!("(i32.const {value})")
}

/// The number at an offset of the record `pending`.
pub(crate) fn field(offset: u32) -> String {
    format!("(i32.load (i32.add (local.get 0) (i32.const {offset})))")
}
