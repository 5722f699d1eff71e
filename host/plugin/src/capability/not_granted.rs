//! `vouch:plugin/{state,outbox}`: no binding of this version can grant them.

use crate::{
    bindings::{
        outbox::{self, Draft, OutboxError},
        state::{self, StateError},
    },
    guest::CallState,
};

/// What a component is told that calls what nobody can grant.
fn sentence(interface: &str) -> String {
    format!("the binding does not grant {interface}; this version of the broker cannot grant it")
}

/// An answer, and no trap: a component may do without.
fn state_refused<T>() -> Result<T, StateError> {
    Err(StateError::NotGranted(sentence("state")))
}

impl state::Host for CallState {
    fn get(&mut self, _key: String) -> Result<Option<Vec<u8>>, StateError> {
        state_refused()
    }

    fn set(&mut self, _key: String, _value: Vec<u8>, _expires_after: Option<u32>) -> Result<(), StateError> {
        state_refused()
    }

    fn remove(&mut self, _key: String) -> Result<(), StateError> {
        state_refused()
    }

    fn add(&mut self, _key: String, _delta: i64) -> Result<i64, StateError> {
        state_refused()
    }
}

impl outbox::Host for CallState {
    fn publish(&mut self, _message: Draft) -> Result<String, OutboxError> {
        Err(OutboxError::NotGranted(sentence("publishing")))
    }
}
