//! What went wrong with TLS, in words for the operator.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// A sentence about what the library says.
pub(crate) fn said(error: &io::Error) -> String {
    let Some(library) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return format!("the connection failed: {error}");
    };
    match library {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate is expired: issue another one and restart or reload that node".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: compare the clocks of the two nodes".to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate was not issued by the authority of this cluster".to_owned()
        }
        Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
        Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: all nodes need the same setting for it".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "it refuses our certificate, which is expired: issue another one for this node".to_owned()
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::DecryptError | AlertDescription::BadCertificate,
        ) => "it refuses our certificate, which was not issued by the authority that it knows".to_owned(),
        Error::AlertReceived(alert) => format!("it refuses the connection ({alert:?})"),
        other => format!("TLS failed: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_reads_what_to_do() {
        let of = |error: Error| said(&io::Error::new(io::ErrorKind::InvalidData, error));
        for (error, words) in [
            (Error::InvalidCertificate(CertificateError::Expired), "is expired: issue another one"),
            (Error::InvalidCertificate(CertificateError::NotValidYet), "compare the clocks"),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "not issued by the authority of this cluster"),
            (Error::NoCertificatesPresented, "shows no certificate"),
            (Error::AlertReceived(AlertDescription::CertificateExpired), "refuses our certificate, which is expired"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "not issued by the authority that it knows"),
            (Error::AlertReceived(AlertDescription::AccessDenied), "AccessDenied"),
            (Error::DecryptError, "TLS failed"),
        ] {
            let sentence = of(error);
            assert!(sentence.contains(words), "{sentence}");
        }
        assert!(said(&io::ErrorKind::ConnectionReset.into()).contains("connection failed"));
    }
}
