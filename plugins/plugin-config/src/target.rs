//! A URL taken apart as an outgoing request wants it.

/// A URL taken apart as an outgoing request wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// https rather than http.
    pub https: bool,
    /// Host and port as written.
    pub authority: String,
    /// Begins with `/`.
    pub path_with_query: String,
}

impl Target {
    /// Takes an absolute http or https URL apart; a fragment is dropped. `None` for anything else.
    pub fn parse(url: &str) -> Option<Self> {
        let (https, rest) = match url.split_once("://")? {
            (scheme, rest) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            (scheme, rest) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return None;
        }
        let path_with_query = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Self { https, authority: authority.to_owned(), path_with_query })
    }

    /// The target of a `location` header that came in answer to a request to this one: absolute, without a scheme, from
    /// the root, a query alone, or beside the last path segment. `None` if it is empty or of another scheme.
    pub fn join(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.https { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Self::parse(location);
        }
        let path = self.path_with_query.split('?').next().unwrap_or("/");
        let path_with_query = match location.chars().next()? {
            '/' => location.to_owned(),
            '?' => format!("{path}{location}"),
            _ => format!("{}{location}", &path[..=path.rfind('/').unwrap_or(0)]),
        };
        Some(Self { path_with_query, ..self.clone() })
    }

    /// Whether a credential meant for this target may go to `other`.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.https == other.https && self.authority == other.authority
    }

    /// As it is shown to people.
    pub fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.path_with_query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, https, authority, path) in [
            ("http://o", false, "o", "/"),
            ("HTTPS://o:9000/a/b?c=d#e", true, "o:9000", "/a/b?c=d"),
            ("http://[::1]:80?x", false, "[::1]:80", "/?x"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(
                (target.https, target.authority.as_str(), target.path_with_query.as_str()),
                (https, authority, path)
            );
        }
        for url in ["", "o/a", "ftp://o", "http://", "http:///a"] {
            assert_eq!(Target::parse(url), None, "{url}");
        }
    }

    #[test]
    fn a_location_is_read_relative_to_where_it_came_from() {
        let from = Target::parse("http://o:9000/orders/17?full=1").unwrap();
        for (location, url) in [
            ("https://p/x", Some("https://p/x")),
            ("//p/x", Some("http://p/x")),
            ("/x?y", Some("http://o:9000/x?y")),
            ("?y", Some("http://o:9000/orders/17?y")),
            ("18", Some("http://o:9000/orders/18")),
            ("/login?next=http://q/", Some("http://o:9000/login?next=http://q/")),
            ("/x#top", Some("http://o:9000/x")),
            ("ftp://p/x", None),
            ("", None),
        ] {
            assert_eq!(from.join(location).map(|target| target.url()).as_deref(), url, "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |url| Target::parse(url).unwrap();
        assert!(origin("http://o/a").same_origin(&origin("http://o/b")));
        assert!(!origin("http://o/a").same_origin(&origin("https://o/a")));
        assert!(!origin("http://o/a").same_origin(&origin("http://o:81/a")));
    }
}
