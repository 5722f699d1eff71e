//! Settles a transaction by asking an HTTP service for the thing behind the half message.
//!
//! The binding's `config` is all it wants:
//!
//! | name | meaning |
//! |---|---|
//! | `url` | whom to ask, with `{key}`, `{id}`, `{transaction}`, `{property.NAME}` filled in percent-encoded |
//! | `field` | JSON pointer into a 2xx answer, such as `/status`; absent: the status code is the value |
//! | `commit` | comma-separated values that commit |
//! | `rollback` | comma-separated values that roll back |
//! | `rollback-missing-after` | a 404 on a transaction at least this old rolls back (`30s`, `10m`, `2h`); absent: 404 is *unknown* |
//! | `authorization` | sent as the `authorization` header, if set |
//!
//! Any other value is *unknown*. What is not the service's own, whole and unambiguous word is no answer; see [`answer`].
//! Where `field` is set, up to five redirects are followed; the host checks each against the binding's grants.
//!
//! The modules hold the logic without any WebAssembly in it; `guest` joins it with the broker.

pub mod answer;
pub mod field;
pub mod redirect;
pub mod settings;

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
            Some(match name {
                "url" => "http://h".to_owned(),
                "field" => "/a".to_owned(),
                "rollback-missing-after" => "1s".to_owned(),
                other => other.to_owned(),
            })
        };
        Settings::read(config).unwrap();
        let declared: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(CONFIG).unwrap();
        let names: BTreeSet<String> =
            declared.iter().map(|setting| setting["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, read.into_inner());
    }
}
