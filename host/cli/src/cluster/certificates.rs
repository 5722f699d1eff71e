//! `vouch cluster certificates`: the cluster's own authority, and what it issues to a node.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use vouch_node::{CertificateAuthority, CertificatesError, NodeCertificate, PeerSecurity};

use crate::failure::WrongUsage;
use crate::http::HttpArgs;
use crate::output;

/// Bytes of a cluster's identity.
const CLUSTER_BYTES: usize = 16;

/// What is made, and where.
#[derive(Debug, Args)]
pub(crate) struct CertificatesArgs {
    /// Folder of the authority; made with a new one if it has none.
    #[arg(long, value_name = "DIR")]
    ca_dir: PathBuf,
    /// Id of the node: 1 for the first, and what `vouch cluster add` said for any other.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    node: u64,
    /// Names and addresses of the node's machine, without ports, separated by commas.
    #[arg(long, value_name = "HOSTS", value_delimiter = ',', required = true)]
    address: Vec<String>,
    /// Identity of the cluster, 32 hexadecimal digits; without it the node at --http is asked.
    #[arg(long, value_name = "ID", value_parser = cluster)]
    cluster: Option<[u8; CLUSTER_BYTES]>,
    /// Folder for the node's three files; `node-N` in the authority's if absent.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    http: HttpArgs,
}

impl CertificatesArgs {
    /// Whether `--json` was given.
    pub(super) fn json(&self) -> bool {
        self.http.json
    }
}

/// Reads the identity of a cluster.
fn cluster(text: &str) -> Result<[u8; CLUSTER_BYTES], String> {
    let wrong =
        || format!("`{text}` is no identity of a cluster: write the 32 hexadecimal digits of vouch cluster status");
    if text.len() != 2 * CLUSTER_BYTES || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).map_err(|_| wrong())
}

/// Issues a certificate to a node, by an authority that is made if there is none.
///
/// # Errors
/// [`WrongUsage`]: a host is none. Or a file is there already or cannot be used, or no node says which cluster it is.
pub(super) fn make(args: &CertificatesArgs) -> anyhow::Result<()> {
    let id = match args.cluster {
        Some(id) => id,
        None => asked(&args.http)?,
    };
    let folder = args.out.clone().unwrap_or_else(|| args.ca_dir.join(format!("node-{}", args.node)));
    let (authority, made) = authority(&args.ca_dir)?;
    let hosts: Vec<&str> = args.address.iter().map(|host| host.trim()).collect();
    authority.issue(id, args.node, &hosts).and_then(|issued| issued.save(&folder)).map_err(refused)?;
    let PeerSecurity::Mutual { authority, certificate, key } = NodeCertificate::files(&folder) else {
        anyhow::bail!("a certificate was made that is none; report this as a defect");
    };
    let settings = [("peer_certificate", certificate), ("peer_key", key), ("peer_ca", authority)];
    if args.http.json {
        let mut document = json!({"node": args.node, "authority_made": made});
        settings.iter().for_each(|(name, file)| document[*name] = file.display().to_string().into());
        return Ok(output::json(&document)?);
    }
    if made {
        output::line(format_args!(
            "made the cluster's authority in {}: keep that folder, and let its key leave it for nobody",
            args.ca_dir.display()
        ))?;
    }
    output::line(format_args!(
        "node {} has its certificate; copy these files to its machine, and set there:",
        args.node
    ))?;
    for (name, file) in settings {
        output::line(format_args!("  {name} = \"{}\"", file.display()))?;
    }
    Ok(())
}

/// The authority of a folder, and whether it was made now.
fn authority(folder: &Path) -> anyhow::Result<(CertificateAuthority, bool)> {
    if CertificateAuthority::is_kept(folder) {
        return Ok((CertificateAuthority::load(folder)?, false));
    }
    let authority = CertificateAuthority::create()?;
    authority.save(folder)?;
    Ok((authority, true))
}

/// A host that is none is wrong usage.
fn refused(error: CertificatesError) -> anyhow::Error {
    match error {
        CertificatesError::Host(_) => WrongUsage::error(format!("--address: {error}")),
        other => other.into(),
    }
}

/// Which cluster a running node is.
fn asked(http: &HttpArgs) -> anyhow::Result<[u8; CLUSTER_BYTES]> {
    let answer = http.client()?.get("/v1/cluster");
    let answer = answer
        .context("no node said which cluster this is for; start its first node, or name the cluster with --cluster")?;
    cluster(answer.body["id"].as_str().unwrap_or_default()).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::http::fake::FakeNode;

    fn args(folder: &Path, node: &FakeNode, id: u64, host: &str) -> CertificatesArgs {
        let address = vec![host.to_owned()];
        CertificatesArgs {
            ca_dir: folder.join("ca"),
            node: id,
            address,
            cluster: None,
            out: None,
            http: node.args(true),
        }
    }

    #[test]
    fn nodes_of_one_authority_get_files_that_they_can_use_and_its_key_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let answer = json!({"id": "ab".repeat(16)}).to_string();
        let node = FakeNode::answering(&[("200 OK", answer.as_str()); 3]);
        make(&args(folder.path(), &node, 1, "broker-1.example")).unwrap();
        let key = std::fs::read(folder.path().join("ca/authority-key.pem")).unwrap();
        make(&args(folder.path(), &node, 2, "10.0.0.2")).unwrap();
        assert_eq!(std::fs::read(folder.path().join("ca/authority-key.pem")).unwrap(), key, "there is one authority");
        for id in [1, 2] {
            let files = folder.path().join(format!("ca/node-{id}"));
            NodeCertificate::files(&files).check().unwrap();
            assert!(!files.join("authority-key.pem").exists());
            for file in std::fs::read_dir(files).unwrap() {
                assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
        let again = make(&args(folder.path(), &node, 2, "10.0.0.2")).unwrap_err().to_string();
        assert!(again.contains("is there already, and is not written over"), "{again}");
    }

    #[test]
    fn wrong_values_are_wrong_usage() {
        let folder = tempfile::tempdir().unwrap();
        let node = FakeNode::answering(&[]);
        let args = CertificatesArgs { cluster: Some([7; 16]), ..args(folder.path(), &node, 1, "broker:8090") };
        let host = make(&args).unwrap_err();
        assert!(host.is::<WrongUsage>() && host.to_string().contains("give it without a port"), "{host}");
        assert_eq!(cluster(&"0a".repeat(16)), Ok([10; 16]));
        for wrong in ["", "0a", &"+".repeat(32), &"g".repeat(32)] {
            assert!(cluster(wrong).is_err(), "{wrong}");
        }
    }
}
