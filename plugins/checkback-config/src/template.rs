//! Texts in which facts of the half message are filled in: a URL, a key, the parameter of a statement.

/// A parsed text, and what to fill in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The setting that holds it.
    setting: &'static str,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Key,
    Id,
    Transaction,
    Property(String),
}

/// Where the values come from: the half message and its transaction.
pub struct Facts<'a> {
    /// Business keys of the message; the first one fills `{key}`.
    pub keys: &'a [String],
    /// Message id.
    pub id: &'a str,
    /// Transaction id.
    pub transaction: &'a str,
    /// Message properties.
    pub properties: &'a [(String, String)],
}

impl Template {
    /// Reads one.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it, for whoever wrote the binding.
    pub fn parse(setting: &'static str, text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or(format!("config `{setting}` has a {{ without its }}"))? + open;
            parts.push(Part::Text(rest[..open].to_owned()));
            parts.push(Part::parse(setting, &rest[open + 1..close])?);
            rest = &rest[close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        if parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains('}'))) {
            return Err(format!("config `{setting}` has a }} without its {{"));
        }
        Ok(Self { setting, parts })
    }

    /// The text for one message. `put` puts a value, whose name it gets as well, behind what is there, and may refuse it.
    ///
    /// # Errors
    /// Which value the message lacks, and what `put` says.
    pub fn fill(
        &self,
        facts: &Facts<'_>,
        put: impl Fn(&str, &str, &mut String) -> Result<(), String>,
    ) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.parts {
            let (name, value) = match part {
                Part::Text(text) => {
                    filled.push_str(text);
                    continue;
                }
                Part::Key => ("key", facts.keys.first().map(String::as_str)),
                Part::Id => ("id", Some(facts.id)),
                Part::Transaction => ("transaction", Some(facts.transaction)),
                Part::Property(name) => (name.as_str(), property(facts, name)),
            };
            let value =
                value.ok_or_else(|| format!("the half message has no {name}, which `{}` wants", self.setting))?;
            put(name, value, &mut filled)?;
        }
        Ok(filled)
    }

    /// The text for one message with the values as they are.
    ///
    /// # Errors
    /// Which value the message lacks. An empty one counts as lacking: it would stand for all messages that lack it.
    pub fn fill_plain(&self, facts: &Facts<'_>) -> Result<String, String> {
        self.fill(facts, |name, value, filled| match value {
            "" => Err(format!("the half message has no {name}, which `{}` wants", self.setting)),
            value => {
                filled.push_str(value);
                Ok(())
            }
        })
    }
}

fn property<'a>(facts: &Facts<'a>, name: &str) -> Option<&'a str> {
    facts.properties.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

impl Part {
    fn parse(setting: &str, name: &str) -> Result<Self, String> {
        match name {
            "key" => Ok(Self::Key),
            "id" => Ok(Self::Id),
            "transaction" => Ok(Self::Transaction),
            _ => match name.strip_prefix("property.") {
                Some(property) if !property.is_empty() => Ok(Self::Property(property.to_owned())),
                _ => Err(format!(
                    "config `{setting}` has {{{name}}}: only {{key}}, {{id}}, {{transaction}} and {{property.NAME}} are known"
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, keys: &[&str], properties: &[(&str, &str)]) -> Result<String, String> {
        let keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
        let properties: Vec<(String, String)> =
            properties.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let facts = Facts { keys: &keys, id: "01AB", transaction: "0:4711", properties: &properties };
        Template::parse("params", template)?.fill_plain(&facts)
    }

    #[test]
    fn facts_are_filled_in_as_they_are() {
        assert_eq!(fill("{id}", &[], &[]).unwrap(), "01AB");
        assert_eq!(fill("o-{key}/{transaction}", &["a'; --", "b"], &[]).unwrap(), "o-a'; --/0:4711");
        assert_eq!(fill("{property.region}", &[], &[("region", "{key}")]).unwrap(), "{key}");
        assert_eq!(fill("CANCELLED", &[], &[]).unwrap(), "CANCELLED");
    }

    #[test]
    fn what_the_message_lacks_is_named() {
        assert!(fill("{key}", &[], &[]).unwrap_err().contains("no key"));
        assert!(fill("{key}", &[""], &[]).unwrap_err().contains("no key"));
        assert!(fill("{property.region}", &[], &[("Region", "eu")]).unwrap_err().contains("no region"));
    }

    #[test]
    fn a_wrong_template_is_refused_with_the_name_of_its_setting() {
        for template in ["{key", "key}", "{}", "{body}", "{property.}", "{{key}}"] {
            let refused = Template::parse("params", template).unwrap_err();
            assert!(refused.contains("`params`"), "{template}: {refused}");
        }
    }
}
