//! The key file as text, every byte of which is in `docs/key-file.md`. The same keys in the same order have one file.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::key::{KEY_LEN, SecretKey};
use crate::keys::{SECRET_KEYS_MAX, SecretKeys};

/// What every version begins with, and then its number.
const BEGINNING: &[u8] = b"vouch-secret-keys ";
const HEAD: &[u8] = b"vouch-secret-keys 1\n";
/// `key `, the id, a blank, the key, and the end of the line.
const KEY_LINE_LEN: usize = 4 + 16 + 1 + 2 * KEY_LEN + 1;
/// `sum `, half of the first bytes of the digest, and the end of the line.
const SUM_LINE_LEN: usize = 4 + 16 + 1;
/// The longest file.
pub(crate) const FILE_LEN_MAX: usize = HEAD.len() + SECRET_KEYS_MAX * KEY_LINE_LEN + SUM_LINE_LEN;

/// What is wrong with a key file. Nothing of what is in it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileDamage {
    /// Somebody made it, or emptied it.
    #[error("it is empty")]
    Empty,
    /// Another file has its name.
    #[error("it does not begin as a key file")]
    Beginning,
    /// Start the version that wrote it, or a newer one.
    #[error("another version of Vouch wrote it")]
    Version,
    /// A byte changed, or some are missing, or there are more.
    #[error("it is not as it was written")]
    Sum,
    /// Its sum is right, and no version writes such a line.
    #[error("line {0} is no key")]
    Line(usize),
    /// The same with no keys, more than there may be, or one twice.
    #[error("it does not have 1 to {SECRET_KEYS_MAX} keys, each once")]
    Count,
}

impl SecretKeys {
    /// The file that holds these keys: what a node gives to one that joins. Wiped when it is dropped.
    pub fn to_file(&self) -> Zeroizing<Vec<u8>> {
        // What grows is moved, and leaves a copy behind.
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX));
        text.extend_from_slice(HEAD);
        for key in self.keys() {
            text.extend_from_slice(b"key ");
            write_hex(&mut text, &key.id().0);
            text.push(b' ');
            write_hex(&mut text, key.bytes());
            text.push(b'\n');
        }
        let sum = sum_line(&text);
        text.extend_from_slice(&sum);
        text
    }

    /// The keys that such a file holds.
    ///
    /// # Errors
    /// Any byte of it is another one than was written.
    pub fn of_file(bytes: &[u8]) -> Result<Self, KeyFileDamage> {
        if bytes.is_empty() {
            return Err(KeyFileDamage::Empty);
        }
        if !bytes.starts_with(BEGINNING) {
            return Err(KeyFileDamage::Beginning);
        }
        let lines = bytes.strip_prefix(HEAD).ok_or(KeyFileDamage::Version)?;
        let summed = bytes.len().checked_sub(SUM_LINE_LEN).filter(|summed| *summed >= HEAD.len());
        let (before, sum) = bytes.split_at(summed.ok_or(KeyFileDamage::Sum)?);
        if sum != sum_line(before) {
            return Err(KeyFileDamage::Sum);
        }
        let lines = lines[..lines.len() - SUM_LINE_LEN].chunks(KEY_LINE_LEN);
        if !(1..=SECRET_KEYS_MAX).contains(&lines.len()) {
            return Err(KeyFileDamage::Count);
        }
        let mut keys: Vec<SecretKey> = Vec::with_capacity(SECRET_KEYS_MAX);
        for (number, line) in lines.enumerate() {
            keys.push(read_line(line).ok_or(KeyFileDamage::Line(number + 2))?);
        }
        Self::of(keys).ok_or(KeyFileDamage::Count)
    }
}

/// The last line of a file with these bytes before it.
fn sum_line(before: &[u8]) -> Vec<u8> {
    let mut line = b"sum ".to_vec();
    write_hex(&mut line, &Sha256::digest(before)[..8]);
    line.push(b'\n');
    line
}

/// The key of a line; `None` if no version writes such a line. The id is made of the key, so a wrong one is none.
fn read_line(line: &[u8]) -> Option<SecretKey> {
    let line = line.strip_prefix(b"key ")?.strip_suffix(b"\n")?;
    let (id, digits) = line.split_at_checked(16)?;
    let digits = digits.strip_prefix(b" ").filter(|digits| digits.len() == 2 * KEY_LEN)?;
    let mut whole = true;
    let key = SecretKey::filled(|bytes| {
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let read = digit(pair[0]).zip(digit(pair[1]));
            whole &= read.is_some();
            *byte = read.map_or(0, |(high, low)| high << 4 | low);
        }
    });
    (whole && key.id().to_string().as_bytes() == id).then_some(key)
}

/// What a digit stands for. Capital letters are none: a file has one text.
fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn write_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
