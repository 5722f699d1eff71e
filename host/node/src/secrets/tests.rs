//! Secrets of one node, without the edges.

use std::path::Path;

use vouch_broker::{NotDone, Refusal};
use vouch_secrets::KEY_FILE;

use super::*;
use crate::{Node, NodeConfig};

fn start(folder: &Path) -> Node {
    let config = NodeConfig {
        segment_size: Some(4 << 20),
        zero_ahead: 1 << 20,
        snapshot_every: 32 << 20,
        ..NodeConfig::new(folder)
    };
    Node::start(config).unwrap()
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec()).unwrap()
}

async fn opened(node: &Node, name: &str) -> Result<String, NotDone> {
    let opened = node.secrets.here.opened(&[name.to_owned()].into()).await?;
    opened.text(name).map(str::to_owned)
}

#[tokio::test]
async fn a_secret_is_set_shown_without_its_value_replaced_and_gone() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    assert_eq!(node.secrets.list(None, 10).await.unwrap(), []);
    let (first, warnings) = node.secrets.set("db", value("pa55"), Expect::Absent).await.unwrap();
    assert!(first.created && warnings.is_empty(), "{warnings:?}");
    let shown = node.secrets.secret("db").await.unwrap().unwrap();
    assert!(shown.opens_here && shown.revision == first.revision && shown.bindings.is_empty(), "{shown:?}");
    assert!(!format!("{shown:?}").contains("pa55"));
    assert_eq!(opened(&node, "db").await.unwrap(), "pa55");
    let ids = node.secrets.here.value_ids(&["db".to_owned()].into()).await.unwrap();

    let refused = node.secrets.set("db", value("x"), Expect::Absent).await.unwrap_err();
    assert!(matches!(refused, NotDone::Refused(Refusal::PreconditionFailed(_))), "{refused}");
    let (second, _) = node.secrets.set("db", value("pa66"), Expect::Revision(first.revision)).await.unwrap();
    assert!(!second.created && second.revision > first.revision);
    assert_eq!(opened(&node, "db").await.unwrap(), "pa66");
    let now = node.secrets.here.value_ids(&["db".to_owned()].into()).await.unwrap();
    assert!(ids != now && ids.len() == 1 && now.len() == 1);

    node.secrets.delete("db").await.unwrap();
    let refused = opened(&node, "db").await.unwrap_err().to_string();
    assert!(refused.contains("vouch secret set db"), "{refused}");
    assert!(matches!(node.secrets.delete("db").await, Err(NotDone::Refused(Refusal::NotFound(_)))));
    node.stop().await;
}

#[tokio::test]
async fn secrets_open_after_a_restart_and_say_what_is_missing_where_the_key_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    node.secrets.set("db", value("pa55"), Expect::Anything).await.unwrap();
    node.stop().await;
    let node = start(folder.path());
    assert_eq!(opened(&node, "db").await.unwrap(), "pa55");
    node.stop().await;

    let (file, away) = (folder.path().join(KEY_FILE), folder.path().join("away"));
    std::fs::rename(&file, &away).unwrap();
    let node = start(folder.path());
    let refused = opened(&node, "db").await.unwrap_err().to_string();
    assert!(refused.contains("secrets.key") && refused.contains("copy it"), "{refused}");
    assert!(!node.secrets.secret("db").await.unwrap().unwrap().opens_here);
    // Copied while the node runs.
    std::fs::rename(&away, &file).unwrap();
    assert_eq!(opened(&node, "db").await.unwrap(), "pa55");
    node.stop().await;
}

#[tokio::test]
async fn whoever_lost_the_keys_sets_all_secrets_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    node.secrets.set("db", value("pa55"), Expect::Anything).await.unwrap();
    node.stop().await;
    std::fs::remove_file(folder.path().join(KEY_FILE)).unwrap();
    let node = start(folder.path());
    let refused = node.secrets.set("db", value("pa66"), Expect::Anything).await.unwrap_err();
    assert!(matches!(&refused, NotDone::Refused(Refusal::Conflict(why)) if why.contains("--new-key")), "{refused}");
    assert!(!folder.path().join(KEY_FILE).exists(), "no key is made beside one that others may have");
    node.secrets.set_with_new_key("db", value("pa66"), Expect::Anything).await.unwrap();
    assert_eq!(opened(&node, "db").await.unwrap(), "pa66");
    node.stop().await;
}

#[tokio::test]
async fn a_key_file_that_is_removed_under_a_node_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    node.secrets.set("a", value("a"), Expect::Anything).await.unwrap();
    let (file, key) = (folder.path().join(KEY_FILE), node.secrets.secret("a").await.unwrap().unwrap().key);
    let before = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    node.secrets.set("b", value("b"), Expect::Anything).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert_eq!(node.secrets.secret("b").await.unwrap().unwrap().key, key);
    node.stop().await;
}

/// An operator mends a damaged file with the copy that he has, which is one of before the key was changed.
#[tokio::test]
async fn an_old_copy_of_the_key_file_takes_nothing_from_a_node_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (node, file) = (start(folder.path()), folder.path().join(KEY_FILE));
    node.secrets.set("a", value("a"), Expect::Anything).await.unwrap();
    let old = std::fs::read(&file).unwrap();
    node.secrets.rotate_key(false).await.unwrap();
    std::fs::write(&file, "x").unwrap();
    let refused = node.secrets.set("b", value("b"), Expect::Anything).await.unwrap_err().to_string();
    assert!(refused.contains("in memory still: remove"), "{refused}");
    std::fs::write(&file, &old).unwrap();
    node.secrets.set("b", value("b"), Expect::Anything).await.unwrap();
    node.stop().await;
    let node = start(folder.path());
    for name in ["a", "b"] {
        assert_eq!(opened(&node, name).await.unwrap(), name);
    }
    assert!(!node.secrets.key_file_is_at_fault() && !node.secrets.lacks_keys());
    node.stop().await;
}

#[tokio::test]
async fn a_key_file_that_is_damaged_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    node.secrets.set("db", value("pa55"), Expect::Anything).await.unwrap();
    let file = folder.path().join(KEY_FILE);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[1..]).unwrap();
    let refused = node.secrets.set("other", value("x"), Expect::Anything).await.unwrap_err();
    assert!(
        matches!(&refused, NotDone::Refused(Refusal::Conflict(why)) if why.contains("cannot be used")),
        "{refused}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), &whole[1..]);
    assert_eq!(node.secrets.list(None, 10).await.unwrap().len(), 1, "nothing was stored");
    node.stop().await;
}

#[tokio::test]
async fn another_key_seals_everything_nobody_notices_and_old_ones_go_when_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    for name in ["a", "b", "c"] {
        node.secrets.set(name, value(name), Expect::Anything).await.unwrap();
    }
    let names = ["a", "b", "c"].map(str::to_owned).into();
    let ids = node.secrets.here.value_ids(&names).await.unwrap();
    let first = node.secrets.secret("a").await.unwrap().unwrap().key;

    let done = node.secrets.rotate_key(false).await.unwrap();
    assert_eq!((done.resealed, &done.kept, done.forgotten), (3, &vec![first.clone()], 0));
    for secret in node.secrets.list(None, 10).await.unwrap() {
        assert!(secret.key == done.key && secret.key != first && secret.opens_here, "{secret:?}");
        assert_eq!(opened(&node, &secret.name).await.unwrap(), secret.name);
    }
    assert_eq!(node.secrets.here.value_ids(&names).await.unwrap(), ids, "the values are the same");

    let again = node.secrets.rotate_key(true).await.unwrap();
    assert_eq!((again.resealed, again.forgotten, again.kept.len()), (3, 2, 0));
    assert_eq!(opened(&node, "c").await.unwrap(), "c");
    node.stop().await;
}

/// It was cut short when some secrets were sealed with the new key, and others not yet.
#[tokio::test]
async fn a_change_of_the_key_that_was_cut_short_goes_on_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    node.secrets.set("a", value("a"), Expect::Anything).await.unwrap();
    let begun = node.secrets.here.keys.change(SecretKeyFile::rotate).await.unwrap();
    // That nothing was sealed with it yet, nobody can tell from a node that was away: the old one seals on.
    node.secrets.set("b", value("b"), Expect::Anything).await.unwrap();
    assert_ne!(node.secrets.secret("b").await.unwrap().unwrap().key, begun.sealing().to_string());
    node.secrets.here.keys.change(move |file| file.prefer(begun.sealing())).await.unwrap();
    let keys = node.secrets.here.keys.known().unwrap();
    let bound = SealedFor::new_value(node.secrets.here.cluster_id, "c");
    node.secrets.put(put_of(&bound, keys.seal(&bound, &value("c")), None)).await.unwrap();

    let done = node.secrets.rotate_key(false).await.unwrap();
    assert_eq!((&done.key, done.resealed), (&keys.sealing().to_string(), 2));
    for name in ["a", "b", "c"] {
        assert_eq!(opened(&node, name).await.unwrap(), name);
    }
    assert_ne!(node.secrets.rotate_key(false).await.unwrap().key, done.key, "the next one draws another");
    node.stop().await;
}

#[tokio::test]
async fn with_sixteen_keys_another_one_is_drawn_when_old_ones_may_go() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    node.secrets.set("a", value("a"), Expect::Anything).await.unwrap();
    for _ in 1..vouch_secrets::SECRET_KEYS_MAX {
        node.secrets.rotate_key(false).await.unwrap();
    }
    let full = node.secrets.rotate_key(false).await.unwrap_err();
    assert!(matches!(&full, NotDone::Refused(Refusal::Conflict(why)) if why.contains("16 keys")), "{full}");
    let done = node.secrets.rotate_key(true).await.unwrap();
    assert_eq!((done.forgotten, done.kept.len(), done.with_old.len()), (16, 0, 0));
    assert_eq!(opened(&node, "a").await.unwrap(), "a");
    node.stop().await;
}

const OTHER: NodeId = NodeId(2);

/// What one node does with the keys of another, without the connections between them.
fn exchange(folder: &Path, named: &[[u8; 8]], secured: bool) -> KeyExchange {
    let addresses = Some(vouch_cluster::NodeAddresses { peer: "h:1".to_owned(), grpc: String::new() });
    let joined = vouch_cluster::ClusterNode {
        addresses,
        invitation: None,
        votes_at_once: false,
        is_leaving: false,
        replaces: None,
    };
    let nodes = vouch_cluster::ClusterNodes { nodes: [(OTHER, joined)].into(), last: OTHER };
    let members = vouch_cluster::GroupMembers::voters([NodeId(1), OTHER]);
    let (_, leads) = tokio::sync::watch::channel(None);
    let (_, belongs) = tokio::sync::watch::channel(vouch_shard::WhoBelongs { members, nodes, ..Default::default() });
    let (_, named) = tokio::sync::watch::channel(named.iter().copied().collect());
    let keys = Arc::new(NodeKeys::of(folder.join(KEY_FILE)));
    KeyExchange::new(keys, Arc::new(Leaders::new(NodeId(1), leads, None)), belongs, named, Some(secured))
}

fn taken(keys: &SecretKeys, leads: bool, only: bool) -> KeysTaken {
    KeysTaken { take: KeysOnTheWay(bytes::Bytes::copy_from_slice(&keys.to_file())), leads, only }
}

async fn given(exchange: &KeyExchange) -> SecretKeys {
    let keys = exchange.answer(OTHER, KeysTaken::default()).await.unwrap();
    SecretKeys::of_file(&keys.0).unwrap()
}

#[tokio::test]
async fn which_key_seals_is_said_by_a_change_of_the_key_and_no_key_is_lost_for_one_that_comes() {
    let folder = tempfile::tempdir().unwrap();
    let exchange = exchange(folder.path(), &[], true);
    assert_eq!(exchange.answer(OTHER, KeysTaken::default()).await.unwrap(), KeysOnTheWay::default());
    assert!(!folder.path().join(KEY_FILE).exists(), "who only asks makes none");
    let (own, old, new) = (SecretKeys::draw(), SecretKeys::draw(), SecretKeys::draw());
    exchange.answer(OTHER, taken(&own, false, false)).await.unwrap();
    exchange.answer(OTHER, taken(&old, false, false)).await.unwrap();
    assert_eq!(given(&exchange).await, own.and(&old).unwrap(), "that of a node that was away goes behind");
    exchange.answer(OTHER, taken(&new, true, false)).await.unwrap();
    assert_eq!(given(&exchange).await, new.and(&own).unwrap().and(&old).unwrap());
    let torn = KeysOnTheWay(taken(&SecretKeys::draw(), false, false).take.0.slice(1..));
    let refused =
        exchange.answer(OTHER, KeysTaken { take: torn, ..KeysTaken::default() }).await.unwrap_err().to_string();
    assert!(refused.contains("no keys came"), "{refused}");
    assert_eq!(given(&exchange).await.ids().count(), 3);
}

#[tokio::test]
async fn a_key_is_not_forgotten_that_a_secret_needs_or_with_which_something_is_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let (old, needed, unsure, new) = (SecretKeys::draw(), SecretKeys::draw(), SecretKeys::draw(), SecretKeys::draw());
    let exchange = exchange(folder.path(), &[needed.sealing().0], true);
    for keys in [&old, &needed, &unsure] {
        exchange.answer(OTHER, taken(keys, true, false)).await.unwrap();
    }
    let [first, second] = [(), ()].map(|()| exchange.goes_out(unsure.sealing().0));
    first.decided();
    let sealing = exchange.seals().await;
    let there = exchange.answer(OTHER, taken(&new, true, true)).await.unwrap();
    assert_eq!(SecretKeys::of_file(&there.0).unwrap().ids().count(), 4, "while something is sealed here, none goes");
    drop(sealing);
    exchange.answer(OTHER, taken(&new, true, true)).await.unwrap();
    assert_eq!(given(&exchange).await, new.and(&unsure).unwrap().and(&needed).unwrap());
    second.decided();
    exchange.answer(OTHER, taken(&new, true, true)).await.unwrap();
    assert_eq!(given(&exchange).await, new.and(&needed).unwrap());
}

#[tokio::test]
async fn without_certificates_and_to_who_does_not_belong_no_key_is_given_and_none_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let insecure = exchange(folder.path(), &[], false);
    let keys = SecretKeys::draw();
    let refused = insecure.answer(OTHER, taken(&keys, false, false)).await.unwrap_err().to_string();
    assert!(refused.contains("--peer-insecure") && !folder.path().join(KEY_FILE).exists(), "{refused}");
    let secured = exchange(folder.path(), &[], true);
    let refused = secured.answer(NodeId(9), taken(&keys, false, false)).await.unwrap_err().to_string();
    assert!(refused.contains("node 9 does not belong") && !folder.path().join(KEY_FILE).exists(), "{refused}");
}

#[tokio::test]
async fn what_another_node_lacks_is_known_until_it_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let exchange = exchange(folder.path(), &[], true);
    for (lacks, node) in [(true, 2), (true, 2), (false, 2), (false, 3)] {
        exchange.told(NodeId(node), lacks);
        assert_eq!(exchange.lack_there(NodeId(node)), lacks);
    }
}

#[tokio::test]
async fn a_node_without_others_gives_and_takes_no_keys() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    let refused = node.secrets.exchange_keys(OTHER, KeysTaken::default()).await.unwrap_err().to_string();
    assert!(refused.contains("no certificates"), "{refused}");
    node.stop().await;
}

#[test]
fn what_is_no_text_or_was_not_opened_is_said_by_its_name() {
    let opened = OpenedSecrets::of([("text", b"pa55".to_vec()), ("bytes", vec![0xff])]);
    assert_eq!((opened.text("text").unwrap(), opened.texts().collect::<Vec<_>>()), ("pa55", vec!["pa55"]));
    let no_text = opened.text("bytes").unwrap_err().to_string();
    assert!(no_text.contains("secret bytes is no text"), "{no_text}");
    assert!(opened.text("other").unwrap_err().to_string().contains("secret other was not opened"));
    assert!(!format!("{opened:?}").contains("pa55"));
}
