//! The component: joins the logic with the broker's WIT world, as a consumer and as a checkback.

use crate::{
    broker::{Broker, Draft},
    payment::{self, Decision},
    settings::Settings,
    shelf::{self, Received},
};

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package vouch:stock;
            world plugin {
                include vouch:plugin/consumer-plugin@0.1.0;
                include vouch:plugin/checkback-plugin@0.1.0;
                import vouch:plugin/state@0.1.0;
                import vouch:plugin/outbox@0.1.0;
            }
        ",
        world: "vouch:stock/plugin",
        generate_all,
    });
}

use bindings::{
    exports::vouch::plugin::checkback::{Guest as CheckbackGuest, Pending, Verdict},
    exports::vouch::plugin::consumer::{Delivery, Guest as ConsumerGuest, Outcome},
    vouch::plugin::{
        host::{self, Level},
        outbox::{self, OutboxError},
        state::{self, StateError},
        types::Postponement,
    },
};

/// Read by the host when the component is uploaded.
#[used]
#[unsafe(link_section = "vouch:config")]
static DECLARED: [u8; crate::CONFIG.len()] = *include_bytes!("../config.json");

struct Plugin;

bindings::export!(Plugin with_types_in bindings);

impl ConsumerGuest for Plugin {
    fn consume(item: Delivery) -> Result<Outcome, String> {
        tell_panics();
        let settings = Settings::read(host::config)?;
        let message = &item.message;
        let received = Received { topic: &message.topic, id: &message.id, body: &message.body };
        let done = shelf::consume(&settings, &mut Host, received)?;
        host::log(Level::Debug, &format!("{}: {done:?}", message.topic));
        Ok(match done {
            shelf::Outcome::Ack => Outcome::Ack,
            shelf::Outcome::Reject(reason) => Outcome::Reject(reason),
        })
    }
}

impl CheckbackGuest for Plugin {
    fn check(pending: Pending) -> Result<Verdict, String> {
        tell_panics();
        Ok(match payment::check(&Host, &pending.half.body)? {
            Decision::Commit => Verdict::Commit,
            Decision::Unknown(reason) => Verdict::Unknown(Postponement { reason, retry_after: None }),
        })
    }
}

/// Where no standard error exists (wasm32-unknown-unknown), a panic's text would be lost: send it to the plugin's log.
fn tell_panics() {
    #[cfg(not(target_os = "wasi"))]
    std::panic::set_hook(Box::new(|panic| host::log(Level::Error, &panic.to_string())));
}

/// The broker that runs this.
struct Host;

impl Broker for Host {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        state::get(key).map_err(not_kept)
    }

    fn set(&mut self, key: &str, value: &[u8], expires_after_ms: u32) -> Result<(), String> {
        state::set(key, value, Some(expires_after_ms)).map_err(not_kept)
    }

    fn add(&mut self, key: &str, delta: i64) -> Result<i64, String> {
        state::add(key, delta).map_err(not_kept)
    }

    fn publish(&mut self, draft: Draft) -> Result<(), String> {
        let draft = outbox::Draft {
            topic: draft.topic,
            tag: None,
            keys: vec![draft.key],
            message_group: None,
            properties: vec![("content-type".to_owned(), "application/json".to_owned())],
            deliver_at: None,
            body: draft.body,
        };
        outbox::publish(&draft).map(|_| ()).map_err(not_published)
    }
}

fn not_kept(error: StateError) -> String {
    match error {
        StateError::NotGranted(text) => format!("state is not granted: {text}"),
        StateError::Invalid(text) => format!("state refused it: {text}"),
        StateError::TooLarge(text) => format!("too large for state: {text}"),
        StateError::QuotaExceeded(text) => format!("state is full: {text}"),
        StateError::Unavailable(text) => format!("state is unavailable: {text}"),
    }
}

fn not_published(error: OutboxError) -> String {
    match error {
        OutboxError::NotGranted(text) => format!("publishing is not granted: {text}"),
        OutboxError::Invalid(text) => format!("the topic refused it: {text}"),
        OutboxError::TooLarge(text) => format!("too large to publish: {text}"),
        OutboxError::TooMany(text) => format!("too many to publish: {text}"),
    }
}
