//! Settles a transaction by asking the database in which it happened, or did not.
//!
//! The binding's `config` is all it wants:
//!
//! | name | meaning |
//! |---|---|
//! | `database` | a name in the binding's grant `sql` |
//! | `fence` | `on`, `off`; absent: on, unless the grant names no fence table and there is a `statement`, but no `on-rollback` |
//! | `fence-key` | key of the transaction's row in the fence, with `{id}`, `{key}`, `{transaction}`, `{property.NAME}` filled in, one of them at least; `{id}` |
//! | `fence-after` | a transaction at least this old whose row is missing is closed, and so is one with no check left; `60s` |
//! | `on-rollback` | a statement that runs in the database transaction that closes, and only if that closes: the order becomes CANCELLED |
//! | `on-rollback-params` | its parameters, comma-separated, with the same filled in |
//! | `statement` | asks for the thing behind the half message; the first column of the first row is the value |
//! | `params` | its parameters |
//! | `commit` | comma-separated values that commit |
//! | `rollback` | comma-separated values that roll back: with a fence only once that is closed |
//! | `rollback-missing-after` | without a fence: no row for a transaction at least this old rolls back. That is a guess by age |
//!
//! The fence is read first; the statement is asked where that says nothing. With a fence alone no statement is needed. Any other value is *unknown*, or left to the fence. A database that does not answer,
//! and a row that an open database transaction holds, are no answer.
//!
//! The modules hold the logic without any WebAssembly in it; `guest` joins it with the broker.

pub mod decision;
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
                "fence" => "on".to_owned(),
                "fence-key" => "{id}".to_owned(),
                "fence-after" | "rollback-missing-after" => "1s".to_owned(),
                other => other.to_owned(),
            })
        };
        // A guess by age beside a fence is refused, behind everything that is read.
        assert!(Settings::read(config).unwrap_err().contains("rollback-missing-after"));
        let declared: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(CONFIG).unwrap();
        let names: BTreeSet<String> =
            declared.iter().map(|setting| setting["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, read.into_inner());
    }
}
