//! `vouch:plugin/state`: the namespace that the binding grants.

use crate::{
    bindings::state::{Host, StateError},
    guest::CallState,
    handed::takes,
    lent::SeenValue,
    staged::{StateExpiry, StateWrite},
};

/// An answer for the guest, or the end of it.
type Answer<T> = wasmtime::Result<Result<T, StateError>>;

impl CallState {
    /// What this call sees under a key. The broker is asked once for each: what it says then holds for the whole call.
    async fn seen(&mut self, key: &str) -> Answer<SeenValue> {
        if let Err(refused) = self.lent.may_read(key) {
            return Ok(Err(refused));
        }
        if let Some(seen) = self.lent.seen(key) {
            return Ok(Ok(seen));
        }
        let reach = match self.lent.reading() {
            Ok(reach) => reach,
            Err(refused) => return Ok(Err(refused)),
        };
        match reach.read(key).await {
            Ok(found) => {
                // It is kept until the call ends, so that the guest reads it as often as it likes.
                let size = key.len() + found.value.as_ref().map_or(0, Vec::len);
                self.cap.keep(size, &mut self.table)?;
                Ok(Ok(self.lent.found(key.to_owned(), found)))
            }
            Err(text) => {
                self.trouble().note(|| format!("the broker's state: {text}"));
                Ok(Err(StateError::Unavailable(text)))
            }
        }
    }

    /// What a guest is told, noted for whoever tries the binding. What is not granted stays so.
    fn told_state<T>(&self, answer: Result<T, StateError>) -> Result<T, StateError> {
        if let Some(dry) = &self.lent.dry {
            dry.answered(match &answer {
                Err(StateError::NotGranted(text)) => Some(format!("state: {text}")),
                _ => None,
            });
        }
        answer
    }

    /// Notes what a dry call asks of the state.
    fn asks_state(&self, what: &str, key: &str) {
        if let Some(dry) = &self.lent.dry {
            dry.asked(format!("state.{what} {key}"));
        }
    }
}

impl Host for CallState {
    async fn get(&mut self, key: String) -> Answer<Option<Vec<u8>>> {
        takes(key.len())?;
        self.asks_state("get", &key);
        let seen = self.seen(&key).await?;
        Ok(self.told_state(seen.map(|seen| seen.value)))
    }

    async fn set(&mut self, key: String, value: Vec<u8>, expires_after: Option<u32>) -> Answer<()> {
        takes(key.len() + value.len())?;
        self.asks_state("set", &key);
        let write = match expires_after {
            // It is over before anybody could read it.
            Some(0) => StateWrite::REMOVED,
            Some(ms) => StateWrite { value: Some(value), expires: StateExpiry::AfterMs(ms) },
            None => StateWrite { value: Some(value), expires: StateExpiry::Never },
        };
        let written = self.lent.write(key, write);
        Ok(self.told_state(written))
    }

    async fn remove(&mut self, key: String) -> Answer<()> {
        takes(key.len())?;
        self.asks_state("remove", &key);
        let written = self.lent.write(key, StateWrite::REMOVED);
        Ok(self.told_state(written))
    }

    async fn add(&mut self, key: String, delta: i64) -> Answer<i64> {
        takes(key.len())?;
        self.asks_state("add", &key);
        if let Err(refused) = self.lent.may_write(&key) {
            return Ok(self.told_state(Err(refused)));
        }
        let added = self.seen(&key).await?.and_then(|SeenValue { value, expires }| {
            let sum = sum(value.as_deref(), delta)?;
            let value = Some(sum.to_string().into_bytes());
            self.lent.write(key, StateWrite { value, expires }).map(|()| sum)
        });
        Ok(self.told_state(added))
    }
}

/// What is kept, as a whole number, and `delta`.
fn sum(kept: Option<&[u8]>, delta: i64) -> Result<i64, StateError> {
    let number = match kept {
        None => Some(0),
        Some(digits) => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i64>().ok()),
    };
    let invalid = |text: &str| StateError::Invalid(text.to_owned());
    let number = number.ok_or_else(|| invalid("what is kept under the key is no whole number of 64 bits"))?;
    number.checked_add(delta).ok_or_else(|| invalid("the sum is too large for a whole number of 64 bits"))
}
