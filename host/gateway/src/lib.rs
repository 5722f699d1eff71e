//! The edges: gRPC service, HTTP API, TLS.
