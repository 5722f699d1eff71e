//! Behaviour of sessions.
