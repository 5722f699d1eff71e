//! The lines of config `headers`.

/// Headers that the component or the connection sets: whose body it is, how long it is, how the connection is used.
const TAKEN: [&str; 15] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
/// And those whose names begin so.
const TAKEN_PREFIXES: [&str; 2] = ["ce-", "webhook-"];

/// Reads lines `Name: value`, empty ones left out; names become lower case.
///
/// # Errors
/// A sentence that says which line it is, and nothing of it but the name: a value may be a secret.
pub fn read(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: &str| format!("line {} of config `headers` {what}", at + 1);
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("has no colon: write `Name: value`"))?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(wrong("has no name that a header can have in front of its colon"));
        }
        if TAKEN.contains(&name.as_str()) || TAKEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            let instead = if name == "content-type" { "; there is a config of that name" } else { "" };
            return Err(wrong(&format!(
                "sets `{name}`, which the component or the connection sets: leave it out{instead}"
            )));
        }
        if value.is_empty() || value.chars().any(|letter| letter.is_ascii_control() && letter != '\t') {
            return Err(wrong(&format!("gives `{name}` no value that a header can have")));
        }
        if headers.iter().any(|(known, _)| *known == name) {
            return Err(wrong(&format!("sets `{name}` again: write one line for each name")));
        }
        headers.push((name, value.to_owned()));
    }
    Ok(headers)
}

/// A letter of a header's name (RFC 9110, `tchar`).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_headers() {
        let read = read("X-Shop: teapots\r\n\n  x-note :a: b \t c\nX_1!:ü").unwrap();
        let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, [("x-shop", "teapots"), ("x-note", "a: b \t c"), ("x_1!", "ü")]);
        assert_eq!(super::read(" \n"), Ok(vec![]));
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number_and_keeps_its_value() {
        for (text, word) in [
            ("X-Key: hush\nhush", "line 2 of config `headers` has no colon"),
            (": hush", "line 1"),
            ("\nX Key: hush", "line 2"),
            ("Ünder: hush", "no name"),
            ("X-Key:", "gives `x-key` no value"),
            ("X-Key: hu\u{1}sh", "gives `x-key` no value"),
            ("X-Key: hush\nx-key: hush", "line 2 of config `headers` sets `x-key` again"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(word) && !refused.contains("hush"), "{text:?}: {refused}");
        }
    }

    #[test]
    fn what_is_set_anyway_is_refused() {
        for name in TAKEN.into_iter().chain(["CE-ID", "ce-type", "Webhook-Signature", "Host"]) {
            assert!(read(&format!("{name}: x")).unwrap_err().contains("the connection sets"), "{name}");
        }
        assert!(read("Content-Type: x").unwrap_err().contains("config of that name"));
        for name in ["cell", "webhooks", "x-ce-id"] {
            assert!(read(&format!("{name}: x")).is_ok(), "{name}");
        }
    }
}
