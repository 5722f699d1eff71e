//! An example of a whole job in one component: it keeps the stock of a shop, without a database or a service of its own.
//!
//! It is bound twice. As a *consumer* it takes the messages of three topics:
//!
//! | topic | body | what happens |
//! |---|---|---|
//! | `goods` | `{"sku": "teapot", "quantity": 10}` | they are added to `stock:teapot` |
//! | `payments` | `{"order": "1001"}` | `paid:1001` is noted |
//! | any other | `{"order": "1001", "items": [{"sku": "teapot", "quantity": 2}]}` | stock is reserved, and a message to `reservations` says so; or nothing is, and one to `stock-short` says what is missing |
//!
//! As the *checkback* of the orders' topic it reads `paid:1001` and commits the order's half message: an order that nobody paid for
//! is never seen by the consumer. Both bindings share one namespace of `state`.
//!
//! What a call writes and publishes happens in the same log record as the acknowledgement, so nothing here guards against a
//! message that comes twice: it cannot. Where two calls touch the same key, the broker runs the later one again.
//!
//! | config | meaning |
//! |---|---|
//! | `goods`, `payments` | the topics of goods that come and of payments; `goods`, `payments` |
//! | `reservations`, `short` | the topics that are published to; `reservations`, `stock-short` |
//! | `keep-payments` | how long a payment is known; `7d`, at most 49 days |
//!
//! The modules hold the logic without any WebAssembly in it; `guest` joins it with the broker.

pub mod bodies;
pub mod broker;
pub mod payment;
pub mod settings;
pub mod shelf;

/// What the host refuses when a binding is set: this list lies in the component, in a section of its own.
#[cfg(any(test, target_arch = "wasm32"))]
const CONFIG: &[u8] = include_bytes!("../config.json");

#[cfg(target_arch = "wasm32")]
mod guest;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::{CONFIG, settings::Settings};

    #[test]
    fn what_the_component_says_that_it_reads_is_what_it_reads() {
        let read = RefCell::new(BTreeSet::new());
        let config = |name: &str| {
            read.borrow_mut().insert(name.to_owned());
            None
        };
        Settings::read(config).unwrap();
        let declared: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(CONFIG).unwrap();
        let names: BTreeSet<String> =
            declared.iter().map(|setting| setting["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, read.into_inner());
    }
}
