//! Who comes to a cluster and who leads it, as a node alone answers: the rest is tested with real nodes, by the command line.

use serde_json::json;

use crate::api::Api;

#[tokio::test]
async fn a_node_alone_says_what_is_missing_for_others_to_come_and_who_leads() {
    let api = Api::start().await;
    let no_address = api.post("/v1/cluster/nodes", json!({})).await.expect_problem(409, "conflict");
    assert!(no_address["detail"].as_str().unwrap().contains("--peer-addr"), "{no_address}");
    let wrong = api.post("/v1/cluster/nodes", json!({"voters": 2})).await.expect_problem(422, "invalid");
    assert!(wrong["detail"].as_str().unwrap().contains("two_voters"), "{wrong}");
    for (wrong, says) in [
        (json!({"replaces": 1, "two_voters": true}), "leave out"),
        (json!({"by": "ann"}), "name that one as \"replaces\""),
        (json!({"replaces": 1, "by": "x".repeat(257)}), "at most 256 bytes"),
        (json!({"replaces": 1, "reason": "x".repeat(4097)}), "at most 4096 bytes"),
    ] {
        let problem = api.post("/v1/cluster/nodes", wrong).await.expect_problem(422, "invalid");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    let replaced = json!({"replaces": 1, "by": "ann", "reason": "old"});
    api.post("/v1/cluster/nodes", replaced).await.expect_problem(409, "conflict");

    let last = api.delete("/v1/cluster/nodes/1").await.expect_problem(409, "conflict");
    assert!(last["detail"].as_str().unwrap().contains("node 1 is the last that votes"), "{last}");
    api.delete("/v1/cluster/nodes/1?force=true&by=op&reason=old").await.expect_problem(409, "conflict");
    let unknown = api.delete("/v1/cluster/nodes/7").await.expect_problem(404, "not-found");
    assert!(unknown["detail"].as_str().unwrap().contains("vouch cluster status"), "{unknown}");
    api.delete("/v1/cluster/nodes/one").await.expect_problem(400, "malformed");
    let long = format!("/v1/cluster/nodes/1?by={}", "x".repeat(257));
    api.delete(&long).await.expect_problem(400, "bad-parameter");

    assert_eq!(api.post("/v1/cluster/leader", json!({"node": 1})).await.is(200).json(), json!({"leader": 1}));
    let other = api.post("/v1/cluster/leader", json!({"node": 7})).await.expect_problem(404, "not-found");
    assert!(other["detail"].as_str().unwrap().contains("node 7 does not vote"), "{other}");
    let nobody = api.post("/v1/cluster/leader", json!({})).await.expect_problem(409, "conflict");
    assert!(nobody["detail"].as_str().unwrap().contains("no other node votes"), "{nobody}");
}
