//! `endpoints.json`: where a server of this program listens, written so that a reader never sees half of it.
//!
//! `vouch serve` writes it when the node is ready and removes it when it stops. Tests and the demo wait for it; scripts
//! that start a node with port 0 read the ports from it.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vouch_files::appear;

/// File in the data folder that names the addresses in use.
const FILE_NAME: &str = "endpoints.json";

/// The addresses in use; with port 0 in the settings they are known only here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// The gRPC service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) grpc: Option<SocketAddr>,
    /// The HTTP API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<SocketAddr>,
    /// Where other nodes connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<SocketAddr>,
    /// The process that listens.
    pub(crate) pid: u32,
}

impl Endpoints {
    /// Where the file is, in a data folder.
    pub(crate) fn path(folder: &Path) -> PathBuf {
        folder.join(FILE_NAME)
    }

    /// Writes the file; it appears when it is whole.
    ///
    /// # Errors
    /// What the system says; then an earlier file, if any, is still there.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let unfinished = folder.join(format!("{FILE_NAME}.new"));
        let text = serde_json::to_vec(self)?;
        appear(&Self::path(folder), &unfinished, |file| file.write_all(&text))
    }

    /// Removes the file of an earlier run. A file that is not there is as good.
    pub(crate) fn remove(folder: &Path) -> io::Result<()> {
        match fs::remove_file(Self::path(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Reads the file; `None` if the server is not ready.
    ///
    /// # Errors
    /// What the system says, or the file is none of ours: it is never seen half written.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(Self::path(folder)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_can_be_removed_twice() {
        let folder = tempfile::tempdir().unwrap();
        let endpoints =
            Endpoints { grpc: "127.0.0.1:1".parse().ok(), http: "[::1]:2".parse().ok(), peer: None, pid: 7 };
        assert_eq!(Endpoints::read(folder.path()).unwrap(), None);
        endpoints.write(folder.path()).unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), Some(endpoints.clone()));
        let text = fs::read_to_string(folder.path().join("endpoints.json")).unwrap();
        assert_eq!(text, r#"{"grpc":"127.0.0.1:1","http":"[::1]:2","pid":7}"#);
        let of_several = Endpoints { peer: "127.0.0.1:3".parse().ok(), ..endpoints };
        of_several.write(folder.path()).unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), Some(of_several));
        Endpoints::remove(folder.path()).unwrap();
        Endpoints::remove(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing unfinished is left behind");
    }
}
