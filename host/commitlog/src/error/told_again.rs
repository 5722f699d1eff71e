//! An error that is told again and again.

use std::io;

/// What there was to say of an error, so that it can be told again: [`io::Error`] cannot be cloned.
pub(crate) struct ToldAgain {
    kind: io::ErrorKind,
    errno: Option<i32>,
    told: String,
}

impl ToldAgain {
    pub(crate) fn of(error: &io::Error) -> Self {
        Self { kind: error.kind(), errno: error.raw_os_error(), told: error.to_string() }
    }

    pub(crate) fn again(&self) -> io::Error {
        match self.errno {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(self.kind, self.told.clone()),
        }
    }
}
