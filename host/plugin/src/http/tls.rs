//! Whom to believe in https.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Why the file with further authorities cannot be used. Correct the file or the setting.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// Not readable, or not PEM.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] rustls::pki_types::pem::Error),
    /// A certificate in it is not usable.
    #[error("a certificate in it is not usable: {0}")]
    Certificate(#[from] rustls::Error),
    /// Nothing in it.
    #[error("it holds no certificate")]
    Empty,
}

/// Trusts the public authorities, and those in `extra_ca_file`.
pub(crate) fn client_config(extra_ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, CaFileError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = extra_ca_file {
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path)? {
            roots.add(certificate?)?;
        }
        if roots.len() == before {
            return Err(CaFileError::Empty);
        }
    }
    // The provider is named because a process may hold several, and the library then refuses to choose.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
