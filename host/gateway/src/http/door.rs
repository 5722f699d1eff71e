//! Who may come in (ruling 25): the name by which this server is called, the page a request comes from, the token.
//!
//! A web page on a developer's machine can send requests to `localhost`. It cannot choose `Host` and `Origin`, it does
//! not know the token, and without our consent (there is no CORS here) it can neither send a content-type such as
//! `application/json` nor a PUT, PATCH or DELETE.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use subtle::ConstantTimeEq;

use super::problem::Problem;

/// Longest token in bytes.
pub const TOKEN_MAX_BYTES: usize = 4096;

/// Paths that need no token: load balancers and supervisors ask them.
const WITHOUT_TOKEN: [&str; 2] = ["/healthz", "/readyz"];

/// Why the HTTP port does not open. The operator should correct the setting named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// Anybody in the network could administrate the node.
    #[error(
        "the HTTP API at {0} would be open to the network: set a token (http_token), or say that this is meant \
         (insecure_http = true, --insecure-http), or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// A client could not send it.
    #[error(
        "the HTTP token cannot be sent in a header: use 1 to {TOKEN_MAX_BYTES} visible ASCII characters without blanks"
    )]
    Token,
    /// Not a name that a `Host` header can have.
    #[error("{0:?} is not a host name; write for example \"vouch.example.com\", without scheme and port")]
    HostName(String),
}

/// The rules that hold now: others may be set while the port is served.
#[derive(Debug)]
pub(crate) struct Doors(RwLock<Arc<Door>>);

impl Doors {
    /// The rules to begin with.
    pub(crate) fn new(door: Door) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(door))))
    }

    /// The rules that hold now. A request is held against one set of them from beginning to end.
    pub(crate) fn now(&self) -> Arc<Door> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these hold; whether they differ.
    pub(crate) fn set(&self, door: Door) -> bool {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let differs = **now != door;
        *now = Arc::new(door);
        differs
    }
}

/// The rules of one HTTP port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Door {
    /// Where the port listens, as configured.
    address: SocketAddr,
    /// Further names, in small letters.
    hosts: Vec<String>,
    /// What requests must carry.
    token: Option<String>,
}

impl Door {
    /// The rules for a port at `address`, as configured.
    pub(crate) fn new(
        address: SocketAddr,
        token: Option<String>,
        insecure: bool,
        hosts: &[String],
    ) -> Result<Self, DoorError> {
        if let Some(token) = &token
            && (token.is_empty() || token.len() > TOKEN_MAX_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(DoorError::Token);
        }
        if !address.ip().to_canonical().is_loopback() && token.is_none() && !insecure {
            return Err(DoorError::Open(address));
        }
        let host = |name: &String| match name.parse::<Authority>() {
            Ok(authority) if authority.as_str() == authority.host() => Ok(name.to_ascii_lowercase()),
            _ => Err(DoorError::HostName(name.clone())),
        };
        let hosts = hosts.iter().map(host).collect::<Result<_, _>>()?;
        Ok(Self { address, hosts, token })
    }

    /// Lets a request in, or says why not.
    ///
    /// # Errors
    /// It is not let in, and nothing is told of what is behind the door, not even whether a path exists.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = self.check_host(uri, headers)?;
        self.check_origin(&host, headers)?;
        if WITHOUT_TOKEN.contains(&uri.path()) { Ok(()) } else { self.check_token(headers) }
    }

    /// The name by which the request calls this server.
    ///
    /// # Errors
    /// It calls it by none, or by one that is not ours.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
        let said = one(headers, &header::HOST)?;
        let said = said.ok_or_else(|| Problem::malformed("the request has no Host header; send one"))?;
        let host: Authority =
            said.parse().map_err(|_| Problem::malformed(format!("Host is {said:?}, which is not a name and port")))?;
        // A request line with a whole URL names the host a second time.
        if let Some(foreign) = [Some(&host), uri.authority()].into_iter().flatten().find(|named| !self.is_ours(named)) {
            return Err(Problem::foreign_host(format!(
                "this server is not called {:?}; use localhost or the address it listens on, or add the name to http_hosts",
                foreign.host()
            )));
        }
        Ok(host)
    }

    /// Names that a foreign page could make resolve to this server are not ours. An address in digits cannot be made to
    /// resolve to another one, so beyond loopback each is taken: who listens there knows its many addresses.
    fn is_ours(&self, named: &Authority) -> bool {
        let host = named.host().trim_end_matches('.').to_ascii_lowercase();
        if host == "localhost" || self.hosts.contains(&host) {
            return true;
        }
        let digits = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        let Ok(ip) = digits.parse::<IpAddr>() else { return false };
        ip.to_canonical().is_loopback() || !self.address.ip().to_canonical().is_loopback()
    }

    /// # Errors
    /// The request comes from a web page of somebody else's.
    fn check_origin(&self, host: &Authority, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(origin) = one(headers, &header::ORIGIN)? else { return Ok(()) };
        let from = origin.split_once("://").and_then(|(_, authority)| authority.parse::<Authority>().ok());
        let ours = from.is_some_and(|from| {
            from.as_str().eq_ignore_ascii_case(host.as_str()) || self.hosts.contains(&from.host().to_ascii_lowercase())
        });
        if ours {
            return Ok(());
        }
        Err(Problem::foreign_origin(format!(
            "requests from web pages of {origin} are refused; call the API from a program, or add the page's host to \
             http_hosts"
        )))
    }

    /// # Errors
    /// There is no token, or another one.
    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        let how = "send it as `authorization: Bearer TOKEN`";
        let said = one(headers, &header::AUTHORIZATION)?
            .ok_or_else(|| Problem::unauthorized(format!("this node asks for a token; {how}")))?;
        let bearer = said.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, given) = bearer.ok_or_else(|| Problem::unauthorized(format!("this node asks for a token; {how}")))?;
        // Of the right token, the time of a refusal tells only the length.
        if bool::from(given.trim().as_bytes().ct_eq(token.as_bytes())) {
            Ok(())
        } else {
            Err(Problem::unauthorized("the token is not the one of this node"))
        }
    }
}

/// The only value of a header; several would let two readers see different ones.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::malformed(format!("the request has several {name} headers; send one")));
    }
    value.to_str().map(Some).map_err(|_| Problem::malformed(format!("the {name} header is not ASCII text")))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, StatusCode};

    use super::*;

    fn door(address: &str, token: Option<&str>, insecure: bool, hosts: &[&str]) -> Result<Door, DoorError> {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        Door::new(address.parse().unwrap(), token.map(str::to_owned), insecure, &hosts)
    }

    fn status(door: &Door, headers: &[(HeaderName, &str)]) -> Option<u16> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        let checked = door.check(&Uri::from_static("/v1/topics"), &headers.collect());
        checked.err().map(|problem| problem.status().as_u16())
    }

    #[test]
    fn beyond_loopback_a_token_or_a_word_is_needed() {
        for address in ["0.0.0.0:8080", "[::]:8080", "10.0.0.5:8080"] {
            assert!(matches!(door(address, None, false, &[]), Err(DoorError::Open(_))), "{address}");
            assert!(door(address, Some("secret"), false, &[]).is_ok() && door(address, None, true, &[]).is_ok());
        }
        for address in ["127.0.0.1:0", "[::1]:0", "127.9.9.9:1", "[::ffff:127.0.0.1]:1"] {
            assert!(door(address, None, false, &[]).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_token_must_fit_in_a_header() {
        let with = |token: &str| door("127.0.0.1:0", Some(token), false, &[]);
        assert!(with("t").is_ok() && with(&"t".repeat(TOKEN_MAX_BYTES)).is_ok());
        for wrong in ["", "two words", "tökén", "line\n", &"t".repeat(TOKEN_MAX_BYTES + 1)] {
            assert_eq!(with(wrong).err(), Some(DoorError::Token), "{wrong:?}");
        }
    }

    #[test]
    fn on_loopback_only_its_own_names_are_answered() {
        let door = door("127.0.0.1:8080", None, false, &["Vouch.example"]).unwrap();
        for ours in ["localhost:8080", "LOCALHOST", "localhost.:1", "127.0.0.1:9", "[::1]:8080", "vouch.EXAMPLE"] {
            assert_eq!(status(&door, &[(header::HOST, ours)]), None, "{ours}");
        }
        for foreign in ["evil.example:8080", "localhost.evil.example", "10.0.0.5:8080", "vouch.example.evil.com"] {
            assert_eq!(status(&door, &[(header::HOST, foreign)]), Some(403), "{foreign}");
        }
        assert_eq!(status(&door, &[]), Some(400));
        assert_eq!(status(&door, &[(header::HOST, "a b")]), Some(400));
        let two = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        let mut twice = two.clone();
        twice.append(header::HOST, HeaderValue::from_static("evil.example"));
        let uri = Uri::from_static("/v1/topics");
        assert!(door.check(&uri, &two).is_ok());
        assert_eq!(door.check(&uri, &twice).unwrap_err().status(), StatusCode::BAD_REQUEST);
        let absolute = Uri::from_static("http://evil.example/v1/topics");
        assert_eq!(door.check(&absolute, &two).unwrap_err().status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn beyond_loopback_addresses_in_digits_are_answered_and_names_are_not() {
        let door = door("0.0.0.0:8080", None, true, &[]).unwrap();
        for (host, refused) in [("10.0.0.5:8080", None), ("[fe80::1]:8080", None), ("evil.example", Some(403))] {
            assert_eq!(status(&door, &[(header::HOST, host)]), refused, "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let door = door("127.0.0.1:8080", None, false, &["vouch.example"]).unwrap();
        let from = |origin| status(&door, &[(header::HOST, "localhost:8080"), (header::ORIGIN, origin)]);
        assert_eq!((from("http://localhost:8080"), from("https://vouch.example")), (None, None));
        for foreign in ["http://localhost:3000", "http://localhost", "http://127.0.0.1:8080", "https://evil.example"] {
            assert_eq!(from(foreign), Some(403), "{foreign}");
        }
        assert_eq!((from("null"), from("")), (Some(403), Some(403)));
    }

    #[test]
    fn the_token_is_asked_for_everywhere_but_at_the_probes() {
        let door = door("127.0.0.1:8080", Some("secret"), false, &[]).unwrap();
        let with =
            |authorization| status(&door, &[(header::HOST, "localhost"), (header::AUTHORIZATION, authorization)]);
        assert_eq!((with("Bearer secret"), with("bearer secret")), (None, None));
        for wrong in ["Bearer secreT", "Bearer secret2", "Bearer ", "Bearer", "Basic secret", "secret"] {
            assert_eq!(with(wrong), Some(401), "{wrong}");
        }
        assert_eq!(status(&door, &[(header::HOST, "localhost")]), Some(401));
        // Who says that an open port is meant takes no token away.
        let meant = self::door("0.0.0.0:8080", Some("secret"), true, &[]).unwrap();
        assert_eq!(status(&meant, &[(header::HOST, "localhost")]), Some(401));
        let host = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        for probe in ["/healthz", "/readyz"] {
            assert!(door.check(&Uri::from_static(probe), &host).is_ok());
        }
    }

    #[test]
    fn host_names_are_names() {
        for wrong in ["", "http://x", "x:80", "a b", "x/y"] {
            assert!(matches!(door("127.0.0.1:0", None, false, &[wrong]), Err(DoorError::HostName(_))), "{wrong}");
        }
    }
}
