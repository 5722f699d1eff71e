//! The wire protocol `apache.rocketmq.v2`: types, validation, limits, receipt handles.
//!
//! A request comes in as a type of [`wire`], is checked in [`validate`] and leaves as the broker's own type; an answer
//! goes the other way through [`delivered_message`], [`code::outcome`] and [`settings::merge`].

pub mod code;
#[doc(hidden)]
pub mod codec;
mod compression;
mod convert;
mod delivery;
mod handle;
pub mod limits;
mod reserved;
pub mod settings;
pub mod shape;
pub mod validate;
pub mod wire;

pub use compression::{DecompressError, decompress, decompress_up_to, decompressed_len};
pub use convert::{duration, millis, timestamp, wire_duration};
pub use delivery::{Delivered, delivered_message, half_message, takes_long};
pub use handle::{HANDLE_TEXT_LEN, HandleError, HandleKey};
pub use reserved::BINDING_CLIENT_PREFIX;
