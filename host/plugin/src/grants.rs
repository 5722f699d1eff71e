//! What a binding allows its component to reach.

use std::{collections::BTreeMap, fmt, str::FromStr};

use http::Uri;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::{Host, Url};

use crate::{databases::DatabaseGrant, namespace::StateGrant};

/// The `grants` of a binding. Nothing is granted unless it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// Origins that outgoing HTTP requests may go to; at most [`Grants::MAX_HTTP`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpGrant>,
    /// Databases, by the names that the component calls them; at most [`Grants::MAX_SQL`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sql: BTreeMap<String, DatabaseGrant>,
    /// State that it may read and write; `None`: no state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateGrant>,
    /// Topics that it may publish to, each once; at most [`Grants::MAX_PUBLISH`]. Whether they are names of topics is for the
    /// broker to say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
}

impl Grants {
    /// Most origins in one binding.
    pub const MAX_HTTP: usize = 64;
    /// Most databases in one binding.
    pub const MAX_SQL: usize = 16;
    /// Most topics to publish to in one binding.
    pub const MAX_PUBLISH: usize = 64;

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.sql.is_empty() && self.state.is_none() && self.publish.is_empty()
    }

    /// The namespace of the state that the binding of this name has; `None`: it has none.
    pub fn namespace(&self, binding: &str) -> Option<String> {
        self.state.as_ref().map(|granted| match granted {
            StateGrant::Own => binding.to_owned(),
            StateGrant::Named(name) => name.clone(),
        })
    }

    /// What is wrong with the topics to publish to.
    fn check_publish(publish: &[String]) -> Result<(), String> {
        if publish.len() > Self::MAX_PUBLISH {
            return Err(format!("grants.publish lists {} topics: at most {} fit", publish.len(), Self::MAX_PUBLISH));
        }
        if publish.iter().any(String::is_empty) {
            return Err("grants.publish lists a topic without a name".to_owned());
        }
        let again = publish.iter().enumerate().find(|(n, topic)| publish[..*n].contains(topic));
        again.map_or(Ok(()), |(_, topic)| Err(format!("grants.publish lists `{topic}` twice")))
    }
}

impl<'de> Deserialize<'de> for Grants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            #[serde(default)]
            http: Vec<HttpGrant>,
            #[serde(default, deserialize_with = "StateGrant::read")]
            state: Option<StateGrant>,
            #[serde(default)]
            sql: BTreeMap<String, DatabaseGrant>,
            #[serde(default)]
            publish: Vec<String>,
        }
        let written = Written::deserialize(deserializer)?;
        if written.http.len() > Self::MAX_HTTP {
            return Err(de::Error::custom(format_args!(
                "grants.http lists {} origins: at most {} fit",
                written.http.len(),
                Self::MAX_HTTP
            )));
        }
        Self::check_publish(&written.publish).map_err(de::Error::custom)?;
        let Written { http, state, sql, publish } = written;
        Ok(Self { http, sql, state, publish })
    }
}

/// One origin that outgoing requests may go to: `"http://orders:9000"`, or with a private address behind the name
/// `{"origin": "http://orders:9000", "private": true}` (ruling 23).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    /// Scheme, host and port, all of which must match.
    pub origin: Origin,
    /// The name may resolve to a private, loopback or link-local address. A literal address needs no such word: naming
    /// it is the explicit grant.
    pub private: bool,
}

impl Serialize for HttpGrant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        if !self.private {
            return self.origin.serialize(serializer);
        }
        let mut object = serializer.serialize_struct("HttpGrant", 2)?;
        object.serialize_field("origin", &self.origin)?;
        object.serialize_field("private", &true)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for HttpGrant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Grant;
        impl<'de> de::Visitor<'de> for Grant {
            type Value = HttpGrant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an origin such as \"http://orders:9000\" or {\"origin\": \"…\", \"private\": true}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HttpGrant, E> {
                Ok(HttpGrant { origin: text.parse().map_err(E::custom)?, private: false })
            }

            fn visit_map<M: de::MapAccess<'de>>(self, map: M) -> Result<HttpGrant, M::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Object {
                    origin: Origin,
                    #[serde(default)]
                    private: bool,
                }
                let object = Object::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(HttpGrant { origin: object.origin, private: object.private })
            }
        }
        deserializer.deserialize_any(Grant)
    }
}

/// Scheme, host and port of a server: `https://orders.example.com`, `http://127.0.0.1:9000`.
///
/// Hosts are kept as the URL standard normalises them, so `HTTP://Example.COM:80` and `http://example.com` are equal, and
/// the many spellings of one IPv4 address are one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub(crate) https: bool,
    pub(crate) host: Host<String>,
    pub(crate) port: u16,
}

/// Why a text is no origin. Show it to whoever wrote the grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not a URL at all.
    #[error("`{0}` is not an origin: write scheme, host and port, such as http://127.0.0.1:9000")]
    NotAUrl(String),
    /// Another scheme than http or https.
    #[error("`{0}`: only http:// and https:// can be granted")]
    Scheme(String),
    /// A path, query, fragment, user or password, which an origin does not have.
    #[error("`{0}`: an origin ends after host and port; leave out path, query, user and password")]
    TooMuch(String),
}

impl Origin {
    /// The origin of a URL, with the port that its scheme means if it names none.
    ///
    /// # Errors
    /// A sentence for whoever sets the grant.
    pub(crate) fn of(url: &Url) -> Result<Self, OriginError> {
        let https = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(OriginError::Scheme(url.to_string())),
        };
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(OriginError::NotAUrl(url.to_string()));
        };
        Ok(Self { https, host: host.to_owned(), port })
    }

    /// That of a request, as the URL standard reads it: the same reading that the grants went through. `None` where a request
    /// with this address is never sent.
    pub(crate) fn of_request(uri: &Uri) -> Option<Self> {
        let authority = uri.authority()?.as_str();
        if authority.contains('@') {
            return None;
        }
        let url = Url::parse(&format!("{}://{authority}/", uri.scheme_str()?)).ok()?;
        Self::of(&url).ok()
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|_| OriginError::NotAUrl(text.to_owned()))?;
        let origin = Self::of(&url).map_err(|error| match error {
            OriginError::Scheme(_) => OriginError::Scheme(text.to_owned()),
            _ => OriginError::NotAUrl(text.to_owned()),
        })?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        if bare { Ok(origin) } else { Err(OriginError::TooMuch(text.to_owned())) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default_port) = if self.https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == default_port { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_from_a_bindings_json() {
        let text = r#"{"http":["http://127.0.0.1:9000",{"origin":"HTTPS://Orders.Example.com","private":true}]}"#;
        let grants: Grants = serde_json::from_str(text).unwrap();
        assert_eq!(grants.http[0].origin.to_string(), "http://127.0.0.1:9000");
        assert!(!grants.http[0].private);
        assert_eq!(grants.http[1].origin.to_string(), "https://orders.example.com");
        assert!(grants.http[1].private);
        assert_eq!(
            serde_json::to_string(&grants).unwrap(),
            r#"{"http":["http://127.0.0.1:9000",{"origin":"https://orders.example.com","private":true}]}"#
        );
    }

    #[test]
    fn state_is_granted_in_a_namespace_of_its_own_or_in_one_that_is_named() {
        for (text, namespace) in [
            (r#"{"state":true}"#, Some("b")),
            (r#"{"state":"orders.v2_a-B"}"#, Some("orders.v2_a-B")),
            (r#"{"state":false}"#, None),
            ("{}", None),
        ] {
            let grants: Grants = serde_json::from_str(text).unwrap();
            assert_eq!(grants.namespace("b").as_deref(), namespace, "{text}");
            assert_eq!(grants.is_empty(), namespace.is_none(), "{text}");
            let written = serde_json::to_string(&grants).unwrap();
            assert_eq!(written, if namespace.is_some() { text } else { "{}" });
        }
        for (length, fits) in [(0, false), (1, true), (StateGrant::MAX_NAME, true), (StateGrant::MAX_NAME + 1, false)] {
            let text = format!(r#"{{"state":"{}"}}"#, "n".repeat(length));
            assert_eq!(serde_json::from_str::<Grants>(&text).is_ok(), fits, "{length}");
        }
        for name in ["a/b", "a b", "ä", "a:b", "%", "a\\n"] {
            let error = serde_json::from_str::<Grants>(&format!(r#"{{"state":"{name}"}}"#)).unwrap_err().to_string();
            assert!(error.contains("letters, digits, _ . -"), "{name}: {error}");
        }
        for other in ["1", "null", "[]", "{}"] {
            let error = serde_json::from_str::<Grants>(&format!(r#"{{"state":{other}}}"#)).unwrap_err().to_string();
            assert!(error.contains("true, or the name of a namespace"), "{other}: {error}");
        }
    }

    #[test]
    fn topics_to_publish_to_are_listed_once_each_and_bounded() {
        let read = |topics: &[String]| {
            serde_json::from_value::<Grants>(serde_json::json!({"publish": topics})).map_err(|error| error.to_string())
        };
        let topics = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
        let granted = read(&topics(Grants::MAX_PUBLISH)).unwrap();
        assert!(!granted.is_empty() && granted.publish.len() == Grants::MAX_PUBLISH);
        let two = read(&topics(2)).unwrap();
        assert_eq!(serde_json::to_string(&two).unwrap(), r#"{"publish":["t0","t1"]}"#);
        assert!(read(&topics(Grants::MAX_PUBLISH + 1)).unwrap_err().contains("at most 64"));
        assert!(read(&["audit".to_owned(), "x".to_owned(), "audit".to_owned()]).unwrap_err().contains("`audit` twice"));
        assert!(read(&[String::new()]).unwrap_err().contains("without a name"));
    }

    #[test]
    fn what_is_empty_grants_nothing_and_what_nobody_knows_is_an_error() {
        let nothing: Grants = serde_json::from_str(r#"{"state":false,"sql":{},"publish":[],"http":[]}"#).unwrap();
        assert!(nothing.is_empty());
        assert!(serde_json::from_str::<Grants>(r#"{"htpp":[]}"#).is_err());
    }

    #[test]
    fn the_number_of_origins_is_bounded() {
        let text = |n: usize| format!(r#"{{"http":[{}]}}"#, vec![r#""http://a""#; n].join(","));
        assert!(serde_json::from_str::<Grants>(&text(Grants::MAX_HTTP)).is_ok());
        assert!(serde_json::from_str::<Grants>(&text(Grants::MAX_HTTP + 1)).is_err());
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in ["", "orders", "orders:9000", "ftp://orders", "file:///etc/passwd", "http://"] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        for text in ["http://orders/path", "http://u@orders", "http://u:p@orders", "http://orders?x", "http://orders#x"]
        {
            assert_eq!(text.parse::<Origin>(), Err(OriginError::TooMuch(text.to_owned())));
        }
    }

    #[test]
    fn spellings_of_one_origin_are_equal() {
        let origin = |text: &str| text.parse::<Origin>().unwrap();
        assert_eq!(origin("HTTP://Example.COM:80/"), origin("http://example.com"));
        assert_eq!(origin("http://127.1"), origin("http://0x7f000001"));
        assert_ne!(origin("http://example.com"), origin("https://example.com"));
        assert_ne!(origin("http://example.com"), origin("http://example.com:81"));
        assert_eq!(origin("http://[::1]:8080").to_string(), "http://[::1]:8080");
    }
}
