//! Of deliveries.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::Sampled;
use super::step::Step;
use super::values::{generation, lives, millis, offset, text};
use crate::record::{
    Ack, Again, ChangeInvisible, DeadLetter, DeadLetterSized, GiveBack, Lease, LeasedAgain, LeasedRange, Renew,
};
use crate::testing::RecordLog;
use crate::{Generation, GroupId, Millis, QueueOffset, TopicId};

// Whose message all samples are about, and which.
const GROUP: GroupId = GroupId(1);
const TOPIC: TopicId = TopicId(3);
const QUEUE: u32 = 200;
const OFFSET: QueueOffset = QueueOffset(300);
const GENERATION: Generation = Generation(9);

impl Sampled for Lease {
    const GOLDEN: &str = "41000000 90c627d4 3000 01 00 01000000 03000000 0900000000000000 0807000000000000 010163 01 \
         01 ac02 0a 020003 0109 03 c801ac0201 c801ac0200 c801ac0202";
    const OFTEN: u16 = 36;

    fn sample() -> Self {
        let again = |becomes| LeasedAgain { queue: QUEUE, offset: OFFSET, becomes };
        Self {
            group: GROUP,
            topic: TOPIC,
            generation: GENERATION,
            deadline: Millis(0x0708),
            renewed_for: Some("c".to_owned()),
            fresh: vec![LeasedRange {
                queue: 1,
                from: QueueOffset(300),
                to: QueueOffset(310),
                leased: vec![QueueOffset(300), QueueOffset(303)],
                left: vec![QueueOffset(309)],
            }],
            again: vec![again(Again::Leased), again(Again::Done), again(Again::Left)],
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (lives(), generation(), millis(), option::of(text()), vec(range(), 0..4), vec(again(), 0..4)).prop_map(
            |((group, topic), generation, deadline, renewed_for, fresh, again)| Self {
                group,
                topic,
                generation,
                deadline,
                renewed_for,
                fresh,
                again,
            },
        )
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let (group, topic) = step.joined(log);
        let progress = log.state.groups().get(group).and_then(|group| group.progress(topic));
        let queue = u32::from(step.c % 3);
        // Mostly from the cursor, now and then below it or with a gap.
        let next = progress.map_or(0, |progress| progress.next(queue).0);
        let from = [next, next, next, next.saturating_sub(2), next + 1][usize::from(step.c >> 2) % 5];
        let to = from + u64::from(step.c >> 5) % 6;
        let (from, to) = (QueueOffset(from), QueueOffset(to));
        let fate = |offset: QueueOffset| (offset.0 + u64::from(step.c >> 8)) % 3;
        let of = |wanted| QueueOffset::each(from..to).filter(|offset| fate(*offset) == wanted).collect();
        let fresh = if to > from { vec![LeasedRange { queue, from, to, leased: of(0), left: of(1) }] } else { vec![] };
        let decide = [Again::Leased, Again::Done, Again::Left];
        let left = progress.into_iter().flat_map(|p| p.left_tags().flat_map(|tag| p.left(tag)));
        let due = progress.into_iter().flat_map(|p| p.due()).map(|(_, queue, offset)| (queue, offset));
        let again = due.chain(left).take(usize::from(step.c >> 10) % 4).zip(decide);
        let again = again.map(|((queue, offset), becomes)| LeasedAgain { queue, offset, becomes }).collect();
        let renewed_for = step.c.is_multiple_of(2).then(|| "client".to_owned());
        let (generation, deadline) = (Generation(log.last_position().0), log.now.plus_ms(60_000));
        Self { group, topic, generation, deadline, renewed_for, fresh, again }
    }
}

impl Sampled for Renew {
    const GOLDEN: &str = "29000000 c5c8f264 3100 01 00 01000000 03000000 0807000000000000 01 c801ac020900000000000000";

    fn sample() -> Self {
        Self { group: GROUP, topic: TOPIC, deadline: Millis(0x0708), leases: vec![(QUEUE, OFFSET, GENERATION)] }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (lives(), millis(), vec((any::<u32>(), offset(), generation()), 0..5))
            .prop_map(|((group, topic), deadline, leases)| Self { group, topic, deadline, leases })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let Ack { group, topic, queue, offset, generation } = Ack::drawn(log, step);
        let leases = vec![(queue, offset, generation), (queue, QueueOffset(0), Generation(1))];
        Self { group, topic, deadline: drawn_deadline(log, step), leases }
    }
}

impl Sampled for Ack {
    const GOLDEN: &str = "20000000 19107455 3200 01 00 01000000 03000000 c801 ac02 0900000000000000";
    const OFTEN: u16 = 36;

    fn sample() -> Self {
        Self { group: GROUP, topic: TOPIC, queue: QUEUE, offset: OFFSET, generation: GENERATION }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        leased().prop_map(|((group, topic), queue, offset, generation)| Self {
            group,
            topic,
            queue,
            offset,
            generation,
        })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        // A lease that is there, or none.
        let (group, topic) = step.joined(log);
        let progress = log.state.groups().get(group).and_then(|group| group.progress(topic));
        let mut places: Vec<(u32, QueueOffset)> =
            progress.into_iter().flat_map(|p| p.due()).map(|(_, q, o)| (q, o)).collect();
        places.push((u32::from(step.c % 7), QueueOffset((step.c % 11).into())));
        let (queue, offset) = places[usize::from(step.c) % places.len()];
        let current = progress.and_then(|p| p.exception(queue, offset)).map_or(1, |exception| exception.generation.0);
        let generation = Generation(if step.c.is_multiple_of(5) { current + 1 } else { current });
        Self { group, topic, queue, offset, generation }
    }
}

impl Sampled for ChangeInvisible {
    const GOLDEN: &str = "31000000 cb4c6476 3300 01 00 01000000 03000000 c801 ac02 0900000000000000 0a00000000000000 \
         0807000000000000 01";

    fn sample() -> Self {
        Self {
            group: GROUP,
            topic: TOPIC,
            queue: QUEUE,
            offset: OFFSET,
            generation: GENERATION,
            new_generation: Generation(10),
            deadline: Millis(0x0708),
            uncounted: true,
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (leased(), generation(), millis(), any::<bool>()).prop_map(
            |(((group, topic), queue, offset, generation), new_generation, deadline, uncounted)| Self {
                group,
                topic,
                queue,
                offset,
                generation,
                new_generation,
                deadline,
                uncounted,
            },
        )
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let Ack { group, topic, queue, offset, generation } = Ack::drawn(log, step);
        let (new_generation, deadline) = (Generation(log.last_position().0), drawn_deadline(log, step));
        let uncounted = step.c.is_multiple_of(2);
        Self { group, topic, queue, offset, generation, new_generation, deadline, uncounted }
    }
}

impl Sampled for DeadLetter {
    const GOLDEN: &str = "24000000 79161df9 3400 01 00 01000000 03000000 c801 ac02 0900000000000000 03776879";
    const OFTEN: u16 = 3;

    fn sample() -> Self {
        Self {
            group: GROUP,
            topic: TOPIC,
            queue: QUEUE,
            offset: OFFSET,
            generation: GENERATION,
            reason: "why".to_owned(),
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (leased(), text()).prop_map(|(((group, topic), queue, offset, generation), reason)| Self {
            group,
            topic,
            queue,
            offset,
            generation,
            reason,
        })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let Ack { group, topic, queue, offset, generation } = Ack::drawn(log, step);
        Self { group, topic, queue, offset, generation, reason: "too often".to_owned() }
    }
}

impl Sampled for DeadLetterSized {
    const GOLDEN: &str = "28000000 a5e02811 3700 01 00 01000000 03000000 c801 ac02 0900000000000000 03776879 \
         10090000";
    const OFTEN: u16 = 9;

    fn sample() -> Self {
        Self { letter: DeadLetter::sample(), record_len: 0x0910 }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (DeadLetter::strategy(), any::<u32>()).prop_map(|(letter, record_len)| Self { letter, record_len })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        Self { letter: DeadLetter::drawn(log, step), record_len: u32::from(step.c) }
    }
}

impl Sampled for GiveBack {
    const GOLDEN: &str = "19000000 16bdf0b7 3900 01 00 01000000 03000000 c801 ac02 03";

    fn sample() -> Self {
        Self { group: GROUP, topic: TOPIC, queue: QUEUE, offset: OFFSET, attempts: 3 }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (leased(), any::<u32>()).prop_map(|(((group, topic), queue, offset, _), attempts)| Self {
            group,
            topic,
            queue,
            offset,
            attempts,
        })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let Ack { group, topic, queue, offset, .. } = Ack::drawn(log, step);
        Self { group, topic, queue, offset, attempts: u32::from(step.c >> 9) % 3 }
    }
}

/// A message in the hands of a group.
fn leased() -> impl Strategy<Value = ((GroupId, TopicId), u32, QueueOffset, Generation)> {
    (lives(), any::<u32>(), offset(), generation())
}

fn again() -> impl Strategy<Value = LeasedAgain> {
    (any::<u32>(), offset(), select(vec![Again::Done, Again::Leased, Again::Left]))
        .prop_map(|(queue, offset, becomes)| LeasedAgain { queue, offset, becomes })
}

fn range() -> impl Strategy<Value = LeasedRange> {
    (any::<u32>(), 0..u64::MAX / 2, vec(0..3u8, 0..40)).prop_map(|(queue, from, fates)| {
        let of =
            |fate| (from..).zip(&fates).filter(|(_, f)| **f == fate).map(|(offset, _)| QueueOffset(offset)).collect();
        LeasedRange {
            queue,
            from: QueueOffset(from),
            to: QueueOffset(from + fates.len() as u64),
            leased: of(0),
            left: of(1),
        }
    })
}

fn drawn_deadline(log: &RecordLog, step: Step) -> Millis {
    log.now.plus_ms(u64::from(step.c >> 8) * 1_000)
}
