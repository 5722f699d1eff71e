//! Segments on disk: append, group commit, recovery and zero-copy reads.
