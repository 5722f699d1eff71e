//! Hands each message to an HTTP service: as a CloudEvent 1.0 in binary mode, signed as Standard Webhooks 1.0 are.
//!
//! The binding's `config` is all it wants:
//!
//! | name | meaning |
//! |---|---|
//! | `url` | where to, with `{key}`, `{id}`, `{topic}`, `{tag}`, `{delivery}`, `{property.NAME}` filled in percent-encoded |
//! | `method` | `POST`, `PUT` or `PATCH`; `POST` |
//! | `headers` | lines `Name: value` that are sent besides |
//! | `authorization` | sent as the `authorization` header, if set |
//! | `secret` | keys that sign: `whsec_` and base64, several between blanks; absent: nothing is signed |
//! | `reject` | comma-separated statuses that mean that the service never takes this message; `400,413,415,422`; `none` |
//! | `type` | the event's `type`; `vouch.message` |
//! | `source` | the event's `source`; `/topics/TOPIC` |
//! | `content-type` | of bodies whose message has no property `content-type`; `application/octet-stream` |
//!
//! A 2xx acknowledges; see [`answer`] for all else. The same message may be pushed twice: `webhook-id`, which is `ce-id` as well,
//! is the same then.
//!
//! The modules hold the logic without any WebAssembly in it; `guest` joins it with the broker.

pub mod answer;
pub mod event;
pub mod headers;
pub mod retry_after;
pub mod settings;
pub mod signature;

/// What the host refuses when a binding is set: this list lies in the component, in a section of its own.
#[cfg(any(test, target_arch = "wasm32"))]
const CONFIG: &[u8] = include_bytes!("../config.json");

#[cfg(target_arch = "wasm32")]
mod guest;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use plugin_config::MessageFacts;

    use super::{
        CONFIG,
        settings::{Method, Settings},
    };

    fn declared() -> Vec<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_slice(CONFIG).unwrap()
    }

    #[test]
    fn what_the_component_says_that_it_reads_is_what_it_reads() {
        let read = RefCell::new(BTreeSet::new());
        let config = |name: &str| {
            read.borrow_mut().insert(name.to_owned());
            (name == "url").then(|| "http://h".to_owned())
        };
        Settings::read(config).unwrap();
        let names: BTreeSet<String> =
            declared().iter().map(|setting| setting["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, read.into_inner());
    }

    #[test]
    fn what_it_says_of_values_is_what_it_takes() {
        let declared = declared();
        let of = |name: &str, member: &str| {
            let setting = declared.iter().find(|setting| setting["name"] == name).unwrap();
            setting[member].as_array().unwrap().iter().map(|each| each.as_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of("url", "variables"), MessageFacts::NAMES);
        assert_eq!(of("method", "values"), Method::ALL.map(Method::name));
    }
}
