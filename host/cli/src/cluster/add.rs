//! `vouch cluster add` and `vouch cluster replace`: an id and a token for a node that is to come, and what to run on its machine.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;
use vouch_node::ClusterToken;

use super::{ids, majority};
use crate::failure::WrongUsage;
use crate::http::HttpArgs;
use crate::output;

/// Gets a token for a node that is to come so, and writes it to a file that only its owner may read.
///
/// # Errors
/// The file is there already or cannot be written, or the node refuses.
pub(super) fn add(file: &Path, how: &Value, http: &HttpArgs) -> anyhow::Result<()> {
    // Looked at first: an id that was given for nothing is a line in the cluster's status for a day.
    check_place(file)?;
    let answer = http.client()?.post("/v1/cluster/nodes", how)?;
    let mut added = answer.body;
    let token = ClusterToken::of_document(&added["token"])
        .map_err(|why| anyhow::anyhow!("the node answered with what is no token: {why}"))?;
    let node = token.node();
    token.write(file).with_context(|| {
        format!("node {node} was added, and its token is lost; take it back with `vouch cluster remove {node}`, and try again")
    })?;
    if http.json {
        let document = added.as_object_mut().context("the node's answer is an object")?;
        document.remove("token");
        document.insert("token_file".to_owned(), file.display().to_string().into());
        return Ok(output::json(&added)?);
    }
    Ok(output::line(next(&added, file))?)
}

/// # Errors
/// Something is at the place of the file, which may be somebody's only copy; or the folder is not there.
fn check_place(file: &Path) -> anyhow::Result<()> {
    let shown = file.display();
    if file.symlink_metadata().is_ok() {
        return Err(WrongUsage::error(format!("{shown} is there already, and is not written over; name another file")));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() {
        return Ok(());
    }
    Err(WrongUsage::error(format!("{shown} is in no folder; make {} first, or name another file", folder.display())))
}

/// What to do now.
fn next(added: &Value, file: &Path) -> String {
    let (node, shown) = (&added["node"], file.display());
    let secured = added["tls"].as_bool().unwrap_or_default();
    let certificate = match secured {
        true => format!(
            "Make its certificate where the authority is, and copy those three files, too:\n  vouch cluster certificates --ca-dir \
             DIR --node {node} --address HOST --cluster {}\n",
            added["token"]["cluster"].as_str().unwrap_or_default()
        ),
        false => String::new(),
    };
    let security = match secured {
        true => "--peer-certificate node.pem --peer-key node-key.pem --peer-ca authority.pem",
        false => "--peer-insecure",
    };
    let join = added["join"].as_str().unwrap_or("HOST:PORT");
    format!(
        "node {node} may come within a day, with the token in {shown}. Whoever has that file may come in its place.\n\
         {certificate}Copy it to the new machine, and run there, with HOST for the name under which others reach that machine:\n  \
         vouch serve --data-dir DIR --peer-addr 0.0.0.0:8090 --peer-advertise HOST:8090 {security} --join {join} --token-file {shown}\n\
         {}.",
        then(added)
    )
}

/// Who decides when the node has come.
fn then(added: &Value) -> String {
    let voters: Vec<u64> = added["voters"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let decide = majority(added);
    if let Some(old) = added["replaces"].as_u64() {
        return format!(
            "When it has the log it takes the place of node {old}, which may run until then or not: {decide}"
        );
    }
    match added["node"].as_u64() {
        Some(node) if voters.contains(&node) => format!("When it has the log it votes: {decide}"),
        _ => format!(
            "It gets the log, and does not vote until another node has come, since {} voters bear no more losses than {}: until \
             then {decide}",
            voters.len() + 1,
            if voters.len() == 1 { "one".to_owned() } else { format!("nodes {}", ids(&voters)) },
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::http::fake::FakeNode;

    fn added(voters: &[u64], tls: bool) -> Value {
        let token = json!({
            "version": 1, "cluster": "ab".repeat(16), "node": 2, "segment_size": 4_194_304, "secret": "07".repeat(32),
        });
        let majority = voters.len() / 2 + 1;
        json!({"node": 2, "token": token, "join": "10.0.0.1:8090", "tls": tls, "voters": voters, "majority": majority})
    }

    #[test]
    fn the_token_is_in_a_file_of_its_owners_alone_and_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.token");
        let node = FakeNode::answering(&[("201 Created", &added(&[1], false).to_string())]);
        add(&file, &json!({"two_voters": true}), &node.args(true)).unwrap();
        assert_eq!(node.asked()[0].body, r#"{"two_voters":true}"#);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ClusterToken::read(&file).unwrap().document(), added(&[1], false)["token"]);
        let again = add(&file, &json!({}), &node.args(false)).unwrap_err();
        assert!(again.is::<WrongUsage>() && again.to_string().contains("is not written over"), "{again}");
        let nowhere = add(&folder.path().join("none/f"), &json!({}), &node.args(false)).unwrap_err();
        assert!(nowhere.to_string().contains("is in no folder"), "{nowhere}");
        assert_eq!(node.asked().len(), 1, "nobody was asked");
    }

    #[test]
    fn what_to_run_on_the_new_machine_is_said_with_all_that_it_needs() {
        let plain = next(&added(&[1, 2, 3], false), Path::new("t"));
        assert!(plain.contains("--peer-insecure --join 10.0.0.1:8090 --token-file t\n"), "{plain}");
        assert!(plain.ends_with("votes: 2 of the 3 voters (1, 2, 3) must be there to decide."), "{plain}");
        assert!(!plain.contains("certificates"));
        let secured = next(&added(&[1], true), Path::new("t"));
        assert!(secured.contains(&format!("--node 2 --address HOST --cluster {}", "ab".repeat(16))), "{secured}");
        assert!(secured.contains("--peer-ca authority.pem"), "{secured}");
        assert!(
            secured.contains("does not vote until another node has come, since 2 voters bear no more losses than one")
        );
        let mut replaces = added(&[1, 3, 4], false);
        replaces["replaces"] = json!(2);
        let replaces = next(&replaces, Path::new("t"));
        assert!(
            replaces.contains("it takes the place of node 2, which may run until then or not: 2 of the 3"),
            "{replaces}"
        );
    }
}
