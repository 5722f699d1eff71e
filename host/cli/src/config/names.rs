//! Names that are none, and which one was meant.

use super::defaults::CONFIG_VARIABLE;
use super::setting::SettingRow;
use super::table::SETTINGS;

/// Names further away than this from every known one get no suggestion.
const SUGGESTION_MIN_SIMILARITY: f64 = 0.7;

/// What is said of a name in the file that is no setting.
pub(super) fn unknown_key(key: &str) -> String {
    let near = suggestion(key, SETTINGS.iter().map(|known| known.name));
    format!("`{key}` is not a setting{near}")
}

/// Variables that look like settings and are none: a typing mistake must not pass in silence.
pub(crate) fn unknown_variables(environment: impl Iterator<Item = String>) -> Vec<String> {
    let others = [CONFIG_VARIABLE.to_owned()];
    let known: Vec<String> = SETTINGS.iter().map(SettingRow::variable).chain(others).collect();
    let unknown = environment.filter(|name| name.starts_with("VOUCH_") && !known.contains(name));
    unknown.map(|name| format!("{name} is not a setting{}", suggestion(&name, known.iter()))).collect()
}

/// `; did you mean …?` with the nearest name, if any is near.
fn suggestion(name: &str, known: impl Iterator<Item = impl AsRef<str>>) -> String {
    let similarity = |candidate: &str| strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase());
    let near = known.map(|candidate| (similarity(candidate.as_ref()), candidate.as_ref().to_owned()));
    let best = near.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(near, _)| *near >= SUGGESTION_MIN_SIMILARITY);
    best.map_or_else(
        || "; vouch serve --help lists them".to_owned(),
        |(_, nearest)| format!("; did you mean `{nearest}`?"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_variable_is_found() {
        let names = ["VOUCH_GRPC_ADDR", "VOUCH_GRCP_ADDR", "VOUCH_CONFIG", "PATH"].map(str::to_owned);
        let unknown = unknown_variables(names.into_iter());
        assert_eq!(unknown, ["VOUCH_GRCP_ADDR is not a setting; did you mean `VOUCH_GRPC_ADDR`?"]);
    }
}
