//! The token with which a node joins a cluster, once.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vouch_cluster::{ClusterIncarnation, NodeId};
use vouch_storage::JoinedCluster;

/// The version of the file.
const VERSION: u32 = 1;
/// The most bytes of a file that is read.
const FILE_MAX: u64 = 4096;

/// What a node shows once to become one of a cluster. Whoever has it may come in the node's place: its file is for its owner only.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterToken {
    cluster_id: [u8; 16],
    node: NodeId,
    segment_size: u64,
    /// The life of the cluster.
    incarnation: ClusterIncarnation,
    secret: [u8; 32],
}

/// Why a file is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFault {
    /// The file cannot be read or written; the system says why.
    #[error("the token file {} cannot be {action}: {source}", path.display())]
    File {
        /// `read` or `written`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It holds something else; get a new one.
    #[error("the file {} holds no token: {why}; get one with `vouch cluster add --token-file F` on the cluster", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The file, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    version: u32,
    cluster: String,
    node: u64,
    segment_size: u64,
    /// Of a cluster that was restored or recovered; a node of an earlier release refuses it.
    #[serde(default, skip_serializing_if = "is_first")]
    incarnation: u32,
    secret: String,
}

fn is_first(incarnation: &u32) -> bool {
    ClusterIncarnation(*incarnation).is_first()
}

impl fmt::Debug for ClusterToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterToken").field("cluster", &hex(&self.cluster_id)).field("node", &self.node.0).finish()
    }
}

impl ClusterToken {
    /// The token for a node that was given this id with [`Self::digest`] of this secret.
    pub fn new(cluster_id: [u8; 16], node: NodeId, segment_size: u64, secret: [u8; 32]) -> Self {
        Self { cluster_id, node, segment_size, incarnation: ClusterIncarnation::FIRST, secret }
    }

    /// The same in this life of the cluster.
    #[must_use]
    pub fn in_life(self, incarnation: ClusterIncarnation) -> Self {
        Self { incarnation, ..self }
    }

    /// What the cluster keeps of a secret: its SHA-256.
    pub fn digest(secret: &[u8]) -> [u8; 32] {
        Sha256::digest(secret).into()
    }

    fn file(&self) -> TokenFile {
        TokenFile {
            version: VERSION,
            cluster: hex(&self.cluster_id),
            node: self.node.0,
            segment_size: self.segment_size,
            incarnation: self.incarnation.0,
            secret: hex(&self.secret),
        }
    }

    /// What its file holds.
    pub fn document(&self) -> serde_json::Value {
        serde_json::to_value(self.file()).expect("numbers and text are written")
    }

    /// The token that such a document is.
    ///
    /// # Errors
    /// It is none: what is wrong.
    pub fn of_document(document: &serde_json::Value) -> Result<Self, String> {
        Self::parse(&document.to_string())
    }

    /// Writes it into a file that only its owner may read, in place of what was there.
    ///
    /// # Errors
    /// [`TokenFault::File`].
    pub fn write(&self, path: &Path) -> Result<(), TokenFault> {
        let mut text = serde_json::to_string(&self.file()).expect("numbers and text are written");
        text.push('\n');
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        vouch_files::appear_durably(path, Path::new(&unfinished), |file| file.write_all(text.as_bytes()))
            .map_err(|source| TokenFault::File { action: "written", path: path.to_owned(), source })
    }

    /// Reads the file that [`Self::write`] wrote.
    ///
    /// # Errors
    /// See [`TokenFault`].
    pub fn read(path: &Path) -> Result<Self, TokenFault> {
        let file = |source| TokenFault::File { action: "read", path: path.to_owned(), source };
        let malformed = |why: String| TokenFault::Malformed { path: path.to_owned(), why };
        if std::fs::metadata(path).map_err(file)?.len() > FILE_MAX {
            return Err(malformed(format!("it has more than {FILE_MAX} bytes")));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(file)?).map_err(malformed)
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct AnyVersion {
            version: u32,
        }
        let read = |error: serde_json::Error| error.to_string();
        let AnyVersion { version } = serde_json::from_str(text).map_err(read)?;
        if version != VERSION {
            return Err(format!("it is of version {version}, and this node reads version {VERSION}"));
        }
        let file: TokenFile = serde_json::from_str(text).map_err(read)?;
        let cluster_id = unhex(&file.cluster).ok_or("`cluster` is not 32 hexadecimal digits")?;
        let secret = unhex(&file.secret).ok_or("`secret` is not 64 hexadecimal digits")?;
        let TokenFile { node, segment_size, incarnation, .. } = file;
        Ok(Self { cluster_id, node: NodeId(node), segment_size, incarnation: ClusterIncarnation(incarnation), secret })
    }

    /// The node that it is for.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What proves it.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// What a folder becomes by it.
    pub(crate) fn joined(&self) -> JoinedCluster {
        let Self { cluster_id, node, segment_size, incarnation, .. } = *self;
        JoinedCluster { cluster_id, node, segment_size, incarnation }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn token() -> ClusterToken {
        ClusterToken::new([0xab; 16], NodeId(2), 4 << 20, [7; 32])
    }

    #[test]
    fn a_token_reads_back_from_a_file_that_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        token().write(&path).unwrap();
        assert_eq!(ClusterToken::read(&path).unwrap(), token());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let (cluster, secret) = ("ab".repeat(16), "07".repeat(32));
        let golden = format!(
            r#"{{"version":1,"cluster":"{cluster}","node":2,"segment_size":4194304,"secret":"{secret}"}}{}"#,
            '\n'
        );
        assert_eq!(text, golden);
        assert!(!format!("{:?}", token()).contains("07070"), "its secret is not shown");
        assert_eq!(token().document(), serde_json::from_str::<serde_json::Value>(&text).unwrap());
        assert_eq!(ClusterToken::of_document(&token().document()).unwrap(), token());
        let later = token().in_life(ClusterIncarnation(7));
        assert_eq!(later.document()["incarnation"], 7);
        assert_eq!(ClusterToken::of_document(&later.document()).unwrap(), later);
    }

    #[test]
    fn what_is_no_token_is_refused_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            ClusterToken::read(&path).unwrap_err().to_string()
        };
        assert!(refused("").contains("vouch cluster add"));
        assert!(refused(r#"{"version":2}"#).contains("of version 2"));
        assert!(refused(r#"{"version":1,"cluster":"ab"}"#).contains("missing field"));
        let with = |cluster: &str, secret: &str| {
            format!(r#"{{"version":1,"cluster":"{cluster}","node":2,"segment_size":1,"secret":"{secret}"}}"#)
        };
        assert!(refused(&with("ab", &"0".repeat(64))).contains("`cluster` is not"));
        assert!(refused(&with(&"a".repeat(32), &"é".repeat(32))).contains("`secret` is not"));
        assert!(refused(&"x".repeat(5000)).contains("more than"));
        std::fs::remove_file(&path).unwrap();
        assert!(ClusterToken::read(&path).unwrap_err().to_string().contains("cannot be read"));
    }
}
