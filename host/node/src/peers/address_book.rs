//! `nodes.json`: where the other nodes were, as this one knew last. The log says so, too, but a log that is damaged, or far behind,
//! may not be read when it is needed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vouch_cluster::NodeId;
use vouch_files::appear;

/// In the data folder.
const FILE_NAME: &str = "nodes.json";

#[derive(Default, Serialize, Deserialize)]
struct Document {
    /// Addresses for other nodes, by ids.
    nodes: BTreeMap<u64, String>,
}

/// The file, and what it says.
pub(super) struct AddressBook {
    data_dir: PathBuf,
    says: Option<BTreeMap<NodeId, String>>,
}

impl AddressBook {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), says: None }
    }

    /// Notes where the others are, if the file says something else. Blocks for as long as a small file takes. Nothing depends on it,
    /// so a failure is told and forgotten.
    pub(super) fn note(&mut self, nodes: &BTreeMap<NodeId, String>) {
        if self.says.as_ref() == Some(nodes) {
            return;
        }
        self.says = Some(nodes.clone());
        let nodes = nodes.iter().map(|(node, address)| (node.0, address.clone())).collect();
        let path = self.data_dir.join(FILE_NAME);
        let unfinished = path.with_extension("json.new");
        let bytes = serde_json::to_vec_pretty(&Document { nodes }).expect("numbers and texts can always be written");
        if let Err(error) = appear(&path, &unfinished, |file| file.write_all(&bytes)) {
            tracing::warn!(%error, path = %path.display(), "where the other nodes are cannot be noted");
        }
    }

    /// Where the others were; nobody, if that was never noted.
    ///
    /// # Errors
    /// The file cannot be read, or says something else.
    pub(super) fn read(data_dir: &Path) -> io::Result<BTreeMap<NodeId, String>> {
        let bytes = match fs::read(data_dir.join(FILE_NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            bytes => bytes?,
        };
        let Document { nodes } = serde_json::from_slice(&bytes)?;
        Ok(nodes.into_iter().map(|(node, address)| (NodeId(node), address)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_last_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let read = || AddressBook::read(folder.path()).unwrap();
        assert_eq!(read(), BTreeMap::new());
        let mut book = AddressBook::of(folder.path());
        for address in ["a:1", "b:2"] {
            let nodes = BTreeMap::from([(NodeId(2), address.to_owned())]);
            book.note(&nodes);
            assert_eq!(read(), nodes);
        }
        // Whoever is alone by now has nobody to ask.
        book.note(&BTreeMap::new());
        assert_eq!(read(), BTreeMap::new());
        fs::write(folder.path().join(FILE_NAME), "{").unwrap();
        assert!(AddressBook::read(folder.path()).is_err());
    }
}
