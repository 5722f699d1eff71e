//! The certificate of the gRPC port.
//!
//! Java, Go and C++ clients use TLS by default and check no certificate, so a self-signed one is made at the first start
//! and kept. Python and Node clients check it: they need a certificate that their platform trusts, set by the operator.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use vouch_files::{appear_durably, create_dir_all};

/// Where the certificate of the gRPC port comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Made at the first start and kept in this folder as `certificate.pem` and `key.pem`.
    SelfSigned {
        /// Usually `tls` in the data folder.
        folder: PathBuf,
    },
    /// The operator's own, in PEM.
    Files {
        /// Certificate chain, the server's own first.
        certificate: PathBuf,
        /// Private key.
        key: PathBuf,
    },
}

/// Why the port cannot speak TLS. The operator should correct the setting or the file named.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {what} from {path}: {why}")]
    Read {
        /// `the certificate` or `the private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The parser's words.
        why: String,
    },
    /// The pair that the node made itself cannot be used any more.
    #[error(
        "{why}; the node made this pair itself, and makes another one at the next start when both are removed, which clients \
         must trust anew: rm {certificate} {key}"
    )]
    Kept {
        /// What is wrong with it.
        why: Box<TlsError>,
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The self-signed certificate cannot be kept.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The self-signed certificate cannot be made.
    #[error("cannot make a self-signed certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A node that runs is to use a self-signed certificate that is not there.
    #[error(
        "there is no certificate with its key in {folder}, and only a start makes one: restart the node, or set \
         tls_certificate and tls_key"
    )]
    NotMade {
        /// Where it would be kept.
        folder: PathBuf,
    },
    /// Certificate and key do not fit each other.
    #[error("the certificate {certificate} and the key {key} cannot be used together: {source}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The library's words.
        source: rustls::Error,
    },
}

/// The certificate that is in use, for each new connection; none while a node starts that has yet to make one.
#[derive(Clone, Debug)]
pub(crate) struct Tls(watch::Receiver<Option<LoadedCertificate>>);

impl Tls {
    /// The current certificate, and what sets another one: connections that are open keep theirs.
    pub(crate) fn new(loaded: Option<LoadedCertificate>) -> (watch::Sender<Option<LoadedCertificate>>, Self) {
        let (set, current) = watch::channel(loaded);
        (set, Self(current))
    }

    /// What takes the next handshake, as soon as there is a certificate.
    ///
    /// # Errors
    /// The port ends, and never had one.
    pub(crate) async fn acceptor(mut self) -> io::Result<TlsAcceptor> {
        let loaded = self.0.wait_for(Option::is_some).await.map_err(|_| io::ErrorKind::ConnectionAborted)?;
        let config = loaded.as_ref().map(|loaded| loaded.config.clone()).ok_or(io::ErrorKind::ConnectionAborted)?;
        Ok(TlsAcceptor::from(config))
    }
}

/// A certificate that was read, with what the port does with it.
#[derive(Clone, Debug)]
pub(crate) struct LoadedCertificate {
    /// What a handshake is made with.
    config: Arc<ServerConfig>,
    /// The server's own first.
    chain: Vec<CertificateDer<'static>>,
}

impl LoadedCertificate {
    /// Whether another certificate was read.
    pub(crate) fn differs(&self, before: &Self) -> bool {
        self.chain != before.chain
    }
}

/// The certificate, which is made if need be.
///
/// # Errors
/// A file cannot be read or written, or certificate and key do not belong together.
pub(crate) fn load(certificate: &Certificate) -> Result<LoadedCertificate, TlsError> {
    match certificate {
        Certificate::Files { certificate, key } => read(certificate, key),
        Certificate::SelfSigned { folder } => {
            let (certificate, key) = self_signed(folder)?;
            read_kept(certificate, key)
        }
    }
}

/// The certificate as it lies on the disk; none if it has yet to be made. Nothing is written.
pub(crate) fn load_kept(certificate: &Certificate) -> Result<Option<LoadedCertificate>, TlsError> {
    match certificate {
        Certificate::Files { certificate, key } => read(certificate, key).map(Some),
        Certificate::SelfSigned { folder } => {
            let (certificate, key) = kept(folder);
            if certificate.exists() && key.exists() { read_kept(certificate, key).map(Some) } else { Ok(None) }
        }
    }
}

/// The certificate for a node that runs, which has one already if it is `in_use`; another is then not left in its place.
pub(crate) fn load_again(certificate: &Certificate, in_use: bool) -> Result<Option<LoadedCertificate>, TlsError> {
    match (load_kept(certificate)?, certificate) {
        (None, Certificate::SelfSigned { folder }) if in_use => Err(TlsError::NotMade { folder: folder.clone() }),
        (loaded, _) => Ok(loaded),
    }
}

/// Reads the pair that the node made itself: nobody else has it, and nobody misses it.
fn read_kept(certificate: PathBuf, key: PathBuf) -> Result<LoadedCertificate, TlsError> {
    read(&certificate, &key).map_err(|why| TlsError::Kept { why: Box::new(why), certificate, key })
}

/// Reads both files. The port speaks HTTP/2 only, and asks for no client certificates.
///
/// # Errors
/// A file is missing, is no PEM, or is none that can be read twice; or the two do not belong together.
fn read(certificate: &Path, key: &Path) -> Result<LoadedCertificate, TlsError> {
    let unreadable = |what, path: &Path, why: &dyn std::fmt::Display| TlsError::Read {
        what,
        path: path.to_owned(),
        why: why.to_string(),
    };
    for (what, path) in [("the certificate", certificate), ("the private key", key)] {
        // Whoever opens a pipe that nobody writes to waits for ever; and a check, a start and SIGHUP each read.
        if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return Err(unreadable(what, path, &"it is not a regular file, and it is read more than once"));
        }
    }
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable("the certificate", certificate, &error))?;
    if chain.is_empty() {
        return Err(unreadable("the certificate", certificate, &"the file holds no certificate in PEM form"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("the private key", key, &error))?;
    let pair = |source| TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), secret)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(LoadedCertificate { config: Arc::new(config), chain })
}

/// Where certificate and key of a self-signed pair lie.
fn kept(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("certificate.pem"), folder.join("key.pem"))
}

/// The kept pair, or a new one. The key is written first, so that a certificate is never without its key.
fn self_signed(folder: &Path) -> Result<(PathBuf, PathBuf), TlsError> {
    let (certificate, key) = kept(folder);
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    create_dir_all(folder).map_err(|source| TlsError::Write { path: folder.to_owned(), source })?;
    write_private(&key, &made.signing_key.serialize_pem())?;
    write_private(&certificate, &made.cert.pem())?;
    Ok((certificate, key))
}

/// Writes a file that only its owner may read, all of it or nothing.
fn write_private(path: &Path, text: &str) -> Result<(), TlsError> {
    appear_durably(path, &path.with_extension("tmp"), |file| file.write_all(text.as_bytes()))
        .map_err(|source| TlsError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_self_signed_certificate_is_kept_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::SelfSigned { folder: folder.path().join("tls") };
        assert_eq!(load(&certificate).unwrap().config.alpn_protocols, [b"h2".to_vec()]);
        let file = folder.path().join("tls/certificate.pem");
        let first = fs::read(&file).unwrap();
        load(&certificate).unwrap();
        assert_eq!(fs::read(&file).unwrap(), first);
        let mode = fs::metadata(folder.path().join("tls/key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let folder = fs::metadata(folder.path().join("tls")).unwrap().permissions().mode();
        assert_eq!(folder & 0o777, 0o700);
    }

    #[test]
    fn a_start_that_was_cut_short_is_made_good() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::SelfSigned { folder: folder.path().to_owned() };
        load(&certificate).unwrap();
        fs::remove_file(folder.path().join("certificate.pem")).unwrap();
        assert!(load(&certificate).is_ok());
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        load(&Certificate::SelfSigned { folder: folder.path().to_owned() }).unwrap();
        let (good, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        let other = folder.path().join("other");
        load(&Certificate::SelfSigned { folder: other.clone() }).unwrap();
        let empty = folder.path().join("empty.pem");
        fs::write(&empty, "nothing here").unwrap();
        for (certificate, key, named) in [
            (folder.path().join("absent.pem"), key.clone(), "absent.pem"),
            (empty.clone(), key.clone(), "empty.pem"),
            (good.clone(), empty, "empty.pem"),
            (good.clone(), other.join("key.pem"), "cannot be used together"),
            (good, "/dev/null".into(), "not a regular file"),
        ] {
            let error = load(&Certificate::Files { certificate, key }).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_pair_of_the_nodes_own_that_is_damaged_is_to_be_removed_and_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let own = Certificate::SelfSigned { folder: folder.path().to_owned() };
        load(&own).unwrap();
        let (certificate, key) = kept(folder.path());
        for damaged in [&certificate, &key] {
            fs::write(damaged, "no PEM").unwrap();
            for error in [load(&own).unwrap_err(), load_kept(&own).unwrap_err()] {
                let told = error.to_string();
                let remedy = format!("rm {} {}", certificate.display(), key.display());
                assert!(told.contains("cannot read") && told.contains(&remedy), "{told}");
            }
            // Whose it is must be known: an operator's own pair cannot be made again.
            let theirs = Certificate::Files { certificate: certificate.clone(), key: key.clone() };
            assert!(!load(&theirs).unwrap_err().to_string().contains("rm "));
            fs::remove_file(&certificate).unwrap();
            fs::remove_file(&key).unwrap();
            load(&own).unwrap();
        }
    }

    #[test]
    fn what_is_only_looked_for_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::SelfSigned { folder: folder.path().join("tls") };
        assert!(load_kept(&certificate).unwrap().is_none() && load_again(&certificate, false).unwrap().is_none());
        let error = load_again(&certificate, true).unwrap_err().to_string();
        assert!(error.contains("restart the node"), "{error}");
        assert!(!folder.path().join("tls").exists());
        let made = load(&certificate).unwrap();
        assert!(!load_kept(&certificate).unwrap().unwrap().differs(&made));
        assert!(load_again(&certificate, true).unwrap().is_some());
        fs::write(folder.path().join("tls/key.pem"), "no key").unwrap();
        assert!(load_kept(&certificate).is_err());
        let other = load(&Certificate::SelfSigned { folder: folder.path().join("other") }).unwrap();
        assert!(other.differs(&made));
    }
}
