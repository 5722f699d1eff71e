//! Names of topics and groups on the wire, and their namespace.

use vouch_broker::{ResourceName, check_group_name, check_namespace, check_topic_name};

use super::Violation;
use crate::wire::Resource;

/// How the names of one call are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallNames<'a> {
    /// Header `x-mq-namespace`. It rules where it is not empty; the field of the request is the fallback (§4.0).
    pub namespace: Option<&'a str>,
}

impl CallNames<'_> {
    /// The topic of a request.
    pub fn topic(&self, resource: Option<Resource>) -> Result<ResourceName, Violation> {
        let name = self.place(resource)?;
        check_topic_name(&name.name)?;
        Ok(name)
    }

    /// The consumer group of a request.
    pub fn group(&self, resource: Option<Resource>) -> Result<ResourceName, Violation> {
        let name = self.place(resource)?;
        check_group_name(&name.name)?;
        Ok(name)
    }

    fn place(&self, resource: Option<Resource>) -> Result<ResourceName, Violation> {
        let Resource { resource_namespace, name } = resource.unwrap_or_default();
        // Also where the header rules: answers and messages carry the resource as it came.
        check_namespace(&resource_namespace)?;
        let namespace = match self.namespace {
            Some(header) if !header.is_empty() => header.to_owned(),
            _ => resource_namespace,
        };
        check_namespace(&namespace)?;
        Ok(ResourceName { namespace, name })
    }
}

/// A name as it stands on the wire.
pub fn resource(name: &ResourceName) -> Resource {
    Resource { resource_namespace: name.namespace.clone(), name: name.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Code;

    fn wire(namespace: &str, name: &str) -> Option<Resource> {
        Some(Resource { resource_namespace: namespace.into(), name: name.into() })
    }

    #[test]
    fn the_namespace_of_the_header_rules_and_the_field_is_the_fallback() {
        let of = |header| CallNames { namespace: header }.topic(wire("field", "t")).unwrap().namespace;
        assert_eq!(of(Some("header")), "header");
        assert_eq!(of(Some("")), "field");
        assert_eq!(of(None), "field");
    }

    #[test]
    fn names_have_their_own_codes_and_bounds_on_both_sides() {
        let names = CallNames::default();
        let topic = |name: &str| names.topic(wire("", name)).map_err(|violation| violation.code);
        let group = |name: &str| names.group(wire("", name)).map_err(|violation| violation.code);
        assert!(topic(&"t".repeat(127)).is_ok());
        assert_eq!(topic(&"t".repeat(128)), Err(Code::IllegalTopic));
        assert!(group(&"g".repeat(120)).is_ok());
        assert_eq!(group(&"g".repeat(121)), Err(Code::IllegalConsumerGroup));
        assert_eq!(names.topic(None).map_err(|violation| violation.code), Err(Code::IllegalTopic));
        let namespace = CallNames { namespace: Some("a/b") }.topic(wire("", "t"));
        assert_eq!(namespace.map_err(|violation| violation.code), Err(Code::BadRequest));
    }

    #[test]
    fn a_namespace_that_the_header_overrules_is_bounded_as_one_that_rules() {
        let of = |namespace: &str| {
            let (header, plain) = (CallNames { namespace: Some("header") }, CallNames::default());
            let read = [header, plain].map(|names| {
                let (topic, group) = (names.topic(wire(namespace, "n")), names.group(wire(namespace, "n")));
                [topic, group].map(|name| name.map(drop).map_err(|violation| violation.code))
            });
            assert_eq!(read[0], read[1], "{} bytes", namespace.len());
            let [[topic, group], _] = read;
            assert_eq!(topic, group);
            topic
        };
        assert_eq!(of("field"), Ok(()));
        assert_eq!(of(&"n".repeat(1_000_000)), Err(Code::BadRequest));
        assert_eq!(of("a/b"), Err(Code::BadRequest));
    }
}
