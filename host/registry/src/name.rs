//! Names, tags and references of plugins, in the grammar of the OCI distribution specification.

use std::str::FromStr;

use crate::Digest;

/// Longest plugin name in bytes (the OCI limit for a whole reference leaves 255).
pub const PLUGIN_NAME_MAX: usize = 255;
/// Longest tag in bytes.
pub const TAG_MAX: usize = 128;
/// Longest name of a binding in bytes.
const BINDING_NAME_MAX: usize = 128;

/// Why a name, tag or reference cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not a plugin name.
    #[error(
        "{0:?} is not a plugin name; use lower-case letters and digits, separated by '.', '_', '-' or '/', at most \
         {PLUGIN_NAME_MAX} characters"
    )]
    Name(String),
    /// Not a tag.
    #[error(
        "{0:?} is not a tag; use letters, digits, '_', '.' and '-', beginning with a letter, a digit or '_', at most \
         {TAG_MAX} characters"
    )]
    Tag(String),
    /// Not a binding name.
    #[error(
        "{0:?} is not a binding name; use letters, digits, '_', '.' and '-', at most {BINDING_NAME_MAX} characters"
    )]
    Binding(String),
    /// Neither `name:tag` nor `name@sha256:…`.
    #[error("{0:?} does not say which version; write name:tag or name@sha256:…")]
    Version(String),
    /// The digest is malformed.
    #[error(transparent)]
    Digest(#[from] crate::DigestError),
}

/// Checks a plugin name: OCI path components separated by `/`.
pub fn check_plugin_name(name: &str) -> Result<(), ReferenceError> {
    let wrong = || ReferenceError::Name(name.to_owned());
    if name.is_empty() || name.len() > PLUGIN_NAME_MAX {
        return Err(wrong());
    }
    if name.split('/').all(is_path_component) { Ok(()) } else { Err(wrong()) }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| alphanumeric(*byte));
    if !ends(bytes.first()) || !ends(bytes.last()) {
        return false;
    }
    bytes
        .split(|byte| alphanumeric(*byte))
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

/// Checks a tag.
pub fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = !tag.is_empty()
        && tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    if good { Ok(()) } else { Err(ReferenceError::Tag(tag.to_owned())) }
}

/// Checks the name of a binding.
pub fn check_binding_name(name: &str) -> Result<(), ReferenceError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let good = !name.is_empty() && name.len() <= BINDING_NAME_MAX && name.bytes().all(allowed);
    if good { Ok(()) } else { Err(ReferenceError::Binding(name.to_owned())) }
}

/// Which version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// What the tag points at.
    Tag(String),
    /// Exactly this one.
    Digest(Digest),
}

/// A plugin's name and version: `name:tag` or `name@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Name of the plugin.
    pub name: String,
    /// Which version.
    pub target: Target,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (name, target) = if let Some((name, digest)) = text.split_once('@') {
            (name, Target::Digest(digest.parse()?))
        } else if let Some((name, tag)) = text.rsplit_once(':') {
            check_tag(tag)?;
            (name, Target::Tag(tag.to_owned()))
        } else {
            check_plugin_name(text)?;
            return Err(ReferenceError::Version(text.to_owned()));
        };
        check_plugin_name(name)?;
        Ok(Self { name: name.to_owned(), target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar_of_oci() {
        for good in ["a", "order-checkback", "acme/orders", "a.b_c__d--e/f0", &"a".repeat(255)] {
            assert_eq!(check_plugin_name(good), Ok(()), "{good}");
        }
        for bad in ["", "A", "a_", "-a", "a..b", "a___b", "a//b", "/a", "a b", "é", &"a".repeat(256)] {
            assert!(check_plugin_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_and_binding_names_have_bounds_on_both_sides() {
        assert!(check_tag(&"a".repeat(128)).is_ok() && check_tag(&"a".repeat(129)).is_err());
        assert!(
            check_tag("1.0-rc_1").is_ok()
                && check_tag(".1").is_err()
                && check_tag("-1").is_err()
                && check_tag("").is_err()
        );
        assert!(check_binding_name(&"a".repeat(128)).is_ok() && check_binding_name(&"a".repeat(129)).is_err());
        assert!(check_binding_name("a/b").is_err() && check_binding_name("").is_err());
    }

    #[test]
    fn a_reference_names_a_tag_or_a_digest() {
        let digest = Digest::of(b"x");
        assert_eq!("a/b:1.0".parse(), Ok(Reference { name: "a/b".to_owned(), target: Target::Tag("1.0".to_owned()) }));
        assert_eq!(
            format!("a@{digest}").parse(),
            Ok(Reference { name: "a".to_owned(), target: Target::Digest(digest) })
        );
        assert!(matches!("a".parse::<Reference>(), Err(ReferenceError::Version(_))));
        assert!(matches!("a@sha256:12".parse::<Reference>(), Err(ReferenceError::Digest(_))));
        assert!(matches!("A:1".parse::<Reference>(), Err(ReferenceError::Name(_))));
    }
}
