//! Values that only the component may read: how a binding is shown, and what its component says (ruling 24).
//!
//! What is a secret is told by names: a member of a binding, a parameter of a URL, an entry of a connection string whose name
//! has one of [`WORDS`] in it; and the user and password in a URL. The component itself gets the true value.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range};

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error_text::MAX_ERROR_TEXT;

/// What is shown in place of a secret.
pub const MASK: &str = "***";

/// What makes a name that of a secret: one of these as a whole word of it, or several words in a row, which may as well be
/// written as one at the end of a word (`dbapikey`).
const WORDS: &[&[&str]] = &[
    &["access", "key"],
    &["account", "key"],
    &["api", "key"],
    &["api", "keys"],
    &["auth"],
    &["auth", "key"],
    &["authentication"],
    &["authorization"],
    &["bearer"],
    &["client", "key"],
    &["connection", "string"],
    &["cookie"],
    &["cookies"],
    &["dsn"],
    &["encryption", "key"],
    &["jwt"],
    &["passcode"],
    &["private", "key"],
    &["pwd"],
    &["secret", "key"],
    &["session", "id"],
    &["session", "key"],
    &["shared", "key"],
    &["signing", "key"],
];

/// A word that ends so is one of a secret (`authtoken`).
const ENDINGS: &[&str] = &[
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "secret",
    "secrets",
    "token",
    "tokens",
];

/// Makes a name that of a secret as its last word alone: `db_pass`, and not `pass-through`; `X-Amz-Signature`, and not
/// `signature-version`.
const LAST: &[&str] = &["pass", "session", "sig", "signature"];

/// Makes a name that of a secret where it is all of the name: `?key=` and `?code=` let in whoever has them, `fence-key` and
/// `status-code` nobody. Not in a connection string, where they are a file or an answer.
const WHOLE: &[&str] = &["code", "key"];

/// What is called `key` or `code` and is shorter opens nothing.
const LIKE_A_KEY: usize = 8;

/// Shorter ones are replaced only where they stand alone: they are in too many words.
const SHORT: usize = 4;

/// The end of a text that was cut (see [`crate::error_text::cut`]), and the length that none of those is below.
const CUT: &str = "…";
const CUT_MIN: usize = MAX_ERROR_TEXT - 2 * CUT.len();

/// Whether a value under this name is a secret.
pub fn is_secret_name(name: &str) -> bool {
    has_secret_word(name) || matches!(words(name, true).as_slice(), [all] if WHOLE.contains(&all.as_str()))
}

/// Whether a name is that of a secret wherever it stands.
fn has_secret_word(name: &str) -> bool {
    let is_secret = |words: Vec<String>| {
        words.iter().any(|word| ENDINGS.iter().any(|ending| word.ends_with(ending)))
            || words.last().is_some_and(|last| LAST.contains(&last.as_str()))
            || WORDS.iter().any(|wanted| {
                words.windows(wanted.len()).any(|words| words == *wanted)
                    || (wanted.len() > 1 && words.iter().any(|word| word.ends_with(&wanted.concat())))
            })
    };
    // Capital letters say little where somebody writes `PassWord` or `apiKEYs`.
    is_secret(words(name, true)) || is_secret(words(name, false))
}

/// The words of a name, without capitals. They end where a letter is followed by anything else, and if wanted before a capital
/// letter: one after a small letter, and the last of several in front of one (`DBPassword`).
fn words(name: &str, at_capitals: bool) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        let begins = letter.is_uppercase()
            && (before.is_lowercase()
                || (before.is_uppercase() && letters.peek().is_some_and(|next| next.is_lowercase())));
        if !letter.is_alphabetic() || (at_capitals && begins) {
            words.push(String::new());
        }
        if letter.is_alphabetic()
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
/// (`{"secret": "orders-db"}`) is none where one can stand: as an entry of `config`, and in `grants.sql.NAME`. Nor is the user in the url
/// of a database, which is refused with a password: so a document can be set again as it is shown.
pub fn mask_document(document: &mut Value) {
    let users = database_users(document);
    mask_members(document);
    for (name, user) in users {
        if let Some(Value::String(url)) = document.pointer_mut(&format!("/grants/sql/{name}/url")) {
            *url = url.replacen(&format!("://{MASK}@"), &format!("://{user}@"), 1);
        }
    }
}

/// Who is named without a password in the urls of databases, by the databases' names as they stand in a pointer.
fn database_users(document: &Value) -> Vec<(String, String)> {
    let databases = document.pointer("/grants/sql").and_then(Value::as_object).into_iter().flatten();
    let user = |url: &str| {
        let (_, rest) = url.split_once("://")?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        // Nothing else is certain to be a name alone.
        let is_plain = |user: &str| user.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
        let (user, _) = authority.rsplit_once('@').filter(|(user, _)| is_plain(user))?;
        Some(user.to_owned())
    };
    let named = databases.filter_map(|(name, database)| Some((name, user(database.get("url")?.as_str()?)?)));
    named.map(|(name, user)| (name.replace('~', "~0").replace('/', "~1"), user)).collect()
}

fn mask_members(document: &mut Value) {
    let Value::Object(members) = document else { return mask_value(document, None) };
    for (name, value) in members {
        let levels = match name.as_str() {
            "config" => Some(1),
            "grants" => Some(3),
            _ => None,
        };
        mask_member(name, value, levels);
    }
}

/// References are so many levels below this member.
fn mask_member(name: &str, value: &mut Value, levels: Option<usize>) {
    if levels == Some(0) && is_reference(value) {
        value
            .as_object_mut()
            .into_iter()
            .flat_map(|members| members.values_mut())
            .for_each(|name| mask_value(name, None));
    } else if is_secret_name(name) && !value.is_null() {
        *value = MASK.into();
    } else {
        mask_value(value, levels.and_then(|levels| levels.checked_sub(1)));
    }
}

/// Masks what of a JSON value is a secret by its name, down to so many levels.
fn mask_value(value: &mut Value, levels: Option<usize>) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| mask_member(name, value, levels)),
        Value::Array(items) => {
            let levels = levels.and_then(|levels| levels.checked_sub(1));
            items.iter_mut().for_each(|item| mask_value(item, levels));
        }
        Value::String(text) => {
            if let Cow::Owned(masked) = mask_urls(text) {
                *text = masked;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether it only names where a secret is to be found, which is none itself.
fn is_reference(value: &Value) -> bool {
    named_secret(value).is_some()
}

/// The name in `{"secret": "orders-db"}`; `None` for anything else.
pub fn named_secret(value: &Value) -> Option<&str> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members.get("secret")?.as_str()
}

/// A text without what is secret in the URLs and connection strings of it.
pub fn mask_urls(text: &str) -> Cow<'_, str> {
    let spans = secrets_of_text(text);
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
            let is_masked = text == MASK || secrets_of_text(text).into_iter().any(|span| &text[span] == MASK);
            is_masked.then(String::new)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Where a text has secrets, in order, each place once.
fn secrets_of_text(text: &str) -> Vec<Range<usize>> {
    let mut found = found_in(text);
    found.sort_by_key(|span| span.start);
    let mut spans: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for span in found {
        match spans.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => spans.push(span),
        }
    }
    spans
}

/// Where a text has secrets: one in the URL in the parameter of a URL is found twice.
fn found_in(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (scheme, mark) in text.match_indices("://") {
        let begin = scheme + mark.len();
        secrets_of_url(&text[..begin + end_of_url(text, scheme, begin)], begin, &mut found);
    }
    secrets_of_entries(text, &mut found);
    if !text.contains("://") {
        found.extend(login(text));
    }
    found
}

/// How long a URL is behind its scheme.
///
/// A text that begins with a URL is one, whatever is in it: quotes and blanks are taken by some for letters of a password.
/// Any other ends at the mark that its beginning has, or at a blank.
fn end_of_url(text: &str, scheme: usize, begin: usize) -> usize {
    let rest = &text[begin..];
    let before = text[..scheme].trim_end_matches(|letter: char| letter.is_alphanumeric() || "+-.:".contains(letter));
    let closing = match before.chars().next_back() {
        None => return rest.len(),
        Some(_) if before.trim_start().is_empty() => return rest.len(),
        Some(mark @ ('"' | '\'' | '`')) => mark,
        Some('<') => '>',
        Some(_) => return rest.find(char::is_whitespace).unwrap_or(rest.len()),
    };
    let closes = |at: usize| {
        !rest[..at].ends_with('\\') && !rest[at + closing.len_utf8()..].starts_with(|next: char| next.is_alphanumeric())
    };
    rest.match_indices(closing).map(|(at, _)| at).find(|at| closes(*at)).unwrap_or(rest.len())
}

/// User and password, and the parameters with the name of a secret, in the query and behind it. What a component fills in
/// (`{property.token}`) is none.
fn secrets_of_url(text: &str, begin: usize, found: &mut Vec<Range<usize>>) {
    let url = &text[begin..];
    let authority = &url[..url.find(['/', '?', '#']).unwrap_or(url.len())];
    if let Some(at) = authority.rfind('@').filter(|at| *at > 0) {
        found.push(begin..begin + at);
    }
    let fragment = url.find('#').unwrap_or(url.len());
    let query = url.find('?').unwrap_or(fragment).min(fragment);
    for part in [query..fragment, fragment..url.len()] {
        let mut at = begin + part.start + 1;
        for parameter in url[part].get(1..).unwrap_or_default().split('&') {
            let mut from = 0;
            while from <= parameter.len() {
                let end =
                    next_entry(&parameter[from..], |letter| letter == ';').map_or(parameter.len(), |end| from + end);
                if let Some((name, value)) = parameter[from..end].split_once('=')
                    && is_secret_name(&percent_decode_str(name).decode_utf8_lossy())
                    && !value.is_empty()
                    && !is_filled_in(value)
                {
                    found.push(at + end - value.len()..at + end);
                }
                from = end + 1;
            }
            at += parameter.len() + 1;
        }
    }
}

/// Whether it is nothing but a name in braces, which the component fills in: the name itself is no secret.
fn is_filled_in(value: &str) -> bool {
    let name = value.strip_prefix('{').and_then(|value| value.strip_suffix('}'));
    name.is_some_and(|name| !name.contains(['{', '}']))
}

/// The entries of a connection string with the name of a secret: `Server=h;Password=x`, `host=h password=x`.
fn secrets_of_entries(text: &str, found: &mut Vec<Range<usize>>) {
    let in_url = text.contains("://");
    // Of a URL's own parameters those behind `&` are known already.
    let separates = |letter: char| letter.is_whitespace() || matches!(letter, ';' | ',') || (letter == '&' && !in_url);
    let begins = |letter: char| separates(letter) || matches!(letter, '"' | '\'' | '`');
    let has_semicolons = text.contains(';');
    let mut at = 0;
    let mut before = None;
    loop {
        if let Some((name, value)) = entry(&text[at..], matches!(before, None | Some(';'))) {
            // A value may have what separates entries elsewhere.
            let ends = |letter: char| match before {
                _ if has_semicolons => letter == ';',
                Some(before) if separates(before) => {
                    letter == before || (before.is_whitespace() && letter.is_whitespace())
                }
                _ => separates(letter),
            };
            let in_braces = has_semicolons && !in_url;
            let value = value_of_entry(text, at + value, ends, in_braces);
            let shown = &text[value.clone()];
            if has_secret_word(name) && !shown.is_empty() && (in_braces || !is_filled_in(shown)) {
                found.push(value.clone());
            }
            at = value.end;
        }
        let Some((next, letter)) = text[at..].char_indices().find(|(_, letter)| begins(*letter)) else { break };
        at += next + letter.len_utf8();
        before = Some(letter);
    }
}

/// Where the value of an entry is, which begins at `from`: in quotes, or up to the next entry.
fn value_of_entry(text: &str, from: usize, ends: impl Fn(char) -> bool, in_braces: bool) -> Range<usize> {
    let rest = &text[from..];
    let from = from + rest.len() - rest.trim_start().len();
    let rest = rest.trim_start();
    let closing = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => Some(quote),
        Some('{') if in_braces => Some('}'),
        _ => None,
    };
    let is_last = |at: usize| {
        let behind = &rest[at + 1..];
        behind.trim_start().is_empty() || behind.starts_with(&ends) || behind.trim_start().starts_with(&ends)
    };
    if let Some(closing) = closing
        && let Some((at, _)) = rest.match_indices(closing).find(|(at, _)| *at > 0 && is_last(*at))
    {
        return from + 1..from + at;
    }
    let end = next_entry(rest, ends).unwrap_or(rest.len());
    from..from + rest[..end].trim_end().len()
}

/// Where the separator in front of the next entry is.
fn next_entry(text: &str, separates: impl Fn(char) -> bool) -> Option<usize> {
    let mut separators = text.char_indices().filter(|(_, letter)| separates(*letter));
    separators.find(|(at, letter)| entry(&text[at + letter.len_utf8()..], *letter == ';').is_some()).map(|(at, _)| at)
}

/// The name of the entry that a text begins with, and where its value begins. `=` and `==` at the end of a value in base64
/// make none.
fn entry(text: &str, blanks: bool) -> Option<(&str, usize)> {
    let is_name =
        |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.') || (blanks && letter == ' ');
    let end = text.find(|letter| !is_name(letter))?;
    let (name, rest) = text.split_at(end);
    let value = rest.trim_start().strip_prefix('=')?;
    let is_one = !name.trim().is_empty() && !value.is_empty() && !value.starts_with('=');
    is_one.then_some((name, text.len() - value.len()))
}

/// User and password as Go's driver for MySQL has them: `user:password@tcp(host)/db`, `user:password@/db`.
fn login(text: &str) -> Option<Range<usize>> {
    let is_host = |rest: &str| {
        let protocol = rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric());
        protocol.starts_with('(') || rest.starts_with('/')
    };
    let (at, _) = text.rmatch_indices('@').find(|(at, _)| is_host(&text[at + 1..]))?;
    let Some((user, password)) = text[..at].split_once(':') else {
        // As it was shown.
        return text[..at].ends_with(MASK).then(|| at - MASK.len()..at);
    };
    let begin = user.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
    // A blank may be one of several bytes.
    let begin = text.ceil_char_boundary(begin);
    (!password.is_empty()).then_some(begin..at)
}

/// Values that nothing shows which a component or a database says. They show themselves to nobody.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HiddenValues(Vec<String>);

impl FromIterator<String> for HiddenValues {
    fn from_iter<I: IntoIterator<Item = String>>(values: I) -> Self {
        Self(values.into_iter().filter(|value| !value.trim().is_empty()).collect())
    }
}

impl fmt::Debug for HiddenValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// The secrets of one binding, to be taken out of what its component says.
#[derive(Debug, Default)]
pub(crate) struct BindingSecrets(Vec<String>);

impl BindingSecrets {
    /// Those in a binding's config, and the values of those that it names.
    pub(crate) fn of(config: &BTreeMap<String, String>, hidden: &HiddenValues) -> Self {
        let mut found = Self::default();
        for value in &hidden.0 {
            found.add(value);
            found.add_parts(value.trim());
            found.add_spans(value);
            // Of lines of a file each says something.
            value.lines().filter(|line| line.trim().len() >= LIKE_A_KEY).for_each(|line| found.add(line.trim()));
        }
        for (name, value) in config {
            // A status or an order number under `code` or `key` is a word that log lines are full of.
            if has_secret_word(name) || is_secret_name(name) && value.len() >= LIKE_A_KEY {
                found.add_parts(value.trim());
            }
            found.add_spans(value);
        }
        found.0.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        found.0.dedup();
        found
    }

    /// Adds a value, and what of it is a secret by itself: in `Bearer abc` the scheme is none, and the rest is one without it.
    fn add_parts(&mut self, value: &str) {
        self.add(value);
        if let Some((_, last)) = value.rsplit_once(char::is_whitespace) {
            self.add(last);
        }
    }

    /// Adds what of a value is secret by where it stands, such as a password in a URL.
    fn add_spans(&mut self, value: &str) {
        for span in found_in(value) {
            let secret = &value[span];
            self.add(secret);
            self.add(&percent_decode_str(secret).decode_utf8_lossy());
            if let Some((_, password)) = secret.split_once(':') {
                self.add(password);
                self.add(&percent_decode_str(password).decode_utf8_lossy());
            }
        }
    }

    /// Adds a secret to be taken out, in each form in which it may show.
    fn add(&mut self, secret: &str) {
        // What the component says has the values in place of the templates.
        let pieces: Vec<&str> = secret.split('{').flat_map(|piece| piece.rsplit('}').next()).collect();
        if pieces.len() > 1 {
            pieces.into_iter().filter(|piece| piece.len() >= SHORT).for_each(|piece| self.add(piece));
        }
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

    /// Replaces them in a text; one that a cut left the beginning of as well.
    pub(crate) fn hide(&self, text: &mut String) {
        if let Some(left) = self.left_by_cut(text) {
            text.replace_range(left, MASK);
        }
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                *text = if secret.len() < SHORT { without_word(text, secret) } else { text.replace(secret, MASK) };
            }
        }
    }

    /// Where a text that was cut before it came here ends with the beginning of a secret.
    fn left_by_cut(&self, text: &str) -> Option<Range<usize>> {
        let kept = text.strip_suffix(CUT).filter(|_| text.len() >= CUT_MIN)?;
        let beginnings = |secret: &String| {
            let most = secret.floor_char_boundary(kept.len());
            (1..=most).rev().find(|len| secret.is_char_boundary(*len) && kept.ends_with(&secret[..*len]))
        };
        let longest = self.0.iter().filter_map(beginnings).max()?;
        Some(kept.len() - longest..kept.len())
    }
}

/// The text without a word, wherever it stands by itself.
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
#[path = "secrets_tests.rs"]
mod tests;
