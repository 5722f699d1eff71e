//! Folders, files and addresses.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Described, Form, FormText};
use crate::config::defaults::GRPC_ADDR;

/// A folder, which has a name.
#[derive(Debug)]
pub(crate) struct Folder;

impl Described for Folder {
    fn about(&self) -> FormText {
        FormText::text("DIR", "the path of a folder in quotes, for example \"/var/lib/vouch\"")
    }
}

impl Form for Folder {
    type Value = PathBuf;

    fn read(&self, text: &str) -> Result<PathBuf, String> {
        if text.is_empty() { Err("a folder is needed".to_owned()) } else { Ok(PathBuf::from(text)) }
    }
}

/// A file, which is read later, by whoever needs what is in it.
#[derive(Debug)]
pub(crate) struct FilePath;

impl Described for FilePath {
    fn about(&self) -> FormText {
        FormText::text("FILE", "the path of a file in quotes, for example \"/etc/vouch/key.pem\"")
    }
}

impl Form for FilePath {
    type Value = PathBuf;

    fn read(&self, text: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from(text))
    }
}

/// Where a port listens: an address of this machine and the number of the port.
#[derive(Debug)]
pub(crate) struct Address;

impl Described for Address {
    fn about(&self) -> FormText {
        FormText::text("ADDR", format!("IP:PORT in quotes, for example \"{GRPC_ADDR}\""))
    }
}

impl Form for Address {
    type Value = SocketAddr;

    fn read(&self, text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| format!("`{text}` is not an address; write IP:PORT, for example {}", GRPC_ADDR))
    }
}
