//! `vouch cluster status`: a sentence about the whole, and a line for each node.

use serde_json::Value;

use super::decide;
use crate::http::HttpArgs;
use crate::output::{self, TextTable, cell};

/// Prints how the cluster is, as the node that is asked knows it.
pub(super) fn show(http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get("/v1/cluster")?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let cluster = &answer.body;
    output::line(summary(cluster))?;
    let mut table = TextTable::new(&["NODE", "ROLE", "VERSION", "PEER", "GRPC", ">DURABLE", ">LAG", "STATE"]);
    for node in nodes(cluster) {
        let lag = if node["id"] == cluster["leader"] { "-".to_owned() } else { cell(node, "lag_bytes") };
        let shown = ["id", "role", "version", "peer", "grpc", "durable"];
        let [id, role, version, peer, grpc, durable] = shown.map(|name| cell(node, name));
        table.row([id, role, version, peer, grpc, durable, lag, state(cluster, node)]);
    }
    table.print()?;
    for told in [more(cluster), unfinished(cluster), doubt(cluster)].into_iter().flatten() {
        output::line(told)?;
    }
    Ok(())
}

fn nodes(cluster: &Value) -> &[Value] {
    cluster["nodes"].as_array().map_or(&[], Vec::as_slice)
}

/// Who leads, and who decides.
fn summary(cluster: &Value) -> String {
    let voters: Vec<u64> = cluster["voters"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let majority = voters.len() as u64 / 2 + 1;
    let leads = match (&cluster["leader"], &cluster["term"]) {
        (Value::Null, Value::Null) => "its log is damaged and only read".to_owned(),
        (Value::Null, term) => format!("no node is known to lead in term {term}"),
        (leader, term) => format!("node {leader} leads in term {term}"),
    };
    format!("cluster {}: {leads}; {}", cell(cluster, "id"), decide(&voters, majority))
}

/// How a node is, in a few words, and what it is to become.
fn state(cluster: &Value, node: &Value) -> String {
    let is = now(cluster, node);
    match node["replaces"].as_u64() {
        Some(old) => format!("{is}; replaces node {old}"),
        None => is,
    }
}

fn now(cluster: &Value, node: &Value) -> String {
    let why = || match node["unreachable"].as_str() {
        Some(why) => format!(": {why}"),
        None => String::new(),
    };
    match (node["role"].as_str(), node["heard"].as_bool(), node["connected"].as_bool()) {
        _ if node["id"] == cluster["node"] => "this node".to_owned(),
        (Some("invited"), _, _) => format!("may come until {}", cell(node, "invited_until")),
        (_, Some(true), Some(false)) => format!("answers, not connected{}", why()),
        (_, Some(true), _) => "answers".to_owned(),
        (_, Some(false), _) => format!("does not answer{}", why()),
        (_, None, Some(true)) => "connected".to_owned(),
        (_, None, Some(false)) => format!("not connected{}", why()),
        (_, None, None) => "-".to_owned(),
    }
}

/// What a person should know who asked a node that does not lead.
fn more(cluster: &Value) -> Option<String> {
    let (asked, leader) = (cluster["node"].as_u64()?, &cluster["leader"]);
    match leader.as_u64() {
        Some(leader) if leader == asked => None,
        Some(leader) => {
            Some(format!("node {asked} answered; only node {leader}, which leads, knows how far the others are"))
        }
        None if cluster["term"].is_null() => Some(
            "a node alone is restored from a backup; one of several is removed, and a new one comes in its place"
                .to_owned(),
        ),
        None => Some("nothing can be written until a majority of the voters is there and one of them leads".to_owned()),
    }
}

/// That the node that is asked knows something else than another one, and nobody knows who is right.
fn doubt(cluster: &Value) -> Option<String> {
    cluster["doubt"].as_str().map(ToOwned::to_owned)
}

/// That an upgrade is not finished yet, as far as the node that is asked knows.
fn unfinished(cluster: &Value) -> Option<String> {
    let level = cluster["feature_level"].as_u64()?;
    let came = nodes(cluster).iter().filter(|node| node["role"] != "invited");
    // Of a node that does not say it nothing is known.
    let known: Vec<u64> = came.map(|node| node["feature_level"].as_u64().unwrap_or(level)).collect();
    match (known.iter().min()?, known.iter().max()?) {
        (_, newest) if *newest <= level => None,
        (oldest, newest) if *oldest > level => Some(format!(
            "the cluster is at feature level {level}, and all nodes know level {oldest} of at most {newest}: when none is to go back to the \
             version before, run: vouch cluster finish-upgrade"
        )),
        (_, newest) => Some(format!(
            "the cluster is at feature level {level}, and some nodes know level {newest}: an upgrade is under way, and each of them may still \
             go back"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sentence_says_who_leads_and_who_decides() {
        let of = |leader: Value, term: Value| {
            summary(&json!({"id": "ab", "leader": leader, "term": term, "voters": [1, 2, 3]}))
        };
        assert_eq!(
            of(json!(1), json!(7)),
            "cluster ab: node 1 leads in term 7; 2 of the 3 voters (1, 2, 3) must be there to decide"
        );
        assert!(of(Value::Null, json!(7)).contains("no node is known to lead in term 7"));
        assert!(of(Value::Null, Value::Null).contains("only read"));
    }

    #[test]
    fn the_state_of_a_node_is_what_is_known_of_it() {
        let cluster = json!({"node": 1, "leader": 1});
        for (node, told) in [
            (json!({"id": 1, "role": "leader"}), "this node"),
            (json!({"id": 2, "heard": true, "connected": true}), "answers"),
            (json!({"id": 2, "heard": true, "connected": false, "unreachable": "x"}), "answers, not connected: x"),
            (
                json!({"id": 2, "heard": false, "connected": false, "unreachable": "refused"}),
                "does not answer: refused",
            ),
            (json!({"id": 2, "connected": true}), "connected"),
            (json!({"id": 2, "connected": false}), "not connected"),
            (
                json!({"id": 4, "role": "invited", "invited_until": "2026-01-31T10:00:00Z"}),
                "may come until 2026-01-31T10:00:00Z",
            ),
            (json!({"id": 5, "role": "leaving"}), "-"),
            (json!({"id": 6, "heard": true, "connected": true, "replaces": 2}), "answers; replaces node 2"),
        ] {
            assert_eq!(state(&cluster, &node), told);
        }
    }

    #[test]
    fn an_upgrade_that_is_not_finished_is_told_and_when_it_can_be() {
        let told = |level: Value, nodes: Value| unfinished(&json!({"feature_level": level, "nodes": nodes}));
        let runs = |level: Value| json!({"role": "follower", "feature_level": level});
        assert_eq!(told(json!(2), json!([runs(json!(2)), runs(Value::Null)])), None);
        assert_eq!(told(Value::Null, json!([runs(json!(2))])), None, "it only reads its log");
        let invited = json!({"role": "invited"});
        let all = told(json!(1), json!([runs(json!(2)), runs(json!(3)), invited])).unwrap();
        assert!(all.contains("level 2 of at most 3") && all.contains("vouch cluster finish-upgrade"), "{all}");
        for other in [Value::Null, json!(1)] {
            let some = told(json!(1), json!([runs(json!(2)), runs(other)])).unwrap();
            assert!(some.contains("some nodes know level 2: an upgrade is under way"), "{some}");
        }
    }

    #[test]
    fn what_is_in_doubt_is_told_in_the_words_of_the_node() {
        assert_eq!(doubt(&json!({"doubt": "it is not known yet"})).as_deref(), Some("it is not known yet"));
        assert_eq!(doubt(&json!({"node": 1})), None);
    }

    #[test]
    fn who_asks_a_follower_is_told_who_knows_more() {
        let told = |node: u64, leader: Value| more(&json!({"node": node, "leader": leader, "term": 3}));
        assert_eq!(told(1, json!(1)), None);
        assert_eq!(
            told(2, json!(1)).unwrap(),
            "node 2 answered; only node 1, which leads, knows how far the others are"
        );
        assert!(told(2, Value::Null).unwrap().contains("until a majority"));
    }
}
