//! Names of topics and groups, and the numbers that stand for one life of each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::literal::Literal;

/// Longest topic name in characters (protocol paper §7.1).
pub const TOPIC_NAME_MAX_CHARS: usize = 127;
/// Longest group name in characters (protocol paper §7.1).
pub const GROUP_NAME_MAX_CHARS: usize = 120;
/// Longest name of a topic that the broker makes itself (`%DLQ%` + group), in characters (ST, §1.4).
pub const INTERNAL_TOPIC_NAME_MAX_CHARS: usize = 255;
/// Longest namespace in characters.
pub const NAMESPACE_MAX_CHARS: usize = 64;
/// What the dead-letter topic of a group is called: this, then the group's name.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";

const SYSTEM_TOPICS: [&str; 10] = [
    "TBW102",
    "SCHEDULE_TOPIC_XXXX",
    "BenchmarkTest",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRACE_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "CHECKPOINT_TOPIC",
];

/// A topic or group, inside a namespace (empty when unused).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceName {
    /// Namespace; empty for the default one.
    pub namespace: String,
    /// The name inside the namespace.
    pub name: String,
}

impl ResourceName {
    /// A name in the default namespace.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { namespace: String::new(), name: name.into() }
    }

    /// Reads a name as people write it and as lists show it: `name`, or `namespace/name`. Whether it may be used is for
    /// [`check_topic`](Self::check_topic) and its siblings to say: a text that is no name reads as one that they refuse.
    pub fn parse(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() => {
                Self { namespace: namespace.to_owned(), name: name.to_owned() }
            }
            _ => Self::plain(text),
        }
    }

    /// Whether this is the name that a text means, as [`parse`](Self::parse) reads it.
    pub fn is_written(&self, text: &str) -> bool {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() => self.namespace == namespace && self.name == name,
            _ => self.namespace.is_empty() && self.name == text,
        }
    }

    /// Whether it is a topic of dead letters, which the broker makes with the first of them.
    pub fn is_dead_letter_topic(&self) -> bool {
        self.name.starts_with(DEAD_LETTER_PREFIX)
    }

    /// [`check_topic_name`] and [`check_namespace`].
    pub fn check_topic(&self) -> Result<(), NameError> {
        check_namespace(&self.namespace)?;
        check_topic_name(&self.name)
    }

    /// [`check_new_topic_name`] and [`check_namespace`].
    pub fn check_new_topic(&self) -> Result<(), NameError> {
        check_namespace(&self.namespace)?;
        check_new_topic_name(&self.name)
    }

    /// [`check_group_name`] and [`check_namespace`].
    pub fn check_group(&self) -> Result<(), NameError> {
        check_namespace(&self.namespace)?;
        check_group_name(&self.name)
    }

    /// Checks that messages may be sent to a topic of this name: dead letters come from groups alone.
    pub fn check_sent_to(&self) -> Result<(), NameError> {
        if self.is_dead_letter_topic() { Err(NameError::DeadLetters { name: self.to_string() }) } else { Ok(()) }
    }

    /// The dead-letter topic of the group with this name, in the group's namespace.
    pub fn dead_letter_topic(&self) -> Self {
        Self { namespace: self.namespace.clone(), name: format!("{DEAD_LETTER_PREFIX}{}", self.name) }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Why a name cannot be used. The text is for the person who chose it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum NameError {
    /// Nothing but white space.
    #[error("the {what} name is empty: give it a name of letters, digits, '_' or '-'")]
    Blank {
        /// `topic` or `group`.
        #[serde(deserialize_with = "crate::literal::deserialize")]
        what: Literal,
    },
    /// Longer than the bound.
    #[error("the {what} name has {chars} characters; at most {max} are allowed")]
    TooLong {
        /// `topic`, `group` or `namespace`.
        #[serde(deserialize_with = "crate::literal::deserialize")]
        what: Literal,
        /// Characters found.
        chars: usize,
        /// Characters allowed.
        max: usize,
    },
    /// A character outside the allowed set.
    #[error("the {what} name contains {found:?}; only letters, digits, '%', '|', '_' and '-' are allowed")]
    Character {
        /// `topic`, `group` or `namespace`.
        #[serde(deserialize_with = "crate::literal::deserialize")]
        what: Literal,
        /// The first character that is not allowed.
        found: char,
    },
    /// Something is sent to a topic of dead letters.
    #[error(
        "topic {name} takes no messages: it holds the dead letters of a group, which the broker moves there; send to \
         another topic"
    )]
    DeadLetters {
        /// The topic.
        name: String,
    },
    /// A name that the broker keeps for itself.
    #[error("the {what} name {name:?} is reserved for the broker; choose another")]
    Reserved {
        /// `topic` or `group`.
        #[serde(deserialize_with = "crate::literal::deserialize")]
        what: Literal,
        /// The name asked for.
        name: String,
    },
}

fn check_text(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank { what });
    }
    let chars = name.chars().count();
    if chars > max {
        return Err(NameError::TooLong { what, chars, max });
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '%' | '|' | '_' | '-'))) {
        Some(found) => Err(NameError::Character { what, found }),
        None => Ok(()),
    }
}

/// Checks a topic name as a client may use it: in a send, a subscription or an administrator's call.
///
/// Dead-letter topics pass, since consumers subscribe to them by name; they may be longer than ordinary ones.
pub fn check_topic_name(name: &str) -> Result<(), NameError> {
    let max = if name.starts_with(DEAD_LETTER_PREFIX) { INTERNAL_TOPIC_NAME_MAX_CHARS } else { TOPIC_NAME_MAX_CHARS };
    check_text("topic", name, max)?;
    if SYSTEM_TOPICS.contains(&name) || name.starts_with("rmq_sys_") {
        return Err(NameError::Reserved { what: "topic", name: name.to_owned() });
    }
    Ok(())
}

/// Checks the name of a topic that an administrator creates: as [`check_topic_name`], and not a dead-letter topic.
pub fn check_new_topic_name(name: &str) -> Result<(), NameError> {
    check_topic_name(name)?;
    if name.starts_with('%') {
        return Err(NameError::Reserved { what: "topic", name: name.to_owned() });
    }
    Ok(())
}

/// Checks a group name.
pub fn check_group_name(name: &str) -> Result<(), NameError> {
    check_text("group", name, GROUP_NAME_MAX_CHARS)?;
    if name.starts_with("CID_RMQ_SYS_") {
        return Err(NameError::Reserved { what: "group", name: name.to_owned() });
    }
    Ok(())
}

/// Checks a namespace; an empty one is the default and passes.
pub fn check_namespace(namespace: &str) -> Result<(), NameError> {
    if namespace.is_empty() { Ok(()) } else { check_text("namespace", namespace, NAMESPACE_MAX_CHARS) }
}

/// One life of a topic: a topic deleted and created again gets another number, so that nothing of the first is
/// resurrected (ruling 20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicId(pub u32);

/// One life of a group, as [`TopicId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_accepted_up_to_the_bound_and_refused_above() {
        assert_eq!(check_topic_name(&"a".repeat(TOPIC_NAME_MAX_CHARS)), Ok(()));
        assert!(matches!(
            check_topic_name(&"a".repeat(TOPIC_NAME_MAX_CHARS + 1)),
            Err(NameError::TooLong { chars: 128, max: 127, .. })
        ));
        assert_eq!(check_topic_name(&format!("%DLQ%{}", "g".repeat(120))), Ok(()));
    }

    #[test]
    fn names_with_dots_blanks_or_nothing_are_refused() {
        assert!(matches!(check_topic_name("a.b"), Err(NameError::Character { found: '.', .. })));
        assert!(matches!(check_group_name(" "), Err(NameError::Blank { .. })));
        assert!(matches!(check_group_name(&"g".repeat(121)), Err(NameError::TooLong { .. })));
        assert_eq!(check_group_name(&"g".repeat(120)), Ok(()));
    }

    #[test]
    fn a_name_reads_as_it_is_shown() {
        let (plain, of_tenant) = (ResourceName::plain("a"), ResourceName { namespace: "t".into(), name: "a".into() });
        let dead = of_tenant.dead_letter_topic();
        assert_eq!(dead.to_string(), "t/%DLQ%a");
        for name in [&plain, &of_tenant, &dead, &plain.dead_letter_topic()] {
            let shown = name.to_string();
            assert_eq!(&ResourceName::parse(&shown), name);
            for other in [&plain, &of_tenant, &dead] {
                assert_eq!(other.is_written(&shown), other == name, "{other} {shown}");
            }
        }
    }

    #[test]
    fn what_is_no_name_reads_as_one_that_is_refused() {
        for text in ["", "/", "/a", "a/", "a/b/c", "//a", "a b/c", "t.x/a", &format!("{}/a", "n".repeat(65))] {
            let name = ResourceName::parse(text);
            assert!(name.check_topic().is_err() && name.check_group().is_err(), "{text}");
            assert!(name.check_new_topic().is_err() && name.is_written(text), "{text}");
        }
        assert_eq!(ResourceName::parse(&format!("{}/a", "n".repeat(NAMESPACE_MAX_CHARS))).check_new_topic(), Ok(()));
    }

    #[test]
    fn nothing_is_sent_to_dead_letters_in_any_namespace() {
        for text in ["%DLQ%g", "t/%DLQ%g"] {
            let refused = ResourceName::parse(text).check_sent_to();
            assert!(refused.is_err_and(|error| error.to_string().contains(text)), "{text}");
        }
        assert_eq!(ResourceName::parse("t/DLQ").check_sent_to(), Ok(()));
    }

    #[test]
    fn reserved_names_are_refused() {
        assert!(matches!(check_topic_name("TBW102"), Err(NameError::Reserved { .. })));
        assert!(matches!(check_topic_name("rmq_sys_x"), Err(NameError::Reserved { .. })));
        assert!(matches!(check_group_name("CID_RMQ_SYS_TRANS"), Err(NameError::Reserved { .. })));
        assert!(matches!(check_new_topic_name("%DLQ%g"), Err(NameError::Reserved { .. })));
        assert_eq!(check_topic_name("%DLQ%g"), Ok(()));
    }
}
