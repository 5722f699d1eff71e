use super::*;

fn resolved(args: &SettingArgs, file: &str, environment: &[(&str, &str)]) -> Resolved {
    let file = parse_file(file).map_err(|why| panic!("{why}")).unwrap();
    let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned());
    Resolved { values: SETTINGS.iter().map(|known| args.value(known, Some(&file), lookup)).collect() }
}

fn text(resolved: &Resolved, key: &str) -> (String, &'static str) {
    let value = resolved.find(key).unwrap();
    (value.text.clone(), value.source.kind())
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = "grpc_addr = '127.0.0.1:3'\nhttp_addr = '127.0.0.1:4'\ndata_dir = '/f'";
    // The parser fills a flag from its variable; which of the two it was is told by the variable's value.
    let args = SettingArgs {
        grpc_addr: Some("127.0.0.1:1".to_owned()),
        http_addr: Some("127.0.0.1:2".to_owned()),
        ..SettingArgs::default()
    };
    let environment = [("VOUCH_GRPC_ADDR", "127.0.0.1:9"), ("VOUCH_HTTP_ADDR", "127.0.0.1:2")];
    let resolved = resolved(&args, file, &environment);
    assert_eq!(text(&resolved, "grpc_addr"), ("127.0.0.1:1".to_owned(), "flag"));
    assert_eq!(text(&resolved, "http_addr"), ("127.0.0.1:2".to_owned(), "environment"));
    assert_eq!(text(&resolved, "data_dir"), ("/f".to_owned(), "file"));
    assert_eq!(text(&resolved, "segment_size"), ("1GiB".to_owned(), "default"));
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest_one() {
    let error = parse_file("grcp_addr = '127.0.0.1:1'").err().unwrap();
    assert_eq!(error, "`grcp_addr` is not a setting; did you mean `grpc_addr`?");
    let error = parse_file("colour = 'red'").err().unwrap();
    assert!(error.contains("vouch serve --help"), "{error}");
}

#[test]
fn values_may_be_text_numbers_or_booleans_and_nothing_else() {
    let file = parse_file("syncs_in_flight = 4\nauto_create_topics = true\nzero_ahead = '1MiB'").ok().unwrap();
    assert_eq!(file.get("syncs_in_flight"), Some("4"));
    assert_eq!(file.get("auto_create_topics"), Some("true"));
    for wrong in ["data_dir = ['a']", "data_dir = 1.5", "[data_dir]\na = 1"] {
        assert!(parse_file(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let error = parse_file("data_dir = './x'\nnonsense").err().unwrap();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn a_wrong_value_is_told_with_where_it_stands() {
    let wrong = |text: &str| Err::<(), _>(format!("`{text}` is wrong"));
    let file = resolved(&SettingArgs::default(), "segment_size = 'big'", &[]);
    let error = file.get("segment_size", wrong).unwrap_err();
    assert!(error.is::<Usage>());
    assert_eq!(error.to_string(), "segment_size in the file: `big` is wrong");
    let args = SettingArgs { segment_size: Some("big".to_owned()), ..SettingArgs::default() };
    assert_eq!(
        resolved(&args, "", &[]).get("segment_size", wrong).unwrap_err().to_string(),
        "--segment-size: `big` is wrong"
    );
    let environment = [("VOUCH_SEGMENT_SIZE", "big")];
    let text = resolved(&args, "", &environment).get("segment_size", wrong).unwrap_err().to_string();
    assert_eq!(text, "VOUCH_SEGMENT_SIZE: `big` is wrong");
}

#[test]
fn a_mistyped_variable_is_found() {
    let names = ["VOUCH_GRPC_ADDR", "VOUCH_GRCP_ADDR", "VOUCH_CONFIG", "PATH"].map(str::to_owned);
    let unknown = unknown_variables(names.into_iter());
    assert_eq!(unknown, ["VOUCH_GRCP_ADDR is not a setting; did you mean `VOUCH_GRPC_ADDR`?"]);
}

#[test]
fn a_token_is_never_shown() {
    let args = SettingArgs { http_token: Some("sesame".to_owned()), ..SettingArgs::default() };
    let resolved = resolved(&args, "", &[]);
    assert!(!format!("{:?}", resolved.rows().collect::<Vec<_>>()).contains("sesame"));
    assert!(!resolved.document().to_string().contains("sesame"));
}

#[test]
fn every_setting_has_a_flag() {
    use clap::Args as _;
    let command = SettingArgs::augment_args(clap::Command::new("serve"));
    for known in &SETTINGS {
        let flag = command.get_arguments().find(|argument| argument.get_id() == known.key);
        let flag = flag.unwrap_or_else(|| panic!("{} has no flag", known.key));
        let expected = variable(known.key);
        assert_eq!(flag.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
        // The table and the parser of flags must name the same settings.
        let all = SettingArgs { config: None, ..every_flag("x") };
        assert_eq!(all.given(known.key).map(String::as_str), Some("x"), "{}", known.key);
    }
}

fn every_flag(text: &str) -> SettingArgs {
    use clap::{Args as _, FromArgMatches as _};
    let command = SettingArgs::augment_args(clap::Command::new("serve").no_binary_name(true));
    let flags = SETTINGS.iter().map(|known| format!("--{}={text}", known.key.replace('_', "-")));
    SettingArgs::from_arg_matches(&command.get_matches_from(flags)).unwrap()
}
