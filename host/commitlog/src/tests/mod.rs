//! Tests on a simulated disk; those on real files are in the crate's `tests` folder.

mod bit_flips;
mod block_layer;
mod bugs_are_caught;
mod checkpoint;
mod decoders;
mod driver;
mod faults;
mod fixture;
mod model;
mod platter;
mod power_cuts;
mod recycled;
mod release;
mod rng;
mod scrub;
mod settled;
mod shortages;
mod sim_disk;
mod space;
mod survey;
