//! What the records of a log do, by behaviour.

mod bindings;
mod checks;
mod cluster_members;
mod dead_letters;
mod fixtures;
mod groups;
mod incarnations;
mod invariants;
mod leaps;
mod leases;
mod levels;
mod members;
mod part_damage;
mod parts;
mod plugins;
mod queues;
mod replay;
mod resends;
mod retention;
mod secrets;
mod settled;
mod snapshots;
mod topics;
mod transactions;

pub(super) use plugins::push;
