//! Every kind of record, once: one of it with every field set, its bytes, a strategy that draws any of it, and how the
//! replay test draws it. The files are called as those of the families in `record` are.

mod cluster;
mod delivery;
mod filters;
mod groups;
mod members;
mod message;
mod plugin;
mod retention;
mod secrets;
mod settled;
mod step;
mod topics;
mod transaction;
mod values;

use proptest::prelude::*;

pub(super) use self::message::{any_message, full_message, message_bytes};
pub(crate) use self::step::Step;
pub(super) use self::values::{millis, text};
use crate::record::*;
use crate::testing::RecordLog;

/// What the tests of the encoding, and the one of replay, need of a kind. Every kind of [`each_kind`] has it: without, the tests do not build.
trait Sampled: Sized {
    /// The bytes of the sample, a blank between two fields. They lie in users' logs: to change them is to change the format,
    /// and needs a new version of the layout next to the old one.
    const GOLDEN: &str;

    /// How often the replay test draws it: as it is here, once in about sixty steps.
    const OFTEN: u16 = 12;

    /// Whether the replay test is to meet one that is refused. Not of a kind of which there is nothing to refuse, or nothing
    /// below a limit that no run reaches.
    const REFUSED: bool = true;

    /// One with every field set.
    fn sample() -> Self;

    /// Any of it.
    fn strategy() -> impl Strategy<Value = Self> + 'static;

    /// One that mostly makes sense in the state that it meets, so that some are done and some refused.
    fn drawn(log: &RecordLog, step: Step) -> Self;
}

/// A record of one kind.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) record: Record,
    /// As it is written today.
    pub(super) bytes: Vec<u8>,
    /// As it always was: [`Sampled::GOLDEN`].
    pub(super) golden: &'static str,
}

/// How the replay test draws records of one kind.
pub(crate) struct Drawn {
    pub(crate) name: &'static str,
    /// [`Sampled::OFTEN`].
    pub(crate) often: u16,
    /// [`Sampled::REFUSED`].
    pub(crate) refused: bool,
    /// [`Sampled::drawn`].
    pub(crate) draw: fn(&RecordLog, Step) -> Record,
}

/// The table: a row for each kind, in the order of [`each_kind`].
macro_rules! table {
    ([] $($(#[$doc:meta])* $kind:ident,)+) => {
        /// One sample of every kind, those of messages and halves first.
        pub(super) fn samples() -> Vec<Sample> {
            let mut samples = message::samples();
            $({
                let (value, mut bytes) = (<$kind as Sampled>::sample(), Vec::new());
                assert_eq!(value.encode(&mut bytes), bytes.len());
                let (name, golden) = (stringify!($kind), <$kind as Sampled>::GOLDEN);
                samples.push(Sample { name, record: Record::$kind(value), bytes, golden });
            })+
            samples
        }

        /// Draws one record of every kind but messages and halves, whatever their fields hold.
        pub(super) fn one_of_each() -> Vec<BoxedStrategy<Record>> {
            vec![$(<$kind as Sampled>::strategy().prop_map(Record::$kind).boxed()),+]
        }

        /// Every kind as the replay test draws it, messages and halves first.
        pub(crate) const DRAWN: &[Drawn] = &[
            message::MESSAGE,
            message::HALF,
            $(Drawn {
                name: stringify!($kind),
                often: <$kind as Sampled>::OFTEN,
                refused: <$kind as Sampled>::REFUSED,
                draw: |log, step| Record::$kind(<$kind as Sampled>::drawn(log, step)),
            },)+
        ];
    };
}

each_kind!(table);
