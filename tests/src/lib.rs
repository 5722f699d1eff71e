//! Shared pieces of the black-box suites.
