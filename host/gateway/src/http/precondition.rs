//! `If-Match` and `If-None-Match` on writes (RFC 9110 §13): nobody overwrites what he has not read.

use axum::http::{HeaderMap, HeaderName, header};
use vouch_broker::Refusal;
use vouch_node::Expect;

use super::problem::Problem;

/// Entity tags of one header.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: whatever there is.
    Any,
    /// One of these.
    OneOf(Vec<String>),
}

impl Tags {
    /// Reads all headers of this name.
    ///
    /// # Errors
    /// One is no list of tags in quotes: such as a tag whose quotes a shell took away.
    fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let wrong = || {
            let example = "\"42\", or * for whatever is there";
            Problem::malformed(format!("{name} must be an entity tag in quotes as an ETag header gave it: {example}"))
        };
        let mut tags = Vec::new();
        for value in headers.get_all(name) {
            let text = value.to_str().map_err(|_| wrong())?;
            if text.trim() == "*" {
                return Ok(Some(Self::Any));
            }
            for tag in text.split(',') {
                // A weak tag never matches where tags are compared strongly, and this server gives out none.
                let tag = tag.trim();
                let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or_else(wrong)?;
                tags.push(opaque.to_owned());
            }
        }
        Ok(if tags.is_empty() { None } else { Some(Self::OneOf(tags)) })
    }

    /// Whether what is there is named.
    fn matches(&self, current: Option<&str>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::OneOf(tags), Some(current)) => tags.iter().any(|tag| tag == current),
        }
    }
}

/// What a write demands of what is there.
#[derive(Debug)]
pub(crate) struct Preconditions {
    /// What has to be there.
    if_match: Option<Tags>,
    /// What must not.
    if_none_match: Option<Tags>,
}

impl Preconditions {
    /// Reads the headers.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            if_match: Tags::of(headers, &header::IF_MATCH)?,
            if_none_match: Tags::of(headers, &header::IF_NONE_MATCH)?,
        })
    }

    /// Whether the request demands anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Whether the request says what it replaces.
    pub(crate) fn says_what_it_replaces(&self) -> bool {
        self.if_match.is_some()
    }

    /// Holds them against the tag of what is there; `None` if nothing is.
    ///
    /// # Errors
    /// One does not hold: the sentence says what tag is there now.
    pub(crate) fn check(&self, what: &str, current: Option<&str>) -> Result<(), Problem> {
        let is = || match current {
            Some(tag) => format!("{what} has the tag \"{tag}\" now"),
            None => format!("{what} does not exist"),
        };
        let fails = |why: String| Err(Refusal::PreconditionFailed(why).into());
        if self.if_match.as_ref().is_some_and(|tags| !tags.matches(current)) {
            return fails(format!("{}, which If-Match does not name; read it, then try again with its tag", is()));
        }
        if self.if_none_match.as_ref().is_some_and(|tags| tags.matches(current)) {
            return fails(format!("{}, which If-None-Match excludes; leave the header out to replace it", is()));
        }
        Ok(())
    }

    /// The same against a revision, as a demand that the log checks again when the write is applied: what was read
    /// here may change before.
    ///
    /// # Errors
    /// They do not hold now. That they hold until the write is applied the log sees to.
    pub(crate) fn expect(&self, what: &str, current: Option<u64>) -> Result<Expect, Problem> {
        self.check(what, current.map(|revision| revision.to_string()).as_deref())?;
        Ok(match current {
            _ if self.is_empty() => Expect::Anything,
            Some(revision) => Expect::Revision(revision),
            None => Expect::Absent,
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(name: HeaderName, value: &'static str) -> Result<Preconditions, Problem> {
        Preconditions::of(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
    }

    #[test]
    fn if_match_lets_through_only_what_it_names() {
        let demand = of(header::IF_MATCH, "\"7\", \"8\"").unwrap();
        assert_eq!(demand.expect("x", Some(8)).unwrap(), Expect::Revision(8));
        assert!(demand.expect("x", Some(9)).is_err() && demand.expect("x", None).is_err());
        let any = of(header::IF_MATCH, "*").unwrap();
        assert_eq!(any.expect("x", Some(9)).unwrap(), Expect::Revision(9));
        assert!(any.expect("x", None).is_err());
    }

    #[test]
    fn if_none_match_lets_through_only_what_it_does_not_name() {
        let absent = of(header::IF_NONE_MATCH, "*").unwrap();
        assert_eq!(absent.expect("x", None).unwrap(), Expect::Absent);
        assert!(absent.expect("x", Some(1)).is_err());
        let other = of(header::IF_NONE_MATCH, "\"7\"").unwrap();
        assert_eq!(other.expect("x", Some(8)).unwrap(), Expect::Revision(8));
        assert!(other.expect("x", Some(7)).is_err());
    }

    #[test]
    fn a_tag_without_quotes_and_a_weak_one_are_malformed() {
        for value in ["7", "W/\"7\"", "\"7", ""] {
            assert!(of(header::IF_MATCH, value).is_err(), "{value}");
        }
        let nothing = Preconditions::of(&HeaderMap::new()).unwrap();
        assert_eq!(nothing.expect("x", Some(1)).unwrap(), Expect::Anything);
    }
}
