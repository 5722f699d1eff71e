//! The data folder as a whole: whose it is, who may use it, who may read it.

mod beginning;
mod differs;
mod holdings;
mod identity;
mod lock;
mod possible;
mod private;
mod process;
mod refusals;
mod removed;
mod unwritten;

pub use beginning::Folders;
pub(crate) use beginning::{look, open};
pub use differs::{differs, note_differs};
pub(crate) use identity::{FolderIdentity, IDENTITY_FILE, NewLife};
pub use lock::in_use;
pub(crate) use lock::{LOCK_FILE, SharedLock, note_restore};
pub(crate) use private::restrict;
pub use removed::note_removed;
