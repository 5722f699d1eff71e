//! Of components and bindings.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::Sampled;
use super::step::Step;
use super::values::text;
use crate::record::{
    BindingDelete, BindingPaused, BindingPut, KeepGrant, PluginChunk, PluginDelete, PluginPublish, TagDelete,
};
use crate::testing::RecordLog;

/// The component of all samples.
const DIGEST: [u8; 32] = [0xdd; 32];

impl Sampled for PluginChunk {
    const GOLDEN: &str = "40000000 deab9b88 4000 01 00 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 1000000000000000 \
         1300000000000000 03010203";
    const OFTEN: u16 = 20;
    const REFUSED: bool = false;

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

    fn drawn(_: &RecordLog, step: Step) -> Self {
        let (offset, len) = [(0, 4), (0, 4), (4, 4), (0, 8)][usize::from(step.c >> 4) % 4];
        Self { digest: drawn_digest(step), offset, total: 8, data: vec![1; len] }
    }
}

impl Sampled for PluginPublish {
    const GOLDEN: &str = "54000000 f0a608e4 4100 01 00 0170 0131 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd \
         01eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee 027b7d";
    const OFTEN: u16 = 15;

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

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let (name, tag) = drawn_tag(step);
        let current = log.state.plugins().tag(&name, &tag).map(|tag| tag.digest);
        let expected = if step.c & 16 == 0 { current } else { Some([9; 32]) };
        Self { name, tag, digest: drawn_digest(step), expected, verdict: "{}".to_owned() }
    }
}

impl Sampled for TagDelete {
    const GOLDEN: &str = "10000000 d5168cb1 4200 01 00 0170 0131";
    const OFTEN: u16 = 5;

    fn sample() -> Self {
        Self { name: "p".to_owned(), tag: "1".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (text(), text()).prop_map(|(name, tag)| Self { name, tag })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        let (name, tag) = drawn_tag(step);
        Self { name, tag }
    }
}

impl Sampled for PluginDelete {
    const GOLDEN: &str = "0e000000 798aedd2 4300 01 00 0170";
    const OFTEN: u16 = 5;

    fn sample() -> Self {
        Self { name: "p".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        text().prop_map(|name| Self { name })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { name: drawn_tag(step).0 }
    }
}

impl Sampled for BindingPut {
    const GOLDEN: &str = "4a000000 2ef9d9a7 4400 03 00 0162 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 027b7d 010000000000000000 02 0171 0172 \
         01 016e 0900000000000000";
    const OFTEN: u16 = 14;

    fn sample() -> Self {
        Self {
            name: "b".to_owned(),
            digest: DIGEST,
            spec: "{}".to_owned(),
            expected_revision: Some(0),
            secrets: ["q", "r"].map(str::to_owned).into(),
            keeps: Some(KeepGrant { namespace: "n".to_owned(), quota: 9 }),
            names_life: true,
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        let keeps = (text(), any::<u64>()).prop_map(|(namespace, quota)| KeepGrant { namespace, quota });
        let life = prop_oneof![Just((None, false)), option::of(keeps).prop_map(|keeps| (keeps, true))];
        (text(), digest(), text(), option::of(any::<u64>()), btree_set(text(), 0..4), life).prop_map(
            |(name, digest, spec, expected_revision, secrets, (keeps, names_life))| Self {
                name,
                digest,
                spec,
                expected_revision,
                secrets,
                keeps,
                names_life,
            },
        )
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let (plugin, tag) = drawn_tag(step);
        let spec = format!(r#"{{"plugin":"{plugin}:{tag}","topics":["t{}"]}}"#, step.c >> 5 & 1);
        let name = format!("b{}", step.c >> 6 & 1);
        let current = log.state.plugins().binding(&name).map_or(0, |binding| binding.revision);
        let secrets = [None, None, Some("s0"), Some("s1")][usize::from(step.c >> 8) % 4];
        let secrets = secrets.into_iter().map(str::to_owned).collect();
        let names_life = step.c >> 10 & 3 != 0;
        let keeps = names_life.then(|| KeepGrant { namespace: format!("n{}", step.c >> 12 & 1), quota: 1_000 });
        Self {
            name,
            digest: drawn_digest(step),
            spec,
            expected_revision: step.revision(current),
            secrets,
            keeps,
            names_life,
        }
    }
}

impl Sampled for BindingPaused {
    const GOLDEN: &str = "0f000000 a7b68e14 4700 01 00 0162 01";
    const OFTEN: u16 = 12;

    fn sample() -> Self {
        Self { name: "b".to_owned(), paused: true }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (text(), any::<bool>()).prop_map(|(name, paused)| Self { name, paused })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { name: format!("b{}", step.a % 2), paused: step.c.is_multiple_of(2) }
    }
}

impl Sampled for BindingDelete {
    const GOLDEN: &str = "0e000000 55aaf14a 4500 01 00 0162";
    const OFTEN: u16 = 5;

    fn sample() -> Self {
        Self { name: "b".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        text().prop_map(|name| Self { name })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { name: format!("b{}", step.a % 2) }
    }
}

fn digest() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn drawn_digest(step: Step) -> [u8; 32] {
    [(step.a % 3) as u8 + 1; 32]
}

/// A plugin and a tag of it.
fn drawn_tag(step: Step) -> (String, String) {
    (format!("p{}", step.b % 2), (step.b >> 2 & 1).to_string())
}
