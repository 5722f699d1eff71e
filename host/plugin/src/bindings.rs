//! The host's side of the WIT world, generated from the folder `wit/`.

#[allow(missing_docs, unreachable_pub, reason = "generated code")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package vouch:broker;

            /// What the broker offers to a component, and what it asks of one: a component exports some of this.
            world component-host {
                include vouch:plugin/checkback-plugin@0.1.0;
                include vouch:plugin/checkback-batch-plugin@0.1.0;
                include vouch:plugin/consumer-plugin@0.1.0;
                include vouch:plugin/capabilities@0.1.0;
            }
        ",
        world: "vouch:broker/component-host",
        imports: {
            "vouch:plugin/host.log": trappable,
            "vouch:plugin/host.config": trappable,
            "vouch:plugin/outbox.publish": async | trappable,
            "vouch:plugin/state.get": async | trappable,
            "vouch:plugin/state.set": async | trappable,
            "vouch:plugin/state.remove": async | trappable,
            "vouch:plugin/state.add": async | trappable,
            "vouch:plugin/sql.run": async | trappable,
            "vouch:plugin/sql.run-all": async | trappable,
            "vouch:plugin/sql.run-once": async | trappable,
            "vouch:plugin/sql.read-fence": async | trappable,
            "vouch:plugin/sql.close-fence": async | trappable,
        },
        exports: { default: async },
    });
}

pub(crate) use generated::{
    exports::vouch::plugin::{checkback, checkback_batch, consumer},
    vouch::plugin::{host, outbox, sql, state, types},
};
