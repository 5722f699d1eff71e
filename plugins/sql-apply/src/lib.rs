//! Runs statements on a database for each message: all of them in one database transaction, and once for each message.
//!
//! The binding's `config` is all it wants:
//!
//! | name | meaning |
//! |---|---|
//! | `database` | a name in the binding's grant `sql`, which has to say `"write": true` and name a table `once` |
//! | `statement`, `statement-2` … `statement-8` | what runs, in this order, with the database's own placeholders |
//! | `params`, `params-2` … `params-8` | the parameters of each, comma-separated templates; see below |
//! | `on-conflict` | what becomes of a message that a constraint of the database stands against: `retry`, `reject`, `ack`; `retry` |
//!
//! In a parameter `{key}`, `{id}`, `{topic}`, `{tag}`, `{delivery}`, `{property.NAME}`, `{body}` (as text) and `{json./POINTER}`
//! (a place in a body that is JSON) are filled in; [`values`] tells which values they become.
//!
//! The database notes the message's delivery key in the same transaction (`run-once`), so a delivery that comes again runs nothing.
//! [`outcome`] tells what the database's refusals mean.
//!
//! The modules hold the logic without any WebAssembly in it; `guest` joins it with the broker.

pub mod outcome;
pub mod settings;
pub mod values;

/// What the host refuses when a binding is set: this list lies in the component, in a section of its own.
#[cfg(any(test, target_arch = "wasm32"))]
const CONFIG: &[u8] = include_bytes!("../config.json");

#[cfg(target_arch = "wasm32")]
mod guest;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::{
        CONFIG,
        outcome::OnConflict,
        settings::{STATEMENTS, Settings},
        values::NAMES,
    };

    fn declared() -> Vec<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_slice(CONFIG).unwrap()
    }

    #[test]
    fn what_the_component_says_that_it_reads_is_what_it_reads() {
        let read = RefCell::new(BTreeSet::new());
        let config = |name: &str| {
            read.borrow_mut().insert(name.to_owned());
            Some(if name == "on-conflict" { "ack" } else { name }.to_owned())
        };
        Settings::read(config).unwrap();
        let names: BTreeSet<String> =
            declared().iter().map(|setting| setting["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, read.into_inner());
    }

    #[test]
    fn what_it_says_of_values_is_what_it_takes() {
        let list = |value: &serde_json::Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|each| each.as_str().unwrap().to_owned()).collect()
        };
        let mut statements = Vec::new();
        for setting in declared() {
            let name = setting["name"].as_str().unwrap().to_owned();
            if name.starts_with("params") {
                assert_eq!(list(&setting["variables"]), NAMES, "{name}");
                assert_eq!(list(&setting["needs"]), [name.replace("params", "statement")]);
            } else if name.starts_with("statement-") {
                assert_eq!(list(&setting["needs"]), [statements.last().cloned().unwrap_or_default()]);
            } else if name == "on-conflict" {
                assert_eq!(list(&setting["values"]), OnConflict::ALL.map(OnConflict::name));
            }
            if name.starts_with("statement") {
                statements.push(name);
            }
        }
        assert_eq!(statements, STATEMENTS.map(|(statement, _)| statement));
    }
}
