//! The host's side of the WIT world, generated from the folder `wit/`.

#[allow(missing_docs, unreachable_pub, reason = "generated code")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package vouch:broker;

            /// What the broker offers to a checkback plugin, and what it asks of one: a component exports one of both, or both.
            world checkback-host {
                include vouch:plugin/checkback-plugin@0.1.0;
                include vouch:plugin/checkback-batch-plugin@0.1.0;
                include vouch:plugin/capabilities@0.1.0;
            }
        ",
        world: "vouch:broker/checkback-host",
        imports: {
            "vouch:plugin/sql.run": async,
            "vouch:plugin/sql.run-all": async,
            "vouch:plugin/sql.run-once": async,
            "vouch:plugin/sql.read-fence": async,
            "vouch:plugin/sql.close-fence": async,
        },
        exports: { default: async },
    });
}

pub(crate) use generated::{
    exports::vouch::plugin::{checkback, checkback_batch},
    vouch::plugin::{host, outbox, sql, state, types},
};
