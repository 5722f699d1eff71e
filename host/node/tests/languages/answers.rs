//! Commits every transaction and acknowledges every message; with `count` in the config it counts each under its delivery key.

wit_bindgen::generate!({ path: "wit", world: "answers", generate_all });

use exports::vouch::plugin::{checkback, consumer};
use vouch::plugin::{host, state};

/// Says yes to everything.
struct Answers;

impl checkback::Guest for Answers {
    fn check(_: checkback::Pending) -> Result<checkback::Verdict, String> {
        Ok(checkback::Verdict::Commit)
    }
}

impl consumer::Guest for Answers {
    fn consume(item: consumer::Delivery) -> Result<consumer::Outcome, String> {
        if host::config("count").is_some() {
            state::add(&item.delivery_key, 1).map_err(|error| format!("{error:?}"))?;
        }
        Ok(consumer::Outcome::Ack)
    }
}

export!(Answers);
