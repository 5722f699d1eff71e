use clap::Parser;

use super::*;
use crate::failure::{self, WrongUsage};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: SettingArgs,
}

/// What a command line says. The environment of the tests has no variable of ours.
fn line(flags: &[&str]) -> SettingArgs {
    Line::try_parse_from([&["vouch"], flags].concat()).unwrap().settings
}

/// The same, as if a variable had said it.
fn environment(flag: &str) -> SettingArgs {
    let mut args = line(&[flag]);
    args.given.iter_mut().for_each(|given| given.source = SettingSource::Environment);
    args
}

fn resolved(args: &SettingArgs, file: &str) -> Resolved {
    args.over(&SettingsFile::parse(file).unwrap())
}

fn text(resolved: &Resolved, name: &str) -> (String, &'static str) {
    let value = resolved.values.iter().find(|value| value.setting.name == name).unwrap();
    (value.text.clone(), value.source.kind())
}

#[test]
fn a_flag_wins_over_the_file_over_the_default() {
    let file = "grpc_addr = '127.0.0.1:3'\nhttp_addr = '127.0.0.1:4'\ndata_dir = '/f'";
    let now = resolved(&line(&["--grpc-addr", "127.0.0.1:1"]), file);
    assert_eq!(text(&now, "grpc_addr"), ("127.0.0.1:1".to_owned(), "flag"));
    assert_eq!(text(&now, "data_dir"), ("/f".to_owned(), "file"));
    assert_eq!(text(&now, "segment_size"), ("1GiB".to_owned(), "default"));
    let now = resolved(&environment("--http-addr=127.0.0.1:2"), file);
    assert_eq!(text(&now, "http_addr"), ("127.0.0.1:2".to_owned(), "environment"));
}

#[test]
fn a_wrong_value_is_told_with_where_it_stands() {
    let told = |args: &SettingArgs, file| {
        let error = resolved(args, file).segment_size().unwrap_err();
        assert!(error.is::<WrongUsage>());
        error.to_string()
    };
    let wrong = "`big` is not a size; write for example 64KiB, 256MiB or 1GiB";
    assert_eq!(told(&SettingArgs::default(), "segment_size = 'big'"), format!("segment_size in the file: {wrong}"));
    assert_eq!(told(&line(&["--segment-size", "big"]), ""), format!("--segment-size: {wrong}"));
    assert_eq!(told(&environment("--segment-size=big"), ""), format!("VOUCH_SEGMENT_SIZE: {wrong}"));
}

#[test]
fn a_token_is_never_shown() {
    let resolved = resolved(&line(&["--http-token", "sesame"]), "");
    let row = resolved.rows().find(|[name, ..]| name == "http_token").unwrap();
    assert_eq!(row, ["http_token", "(set)", "flag"]);
    assert!(!resolved.document().to_string().contains("sesame"));
}

#[test]
fn a_switch_alone_is_on_and_takes_no_word_that_stands_behind_it() {
    assert!(resolved(&line(&["--insecure"]), "").insecure().unwrap());
    assert!(!resolved(&line(&["--insecure=false"]), "insecure = true").insecure().unwrap());
    assert!(Line::try_parse_from(["vouch", "--insecure", "true"]).is_err());
}

#[test]
fn the_defaults_are_those_of_the_crates_that_own_the_values() {
    let (now, node) = (resolved(&SettingArgs::default(), ""), vouch_node::NodeConfig::new(crate::config::DATA_DIR));
    let read = vouch_node::NodeConfig {
        data_dir: now.data_dir().unwrap(),
        segment_size: now.segment_size().unwrap(),
        zero_ahead: now.zero_ahead().unwrap(),
        syncs_in_flight: now.syncs_in_flight().unwrap(),
        snapshot_every: now.snapshot_every().unwrap(),
        catch_up_log: now.catch_up_log().unwrap(),
        lacking: None,
        feature_level: node.feature_level,
        scrub_rate: now.scrub_rate().unwrap(),
        retention_every: now.retention_every().unwrap(),
        disk_high_water: now.disk_high_water().unwrap(),
        disk_limit: now.disk_limit().unwrap(),
        on_damage: now.on_damage().unwrap(),
        joins: None,
        peers: None,
        bytes_in_flight: now.bytes_in_flight().unwrap(),
        auto_create_topics: now.auto_create_topics().unwrap(),
        plugin_threads: now.plugin_threads().unwrap(),
        sqlite_dirs: now.sqlite_dirs().unwrap(),
        plugin_ca: now.plugin_ca().unwrap(),
        secret_key_file: now.secret_key_file().unwrap(),
        plugin_concurrency: now.plugin_concurrency().unwrap(),
        plugin_compiler: node.plugin_compiler.clone(),
    };
    assert_eq!(read, node);
    let free = "127.0.0.1:0".parse().unwrap();
    let tls = vouch_gateway::Certificate::SelfSigned { folder: "tls".into() };
    let gateway = vouch_gateway::GatewayConfig::new(free, free, tls);
    assert_eq!(now.receive_invisible_min().unwrap(), gateway.receive_invisible_min);
    assert_eq!(text(&now, "connections").0, gateway.connections.grpc.to_string());
    assert_eq!(
        (now.insecure_grpc().unwrap(), now.insecure_http().unwrap()),
        (gateway.insecure_grpc, gateway.insecure_http)
    );
    assert_eq!((now.http_hosts().unwrap(), now.http_token().unwrap()), (gateway.http_hosts, gateway.http_token));
}

/// Of each kind of number, values that are none and values beyond its bounds: whoever writes them is told the same, with the
/// same exit status, wherever they stand.
#[test]
fn a_bad_number_is_told_the_same_from_a_flag_a_variable_and_the_file() {
    let error = |args: &SettingArgs, file: &str, name: &str| {
        let now = resolved(args, file);
        let read = |name| match name {
            "connections" => now.connections().map(drop),
            "syncs_in_flight" => now.syncs_in_flight().map(drop),
            "disk_high_water" => now.disk_high_water().map(drop),
            "bytes_in_flight" => now.bytes_in_flight().map(drop),
            "snapshot_every" => now.snapshot_every().map(drop),
            "retention_every" => now.retention_every().map(drop),
            "receive_invisible_min" => now.receive_invisible_min().map(drop),
            other => panic!("{other}"),
        };
        let error = read(name).unwrap_err();
        (failure::exit_status(&error), error.to_string())
    };
    for (name, value, in_file) in [
        ("connections", "0", "0"),
        ("connections", "-1", "-1"),
        ("connections", "many", "'many'"),
        ("syncs_in_flight", "1.5", "'1.5'"),
        ("syncs_in_flight", "99999999999999999999", "99999999999999999999"),
        ("disk_high_water", "0", "0"),
        ("disk_high_water", "100", "100"),
        ("disk_high_water", "256", "256"),
        ("bytes_in_flight", "1048575", "1048575"),
        ("bytes_in_flight", "1GB", "'1GB'"),
        ("snapshot_every", "1023KiB", "'1023KiB'"),
        ("retention_every", "99ms", "'99ms'"),
        ("retention_every", "10", "'10'"),
        ("receive_invisible_min", "999ms", "'999ms'"),
        ("receive_invisible_min", "12h 1s", "'12h 1s'"),
    ] {
        let setting = SETTINGS.iter().find(|setting| setting.name == name).unwrap();
        let flag = format!("{}={value}", setting.flag());
        let (status, from_flag) = error(&line(&[&flag]), "", name);
        let (_, from_variable) = error(&environment(&flag), "", name);
        let (status_of_file, from_file) = error(&SettingArgs::default(), &format!("{name} = {in_file}"), name);
        assert_eq!((status, status_of_file), (2, 2), "{flag}");
        let why = from_flag.strip_prefix(&format!("{}: ", setting.flag())).unwrap();
        assert_eq!(from_variable, format!("{}: {why}", setting.variable()));
        assert_eq!(from_file, format!("{name} in the file: {why}"));
    }
}

#[test]
fn every_setting_has_a_flag_and_a_variable_and_is_found_by_its_name() {
    let command = SettingArgs::augment_args(clap::Command::new("serve"));
    for setting in SETTINGS {
        let flag = command.get_arguments().find(|argument| argument.get_id() == setting.name).unwrap();
        assert_eq!(flag.get_long(), Some(setting.flag_name().as_str()));
        assert_eq!(flag.get_env().and_then(|name| name.to_str()), Some(setting.variable().as_str()));
        let given = line(&[&format!("{}=x", setting.flag())]);
        assert_eq!(text(&given.over(&SettingsFile::default()), setting.name), ("x".to_owned(), "flag"));
    }
}
