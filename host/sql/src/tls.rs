//! Whom to believe when a database says its name.
//!
//! There is no way to believe anybody: who cannot have a certificate verified says `"tls": "off"`, and then knows it.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::grant::GrantRefusal;

/// Trusts the public authorities, and those in these certificates (PEM).
///
/// # Errors
/// The certificates cannot be read, or there are none in a text that is not empty.
pub(crate) fn client_config(extra_authorities: &[u8]) -> Result<Arc<ClientConfig>, GrantRefusal> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(extra_authorities) {
        let certificate = certificate.map_err(|_| GrantRefusal::Authorities)?;
        roots.add(certificate).map_err(|_| GrantRefusal::Authorities)?;
    }
    if !extra_authorities.is_empty() && roots.len() == before {
        return Err(GrantRefusal::Authorities);
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|_| GrantRefusal::Authorities)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Settles on one implementation of the ciphers for libraries that ask the process for it: where several are linked, they
/// would refuse to choose.
pub(crate) fn settle_provider() {
    // An error says that somebody settled it before, which is as good.
    let _ = CryptoProvider::install_default(rustls::crypto::ring::default_provider());
}

/// The ciphers that this house uses everywhere.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_added_or_refused_whole() {
        assert!(client_config(b"").is_ok());
        assert!(matches!(client_config(b"nothing"), Err(GrantRefusal::Authorities)));
        let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(client_config(garbage), Err(GrantRefusal::Authorities)));
    }
}
