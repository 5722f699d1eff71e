//! Runs guest components: engine, limits, capabilities.
