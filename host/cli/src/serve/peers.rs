//! How a node speaks with the others of a cluster, by its settings: which of them belong together, and what is missing.

use std::net::SocketAddr;
use std::path::PathBuf;

use vouch_node::{ClusterToken, JoinSettings, NodeConfig, PeerSecurity, PeerSettings};

use crate::config::Resolved;
use crate::failure::WrongUsage;

/// How the node speaks with others; nothing where it has none.
///
/// # Errors
/// [`WrongUsage`]: a setting needs another one, or two contradict each other.
pub(super) fn peers(resolved: &Resolved) -> anyhow::Result<Option<PeerSettings>> {
    let (advertise, security) = (resolved.peer_advertise()?, security(resolved)?);
    let (grpc_advertise, routes_to_leader) = (resolved.grpc_advertise()?, resolved.routes_to_leader()?);
    let (join, token) = (resolved.join()?, resolved.token_file()?);
    let Some(listen) = resolved.peer_addr()? else {
        let others = [
            ("peer_advertise", advertise.is_some()),
            ("grpc_advertise", grpc_advertise.is_some()),
            ("routes_to_leader", routes_to_leader),
            ("peer_insecure", security == Security::Insecure),
            (
                "peer_certificate, peer_key or peer_ca",
                matches!(security, Security::Files { .. } | Security::Missing(_)),
            ),
            ("join", join.is_some()),
            ("token_file", token.is_some()),
        ];
        return match others.iter().find(|(_, set)| *set) {
            Some((name, _)) => Err(WrongUsage::error(format!(
                "{name} is set without peer_addr, and a node without that has no others; set peer_addr (--peer-addr IP:PORT), or leave \
                 {name} out"
            ))),
            None => Ok(None),
        };
    };
    if advertise.is_none() && listen.ip().is_unspecified() {
        return Err(WrongUsage::error(format!(
            "peer_addr is {listen}, which is all addresses of this machine; say where other nodes reach it with peer_advertise \
             (--peer-advertise HOST:PORT)"
        )));
    }
    if join.is_some() != token.is_some() {
        let (set, missing) = if join.is_some() { ("join", "token_file") } else { ("token_file", "join") };
        return Err(WrongUsage::error(format!(
            "{set} is set without {missing}; a node joins a cluster with the address of one of its nodes (--join HOST:PORT) and a \
             token (--token-file FILE, made by vouch cluster add)"
        )));
    }
    let security = security.complete()?;
    Ok(Some(PeerSettings { listen: listen.to_string(), advertise, security, grpc_advertise, routes_to_leader }))
}

/// With what the node joins a cluster; nothing where it does not. That both settings are there [`peers`] has seen.
///
/// # Errors
/// The file with the token cannot be read, or holds none.
pub(super) fn joins(resolved: &Resolved) -> anyhow::Result<Option<JoinSettings>> {
    let (Some(address), Some(file)) = (resolved.join()?, resolved.token_file()?) else { return Ok(None) };
    if resolved.peer_addr()?.is_none() {
        return Ok(None);
    }
    Ok(Some(JoinSettings { address, token: ClusterToken::read(&file)? }))
}

/// The same with the address at which the node serves clients, where no setting names another and it is one.
pub(super) fn told_where_clients_are(mut node: NodeConfig, grpc: SocketAddr) -> NodeConfig {
    if let Some(peers) = &mut node.peers
        && peers.grpc_advertise.is_none()
        && !grpc.ip().is_unspecified()
    {
        peers.grpc_advertise = Some(grpc.to_string());
    }
    node
}

/// What the settings say of TLS between nodes.
#[derive(Debug, PartialEq, Eq)]
enum Security {
    /// Nothing.
    Nothing,
    /// That there is none.
    Insecure,
    Files {
        certificate: PathBuf,
        key: PathBuf,
        authority: PathBuf,
    },
    /// This one is not set, and another one is.
    Missing(&'static str),
}

/// # Errors
/// [`WrongUsage`]: files are named, and no TLS is wanted.
fn security(resolved: &Resolved) -> anyhow::Result<Security> {
    let files = (resolved.peer_certificate()?, resolved.peer_key()?, resolved.peer_ca()?);
    let insecure = resolved.peer_insecure()?;
    Ok(match files {
        (None, None, None) if insecure => Security::Insecure,
        (None, None, None) => Security::Nothing,
        _ if insecure => {
            return Err(WrongUsage::error(
                "peer_insecure and files for TLS between nodes (peer_certificate, peer_key, peer_ca) are both set; leave one out",
            ));
        }
        (Some(certificate), Some(key), Some(authority)) => Security::Files { certificate, key, authority },
        (None, _, _) => Security::Missing("peer_certificate"),
        (_, None, _) => Security::Missing("peer_key"),
        (_, _, None) => Security::Missing("peer_ca"),
    })
}

impl Security {
    /// # Errors
    /// [`WrongUsage`]: something is missing, and nobody said that there is to be no TLS.
    fn complete(self) -> anyhow::Result<PeerSecurity> {
        let files =
            "TLS between nodes takes peer_certificate, peer_key and peer_ca, which `vouch cluster certificates` makes";
        match self {
            Self::Insecure => Ok(PeerSecurity::Insecure),
            Self::Files { certificate, key, authority } => Ok(PeerSecurity::Mutual { authority, certificate, key }),
            Self::Missing(name) => Err(WrongUsage::error(format!("{name} is not set; {files}"))),
            Self::Nothing => Err(WrongUsage::error(format!(
                "peer_addr is set, and nothing says how nodes know each other; {files}; on one machine, or in a network that is \
                 nobody else's, set peer_insecure (--peer-insecure)"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::SettingArgs;

    #[derive(Parser)]
    struct Given {
        #[command(flatten)]
        settings: SettingArgs,
    }

    fn resolved(flags: &[&str]) -> Resolved {
        Given::parse_from([&["vouch"], flags].concat()).settings.resolve().unwrap()
    }

    #[test]
    fn clients_are_told_the_address_at_which_they_are_served_unless_it_is_none_or_another_is_named() {
        let config = |flags: &[&str]| NodeConfig { peers: peers(&resolved(flags)).unwrap(), ..NodeConfig::new("x") };
        let told = |flags: &[&str], grpc: &str| {
            told_where_clients_are(config(flags), grpc.parse().unwrap()).peers.and_then(|peers| peers.grpc_advertise)
        };
        let flags = ["--peer-addr", "127.0.0.1:0", "--peer-insecure"];
        assert_eq!(told(&flags, "127.0.0.1:8081").as_deref(), Some("127.0.0.1:8081"));
        assert_eq!(told(&flags, "0.0.0.0:8081"), None);
        let named = [&flags[..], &["--grpc-advertise", "b.example:1"]].concat();
        assert_eq!(told(&named, "127.0.0.1:8081").as_deref(), Some("b.example:1"));
        assert_eq!(told(&[], "127.0.0.1:8081"), None);
    }

    #[test]
    fn three_files_are_mutual_tls() {
        let flags =
            ["--peer-addr=[::]:1", "--peer-advertise=h:1", "--peer-certificate=c", "--peer-key=k", "--peer-ca=a"];
        let expected = PeerSettings {
            listen: "[::]:1".to_owned(),
            advertise: Some("h:1".to_owned()),
            security: PeerSecurity::Mutual { authority: "a".into(), certificate: "c".into(), key: "k".into() },
            grpc_advertise: None,
            routes_to_leader: false,
        };
        assert_eq!(peers(&resolved(&flags)).unwrap(), Some(expected));
    }
}
