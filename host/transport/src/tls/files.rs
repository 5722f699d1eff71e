//! The files that TLS between nodes takes.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How connections between nodes are secured; the same on all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerSecurity {
    /// Both sides show a certificate of the cluster's authority. All three files are PEM.
    Mutual {
        /// The authority's certificate; several while one is replaced by another.
        authority: PathBuf,
        /// This node's certificate, with what leads to the authority behind it if need be.
        certificate: PathBuf,
        /// The private key of it.
        key: PathBuf,
    },
    /// Nothing is secured: for one machine, or a network that is nobody else's.
    Insecure,
}

/// Why connections cannot be secured. The operator should correct the setting or the file named.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read as PEM.
    #[error("cannot read {what} from {path}: {why}")]
    Read {
        /// `the authority`, `the certificate` or `the private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key do not fit each other.
    #[error("the certificate {certificate} and the key {key} cannot be used together: {why}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The library's words.
        why: String,
    },
}

/// What was read.
pub(super) struct PeerCertificates {
    pub(super) roots: RootCertStore,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// Reads all three files.
///
/// # Errors
/// One is missing, is no PEM or holds nothing of use.
pub(super) fn read(authority: &Path, certificate: &Path, key: &Path) -> Result<PeerCertificates, SecurityError> {
    let mut roots = RootCertStore::empty();
    for root in certificates("the authority", authority)? {
        roots.add(root).map_err(|error| unreadable("the authority", authority, &error))?;
    }
    let chain = certificates("the certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("the private key", key, &error))?;
    Ok(PeerCertificates { roots, chain, key })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(what, path, &error))?;
    if read.is_empty() {
        return Err(unreadable(what, path, &"the file holds no certificate in PEM form"));
    }
    Ok(read)
}

fn unreadable(what: &'static str, path: &Path, why: &dyn std::fmt::Display) -> SecurityError {
    SecurityError::Read { what, path: path.to_owned(), why: why.to_string() }
}
