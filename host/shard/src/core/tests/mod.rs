//! The core without a thread, a file or a clock: what a seed brings is repeated to the bit.

mod behind;
mod bench;
mod conditions;
mod ends;
mod following;
mod group;
mod leaders;
mod levels;
mod members;
mod naming;
mod runs;
mod time;
mod unreadable;
