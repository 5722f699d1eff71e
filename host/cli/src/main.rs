//! The binary `vouch`.

fn main() {}
