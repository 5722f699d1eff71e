//! The name that a certificate gives its node: `vouch://CLUSTER/node/N`, as a URI among its alternative names.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::identity::{ClusterBytes, HexBytes};

/// Which node of which cluster a certificate speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateName {
    /// The cluster.
    pub cluster: ClusterBytes,
    /// The node's id in it.
    pub node: u64,
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vouch://{}/node/{}", HexBytes(&self.cluster), self.node)
    }
}

impl FromStr for CertificateName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (cluster, node) = text.strip_prefix("vouch://").and_then(|rest| rest.split_once("/node/")).ok_or(())?;
        let cluster = u128::from_str_radix(cluster, 16).map_err(drop)?.to_be_bytes();
        let name = Self { cluster, node: node.parse().map_err(drop)? };
        // One way to write each name: nothing else is compared with what people read.
        if name.to_string() == text { Ok(name) } else { Err(()) }
    }
}

impl CertificateName {
    /// The one name in this certificate. Whether the certificate is to be believed is for others to say.
    ///
    /// # Errors
    /// It has none, or several: a sentence.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let parsed =
            EndEntityCert::try_from(certificate).map_err(|error| format!("its certificate is none: {error}"))?;
        let mut names = parsed.valid_uri_names().filter_map(|name| name.parse().ok());
        match (names.next(), names.next()) {
            (Some(name), None) => Ok(name),
            (None, _) => Err("its certificate names no node of a cluster: it was not issued as a node's".to_owned()),
            (Some(_), Some(_)) => Err("its certificate names more than one node".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_in_no_other_form() {
        let name = CertificateName { cluster: [0x0a; 16], node: 12 };
        let text = "vouch://0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/node/12";
        assert_eq!((name.to_string().as_str(), text.parse()), (text, Ok(name)));
        for other in [
            "vouch://0A0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/node/12",
            "vouch://a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/node/12",
            "vouch://0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/node/+12",
            "vouch://0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/node/012",
            "vouch://0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/node/12/",
            "https://0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/node/12",
            "",
        ] {
            assert_eq!(CertificateName::from_str(other), Err(()), "{other}");
        }
    }
}
