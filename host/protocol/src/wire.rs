//! The wire types of `apache.rocketmq.v2`, generated from `proto/`, with client and server stubs.
//!
//! Bodies are [`bytes::Bytes`]: slices of the receive buffer or of the log, never copies. Maps are sorted, so that one
//! message has one encoding.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::large_enum_variant, clippy::unwrap_used)]

tonic::include_proto!("apache.rocketmq.v2");
