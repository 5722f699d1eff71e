//! Seals values that only this cluster's nodes may read (ruling 24). Knows no log and no broker.
//!
//! The node that takes a secret seals it with the first key of its key file and lets the log have what that gives. What the
//! log, its snapshots and backups hold is of no use without the file, and the file is in none of them.
//!
//! - [`SecretKeyFile`] makes, reads and changes the file; `docs/key-file.md` has every byte.
//! - [`SecretKeys`] are the keys in it. The first one seals, all of them open: so keys can be changed while the cluster runs.
//! - [`SecretValue`] is a value that can be read. It is never printed, and wiped when nobody needs it any more.
//! - [`SealedFor`] ties what is sealed to its cluster, name and value: put elsewhere it does not open.

mod file;
mod format;
mod key;
mod keys;
mod sealing;
mod value;

pub use file::{KEY_FILE, KeyFileFault, SecretKeyFile};
pub use format::KeyFileDamage;
pub use key::SecretKeyId;
pub use keys::{KeyChangeRefused, SECRET_KEYS_MAX, SecretKeys};
pub use sealing::{SealedFor, SealedValue, Unopened};
pub use value::{SECRET_VALUE_MAX, SecretValue, UnfitValue};
