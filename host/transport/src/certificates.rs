//! The cluster's own authority, and the certificates that it issues to nodes.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use webpki::EndEntityCert;

use crate::identity::ClusterBytes;
use crate::name::CertificateName;
use crate::tls::PeerSecurity;

/// The authority's certificate, which every node needs.
const AUTHORITY_FILE: &str = "authority.pem";
/// The authority's key, which no node needs: keep it elsewhere.
const AUTHORITY_KEY_FILE: &str = "authority-key.pem";
const CERTIFICATE_FILE: &str = "node.pem";
const KEY_FILE: &str = "node-key.pem";
/// Of the Gregorian calendar, on average.
const YEAR: Duration = Duration::from_secs(31_556_952);
/// How long an authority is good for.
const AUTHORITY_LASTS: Duration = Duration::from_secs(30 * YEAR.as_secs());
/// How long a node's certificate is good for where nobody says otherwise.
const NODE_LASTS: Duration = Duration::from_secs(5 * YEAR.as_secs());
/// Machines whose clocks are behind by less than this take a new certificate at once.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no authority or certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file of that name is there, and may be somebody's only copy.
    #[error(
        "{0} is there already, and is not written over: move it away, or choose another folder (a node's is chosen with --out)"
    )]
    Exists(PathBuf),
    /// A file cannot be read. An authority that is lost is made anew, and all nodes get new certificates.
    #[error("cannot read {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key are not those of one authority.
    #[error("the key {key} is not that of the authority {certificate}: copy both from where they were made")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A file cannot be written. Correct what the system says, and try again.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A host is no name and no address.
    #[error("`{0}` is no host name and no address: give it without a port")]
    Host(String),
    /// The library cannot make it.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// Issues certificates for the nodes of clusters. Whoever has its key can be any node.
pub struct CertificateAuthority {
    key: KeyPair,
    pem: String,
}

/// What a node shows to others.
pub struct NodeCertificate {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its private key, in PEM.
    pub key: String,
    /// The authority's certificate, in PEM: what the node holds others' to.
    pub authority: String,
}

impl CertificateAuthority {
    /// Makes a new one.
    ///
    /// # Errors
    /// The library cannot.
    pub fn create() -> Result<Self, CertificatesError> {
        let key = KeyPair::generate()?;
        let pem = authority_params().self_signed(&key)?.pem();
        Ok(Self { key, pem })
    }

    /// Keeps it in a folder, as `authority.pem` and `authority-key.pem`, which only the owner may read.
    ///
    /// # Errors
    /// One of the files is there already, or cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), CertificatesError> {
        write_new(folder, &[(AUTHORITY_KEY_FILE, &self.key.serialize_pem()), (AUTHORITY_FILE, &self.pem)])
    }

    /// Whether a folder keeps one, or a part of one.
    #[must_use]
    pub fn is_kept(folder: &Path) -> bool {
        [AUTHORITY_FILE, AUTHORITY_KEY_FILE].iter().any(|file| folder.join(file).symlink_metadata().is_ok())
    }

    /// Reads the one that is kept in a folder.
    ///
    /// # Errors
    /// A file is missing or damaged, or the two are not those of one authority.
    pub fn load(folder: &Path) -> Result<Self, CertificatesError> {
        let (certificate, key_file) = (folder.join(AUTHORITY_FILE), folder.join(AUTHORITY_KEY_FILE));
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| unreadable(path, &error));
        let (pem, key) = (read(&certificate)?, read(&key_file)?);
        let key = KeyPair::from_pem(&key).map_err(|error| unreadable(&key_file, &error))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unreadable(&certificate, &error))?;
        let parsed = EndEntityCert::try_from(&der).map_err(|error| unreadable(&certificate, &error))?;
        if *parsed.subject_public_key_info() != *key.subject_public_key_info() {
            return Err(CertificatesError::Pair { certificate, key: key_file });
        }
        Ok(Self { key, pem })
    }

    /// The authority's certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.pem
    }

    /// A certificate for a node, for five years. `hosts` are names and addresses that people find it under; nodes hold each other
    /// to cluster and id, and take no account of them.
    ///
    /// # Errors
    /// A host is none, or the library cannot.
    pub fn issue(
        &self,
        cluster: ClusterBytes,
        node: u64,
        hosts: &[&str],
    ) -> Result<NodeCertificate, CertificatesError> {
        self.issue_until(cluster, node, hosts, SystemTime::now() + NODE_LASTS)
    }

    /// The same, for as long as somebody says.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_until(
        &self,
        cluster: ClusterBytes,
        node: u64,
        hosts: &[&str],
        until: SystemTime,
    ) -> Result<NodeCertificate, CertificatesError> {
        let hosts: Vec<String> = hosts.iter().copied().map(str::to_owned).collect();
        if let Some(wrong) = hosts.iter().find(|host| !is_host(host)) {
            return Err(CertificatesError::Host(wrong.clone()));
        }
        let name = CertificateName { cluster, node };
        let mut params = CertificateParams::new(hosts)?;
        params.subject_alt_names.push(SanType::URI(name.to_string().try_into()?));
        params.distinguished_name = named(&format!("Vouch node {node}"));
        params.not_before = (SystemTime::now().min(until) - CLOCKS_DIFFER_BY).into();
        params.not_after = until.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // It dials and is dialed.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let issued = params.signed_by(&key, &Issuer::new(authority_params(), &self.key))?;
        Ok(NodeCertificate { certificate: issued.pem(), key: key.serialize_pem(), authority: self.pem.clone() })
    }
}

impl NodeCertificate {
    /// The files that [`Self::save`] writes to a folder, as a node takes them.
    #[must_use]
    pub fn files(folder: &Path) -> PeerSecurity {
        PeerSecurity::Mutual {
            authority: folder.join(AUTHORITY_FILE),
            certificate: folder.join(CERTIFICATE_FILE),
            key: folder.join(KEY_FILE),
        }
    }

    /// Writes it to a folder, as `node.pem`, `node-key.pem` and `authority.pem`, which only the owner may read.
    ///
    /// # Errors
    /// One of the files is there already, or cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), CertificatesError> {
        let files =
            [(KEY_FILE, &*self.key), (CERTIFICATE_FILE, &*self.certificate), (AUTHORITY_FILE, &*self.authority)];
        write_new(folder, &files)
    }
}

/// What every authority of this kind says of itself: the same each time but for how long it is good, so that a certificate is issued
/// without reading it back.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Vouch cluster authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - CLOCKS_DIFFER_BY).into();
    params.not_after = (now + AUTHORITY_LASTS).into();
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// A name in DNS, or an address.
fn is_host(host: &str) -> bool {
    rustls::pki_types::ServerName::try_from(host).is_ok()
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> CertificatesError {
    CertificatesError::Read { path: path.to_owned(), why: why.to_string() }
}

/// Writes files that only their owner may read, none of which may be there. All are looked for before the first is written.
fn write_new(folder: &Path, files: &[(&str, &str)]) -> Result<(), CertificatesError> {
    if let Some((there, _)) = files.iter().find(|(name, _)| folder.join(name).symlink_metadata().is_ok()) {
        return Err(CertificatesError::Exists(folder.join(there)));
    }
    let write = |path: &Path, source| CertificatesError::Write { path: path.to_owned(), source };
    vouch_files::create_dir_all(folder).map_err(|source| write(folder, source))?;
    for (name, text) in files {
        let path = folder.join(name);
        vouch_files::appear_durably(&path, &path.with_extension("new"), |file| file.write_all(text.as_bytes()))
            .map_err(|source| write(&path, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_the_owners_alone_is_read_back_and_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("authority");
        let authority = CertificateAuthority::create().unwrap();
        authority.save(&kept).unwrap();
        for file in [AUTHORITY_FILE, AUTHORITY_KEY_FILE] {
            assert_eq!(fs::metadata(kept.join(file)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let before = fs::read(kept.join(AUTHORITY_KEY_FILE)).unwrap();
        let refused = authority.save(&kept).unwrap_err().to_string();
        assert!(refused.contains("is not written over: move it away"), "{refused}");
        assert_eq!(fs::read(kept.join(AUTHORITY_KEY_FILE)).unwrap(), before);
        assert!(CertificateAuthority::is_kept(&kept) && !CertificateAuthority::is_kept(folder.path()));
        let read = CertificateAuthority::load(&kept).unwrap();
        assert_eq!(read.certificate(), authority.certificate());

        let node = folder.path().join("node");
        let issued = read.issue([7; 16], 3, &["broker-3.example", "10.0.0.3"]).unwrap();
        issued.save(&node).unwrap();
        NodeCertificate::files(&node).check().unwrap();
        assert_eq!(fs::metadata(node.join(KEY_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(issued.save(&node), Err(CertificatesError::Exists(_))));
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        assert_eq!(CertificateName::of(&der), Ok(CertificateName { cluster: [7; 16], node: 3 }));
        let parsed = EndEntityCert::try_from(&der).unwrap();
        for host in ["broker-3.example", "10.0.0.3"] {
            parsed.verify_is_valid_for_subject_name(&host.try_into().unwrap()).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let authority = CertificateAuthority::create().unwrap();
        authority.save(&one).unwrap();
        CertificateAuthority::create().unwrap().save(&other).unwrap();
        let of = |folder: &Path| CertificateAuthority::load(folder).err().unwrap().to_string();
        assert!(of(&folder.path().join("none")).contains("cannot read"));
        fs::copy(other.join(AUTHORITY_KEY_FILE), one.join(AUTHORITY_KEY_FILE)).unwrap();
        assert!(of(&one).contains("copy both from where they were made"));
        fs::write(one.join(AUTHORITY_FILE), "no PEM").unwrap();
        assert!(of(&one).contains("authority.pem"));
        let host = authority.issue([7; 16], 3, &["broker:8090"]).err().unwrap().to_string();
        assert!(host.contains("give it without a port"), "{host}");
    }
}
