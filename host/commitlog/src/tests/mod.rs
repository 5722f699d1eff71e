//! Tests on a simulated disk; those on real files are in the crate's `tests` folder.

mod bit_flips;
mod block_layer;
mod bugs_are_caught;
mod checkpoint;
mod cutting;
mod decoders;
mod driver;
mod faults;
mod fixture;
mod model;
mod power_cuts;
mod recycled;
mod release;
mod rot;
mod scrub;
mod settled;
mod shortages;
mod space;
mod spans;
mod survey;
