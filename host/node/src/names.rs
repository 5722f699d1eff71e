//! Names of topics and groups, as administrators write them.

use vouch_broker::{NotDone, ResourceName, State, TopicId};

/// The topic that an administrator names. One that cannot be is refused here: nobody is advised to create it.
pub(crate) fn topic_named(text: &str) -> Result<ResourceName, NotDone> {
    let name = ResourceName::parse(text);
    name.check_topic()?;
    Ok(name)
}

/// The group that an administrator names.
pub(crate) fn group_named(text: &str) -> Result<ResourceName, NotDone> {
    let name = ResourceName::parse(text);
    name.check_group()?;
    Ok(name)
}

/// The name of a topic; empty if it was deleted so long ago that its name is forgotten.
pub(crate) fn topic_text(at: &State, id: TopicId) -> String {
    at.topics().name_of(id).map_or_else(String::new, ToString::to_string)
}
