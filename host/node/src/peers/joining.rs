//! How a node becomes one of a cluster that there is.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use vouch_cluster::NodeAddresses;
use vouch_transport::{ANY_NODE, CallFailed, Caller, LinkState, REFUSES, Transport};

use super::calls::{NoNodeMessage, NodeAnswer, NodeAsk, NodeRequest};
use super::programs::NodeVersion;
use super::settings::JoinSettings;
use super::told::ToldNodes;

/// Before it is asked again.
const PAUSE: Duration = Duration::from_millis(250);
/// How long one ask takes at most: longer than a group takes to decide, or to find another leader.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// Asks the node at the address to be let in, until that is done.
///
/// # Errors
/// It is refused: the cluster's sentence.
pub(super) async fn join(
    transport: &Transport,
    joins: &JoinSettings,
    (addresses, program): (NodeAddresses, NodeVersion),
) -> Result<ToldNodes, String> {
    let (node, secret) = (joins.token.node(), *joins.token.secret());
    transport.set_credential(Bytes::copy_from_slice(&secret)).map_err(|_| "the token is too long".to_owned())?;
    transport.peers().set(ANY_NODE, &joins.address);
    let request = NodeRequest { forwarded: false, ask: NodeAsk::Join { node, secret, addresses } };
    let runs = NodeRequest { forwarded: false, ask: NodeAsk::Runs { node, program } };
    let caller = transport.caller(ANY_NODE);
    let joined = ask(&caller, [&runs, &request], &joins.address).await;
    drop(caller);
    transport.remove_peer(ANY_NODE);
    // It is no secret any more, and of no use.
    let _ = transport.set_credential(Bytes::new());
    joined
}

async fn ask(caller: &Caller, requests: [&NodeRequest; 2], address: &str) -> Result<ToldNodes, String> {
    let mut said = String::new();
    loop {
        let why = match ask_once(caller, requests).await? {
            Ok(told) => return Ok(told),
            Err(why) => why,
        };
        if why != said {
            tracing::warn!(address, why, "this node is not let in yet, and asks again");
            said = why;
        }
        sleep(PAUSE).await;
    }
}

/// Says what this node runs, and asks once: where nodes are, or why it is to be asked again.
///
/// # Errors
/// It is refused.
async fn ask_once(caller: &Caller, [runs, request]: [&NodeRequest; 2]) -> Result<Result<ToldNodes, String>, String> {
    if let Err(why) = connected(caller).await? {
        return Ok(Err(why));
    }
    // Whoever leads must know it before it lets this node in; a version that is older than the word refuses it, and needs not know.
    match call(caller, runs).await {
        Ok(Ok(NodeAnswer::NothingStored(why) | NodeAnswer::Unknown(why))) | Err(why) => return Ok(Err(why)),
        Ok(_) => {}
    }
    let answer = match call(caller, request).await {
        Ok(answer) => answer,
        Err(why) => return Ok(Err(why)),
    };
    match answer {
        Ok(NodeAnswer::Done(told)) => Ok(Ok(told)),
        Ok(NodeAnswer::Refused(why)) => Err(why),
        Ok(NodeAnswer::NothingStored(why) | NodeAnswer::Unknown(why)) => Ok(Err(why)),
        Ok(NodeAnswer::Client(_) | NodeAnswer::Had(_)) => Err(NoNodeMessage.to_string()),
        Err(why) => Err(why.to_string()),
    }
}

/// Asks once, whatever it is.
///
/// # Errors
/// Why no answer came.
async fn call(caller: &Caller, request: &NodeRequest) -> Result<Result<NodeAnswer, NoNodeMessage>, String> {
    match caller.call(vec![request.encode()], Instant::now() + ASK_WITHIN).await {
        Ok(answer) => Ok(NodeAnswer::decode(answer)),
        Err(CallFailed::NotSent(why) | CallFailed::NoRoom(why) | CallFailed::Unknown(why)) => Err(why),
    }
}

/// Waits for a connection, for a while; or says why there is none.
///
/// # Errors
/// The other refuses one.
pub(super) async fn connected(caller: &Caller) -> Result<Result<(), String>, String> {
    let refusal = |state: &LinkState| match state {
        LinkState::Down { why } => why.split_once(REFUSES).map(|(_, sentence)| sentence.to_owned()),
        LinkState::Up(_) => None,
    };
    let mut state = caller.watch();
    let waited = timeout(ASK_WITHIN, state.wait_for(|state| state.is_up() || refusal(state).is_some())).await;
    let now = match waited {
        Ok(Ok(now)) => now.clone(),
        _ => caller.state(),
    };
    match (&now, refusal(&now)) {
        (_, Some(sentence)) => Err(sentence),
        (LinkState::Up(_), None) => Ok(Ok(())),
        (LinkState::Down { why }, None) => Ok(Err(why.clone())),
    }
}
