//! Values that only the component may read: how a binding is shown, and what its component says (ruling 24).
//!
//! What is a secret is told by names: a member of a binding whose name has one of [`WORDS`] in it, a parameter of a URL with
//! such a name, and the user and password in a URL. The component itself gets the true value.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// What is shown in place of a secret.
pub const MASK: &str = "***";

/// What makes a name that of a secret: one of these as a whole word of it, or several words in a row. Words end where a
/// letter or digit is followed by anything else, and before a capital letter.
const WORDS: &[&[&str]] = &[
    &["access", "key"],
    &["accesskey"],
    &["api", "key"],
    &["apikey"],
    &["auth"],
    &["authentication"],
    &["authorization"],
    &["bearer"],
    &["client", "key"],
    &["cookie"],
    &["cookies"],
    &["credential"],
    &["credentials"],
    &["encryption", "key"],
    &["jwt"],
    &["passcode"],
    &["passphrase"],
    &["passwd"],
    &["password"],
    &["passwords"],
    &["private", "key"],
    &["privatekey"],
    &["pwd"],
    &["secret"],
    &["secrets"],
    &["shared", "key"],
    &["signing", "key"],
    &["token"],
    &["tokens"],
];

/// Shorter ones are replaced only where they stand alone: they are in too many words.
const SHORT: usize = 4;

/// Whether a value under this name is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let words = words(name);
    WORDS.iter().any(|wanted| words.windows(wanted.len()).any(|words| words == *wanted))
}

fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in name.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Replaces every secret of a binding's document by [`MASK`]. A reference to a secret that is kept elsewhere
/// (`{"secret": "orders-db"}`) is none.
pub fn mask_document(document: &mut Value) {
    match document {
        Value::Object(members) => {
            for (name, value) in members {
                if is_secret_name(name) && !value.is_null() && !is_reference(value) {
                    *value = MASK.into();
                } else if !is_reference(value) {
                    mask_document(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_document),
        Value::String(text) => {
            if let Cow::Owned(masked) = mask_urls(text) {
                *text = masked;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_reference(value: &Value) -> bool {
    value.as_object().is_some_and(|members| members.len() == 1 && members.get("secret").is_some_and(Value::is_string))
}

/// A text without what is secret in the URLs of it.
pub fn mask_urls(text: &str) -> Cow<'_, str> {
    let spans = secrets_of_urls(text);
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    let mut from = 0;
    for span in spans {
        masked.push_str(&text[from..span.start]);
        masked.push_str(MASK);
        from = span.end;
    }
    masked.push_str(&text[from..]);
    Cow::Owned(masked)
}

/// Where a document has [`MASK`] in place of a secret, as somebody sends it who read the binding and sends it back.
pub fn masked_member(document: &Value) -> Option<String> {
    match document {
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let below = masked_member(value)?;
            Some(if below.is_empty() || below.starts_with('[') {
                format!("{name}{below}")
            } else {
                format!("{name}.{below}")
            })
        }),
        Value::Array(items) => items.iter().enumerate().find_map(|(at, item)| {
            let below = masked_member(item)?;
            Some(if below.is_empty() || below.starts_with('[') {
                format!("[{at}]{below}")
            } else {
                format!("[{at}].{below}")
            })
        }),
        Value::String(text) => {
            let is_masked = text == MASK || secrets_of_urls(text).into_iter().any(|span| &text[span] == MASK);
            is_masked.then(String::new)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Where the URLs of a text have secrets: user and password, and parameters with the name of one. What a component fills in
/// (`{property.token}`) is none.
fn secrets_of_urls(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    for (scheme, _) in text.match_indices("://") {
        let begin = scheme + "://".len();
        let is_end = |letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | '<' | '>' | '`');
        let url = &text[begin..];
        let url = &url[..url.find(is_end).unwrap_or(url.len())];
        let authority = &url[..url.find(['/', '?', '#', '\\']).unwrap_or(url.len())];
        if let Some(at) = authority.rfind('@').filter(|at| *at > 0) {
            spans.push(begin..begin + at);
        }
        let Some(query) = url.find('?') else { continue };
        let mut at = query + 1;
        for parameter in url[at..].split(['&', ';', '#']) {
            let end = at + parameter.len();
            if let Some((name, value)) = parameter.split_once('=')
                && is_secret_name(name)
                && !value.is_empty()
                && !(value.starts_with('{') && value.ends_with('}'))
            {
                spans.push(begin + end - value.len()..begin + end);
            }
            at = end + 1;
        }
    }
    // A URL in the parameter of a URL is found twice.
    spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let mut covered = 0;
    spans.retain(|span| {
        let is_new = span.start >= covered;
        covered = covered.max(span.end);
        is_new
    });
    spans
}

/// The secrets of one binding, to be taken out of what its component says.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Those in a binding's config.
    pub(crate) fn of(config: &BTreeMap<String, String>) -> Self {
        let mut found = Self::default();
        for (name, value) in config {
            if is_secret_name(name) {
                found.add(value.trim());
                // `Bearer abc`: the scheme is no secret, and the rest is one without it as well.
                if let Some((_, last)) = value.trim().rsplit_once(char::is_whitespace) {
                    found.add(last);
                }
            }
            for span in secrets_of_urls(value) {
                let secret = &value[span];
                found.add(secret);
                found.add(&percent_decode_str(secret).decode_utf8_lossy());
                if let Some((_, password)) = secret.split_once(':') {
                    found.add(password);
                    found.add(&percent_decode_str(password).decode_utf8_lossy());
                }
            }
        }
        found.0.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        found.0.dedup();
        found
    }

    fn add(&mut self, secret: &str) {
        if secret.bytes().all(|byte| byte == b'*') {
            return;
        }
        self.0.push(secret.to_owned());
        // As debugging output shows it.
        let quoted = format!("{secret:?}");
        let quoted = &quoted[1..quoted.len() - 1];
        if quoted != secret {
            self.0.push(quoted.to_owned());
        }
    }

    /// Replaces them in a text.
    pub(crate) fn hide(&self, text: &mut String) {
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                *text = if secret.len() < SHORT { without_word(text, secret) } else { text.replace(secret, MASK) };
            }
        }
    }
}

fn without_word(text: &str, word: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut from = 0;
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        let stands_alone =
            !text[..at].ends_with(char::is_alphanumeric) && !text[end..].starts_with(char::is_alphanumeric);
        if stands_alone {
            hidden.push_str(&text[from..at]);
            hidden.push_str(MASK);
            from = end;
        }
    }
    hidden.push_str(&text[from..]);
    hidden
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_secrets_have_a_word_of_one_in_any_spelling() {
        for name in [
            "authorization",
            "Proxy-Authorization",
            "PASSWORD",
            "db_password",
            "dbPassword",
            "api-key",
            "API_KEY",
            "apiKey",
            "x-api-key",
            "token",
            "access.token",
            "accessToken",
            "set-cookie",
            "client secret",
            "private_key",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in
            ["url", "field", "commit", "key", "keys", "fence-key", "tokenizer", "secretary", "passive", "api", ""]
        {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_document_is_shown_without_its_secrets_and_with_all_else() {
        let mut document = json!({
            "plugin": "p:1", "topics": ["token"], "grants": {"http": ["http://u:p@h:1/"], "headers": {"Cookie": ["a"]}},
            "config": {"url": "https://me:pw@h/x?a=1&token=t0&k={property.token}#f", "authorization": "Bearer x",
                "api_key": 7, "password": {"secret": "orders-db"}, "token": {"a": 1}, "field": "/secret", "pwd": null}
        });
        mask_document(&mut document);
        assert_eq!(
            document,
            json!({
                "plugin": "p:1", "topics": ["token"], "grants": {"http": ["http://***@h:1/"], "headers": {"Cookie": "***"}},
                "config": {"url": "https://***@h/x?a=1&token=***&k={property.token}#f", "authorization": "***",
                    "api_key": "***", "password": {"secret": "orders-db"}, "token": "***", "field": "/secret", "pwd": null}
            })
        );
    }

    #[test]
    fn what_comes_back_masked_is_found_wherever_it_is() {
        let of = |document: Value| masked_member(&document);
        assert_eq!(of(json!({"config": {"authorization": "***"}})).as_deref(), Some("config.authorization"));
        assert_eq!(of(json!({"config": {"url": "http://***@h"}})).as_deref(), Some("config.url"));
        assert_eq!(of(json!({"config": {"url": "http://h?token=***"}})).as_deref(), Some("config.url"));
        assert_eq!(of(json!({"grants": {"http": [{"origin": "***"}]}})).as_deref(), Some("grants.http[0].origin"));
        assert_eq!(of(json!({"grants": {"http": ["a", "***"]}})).as_deref(), Some("grants.http[1]"));
        let fine = json!({"config": {"authorization": "****", "url": "http://u:***x@h?a=***", "note": "a *** b"}});
        assert_eq!(masked_member(&fine), None);
    }

    #[test]
    fn urls_are_found_in_text_and_what_is_none_is_left() {
        for (text, masked) in [
            ("`http://u:p@h/x`: an origin", "`http://***@h/x`: an origin"),
            ("http://a@b@h", "http://***@h"),
            ("http://h/a@b", "http://h/a@b"),
            ("http://@h", "http://@h"),
            ("see http://h?secret=s and https://x?token=t", "see http://h?secret=*** and https://x?token=***"),
            ("http://h?next=http://u:p@i&token=t", "http://h?next=http://***@i&token=***"),
            ("http://h?token=", "http://h?token="),
            ("mail a@b", "mail a@b"),
            ("пароль://ю:я@д", "пароль://***@д"),
        ] {
            assert_eq!(mask_urls(text), masked);
        }
    }

    fn hidden(config: &[(&str, &str)], text: &str) -> String {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut text = text.to_owned();
        Secrets::of(&config).hide(&mut text);
        text
    }

    #[test]
    fn what_a_component_says_is_told_without_the_secrets_of_its_binding() {
        let config = [("authorization", "Bearer s3cr3t-x"), ("url", "http://me:p%40ss@h/{key}"), ("field", "/status")];
        assert_eq!(hidden(&config, "sent Bearer s3cr3t-x to /status"), "sent *** to /status");
        assert_eq!(hidden(&config, "s3cr3t-x"), "***");
        assert_eq!(hidden(&config, "http://me:p%40ss@h/1: p@ss and p%40ss"), "http://***@h/1: *** and ***");
        assert_eq!(hidden(&[("password", "a\"b\\c")], r#"Some("a\"b\\c") a"b\c"#), r#"Some("***") ***"#);
        assert_eq!(hidden(&[("token", "abc")], "abc abcd xabc (abc)"), "*** abcd xabc (***)");
        assert_eq!(hidden(&[("token", "abcd")], "xabcdx"), "x***x");
        assert_eq!(hidden(&[("token", "")], "x"), "x");
    }
}
