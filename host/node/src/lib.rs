//! Brings the crates to life: threads, timers, checkback runner, shutdown.
