//! Of components and bindings.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::Sampled;
use super::values::text;
use crate::record::{BindingDelete, BindingPut, PluginChunk, PluginDelete, PluginPublish, TagDelete};

/// The component of all samples.
const DIGEST: [u8; 32] = [0xdd; 32];

impl Sampled for PluginChunk {
    const GOLDEN: &str = "40000000 deab9b88 4000 01 00 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 1000000000000000 \
         1300000000000000 03010203";

    fn sample() -> Self {
        Self { digest: DIGEST, offset: 16, total: 19, data: vec![1, 2, 3] }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (digest(), any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..50)).prop_map(|(digest, offset, total, data)| Self {
            digest,
            offset,
            total,
            data,
        })
    }
}

impl Sampled for PluginPublish {
    const GOLDEN: &str = "54000000 f0a608e4 4100 01 00 0170 0131 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd \
         01eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee 027b7d";

    fn sample() -> Self {
        Self {
            name: "p".to_owned(),
            tag: "1".to_owned(),
            digest: DIGEST,
            expected: Some([0xee; 32]),
            verdict: "{}".to_owned(),
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (text(), text(), digest(), option::of(digest()), text())
            .prop_map(|(name, tag, digest, expected, verdict)| Self { name, tag, digest, expected, verdict })
    }
}

impl Sampled for TagDelete {
    const GOLDEN: &str = "10000000 d5168cb1 4200 01 00 0170 0131";

    fn sample() -> Self {
        Self { name: "p".to_owned(), tag: "1".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (text(), text()).prop_map(|(name, tag)| Self { name, tag })
    }
}

impl Sampled for PluginDelete {
    const GOLDEN: &str = "0e000000 798aedd2 4300 01 00 0170";

    fn sample() -> Self {
        Self { name: "p".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        text().prop_map(|name| Self { name })
    }
}

impl Sampled for BindingPut {
    const GOLDEN: &str = "3a000000 fc45f44f 4400 01 00 0162 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 027b7d 010000000000000000";

    fn sample() -> Self {
        Self { name: "b".to_owned(), digest: DIGEST, spec: "{}".to_owned(), expected_revision: Some(0) }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (text(), digest(), text(), option::of(any::<u64>())).prop_map(|(name, digest, spec, expected_revision)| Self {
            name,
            digest,
            spec,
            expected_revision,
        })
    }
}

impl Sampled for BindingDelete {
    const GOLDEN: &str = "0e000000 55aaf14a 4500 01 00 0162";

    fn sample() -> Self {
        Self { name: "b".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        text().prop_map(|name| Self { name })
    }
}

fn digest() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}
