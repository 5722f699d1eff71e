//! Searches against a model and a full walk, on a random history.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vouch_broker::{NewMessage, QueueOffset, TransactionId, TransactionOutcome};
use vouch_node::{MessageQuery, Node, Receipt};

use super::{all, by_id, by_key, end, files, indexed, often, padded, query, read, since, started, texts};
use crate::common::{half, message, prepare, receive_now, send, topic};

/// A message of the model: its number in the order of sending, its id and its keys.
#[derive(Clone)]
struct Sent {
    number: u64,
    id: String,
    keys: Vec<String>,
}

/// What should be found, by topic.
#[derive(Default)]
struct Model {
    /// In queues, by place.
    stored: BTreeMap<(u32, QueueOffset), Sent>,
    open: Vec<(TransactionId, Sent)>,
}

impl Model {
    /// Numbers of what has an id or key, newest first.
    fn named(&self, named: impl Fn(&Sent) -> bool) -> Vec<String> {
        let all = self.stored.values().chain(self.open.iter().map(|(_, sent)| sent));
        let mut numbers: Vec<u64> = all.filter(|sent| named(sent)).map(|sent| sent.number).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.iter().map(u64::to_string).collect()
    }
}

const TOPICS: [&str; 2] = ["a", "b"];
const IDS: usize = 40;
const KEYS: usize = 8;

async fn make(node: &Node, name: &str) -> Model {
    topic(node, name, r#"{"type":"mixed","queues":3,"transaction":{"immunity":"1h"}}"#).await;
    Model::default()
}

/// One random thing that changes what is found.
async fn step(node: &Node, rng: &mut StdRng, models: &mut [Model; 2], number: u64) {
    let at = rng.random_range(0..2);
    let (name, model) = (TOPICS[at], &mut models[at]);
    let keys: Vec<String> = (0..rng.random_range(0..4)).map(|_| format!("k{}", rng.random_range(0..KEYS))).collect();
    let sent = Sent { number, id: format!("i{}", rng.random_range(0..IDS)), keys };
    let body = padded(&number.to_string(), rng.random_range(100..12_000));
    match rng.random_range(0..100) {
        0..70 => {
            let message = NewMessage { keys: sent.keys.clone(), ..message(&sent.id, &body) };
            let Receipt::Stored { queue, offset } = send(node, name, message).await else { panic!("not stored") };
            model.stored.insert((queue, offset), sent);
        }
        70..85 => {
            let message = NewMessage { keys: sent.keys.clone(), ..half(&sent.id, &body) };
            model.open.push((prepare(node, name, message).await, sent));
        }
        85..99 => {
            if !model.open.is_empty() {
                let (transaction, sent) = model.open.remove(rng.random_range(0..model.open.len()));
                if rng.random_bool(0.7) {
                    end(node, transaction, TransactionOutcome::Committed).await;
                    let view = node.search.by_id(name, &sent.id).await.unwrap().into_iter();
                    let mut own = view.filter(|view| texts(std::slice::from_ref(view)) == [sent.number.to_string()]);
                    model.stored.insert(own.next().unwrap().place.expect("it is in a queue"), sent);
                } else {
                    end(node, transaction, TransactionOutcome::RolledBack).await;
                }
            }
        }
        _ => {
            node.settings.delete_topic(name, true).await.unwrap();
            *model = make(node, name).await;
        }
    }
}

/// Every search gives what the model has, and what a consumer gets is what the model has, too.
async fn agree(node: &Node, rng: &mut StdRng, models: &[Model; 2], round: usize) {
    for (name, model) in TOPICS.iter().zip(models) {
        for n in 0..=IDS {
            let id = format!("i{n}");
            assert_eq!(by_id(node, name, &id).await, model.named(|sent| sent.id == id), "{name} {id}");
        }
        for n in 0..=KEYS {
            let key = format!("k{n}");
            let expected = model.named(|sent| sent.keys.contains(&key));
            assert_eq!(by_key(node, name, &key, rng.random_range(1..30)).await, expected, "{name} {key}");
        }
        let mut walked = receive_now(node, name, &format!("g{round}")).await;
        walked.sort_by_key(|delivery| (delivery.queue, delivery.offset));
        let place = |delivery: &vouch_node::Delivery| (delivery.queue, delivery.offset);
        assert!(walked.iter().map(place).eq(model.stored.keys().copied()), "the model itself");
        let times: Vec<u64> = walked.iter().map(|delivery| delivery.message.stored_at.0).collect();
        let earliest = times.iter().min().copied().unwrap_or(0);
        let latest = times.iter().max().copied().unwrap_or(0);
        for from in [0, earliest + 1, rng.random_range(earliest..=latest), latest, latest + 1] {
            let listed = since(node, name, from, rng.random_range(1..50)).await;
            let mut places: Vec<_> = listed.iter().map(|view| view.place.unwrap()).collect();
            for queue in 0..3 {
                let offsets = places.iter().filter(|place| place.0 == queue).map(|place| place.1);
                assert!(offsets.is_sorted(), "a queue is listed in its order");
            }
            places.sort_unstable();
            let expected = walked.iter().filter(|delivery| delivery.message.stored_at.0 >= from).map(place);
            assert!(places.into_iter().eq(expected), "{name} since {from}");
            let key = format!("k{}", rng.random_range(0..KEYS));
            let query = MessageQuery { key: Some(key.clone()), since_ms: Some(from), ..query(name, 3) };
            let found: BTreeSet<_> = all(node, query).await.iter().filter_map(|view| view.place).collect();
            let late = walked.iter().filter(|delivery| delivery.message.stored_at.0 >= from);
            let expected: BTreeSet<_> = late.filter(|it| it.message.message.keys.contains(&key)).map(place).collect();
            assert_eq!(found, expected, "{name} {key} since {from}");
        }
    }
}

#[tokio::test]
async fn every_search_agrees_with_a_full_walk_on_a_random_history() {
    let seed = std::env::var("VOUCH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("VOUCH_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut node = started(often(folder.path())).await;
    let mut models = [make(&node, TOPICS[0]).await, make(&node, TOPICS[1]).await];
    let (mut used, mut number) = (0, 0);
    for round in 0..6 {
        for _ in 0..120 {
            step(&node, &mut rng, &mut models, number).await;
            number += 1;
        }
        agree(&node, &mut rng, &models, round).await;
        used = used.max(read(&node.status.lookup().files));
        if rng.random_bool(0.4) {
            node.stop().await;
            drop(node);
            let mut all: Vec<PathBuf> = files(folder.path()).into_keys().collect();
            if !all.is_empty() {
                let path = all.swap_remove(rng.random_range(0..all.len()));
                let mut bytes = fs::read(&path).unwrap();
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1;
                if rng.random_bool(0.5) { fs::write(path, bytes).unwrap() } else { fs::remove_file(path).unwrap() }
            }
            node = started(often(folder.path())).await;
            if rng.random_bool(0.5) {
                indexed(&node).await;
            }
            agree(&node, &mut rng, &models, round + 100).await;
        }
    }
    assert!(used > 1, "the index was used");
    node.stop().await;
}
