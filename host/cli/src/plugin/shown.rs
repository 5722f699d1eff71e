//! Plugins as people read them.

use serde_json::Value;

use super::path_of;
use crate::failure::WrongUsage;
use crate::http::HttpArgs;
use crate::output::{self, TextTable, cell};
use crate::resource::{self, PageArgs};

/// Shows a plugin: its tags, and each of its components with what it reads of a binding's config. Or one component, by a tag.
///
/// # Errors
/// [`WrongUsage`]: it names a component by its digest, under which the API has the file itself.
pub(super) fn show(reference: &str, http: &HttpArgs) -> anyhow::Result<()> {
    if let Some((name, _)) = reference.split_once('@') {
        return Err(WrongUsage::error(format!(
            "`{reference}` is not NAME or NAME:TAG; every component of a plugin with its digest is shown by: vouch plugin show {name}"
        )));
    }
    let mut answer = http.client()?.get(&path_of(reference)?)?.body;
    if http.json {
        return Ok(output::json(&answer)?);
    }
    let Some(components) = answer.as_object_mut().and_then(|plugin| plugin.remove("components")) else {
        return Ok(output::line(described(&answer))?);
    };
    output::line(output::describe(&answer))?;
    for component in resource::items(&components) {
        output::line(format_args!("\n{}", described(component)))?;
    }
    Ok(())
}

/// A component, and below it, line by line, what it reads of a binding's config.
pub(super) fn described(component: &Value) -> String {
    let mut component = component.clone();
    let settings = component.get("config").and_then(Value::as_array).filter(|settings| !settings.is_empty()).cloned();
    let Some(settings) = settings else { return output::describe(&component) };
    component.as_object_mut().expect("it has a member").remove("config");
    let mut table = TextTable::new(&["NAME", "VALUE", ""]);
    settings.iter().for_each(|setting| table.row([cell(setting, "name"), value_of(setting), demands(setting)]));
    let table: Vec<String> = table.render().lines().map(|line| format!("  {line}")).collect();
    format!(
        "{}\nconfig, which a binding gives with --config NAME=VALUE:\n{}",
        output::describe(&component),
        table.join("\n")
    )
}

/// What the value of a setting has to be.
fn value_of(setting: &Value) -> String {
    match setting.get("values").and_then(Value::as_array) {
        Some(values) if !values.is_empty() => values.iter().map(output::plain).collect::<Vec<_>>().join(" | "),
        _ => cell(setting, "type"),
    }
}

/// Whether the component works without a setting, and what that one needs besides.
fn demands(setting: &Value) -> String {
    let required = setting["required"] == true;
    let needs = setting.get("needs").and_then(Value::as_array).filter(|needs| !needs.is_empty());
    let needs = needs.map(|needs| format!("needs {}", needs.iter().map(output::plain).collect::<Vec<_>>().join(", ")));
    required.then(|| "required".to_owned()).into_iter().chain(needs).collect::<Vec<_>>().join(", ")
}

/// Prints a page of plugins, a line each.
pub(super) fn list(page: &PageArgs, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/plugins{}", page.query(&[])))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = TextTable::new(&["NAME", "TAGS", ">COMPONENTS"]);
    for plugin in resource::items(&answer.body) {
        let components = plugin.get("digests").and_then(Value::as_array).map_or(0, Vec::len);
        table.row([cell(plugin, "name"), tags(plugin), components.to_string()]);
    }
    table.print()?;
    page.more(&answer.body)
}

/// The tags of a plugin, whether the node lists them as names, as objects with a name, or as a map to digests.
fn tags(plugin: &Value) -> String {
    let names: Vec<String> = match plugin.get("tags") {
        Some(Value::Object(tags)) => tags.keys().cloned().collect(),
        Some(Value::Array(tags)) => tags.iter().map(|tag| output::plain(tag.get("tag").unwrap_or(tag))).collect(),
        _ => Vec::new(),
    };
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_component_reads_of_its_config_has_a_line_for_each_name() {
        let component = json!({"name": "check", "size": 7, "config": [
            {"name": "url", "type": "url", "required": true},
            {"name": "fence", "type": "text", "values": ["on", "off"], "needs": ["url", "k\nforged"]},
            {"name": "field", "type": "text"},
        ]});
        assert_eq!(
            described(&component),
            "name: check\nsize: 7\nconfig, which a binding gives with --config NAME=VALUE:\n  \
             NAME   VALUE\n  \
             url    url       required\n  \
             fence  on | off  needs url, k\\nforged\n  \
             field  text"
        );
        // Of one that says nothing of it nothing is known, and one may say that there is none.
        assert_eq!(described(&json!({"name": "check"})), "name: check");
        assert_eq!(described(&json!({"name": "check", "config": []})), "config: -\nname:   check");
    }

    #[test]
    fn tags_are_listed_by_name() {
        assert_eq!(tags(&json!({"tags": {"1.0": "sha256:ab", "stable": "sha256:ab"}})), "1.0,stable");
        assert_eq!(tags(&json!({"tags": ["1.0"]})), "1.0");
        assert_eq!(tags(&json!({"tags": [{"tag": "1.0", "digest": "x"}]})), "1.0");
        assert_eq!(tags(&json!({})), "-");
    }
}
