//! Defaults that the command line itself owns: those of the node's own values come from the crates that have them.

/// Where a node keeps everything, if nobody says otherwise; commands that work on a data folder look there, too.
pub(crate) const DATA_DIR: &str = "./vouch-data";
/// Where the gRPC service is, if nobody says otherwise: of a node, and for those who call it.
pub(crate) const GRPC_ADDR: &str = "127.0.0.1:8081";
/// Where the HTTP API is, if nobody says otherwise.
pub(crate) const HTTP_ADDR: &str = "127.0.0.1:8080";
/// The variable that names the file with the settings.
pub(crate) const CONFIG_VARIABLE: &str = "VOUCH_CONFIG";
