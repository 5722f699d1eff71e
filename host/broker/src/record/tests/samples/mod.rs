//! Every kind of record, once: one of it with every field set, its bytes, and a strategy that draws any of it. The files
//! are called as those of the families in `record` are.

mod cluster;
mod delivery;
mod filters;
mod groups;
mod members;
mod message;
mod plugin;
mod retention;
mod topics;
mod transaction;
mod values;

use proptest::prelude::*;

pub(super) use self::message::{any_message, full_message, message_bytes};
pub(super) use self::values::{millis, text};
use crate::record::*;

/// What all tests of the encoding need of a kind. Every kind of [`each_kind`] has it: without, the tests do not build.
trait Sampled: Sized {
    /// The bytes of the sample, a blank between two fields. They lie in users' logs: to change them is to change the format,
    /// and needs a new version of the layout next to the old one.
    const GOLDEN: &str;

    /// One with every field set.
    fn sample() -> Self;

    /// Any of it.
    fn strategy() -> impl Strategy<Value = Self> + 'static;
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
    };
}

each_kind!(table);
