//! What a component may say of its config, and which configs fit it.

use super::*;

const FENCED: &str = r#"[
    {"name": "url", "type": "url", "required": true},
    {"name": "fence", "values": ["on", "off"]},
    {"name": "fence-after", "type": "duration", "needs": ["fence"]},
    {"name": "token", "type": "duration"}
]"#;

/// What `http-checkback` says, in short.
const ASKING: &str = r#"[
    {"name": "url", "type": "request-url", "required": true, "variables": ["key", "id", "property.*"]},
    {"name": "field", "type": "json-pointer"},
    {"name": "commit", "type": "list", "required": true, "apart-from": ["rollback"], "when": [
        {"unset": ["field"], "type": "status-list"}, {"unset": ["field"], "set": ["after"], "never": ["404"]}]},
    {"name": "rollback", "type": "list"},
    {"name": "after", "type": "duration"},
    {"name": "authorization", "type": "header"}
]"#;

fn checked_by(declared: &str, config: &[(&str, &str)]) -> Result<(), String> {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let grants = ["http://h", "https://h:1", "http://127.0.0.1:9000", "http://[::1]:9", "http://xn--mller-kva.de"];
    let grants = grants.map(|origin| HttpGrant { origin: origin.parse().unwrap(), private: false });
    DeclaredConfig::parse(declared.as_bytes()).unwrap().check(&config, &grants)
}

fn checked(config: &[(&str, &str)]) -> Result<(), String> {
    checked_by(FENCED, config)
}

/// A config that can work, but for these.
fn asking(entries: &[(&str, &str)]) -> Result<(), String> {
    let good = [("url", "http://h/{key}"), ("field", "/status"), ("commit", "paid")];
    let kept = good.into_iter().filter(|(name, _)| !entries.iter().any(|(other, _)| other == name));
    let config: Vec<_> = kept.chain(entries.iter().copied()).filter(|(_, value)| *value != "(absent)").collect();
    checked_by(ASKING, &config)
}

#[test]
fn a_config_that_fits_is_taken() {
    for url in ["http://h", "https://h:1/{key}?a={id}", "http://[::1]:9/x", "HTTP://127.0.0.1"] {
        assert_eq!(checked(&[("url", url)]), Ok(()), "{url}");
    }
    for after in ["0s", "500ms", "30 s", " 2h ", "1d"] {
        assert_eq!(checked(&[("url", "http://h"), ("fence", "on"), ("fence-after", after)]), Ok(()), "{after}");
    }
}

#[test]
fn what_does_not_fit_is_named_with_what_to_do() {
    let url = ("url", "http://h");
    for (config, words) in [
        (vec![("ulr", "http://h")], "did you mean `url`?"),
        (vec![url, ("fnece-after", "1s")], "did you mean `fence-after`?"),
        (vec![url, ("colour", "red")], "It reads url, fence, fence-after, token"),
        (vec![], "`url` is missing"),
        (vec![("url", " ")], "`url` is missing"),
        (vec![("url", "h:1/x")], "write a URL"),
        (vec![("url", "ftp://h")], "write a URL"),
        (vec![("url", "http://{key}/x")], "write a URL"),
        (vec![url, ("fence", "maybe")], "one of on, off"),
        (vec![url, ("fence-after", "1s")], "without config `fence`"),
        (vec![url, ("fence", "on"), ("fence-after", "soon")], "`soon`; write a whole number"),
        (vec![url, ("fence", "on"), ("fence-after", "1")], "a whole number"),
        (vec![url, ("fence", "on"), ("fence-after", "18446744073709551615h")], "a whole number"),
    ] {
        let error = checked(&config).unwrap_err();
        assert!(error.contains(words), "{config:?}: {error}");
    }
    assert!(!checked(&[url, ("colour", "red")]).unwrap_err().contains("mean"));
    for (config, secret) in [(vec![url, ("token", "s3cret")], "s3cret"), (vec![("url", "ftp://u:pw@h")], "pw")] {
        assert!(!checked(&config).unwrap_err().contains(secret));
    }
}

#[test]
fn a_section_is_bounded_and_says_what_it_lists() {
    let one = |name: usize| format!(r#"{{"name":"{name}"}}"#);
    let list = |count: usize| format!("[{}]", (0..count).map(one).collect::<Vec<_>>().join(","));
    assert_eq!(DeclaredConfig::parse(list(MAX_SETTINGS).as_bytes()).unwrap().settings().len(), MAX_SETTINGS);
    let cases = |count: usize| format!(r#"[{{"name":"a","when":[{}]}}]"#, vec!["{}"; count].join(","));
    assert!(DeclaredConfig::parse(cases(MAX_CASES).as_bytes()).is_ok());
    let padded = |len: usize| format!("[]{}", " ".repeat(len - 2));
    assert!(DeclaredConfig::parse(padded(MAX_SECTION).as_bytes()).is_ok());
    for (section, words) in [
        (list(MAX_SETTINGS + 1), "129 settings"),
        (padded(MAX_SECTION + 1), "65537 bytes"),
        ("[][]".to_owned(), "cannot be read"),
        (r#"[{"name":"a","type":7}]"#.to_owned(), "cannot be read"),
        (r#"[{"name":"a","variables":"b"}]"#.to_owned(), "cannot be read"),
        (r#"[{"name":"a"},{"name":"a"}]"#.to_owned(), "`a`"),
        (r#"[{"name":""}]"#.to_owned(), "no name"),
        (r#"[{"name":"a","needs":["b"]}]"#.to_owned(), "`b`"),
        (r#"[{"name":"a","apart-from":["b"]}]"#.to_owned(), "`b`"),
        (r#"[{"name":"a","when":[{"set":["b"]}]}]"#.to_owned(), "`b`"),
        (r#"[{"name":"a","when":[{"unset":["b"]}]}]"#.to_owned(), "`b`"),
        (cases(MAX_CASES + 1), "17 cases"),
    ] {
        let error = DeclaredConfig::parse(section.as_bytes()).unwrap_err();
        assert!(error.contains(words) && error.contains(SECTION), "{error}");
    }
}

#[test]
fn what_a_component_can_work_with_is_taken() {
    let none: &[(&str, &str)] = &[];
    for config in [
        none,
        &[("url", "HTTP://H:80")],
        &[("url", "https://h:1?a={id}&b={property.x}&{property.a.b}")],
        &[("url", "http://127.1:9000/a%20b/%23")],
        &[("url", "http://[::1]:9/ä")],
        &[("field", ""), ("commit", "200, 404 ,499")],
        &[("field", "/a~1b/~0")],
        &[("field", "(absent)"), ("commit", "200"), ("rollback", "404,410")],
        &[("commit", "placed,404"), ("rollback", "open"), ("after", "1h")],
        &[("rollback", " ")],
        &[("authorization", "Bearer ä\tx")],
    ] {
        assert_eq!(asking(config), Ok(()), "{config:?}");
    }
}

#[test]
fn what_can_never_answer_is_named_with_what_to_do() {
    let status = ("field", "(absent)");
    for (config, words) in [
        (vec![("url", "h/{key}")], "write a URL with its host"),
        (vec![("url", "ftp://h/{key}")], "write a URL with its host"),
        (vec![("url", "//h/{key}")], "write a URL with its host"),
        (vec![("url", "http:///{key}")], "write a URL with its host"),
        (vec![("url", " http://h/{key}")], "write a URL with its host"),
        (vec![("url", "http://me:pw@h/{key}")], "has user or password in front of its host"),
        (vec![("url", "http://{key}/x")], "has {…} in its host"),
        (vec![("url", "http://h/#/{key}")], "has a #"),
        (vec![("url", "http://h#{key}")], "has a #"),
        (vec![("url", "http://h/a b")], "a blank as %20"),
        (vec![("url", "http://h/a\n")], "no URL that can be sent"),
        (vec![("url", "http://müller.de/")], "a host as the network knows it"),
        (vec![("url", "http://h:99999/")], "write a URL with its host"),
        (vec![("url", "http://h:9000/")], "asks http://h:9000, and the binding grants http://h, https://h:1"),
        (vec![("url", "https://h/")], "https://h, and the binding"),
        (
            vec![("url", "http://127.0.0.1/")],
            "and 2 more: every request would be denied; list that origin in grants.http",
        ),
        (vec![("url", "http://h/{kye}")], "has {kye}, which the component does not know (did you mean {key}?)"),
        (vec![("url", "http://h/{body}")], "it knows {key}, {id}, {property.NAME}"),
        (vec![("url", "http://h/{property.}")], "has {property.}"),
        (vec![("url", "http://h/{}")], "has {}"),
        (vec![("url", "http://h/{{key}}")], "has {{key}"),
        (vec![("url", "http://h/{key")], "a { without its }"),
        (vec![("url", "http://h/key}")], "a } without its {"),
        (vec![("field", "status")], "`status`; a JSON pointer begins with /"),
        (vec![("field", " ")], "begins with /"),
        (vec![("field", "/a~b")], "~0"),
        (vec![("commit", " , ")], "`commit` is missing"),
        (
            vec![("commit", "paid,open"), ("rollback", "x, open")],
            "`open` stands in both config `commit` and config `rollback`",
        ),
        (vec![status, ("commit", "200,placed")], "`placed`, which is no status code"),
        (vec![status, ("commit", "placed")], "or set config `field`"),
        (vec![status, ("commit", "503")], "`503`"),
        (vec![status, ("commit", "0200")], "`0200`"),
        (vec![status, ("commit", "200,404"), ("after", "1h")], "`404`"),
        (vec![status, ("commit", "404"), ("after", "1h")], "or set config `field`, or leave out config `after`"),
        (vec![("authorization", " ")], "is empty"),
        (vec![("authorization", "Bearer x\n")], "line end"),
    ] {
        let error = asking(&config).unwrap_err();
        assert!(error.contains(words), "{config:?}: {error}");
    }
}

#[test]
fn what_is_named_tells_no_secret() {
    for config in [
        [("url", "http://me:pa55word@h/{key}")],
        [("url", "ftp://me:pa55word@h/{key}")],
        [("url", "http://h/?token=x{pa55word}y")],
        [("url", "https://nobody/{key}?token=pa55word")],
        [("authorization", "pa55word\n")],
    ] {
        let error = asking(&config).unwrap_err();
        assert!(!error.contains("pa55word"), "{error}");
    }
    let passwords = r#"[{"name":"password","type":"list","apart-from":["other"],"when":[{"unset":["x"],"type":"status-list"}]},
        {"name":"other"},{"name":"x"}]"#;
    for config in [&[("password", "pa55word")][..], &[("password", "222,pa55word"), ("other", "222"), ("x", "1")]] {
        let error = checked_by(passwords, config).unwrap_err();
        assert!(!error.contains("pa55word") && !error.contains("222"), "{error}");
    }
}

#[test]
fn every_value_of_a_list_is_one_of_those_that_it_may_have() {
    let list = r#"[{"name":"days","type":"list","values":["mo","tu"]}]"#;
    assert_eq!(checked_by(list, &[("days", "mo, tu,")]), Ok(()));
    let error = checked_by(list, &[("days", "mo,we")]).unwrap_err();
    assert!(error.contains("has `we`; it must be one of mo, tu"), "{error}");
}

/// A component of tomorrow says more than this version knows.
#[test]
fn what_a_later_version_has_come_to_know_checks_nothing_and_is_kept() {
    let tomorrow = r#"[
        {"name": "count", "type": "number", "at-most": 7, "required": true},
        {"name": "a", "when": [{"beyond": 3, "never": ["x"]}, {"type": "moon-phase"}]}
    ]"#;
    assert_eq!(checked_by(tomorrow, &[("count", "many"), ("a", "x")]), Ok(()));
    assert!(checked_by(tomorrow, &[("a", "x")]).unwrap_err().contains("`count` is missing"), "what it knows it checks");
    let declared = DeclaredConfig::parse(tomorrow.as_bytes()).unwrap();
    let told = declared.unknown_to_this_version();
    let expected =
        ["`at-most` of `count`", "the type `number` of `count`", "`beyond` of `a`", "the type `moon-phase` of `a`"];
    assert!(told.len() == 4 && expected.iter().all(|what| told.iter().any(|told| told.contains(what))), "{told:?}");
    assert!(DeclaredConfig::parse(ASKING.as_bytes()).unwrap().unknown_to_this_version().is_empty());

    // The cache of compiled code gives it back to the version that knows it.
    for section in [tomorrow, ASKING, FENCED] {
        let declared = DeclaredConfig::parse(section.as_bytes()).unwrap();
        let again = serde_json::to_vec(&declared).unwrap();
        assert_eq!(DeclaredConfig::parse(&again).unwrap(), declared);
        assert_eq!(serde_json::from_slice::<DeclaredConfig>(&again).unwrap(), declared);
    }
    let written = serde_json::to_value(&declared).unwrap();
    assert_eq!(written[0], serde_json::json!({"name": "count", "type": "number", "at-most": 7, "required": true}));
}
