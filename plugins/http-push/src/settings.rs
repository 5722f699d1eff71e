//! The binding's `config`.

use plugin_config::{MessageFacts, UrlTemplate, header_value, list};

use crate::{headers, signature::SigningKey};

/// Statuses by which services say that a message is wrong and stays so, where nobody says otherwise.
const REJECT: [u16; 4] = [400, 413, 415, 422];
/// The event's type where nobody says otherwise.
const EVENT_TYPE: &str = "vouch.message";

/// How a message is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The usual one.
    Post,
    /// To a place that the message's key names.
    Put,
    /// The same, for a part of what is there.
    Patch,
}

impl Method {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Post, Self::Put, Self::Patch];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
        }
    }
}

/// What the binding says, checked.
#[derive(Debug)]
pub struct Settings {
    /// Where messages are handed to.
    pub url: UrlTemplate,
    /// By which method.
    pub method: Method,
    /// What is sent besides, names in lower case; `authorization` among them.
    pub headers: Vec<(String, String)>,
    /// Keys that sign; none: nothing is signed.
    pub keys: Vec<SigningKey>,
    /// Statuses that reject a message.
    pub reject: Vec<u16>,
    /// The event's `type`.
    pub event_type: String,
    /// The event's `source`; `None`: the topic.
    pub source: Option<String>,
    /// Media type of a body whose message does not say it.
    pub content_type: Option<String>,
}

impl Settings {
    /// Reads the settings through `config`, which answers for one name.
    ///
    /// # Errors
    /// A sentence that names the setting and what to do about it. It tells nothing of `headers`, `authorization` and `secret`.
    pub fn read(config: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let url = config("url").ok_or("config `url` is missing: say where messages are handed to")?;
        let method = config("method").map_or(Ok(Method::Post), |name| method(&name))?;
        let mut headers = headers::read(&config("headers").unwrap_or_default())?;
        if let Some(value) = header(&config, "authorization")? {
            if headers.iter().any(|(name, _)| name == "authorization") {
                return Err(
                    "`authorization` stands in config `headers`, and is a config of its own: leave one out".into()
                );
            }
            headers.push(("authorization".to_owned(), value));
        }
        let keys = config("secret").map_or(Ok(Vec::new()), |text| SigningKey::read_all(&text))?;
        let reject = match list(config("reject")).as_slice() {
            [] => REJECT.to_vec(),
            [none] if none == "none" => Vec::new(),
            some => some.iter().map(|text| status(text)).collect::<Result<_, _>>()?,
        };
        Ok(Self {
            url: UrlTemplate::parse(&url, MessageFacts::NAMES)?,
            method,
            headers,
            keys,
            reject,
            event_type: header(&config, "type")?.unwrap_or_else(|| EVENT_TYPE.to_owned()),
            source: header(&config, "source")?,
            content_type: header(&config, "content-type")?,
        })
    }
}

fn header(config: &impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<String>, String> {
    config(name).map(|value| header_value(name, value)).transpose()
}

fn method(name: &str) -> Result<Method, String> {
    let known = Method::ALL.into_iter().find(|method| method.name() == name);
    known.ok_or_else(|| format!("config `method` is `{name}`: write {}", Method::ALL.map(Method::name).join(", ")))
}

/// A status that can reject. What acknowledges cannot, and what is no final answer never comes.
fn status(text: &str) -> Result<u16, String> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(code @ 300..=599) if digits => Ok(code),
        Ok(200..=299) if digits => {
            Err(format!("config `reject` has {text}, which acknowledges as every 2xx does: leave it out"))
        }
        _ => Err(format!("config `reject` has `{text}`: write statuses (300–599) between commas, or none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: (&str, &str) = ("url", "http://o/{key}");

    fn read(config: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| config.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_url_is_enough() {
        let settings = read(&[URL]).unwrap();
        assert_eq!((settings.method, settings.reject.as_slice()), (Method::Post, &[400, 413, 415, 422][..]));
        assert_eq!(
            (settings.event_type.as_str(), settings.source, settings.content_type),
            ("vouch.message", None, None)
        );
        assert!(settings.headers.is_empty() && settings.keys.is_empty());
    }

    #[test]
    fn all_settings_are_read() {
        let settings = read(&[
            URL,
            ("method", "PUT"),
            ("headers", "X-Shop: teapots\n"),
            ("authorization", "Bearer x"),
            ("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ("reject", "409, 422"),
            ("type", "shop.order"),
            ("source", "/shops/7"),
            ("content-type", "application/json"),
        ])
        .unwrap();
        assert_eq!(settings.method, Method::Put);
        let sent: Vec<(&str, &str)> = settings.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(sent, [("x-shop", "teapots"), ("authorization", "Bearer x")]);
        assert_eq!((settings.keys.len(), settings.reject), (1, vec![409, 422]));
        assert_eq!((settings.event_type.as_str(), settings.source.as_deref()), ("shop.order", Some("/shops/7")));
        assert_eq!(settings.content_type.as_deref(), Some("application/json"));
    }

    #[test]
    fn nothing_needs_to_reject() {
        assert!(read(&[URL, ("reject", "none")]).unwrap().reject.is_empty());
        assert_eq!(read(&[URL, ("reject", " , ")]).unwrap().reject, REJECT);
        assert_eq!(read(&[URL, ("reject", "300,599")]).unwrap().reject, [300, 599]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (config, word) in [
            (vec![], "`url` is missing"),
            (vec![("url", "http://o/{transaction}")], "{transaction}"),
            (vec![("url", "o")], "`url`"),
            (vec![URL, ("method", "post")], "`method` is `post`: write POST, PUT, PATCH"),
            (vec![URL, ("method", "GET")], "`method`"),
            (vec![URL, ("headers", "no colon")], "`headers`"),
            (vec![URL, ("headers", "Authorization: a"), ("authorization", "b")], "leave one out"),
            (vec![URL, ("authorization", " ")], "`authorization` is empty"),
            (vec![URL, ("secret", "whsec_")], "`secret`"),
            (vec![URL, ("reject", "200")], "acknowledges"),
            (vec![URL, ("reject", "299")], "acknowledges"),
            (vec![URL, ("reject", "299,600")], "299"),
            (vec![URL, ("reject", "600")], "`600`"),
            (vec![URL, ("reject", "199")], "`199`"),
            (vec![URL, ("reject", "0400")], "`0400`"),
            (vec![URL, ("reject", "none,400")], "`none`"),
            (vec![URL, ("type", "")], "`type` is empty"),
            (vec![URL, ("source", "a\nb")], "`source` has a line end"),
            (vec![URL, ("content-type", "")], "`content-type` is empty"),
        ] {
            let error = read(&config).unwrap_err();
            assert!(error.contains(word), "{config:?}: {error}");
        }
    }
}
