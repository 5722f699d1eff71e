//! Of secrets.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::Sampled;
use super::step::Step;
use super::values::text;
use crate::record::{SecretDeleted, SecretPut};
use crate::testing::RecordLog;

impl Sampled for SecretPut {
    const GOLDEN: &str = "5a000000 2d8e5a79 1600 01 00 0171 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbb \
         cccccccccccccccccccccccccccccccccccccccccccccccc 12eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee 010700000000000000";

    fn sample() -> Self {
        Self {
            name: "q".to_owned(),
            value_id: [0xaa; 16],
            key_id: [0xbb; 8],
            nonce: [0xcc; 24],
            sealed: vec![0xee; 18],
            expected_revision: Some(7),
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (
            text(),
            any::<[u8; 16]>(),
            any::<[u8; 8]>(),
            any::<[u8; 24]>(),
            vec(any::<u8>(), 0..50),
            option::of(any::<u64>()),
        )
            .prop_map(|(name, value_id, key_id, nonce, sealed, expected_revision)| Self {
                name,
                value_id,
                key_id,
                nonce,
                sealed,
                expected_revision,
            })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let name = drawn_name(step);
        let current = log.state.secrets().get(&name).map_or(0, |secret| secret.revision);
        // Now and then one that is too short to hold a value.
        let sealed = vec![7; [17, 17, 30, 16][usize::from(step.b) % 4]];
        let (value_id, key_id, nonce) = ([(step.b >> 2 & 1) as u8; 16], [1; 8], [step.b as u8; 24]);
        Self { name, value_id, key_id, nonce, sealed, expected_revision: step.revision(current) }
    }
}

impl Sampled for SecretDeleted {
    const GOLDEN: &str = "0e000000 d8557b5c 1700 01 00 0171";
    const OFTEN: u16 = 5;

    fn sample() -> Self {
        Self { name: "q".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        text().prop_map(|name| Self { name })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { name: drawn_name(step) }
    }
}

fn drawn_name(step: Step) -> String {
    format!("s{}", step.a % 2)
}
