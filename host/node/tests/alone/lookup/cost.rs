//! What the index costs and saves.

use std::time::{Duration, Instant};

use vouch_broker::ResourceName;
use vouch_node::{MessageQuery, Node, SendRequest};

use super::{indexed, never, query, read, started, with_keys};
use crate::common::topic;

/// The mean times of searches by id, by key and by time (a page of 100 from the middle on).
async fn search_times(node: &Node, messages: usize) -> [Duration; 3] {
    const SEARCHES: usize = 20;
    let mut means = [Duration::ZERO; 3];
    let middle = node.search.by_id("t", &format!("m{}", messages / 2)).await.unwrap()[0].message.stored_at.0;
    for n in (0..SEARCHES).map(|n| n * messages / SEARCHES) {
        let began = Instant::now();
        assert_eq!(node.search.by_id("t", &format!("m{n}")).await.unwrap().len(), 1);
        means[0] += began.elapsed();
        let began = Instant::now();
        let key = MessageQuery { key: Some(format!("k{n}")), ..query("t", 100) };
        assert_eq!(node.search.list(key).await.unwrap().messages.len(), 1);
        means[1] += began.elapsed();
        let began = Instant::now();
        let late = MessageQuery { since_ms: Some(middle), ..query("t", 100) };
        assert_eq!(node.search.list(late).await.unwrap().messages.len(), 100);
        means[2] += began.elapsed();
    }
    means.map(|sum| sum / SEARCHES as u32)
}

#[tokio::test]
#[ignore = "a measurement: cargo test --release -p vouch-node --test alone -- --ignored --nocapture"]
async fn what_the_index_costs_and_saves() {
    const MESSAGES: usize = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let node = started(never(folder.path())).await;
    topic(&node, "t", "{}").await;
    for first in (0..MESSAGES).step_by(1000) {
        let messages = (first..first + 1000).map(|n| with_keys(&format!("m{n}"), &[&format!("k{n}")], 200)).collect();
        let topic = ResourceName::plain("t");
        node.messages.send(SendRequest { topic, producer: "p".to_owned(), messages }).await.unwrap();
    }
    println!("by id, key, time without the index: {:?}", search_times(&node, MESSAGES).await);
    node.stop().await;
    drop(node);
    let node = started(never(folder.path())).await;
    let began = Instant::now();
    indexed(&node).await;
    let (took, log) = (began.elapsed(), node.status.numbers().await.unwrap().appended);
    println!("made in {took:?}: {} bytes for {log} bytes of log", read(&node.status.lookup().bytes));
    println!("by id, key, time with the index: {:?}", search_times(&node, MESSAGES).await);
    node.stop().await;
}
