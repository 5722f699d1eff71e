//! Real databases, and those that misbehave.

mod hostile;
mod outages;
mod outcomes;
mod places;
mod proxy;
mod servers;
mod service;
mod statements;
mod trust;
mod upkeep;
