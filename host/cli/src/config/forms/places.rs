//! Folders, files and addresses.

use std::net::SocketAddr;
use std::path::PathBuf;

use vouch_node::ADDRESS_MAX;

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

/// Folders separated by commas, or none.
#[derive(Debug)]
pub(crate) struct FolderList;

impl Described for FolderList {
    fn about(&self) -> FormText {
        FormText::text("DIRS", "folders in quotes, separated by commas, for example \"/var/lib/shop,/srv/data\"")
    }
}

impl Form for FolderList {
    type Value = Vec<PathBuf>;

    fn read(&self, text: &str) -> Result<Vec<PathBuf>, String> {
        let folders: Vec<&str> = text.split(',').map(str::trim).collect();
        match folders.as_slice() {
            [""] => Ok(Vec::new()),
            _ => match folders.iter().find(|folder| !folder.starts_with('/')) {
                Some(other) => Err(format!("`{other}` does not begin with /: name each folder with its whole path")),
                None => Ok(folders.into_iter().map(PathBuf::from).collect()),
            },
        }
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

/// Where others reach a port: a name or an address, and the number.
#[derive(Debug)]
pub(crate) struct HostPort;

impl Described for HostPort {
    fn about(&self) -> FormText {
        FormText::text("HOST:PORT", "HOST:PORT in quotes, for example \"broker-1.example:8090\"")
    }
}

impl Form for HostPort {
    type Value = String;

    fn read(&self, text: &str) -> Result<String, String> {
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        let may_be = is_port && text.len() <= ADDRESS_MAX && !text.contains(char::is_whitespace) && !text.contains('/');
        if may_be {
            return Ok(text.to_owned());
        }
        Err(format!(
            "`{text}` is nowhere that others reach; write HOST:PORT, for example broker-1.example:8090, in at most {ADDRESS_MAX} \
             characters"
        ))
    }
}
