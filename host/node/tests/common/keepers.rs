//! Tiny components that consume, and use what a binding lends them. For test programs that have `guests` as well.

use bytes::Bytes;

use crate::guests::Guest;

/// Where the functions of state and outbox put what they return, for a [`consumer`]: the byte there is 0 where it went well.
pub(crate) const RETURNED: u32 = 2048;

/// Where the key of a [`consumer`]'s delivery lies, and how long it is: two expressions.
pub(crate) const DELIVERY_KEY: &str = "(i32.load (local.get 0)) (i32.load offset=4 (local.get 0))";

/// A consumer that has state and the outbox, by the names `$get`, `$set`, `$add` and `$publish`, and does this with each delivery.
pub(crate) fn consumer(data: &str, does: &str) -> Bytes {
    let imports = r#"
        (import "vouch:plugin/state@0.1.0" "get" (func $get (param i32 i32 i32)))
        (import "vouch:plugin/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))
        (import "vouch:plugin/state@0.1.0" "add" (func $add (param i32 i32 i64 i32)))
        (import "vouch:plugin/outbox@0.1.0" "publish" (func $publish
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32)))"#;
    let world = "package test:w; world w { include vouch:plugin/consumer-plugin@0.1.0; import vouch:plugin/state@0.1.0; import \
                 vouch:plugin/outbox@0.1.0; }";
    let export = "vouch:plugin/consumer@0.1.0#consume";
    Guest { world: "test:w/w", packages: &[world], imports, data, export, check: does }.build()
}

/// Publishes a message with this body to this topic; both are an address and a length.
pub(crate) fn publish((topic, length): (u32, u32), (body, size): (u32, u32)) -> String {
    // Neither tag, keys, group, properties nor time.
    let none = "(i32.const 0) ".repeat(11);
    format!(
        "(call $publish (i32.const {topic}) (i32.const {length}) {none} (i64.const 0) (i32.const {body}) (i32.const {size}) \
         (i32.const {RETURNED}))"
    )
}

/// Ends the call in a trap if what was called last did not go well.
pub(crate) fn or_trap() -> String {
    format!("(if (i32.load8_u (i32.const {RETURNED})) (then unreachable))")
}
