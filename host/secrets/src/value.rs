//! A value that can be read.

use std::fmt;

use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Longest value in bytes (ruling 24).
pub const SECRET_VALUE_MAX: usize = 64 * 1024;

/// A secret's value as who set it wrote it. Whoever gets hold of it by mistake sees `***`: it has no way to be printed, and
/// none to be copied. Its memory is wiped when it is dropped.
pub struct SecretValue(Zeroizing<Vec<u8>>);

/// Why bytes are no value of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitValue {
    /// Send a value: an empty one opens nothing, and would stand everywhere in a text that it is to be kept out of.
    #[error("the secret is empty; send its value")]
    Empty,
    /// Send a shorter one.
    #[error("the secret has {len} bytes; at most {SECRET_VALUE_MAX} are kept")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl SecretValue {
    /// The value that these bytes are. They are taken, not copied: whoever read them has them in no second place, as long as
    /// the vector did not grow while it was filled.
    ///
    /// # Errors
    /// There are none, or more than [`SECRET_VALUE_MAX`]. They are wiped then, too.
    pub fn new(bytes: Vec<u8>) -> Result<Self, UnfitValue> {
        let value = Self(Zeroizing::new(bytes));
        match value.0.len() {
            0 => Err(UnfitValue::Empty),
            len if len > SECRET_VALUE_MAX => Err(UnfitValue::TooLong { len }),
            _ => Ok(value),
        }
    }

    /// The bytes, for whom they are meant.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// The value as text, which passwords and addresses are; `None` if it is not UTF-8.
    pub fn reveal_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

/// By the type of its one field.
impl ZeroizeOnDrop for SecretValue {}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_byte_to_64_kib() {
        for len in [1, SECRET_VALUE_MAX] {
            assert_eq!(SecretValue::new(vec![7; len]).unwrap().reveal().len(), len);
        }
        assert_eq!(SecretValue::new(vec![]).unwrap_err(), UnfitValue::Empty);
        let len = SECRET_VALUE_MAX + 1;
        assert_eq!(SecretValue::new(vec![7; len]).unwrap_err(), UnfitValue::TooLong { len });
    }

    #[test]
    fn a_value_is_never_printed() {
        let value = SecretValue::new(b"hunter2".to_vec()).unwrap();
        assert_eq!(format!("{value:?} {:?}", Some(&value)), "*** Some(***)");
        assert_eq!((value.reveal(), value.reveal_text()), (&b"hunter2"[..], Some("hunter2")));
    }

    #[test]
    fn a_value_that_is_no_text_is_not_made_one() {
        assert_eq!(SecretValue::new(vec![0xff]).unwrap().reveal_text(), None);
    }
}
