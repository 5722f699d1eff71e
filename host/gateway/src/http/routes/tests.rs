//! The committed description and the table of routes say the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::http::root::OPENAPI;

/// What a document, or the table, says about one method of one path.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    query: BTreeSet<String>,
    names: BTreeSet<String>,
    body: Option<String>,
    conditional: bool,
}

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// The object that a `$ref` leads to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(to) => document.pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{to} leads nowhere")),
        None => value,
    }
}

fn documented() -> BTreeMap<(String, String), Said> {
    let document = document();
    let mut said = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let parameters: Vec<_> = parameters.map(|parameter| resolved(&document, parameter)).collect();
            let of = |kind| {
                let parameters = parameters.iter().filter(move |parameter| parameter["in"] == kind);
                parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
            };
            let body = operation["requestBody"]["content"].as_object();
            let body = body.map(|content| content.keys().cloned().collect::<Vec<_>>().join(", "));
            let conditional = of("header") == BTreeSet::from(["If-Match".to_owned(), "If-None-Match".to_owned()]);
            assert!(operation["responses"]["default"].is_object(), "{method} {path} says how it fails");
            let what = Said { query: of("query"), names: of("path"), body, conditional };
            said.insert((path.clone(), method.to_uppercase()), what);
        }
    }
    said
}

fn mounted() -> BTreeMap<(String, String), Said> {
    let names = |path: &str| {
        let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        names.map(str::to_owned).collect()
    };
    let said = |route: &HttpRoute| Said {
        query: route.query.iter().map(ToString::to_string).collect(),
        names: names(route.path),
        body: route.body.map(|media| media.content_type().to_owned()),
        conditional: route.conditional,
    };
    ROUTES.iter().map(|route| ((route.path.to_owned(), route.method.to_owned()), said(route))).collect()
}

#[test]
fn the_description_lists_every_route_and_nothing_else() {
    let (documented, mounted) = (documented(), mounted());
    assert_eq!(mounted.len(), ROUTES.len(), "no route is twice in the table");
    let keys = |said: &BTreeMap<_, _>| said.keys().cloned().collect::<BTreeSet<(String, String)>>();
    assert_eq!(keys(&documented), keys(&mounted));
    for (route, said) in &mounted {
        assert_eq!(documented.get(route), Some(said), "{route:?}");
    }
}

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    fn walk(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                resolved(document, value);
                members.values().for_each(|member| walk(document, member));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(document, item)),
            _ => {}
        }
    }
    let document = document();
    assert_eq!(
        (document["openapi"].as_str(), document["info"]["version"].as_str()),
        (Some("3.1.0"), Some(env!("CARGO_PKG_VERSION")))
    );
    walk(&document, &document);
}

#[test]
fn no_write_has_a_body_that_a_web_page_can_send_unasked() {
    const SIMPLE: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];
    for route in ROUTES {
        match route.method {
            // A page has to ask before it sends one of these methods.
            "DELETE" | "PUT" | "PATCH" | "GET" => {}
            "POST" => {
                assert!(route.body.is_some_and(|media| !SIMPLE.contains(&media.content_type())), "{}", route.path)
            }
            other => panic!("{other} {}", route.path),
        }
    }
}
