//! Errors of asks that got no answer, as operators see them: kept while the transaction is open and for a while after.

use std::collections::{HashMap, VecDeque};

use vouch_broker::{HalfPosition, Millis};

/// Errors that are remembered, the latest: in a long outage with more open transactions than these, one that was not asked
/// about lately shows how often there was no answer, without the words.
pub(crate) const ERRORS_MAX: usize = 20_000;
/// Bytes of their texts together: a panic has up to 16 KiB.
const ERRORS_BYTES_MAX: usize = 80 << 20;

/// The last ask about a transaction that got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskError {
    /// Who was asked.
    pub by: String,
    /// What went wrong.
    pub text: String,
    /// Where in the component; empty where that is not known.
    pub trace: String,
    /// When.
    pub at: Millis,
}

/// The last error of each transaction, the latest [`ERRORS_MAX`] of them.
#[derive(Debug, Default)]
pub(crate) struct AskErrors {
    errors: HashMap<HalfPosition, (u64, AskError)>,
    /// Transactions in the order of their errors, with the number of the error; one that is not the last is passed over.
    order: VecDeque<(HalfPosition, u64)>,
    noted: u64,
    /// Bytes of all texts.
    bytes: usize,
}

/// Bytes of the texts of one.
fn bytes_of(error: &AskError) -> usize {
    error.by.len() + error.text.len() + error.trace.len()
}

impl AskErrors {
    /// Remembers an error in place of the transaction's earlier one.
    pub(crate) fn note(&mut self, transaction: HalfPosition, error: AskError) {
        self.noted += 1;
        self.bytes += bytes_of(&error);
        if let Some((_, earlier)) = self.errors.insert(transaction, (self.noted, error)) {
            self.bytes -= bytes_of(&earlier);
        }
        self.order.push_back((transaction, self.noted));
        while self.errors.len() > ERRORS_MAX || self.order.len() > 2 * ERRORS_MAX || self.bytes > ERRORS_BYTES_MAX {
            let Some((oldest, number)) = self.order.pop_front() else { return };
            if self.errors.get(&oldest).is_some_and(|(last, _)| *last == number) {
                let removed = self.errors.remove(&oldest);
                self.bytes -= removed.map_or(0, |(_, error)| bytes_of(&error));
            }
        }
    }

    /// The last error of a transaction, if it is remembered.
    pub(crate) fn of(&self, transaction: HalfPosition) -> Option<&AskError> {
        self.errors.get(&transaction).map(|(_, error)| error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(at: u64) -> AskError {
        AskError { by: "b".to_owned(), text: "t".to_owned(), trace: String::new(), at: Millis(at) }
    }

    #[test]
    fn the_latest_error_of_each_transaction_is_remembered_up_to_the_bound() {
        let mut errors = AskErrors::default();
        for transaction in 0..ERRORS_MAX as u64 {
            errors.note(HalfPosition(transaction), error(1));
        }
        assert!(errors.of(HalfPosition(0)).is_some());
        errors.note(HalfPosition(0), error(2));
        errors.note(HalfPosition(ERRORS_MAX as u64), error(3));
        assert_eq!(errors.of(HalfPosition(0)).map(|error| error.at), Some(Millis(2)), "it was renewed");
        assert!(errors.of(HalfPosition(1)).is_none(), "the oldest went");
        assert_eq!(errors.errors.len(), ERRORS_MAX);
    }

    #[test]
    fn one_transaction_that_fails_for_ever_takes_no_more_room() {
        let mut errors = AskErrors::default();
        errors.note(HalfPosition(7), error(1));
        (0..5 * ERRORS_MAX as u64).for_each(|at| errors.note(HalfPosition(8), error(at)));
        assert!(errors.order.len() <= 2 * ERRORS_MAX);
        assert_eq!(errors.of(HalfPosition(8)).map(|error| error.at.0), Some(5 * ERRORS_MAX as u64 - 1));
    }

    #[test]
    fn long_texts_take_no_more_room_than_many_short_ones() {
        let mut errors = AskErrors::default();
        let long = |at| AskError { text: "x".repeat(1 << 20), ..error(at) };
        for at in 0..200 {
            errors.note(HalfPosition(at % 150), long(at));
        }
        assert!(errors.bytes <= ERRORS_BYTES_MAX && errors.errors.len() >= 79, "{}", errors.errors.len());
        let sum: usize = errors.errors.values().map(|(_, error)| bytes_of(error)).sum();
        assert_eq!(sum, errors.bytes);
        assert!(errors.of(HalfPosition(199 % 150)).is_some());
    }
}
