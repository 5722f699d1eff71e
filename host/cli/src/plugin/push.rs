//! Putting components under tags.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::reference::{ComponentReference, Version, path, tag_path};
use super::shown::described;
use crate::failure::{ProblemAnswer, WrongUsage};
use crate::http::{HttpAnswer, HttpArgs, HttpClient, segment};
use crate::output;

/// Uploads a file, and prints what the node found in it.
///
/// # Errors
/// [`WrongUsage`]: the reference has a digest, which is not for the uploader to say. The file cannot be read, or the
/// node refuses it.
pub(super) fn push(reference: &ComponentReference, file: &Path, replace: bool, http: &HttpArgs) -> anyhow::Result<()> {
    let Version::Tag(tag) = &reference.version else {
        return Err(WrongUsage::error("a component is pushed under a tag, NAME:TAG; the node computes its digest"));
    };
    let bytes = std::fs::read(file).with_context(|| format!("cannot read the component {}", file.display()))?;
    let (answer, moved) = put_tag(&http.client()?, &reference.name, tag, bytes, replace)?;
    print_verdict(http, &answer, moved, &format!("{}:{tag}", reference.name))
}

/// Puts a component under a tag. The node refuses to move a tag that names another one, unless `replace`.
/// Returns its verdict, and whether the tag named another one before.
///
/// # Errors
/// The tag names another component and `replace` is not set, or somebody moved it meanwhile; or the node refuses the
/// component.
pub(crate) fn put_tag(
    client: &HttpClient,
    name: &str,
    tag: &str,
    bytes: Vec<u8>,
    replace: bool,
) -> anyhow::Result<(HttpAnswer, bool)> {
    let path = tag_path(name, tag);
    let current = if replace { current_digest(client, &path)? } else { None };
    let mut headers = vec![("content-type", "application/wasm")];
    if let Some(etag) = &current {
        headers.push(("if-match", etag));
    }
    let answer = client.put_bytes(&path, bytes, &headers).map_err(|error| explain_taken(error, name, tag))?;
    let moved = current.is_some() && answer.etag != current;
    Ok((answer, moved))
}

/// The entity tag of what a plugin tag names now; `None` if there is no such tag.
fn current_digest(client: &HttpClient, path: &str) -> anyhow::Result<Option<String>> {
    match client.get(path) {
        Ok(answer) => Ok(answer.etag),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The HTTP status with which a node refused, if it did.
fn status(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<ProblemAnswer>().and_then(ProblemAnswer::status)
}

/// What the node's preconditions mean to a person: the tag is taken, or was moved just now.
fn explain_taken(error: anyhow::Error, name: &str, tag: &str) -> anyhow::Error {
    let error = ProblemAnswer::explain(error, 428, || {
        format!("{name}:{tag} names another component already; --replace moves the tag")
    });
    ProblemAnswer::explain(error, 412, || {
        format!("somebody else moved {name}:{tag} meanwhile; look at it, then try again")
    })
}

/// Puts another tag on a component that the node has. It is fetched and sent back, since the API takes a tag together with
/// the bytes that it names.
pub(super) fn retag(source: &ComponentReference, tag: &str, replace: bool, http: &HttpArgs) -> anyhow::Result<()> {
    let client = http.client()?;
    let digest = match &source.version {
        Version::Digest(digest) => digest.clone(),
        Version::Tag(_) => {
            let found = client.get(&source.path())?.body;
            found.get("digest").and_then(Value::as_str).context("the node's answer has no digest")?.to_owned()
        }
    };
    let bytes = client.get_bytes(&format!("{}/digests/{}", path(&source.name), segment(&digest)))?;
    let (answer, moved) = put_tag(&client, &source.name, tag, bytes, replace)?;
    print_verdict(http, &answer, moved, &format!("{}:{tag}", source.name))
}

/// What became of the tag, and what the component is.
fn print_verdict(http: &HttpArgs, answer: &HttpAnswer, moved: bool, reference: &str) -> anyhow::Result<()> {
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let what = match (answer.created, moved) {
        (true, _) => "pushed",
        (_, true) => "moved to another component",
        _ => "is up to date",
    };
    output::line(format_args!("{reference} {what}"))?;
    Ok(output::line(described(&answer.body))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fake::FakeNode;

    const TAKEN: (&str, &str) = ("428 Precondition Required", "{\"title\": \"x\", \"status\": 428}");
    const MOVED: (&str, &str) = ("412 Precondition Failed", "{\"title\": \"x\", \"status\": 412}");
    const GONE: (&str, &str) = ("404 Not Found", "{\"title\": \"x\", \"status\": 404}");

    fn put(node: &FakeNode, replace: bool) -> anyhow::Result<(HttpAnswer, bool)> {
        put_tag(&node.args(false).client().unwrap(), "check", "1.0", b"wasm".to_vec(), replace)
    }

    #[test]
    fn a_tag_that_is_taken_is_moved_only_where_that_is_asked_for() {
        let node = FakeNode::answering(&[TAKEN]);
        let told = put(&node, false).map(|_| ()).unwrap_err().to_string();
        assert_eq!(told, "check:1.0 names another component already; --replace moves the tag");
        assert_eq!(node.lines(), ["PUT /v1/plugins/check/tags/1.0"], "what it names is not asked for");

        let node = FakeNode::answering(&[("200 OK\r\netag: \"old\"", "{}"), ("200 OK\r\netag: \"new\"", "{}")]);
        let (_, moved) = put(&node, true).unwrap();
        assert!(moved && node.asked()[1].headers.contains(&"if-match: \"old\"".to_owned()), "{:?}", node.asked());
    }

    #[test]
    fn a_tag_that_somebody_else_moves_meanwhile_stays_theirs() {
        let node = FakeNode::answering(&[("200 OK\r\netag: \"old\"", "{}"), MOVED]);
        let told = put(&node, true).map(|_| ()).unwrap_err().to_string();
        assert_eq!(told, "somebody else moved check:1.0 meanwhile; look at it, then try again");
    }

    #[test]
    fn a_tag_that_is_new_or_names_the_same_is_not_called_moved() {
        let node = FakeNode::answering(&[GONE, ("201 Created\r\netag: \"new\"", "{}")]);
        let (answer, moved) = put(&node, true).unwrap();
        assert!(answer.created && !moved);
        assert!(!node.asked()[1].headers.iter().any(|header| header.starts_with("if-match")));
        let same = ("200 OK\r\netag: \"same\"", "{}");
        assert!(!put(&FakeNode::answering(&[same, same]), true).unwrap().1);
    }

    #[test]
    fn a_component_is_not_pushed_under_a_digest_of_the_uploaders_making() {
        let reference = ComponentReference::parse("check@sha256:ab").unwrap();
        let error =
            push(&reference, Path::new("/none.wasm"), false, &FakeNode::answering(&[]).args(false)).unwrap_err();
        assert!(error.is::<WrongUsage>(), "{error}");
        let reference = ComponentReference::parse("check:1.0").unwrap();
        let error =
            push(&reference, Path::new("/none.wasm"), false, &FakeNode::answering(&[]).args(false)).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the component /none.wasm");
    }
}
