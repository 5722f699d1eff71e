//! How a component is named: `NAME:TAG`, or `NAME@sha256:HEX`.

use crate::http::segment;

/// A component by name and tag, or by name and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ComponentReference {
    pub(super) name: String,
    pub(super) version: Version,
}

/// Which component of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tag(String),
    Digest(String),
}

impl ComponentReference {
    /// Reads a reference.
    ///
    /// # Errors
    /// It has neither tag nor digest, or one of its parts is empty.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, digest)) => (name, Version::Digest(digest.to_owned())),
            None => match text.split_once(':') {
                Some((name, tag)) => (name, Version::Tag(tag.to_owned())),
                None => return Err(format!("`{text}` has no tag; write NAME:TAG, for example {text}:1.0")),
            },
        };
        let (Version::Tag(part) | Version::Digest(part)) = &version;
        if name.is_empty() || part.is_empty() {
            return Err(format!("`{text}` is not NAME:TAG or NAME@sha256:HEX"));
        }
        Ok(Self { name: name.to_owned(), version })
    }

    /// Where the API has the component.
    pub(super) fn path(&self) -> String {
        match &self.version {
            Version::Tag(tag) => tag_path(&self.name, tag),
            Version::Digest(digest) => format!("{}/digests/{}", path(&self.name), segment(digest)),
        }
    }
}

/// The path of a plugin in the HTTP API.
pub(super) fn path(name: &str) -> String {
    format!("/v1/plugins/{}", segment(name))
}

/// The path of one of its tags.
pub(super) fn tag_path(name: &str, tag: &str) -> String {
    format!("{}/tags/{}", path(name), segment(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_a_tag_or_a_digest() {
        let tagged = ComponentReference::parse("team/check:1.0").unwrap();
        assert_eq!(tagged.path(), "/v1/plugins/team%2Fcheck/tags/1.0");
        let digest = ComponentReference::parse("check@sha256:ab").unwrap();
        assert_eq!(digest.path(), "/v1/plugins/check/digests/sha256%3Aab");
    }

    #[test]
    fn a_reference_without_tag_says_how_to_write_one() {
        assert!(ComponentReference::parse("check").unwrap_err().contains("check:1.0"));
        assert!(ComponentReference::parse("check:").is_err());
        assert!(ComponentReference::parse(":1.0").is_err());
    }
}
