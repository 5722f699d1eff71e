//! Texts in which facts of the message are filled in: a URL, a key, the parameter of a statement.

use crate::Facts;

/// A parsed text, and what to fill in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The setting that holds it.
    setting: &'static str,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Never empty.
    Text(String),
    /// The name of what is filled in.
    Value(String),
}

/// Templates between commas, blanks around them left out: the parameters of a statement, of which none is written as nothing.
///
/// # Errors
/// As those of [`Template::parse`].
pub fn templates(setting: &'static str, text: Option<&str>, known: &[&str]) -> Result<Vec<Template>, String> {
    let each = |text: &str| Template::parse(setting, text.trim(), known);
    text.map_or(Ok(Vec::new()), |text| text.split(',').map(each).collect())
}

impl Template {
    /// Reads one. `known` are the names that may stand in braces; `property.*` stands for each that begins so.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it, for whoever wrote the binding.
    pub fn parse(setting: &'static str, text: &str, known: &[&str]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or(format!("config `{setting}` has a {{ without its }}"))? + open;
            parts.push(Part::Text(rest[..open].to_owned()));
            let name = &rest[open + 1..close];
            if !known.iter().any(|known| is_named(name, known)) {
                return Err(format!("config `{setting}` has {{{name}}}: only {} are known", told(known)));
            }
            parts.push(Part::Value(name.to_owned()));
            rest = &rest[close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        if parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains('}'))) {
            return Err(format!("config `{setting}` has a }} without its {{"));
        }
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self { setting, parts })
    }

    /// The name of what is filled in, where there is nothing else: such a text can become a value of another type.
    pub fn sole(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Value(name)] => Some(name),
            _ => None,
        }
    }

    /// The names of all that is filled in.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(name) => Some(name.as_str()),
        })
    }

    /// The setting that holds it.
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// The text for one message. `put` puts a value, whose name it gets as well, behind what is there, and may refuse it.
    ///
    /// # Errors
    /// Which value the message lacks, and what `put` says.
    pub fn fill(
        &self,
        facts: &impl Facts,
        put: impl Fn(&str, &str, &mut String) -> Result<(), String>,
    ) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Value(name) => {
                    let value = facts.fact(name).ok_or_else(|| self.lacks(facts, name))?;
                    put(plain(name), value, &mut filled)?;
                }
            }
        }
        Ok(filled)
    }

    /// The text for one message with the values as they are.
    ///
    /// # Errors
    /// Which value the message lacks. An empty one counts as lacking: it would stand for all messages that lack it.
    pub fn fill_plain(&self, facts: &impl Facts) -> Result<String, String> {
        self.fill(facts, |name, value, filled| match value {
            "" => Err(self.lacks(facts, name)),
            value => {
                filled.push_str(value);
                Ok(())
            }
        })
    }

    fn lacks(&self, facts: &impl Facts, name: &str) -> String {
        format!("the {} has no {}, which `{}` wants", facts.subject(), plain(name), self.setting)
    }
}

/// The name as people say it: of a property its own.
fn plain(name: &str) -> &str {
    name.strip_prefix("property.").unwrap_or(name)
}

/// Whether a name is one of those that `known` stands for.
fn is_named(name: &str, known: &str) -> bool {
    match known.strip_suffix('*') {
        Some(prefix) => name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
        None => name == known,
    }
}

/// The names as they are written in a text.
fn told(known: &[&str]) -> String {
    let written: Vec<String> = known.iter().map(|known| format!("{{{}}}", known.replace('*', "NAME"))).collect();
    match written.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => "no names".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HalfFacts;

    fn parse(template: &str) -> Result<Template, String> {
        Template::parse("params", template, HalfFacts::NAMES)
    }

    fn fill(template: &str, keys: &[&str], properties: &[(&str, &str)]) -> Result<String, String> {
        let keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
        let properties: Vec<(String, String)> =
            properties.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let facts = HalfFacts { keys: &keys, id: "01AB", transaction: "0:4711", properties: &properties };
        parse(template)?.fill_plain(&facts)
    }

    #[test]
    fn facts_are_filled_in_as_they_are() {
        assert_eq!(fill("{id}", &[], &[]).unwrap(), "01AB");
        assert_eq!(fill("o-{key}/{transaction}", &["a'; --", "b"], &[]).unwrap(), "o-a'; --/0:4711");
        assert_eq!(fill("{property.region}", &[], &[("region", "{key}")]).unwrap(), "{key}");
        assert_eq!(fill("CANCELLED", &[], &[]).unwrap(), "CANCELLED");
        assert_eq!(fill("", &[], &[]).unwrap(), "");
    }

    #[test]
    fn what_the_message_lacks_is_named() {
        let lacks = |name| format!("the half message has no {name}, which `params` wants");
        assert_eq!(fill("{key}", &[], &[]).unwrap_err(), lacks("key"));
        assert_eq!(fill("{key}", &[""], &[]).unwrap_err(), lacks("key"));
        assert_eq!(fill("{property.region}", &[], &[("Region", "eu")]).unwrap_err(), lacks("region"));
    }

    #[test]
    fn a_wrong_template_is_refused_with_the_name_of_its_setting() {
        for template in ["{key", "key}", "{}", "{body}", "{property.}", "{{key}}", "{key.}"] {
            let refused = parse(template).unwrap_err();
            assert!(refused.contains("`params`"), "{template}: {refused}");
        }
        let refused = parse("{body}").unwrap_err();
        assert!(
            refused.ends_with("{body}: only {key}, {id}, {transaction} and {property.NAME} are known"),
            "{refused}"
        );
    }

    #[test]
    fn a_template_says_what_it_is_made_of() {
        let of = |template: &str| {
            let template = parse(template).unwrap();
            (template.sole().map(str::to_owned), template.names().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(of("{property.a}"), (Some("property.a".to_owned()), vec!["property.a".to_owned()]));
        assert_eq!(of("{id}{key}"), (None, vec!["id".to_owned(), "key".to_owned()]));
        assert_eq!(of("o-{id}").0, None);
        assert_eq!(of("PAID"), (None, vec![]));
    }

    #[test]
    fn templates_stand_between_commas() {
        let read = |text: Option<&str>| templates("params", text, HalfFacts::NAMES);
        assert_eq!(read(Some(" {key} ,PAID")).unwrap(), [parse("{key}").unwrap(), parse("PAID").unwrap()]);
        assert_eq!(read(None).unwrap(), []);
        assert!(read(Some("{key},{nobody}")).unwrap_err().contains("{nobody}"));
    }
}
