//! URLs in which facts of the message are filled in.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{Facts, Template};

/// Everything but unreserved characters (RFC 3986): a value stays one path segment or one query value whatever is in it.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A parsed URL, and what to fill in between.
#[derive(Debug, PartialEq, Eq)]
pub struct UrlTemplate(Template);

impl UrlTemplate {
    /// Reads the template in the setting `url`, in which the names that are `known` may stand in braces.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it, for whoever wrote the binding.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err("config `url` must begin with http:// or https://".to_owned());
        }
        let host = &rest[..rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len())];
        if host.is_empty() {
            return Err("config `url` names no host".to_owned());
        }
        if host.contains('@') {
            return Err(
                "config `url` has user or password in front of its host, and no request takes these along: leave \
                        them out, and write what the service wants to know into config `authorization`"
                    .to_owned(),
            );
        }
        // Whom to ask is the operator's choice; what a producer wrote into a message must not steer it.
        if host.contains(['{', '}']) {
            return Err("config `url` may hold {…} only after the host".to_owned());
        }
        // A fragment is never sent: with what stands in it the question would lose what it is about.
        if text.contains('#') {
            return Err("config `url` has a #, and nothing after it would be sent: write %23 if it is meant".to_owned());
        }
        Template::parse("url", text, known).map(Self)
    }

    /// The URL for one message.
    ///
    /// # Errors
    /// Which value the message lacks. An empty value, `.` and `..` count as lacking: with them the URL would be that of
    /// another resource, the list of all orders, say, and its answer would settle the wrong question.
    pub fn fill(&self, facts: &impl Facts) -> Result<String, String> {
        self.0.fill(facts, |name, value, url| match value {
            "" | "." | ".." => Err(format!("the {}'s {name} is `{value}`, which `url` cannot take", facts.subject())),
            value => {
                url.extend(utf8_percent_encode(value, RESERVED));
                Ok(())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HalfFacts;

    fn fill(template: &str, keys: &[&str], properties: &[(&str, &str)]) -> Result<String, String> {
        let keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
        let properties: Vec<(String, String)> =
            properties.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let facts = HalfFacts { keys: &keys, id: "01AB", transaction: "0:4711", properties: &properties };
        UrlTemplate::parse(template, HalfFacts::NAMES)?.fill(&facts)
    }

    #[test]
    fn values_are_filled_in_percent_encoded() {
        assert_eq!(fill("http://orders:9000/o/{key}", &["A-1"], &[]).unwrap(), "http://orders:9000/o/A-1");
        assert_eq!(
            fill("https://o/{id}?t={transaction}&r={property.region}", &[], &[("region", "eu/north é&x=1")]).unwrap(),
            "https://o/01AB?t=0%3A4711&r=eu%2Fnorth%20%C3%A9%26x%3D1"
        );
        assert_eq!(fill("http://o", &[], &[]).unwrap(), "http://o");
        assert_eq!(fill("HTTPS://o/{key}?a=b@c", &["A"], &[]).unwrap(), "HTTPS://o/A?a=b@c");
    }

    #[test]
    fn the_first_of_several_keys_is_taken() {
        assert_eq!(fill("http://o/{key}", &["a", "b"], &[]).unwrap(), "http://o/a");
    }

    #[test]
    fn what_the_message_lacks_is_named() {
        assert!(fill("http://o/{key}", &[], &[]).unwrap_err().contains("no key"));
        assert!(fill("http://o/{property.region}", &[], &[("Region", "eu")]).unwrap_err().contains("no region"));
        for value in ["", ".", ".."] {
            assert!(fill("http://o/{key}", &[value], &[]).is_err(), "{value:?}");
        }
        assert_eq!(fill("http://o/{key}", &["..."], &[]).unwrap(), "http://o/...");
    }

    #[test]
    fn a_wrong_template_is_refused() {
        for template in [
            "",
            "orders/{key}",
            "ftp://o/{key}",
            "http://",
            "http:///x",
            "http://{key}/x",
            "http://o{key}/x",
            "http://{property.host}:80/",
            "http://o/{key",
            "http://o/key}",
            "http://o/{}",
            "http://o/{body}",
            "http://o/{property.}",
            "http://o/{{key}}",
            "http://o/#/{key}",
            "http://o#{key}",
            "http://me:pw@o/{key}",
            "http://me@o",
        ] {
            assert!(UrlTemplate::parse(template, HalfFacts::NAMES).is_err(), "{template}");
        }
    }
}
