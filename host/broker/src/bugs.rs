//! Mistakes that can be switched on in tests, to show that the tests would catch them. Not part of a real build: crates above
//! get at them with the feature `testing`.

use std::cell::Cell;

/// A mistake about what components stage (ruling 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blunder {
    /// What comes with the end of a transaction that has ended happens all the same.
    EffectsOfRepeatedEnd,
    /// What comes with the answer to another check than the next one happens all the same.
    EffectsOfStaleCheck,
    /// What comes with the acknowledgement of a message that is done happens all the same.
    EffectsOfAckedLease,
    /// What comes with an acknowledgement by a lease that is over happens all the same.
    EffectsBeyondLease,
    /// Nobody looks whether what a component read is still so.
    VersionNotCompared,
    /// Messages of a record that was refused are in their queues, where whoever asks for them by key finds them.
    MessagesOfRefused,
}

thread_local!(static INJECTED: Cell<Option<Blunder>> = const { Cell::new(None) });

/// Switches a mistake on in this thread, in place of the one before; `None`: none.
pub fn inject(blunder: Option<Blunder>) {
    INJECTED.set(blunder);
}

/// The mistake that is switched on here.
pub(crate) fn injected() -> Option<Blunder> {
    INJECTED.get()
}
