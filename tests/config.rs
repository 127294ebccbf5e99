//! The configuration, as an operator meets it: the shipped file, the layers, and what is said about mistakes. The real
//! program runs in an empty directory with an empty environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "config/check.rs"]
mod check;
mod harness;
#[path = "config/http.rs"]
mod http;
#[path = "config/mistakes.rs"]
mod mistakes;
#[path = "config/options.rs"]
mod options;
#[path = "config/security.rs"]
mod security;

const SHIPPED: &str = include_str!("../registry.toml");

/// A directory to run the program in.
struct Place {
    directory: TempDir,
}

impl Place {
    fn empty() -> Self {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    /// A directory with this `registry.toml`.
    fn with(file: &str) -> Self {
        let place = Place::empty();
        place.write("registry.toml", file);
        place
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        self.command(arguments).envs(environment.iter().copied()).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
        command.args(arguments).env_clear().current_dir(self.directory.path());
        command
    }

    /// What is in force, as `config show --json` says.
    fn show(&self, sets: &[&str], environment: &[(&str, &str)]) -> Value {
        let mut arguments = vec!["config", "show", "--json"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let output = self.run(&arguments, environment);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The lines on standard error of a run that must fail with exit code 1.
    fn refusal(&self, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let output = self.run(arguments, environment);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        text(&output.stderr)
    }

    /// What `config check` refuses about this `registry.toml`.
    fn refusal_of(file: &str) -> String {
        Place::with(file).refusal(&["config", "check"], &[])
    }

    /// What is refused about an environment variable.
    fn refusal_of_variable(name: &str, value: &str) -> String {
        Place::empty().refusal(&["config", "check"], &[(name, value)])
    }

    /// What is refused about a flag.
    fn refusal_of_set(set: &str) -> String {
        Place::empty().refusal(&["config", "check", "--set", set], &[])
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Where cargo puts the plugins that these tests are built with.
fn plugin_dir() -> String {
    let program = std::env::current_exe().unwrap();
    format!("backend.plugin_dir={}", program.parent().unwrap().display())
}

/// So that nobody is in the way of anybody.
const FREE_PORTS: [&str; 8] = [
    "--set",
    "server.req_port=0",
    "--set",
    "server.pub_port=0",
    "--set",
    "server.heartbeat_port=0",
    "--set",
    "http.port=0",
];

fn check_with_plugins(place: &Place, sets: &[&str]) -> Output {
    let directory = plugin_dir();
    let mut arguments = vec!["config", "check", "--set", &directory];
    arguments.extend(FREE_PORTS);
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    place.run(&arguments, &[])
}

#[test]
fn shipped_file_says_the_defaults() {
    let shipped = Place::with(SHIPPED).show(&[], &[]);
    assert_eq!(shipped["config"], Place::empty().show(&[], &[])["config"]);
    assert_eq!(shipped["file"], "registry.toml");
}

#[test]
fn shipped_file_has_every_key() {
    let file: toml::Table = SHIPPED.parse().unwrap();
    let defaults = Place::empty().show(&[], &[]);
    for (section, values) in defaults["config"].as_object().unwrap() {
        for key in values.as_object().unwrap().keys() {
            let set = file[section].get(key).is_some();
            // What has no default is there all the same, to be uncommented.
            let marks = [format!("# {key} = "), format!("# [[{section}.{key}]]")];
            let commented = SHIPPED.lines().any(|line| marks.iter().any(|mark| line.starts_with(mark)));
            assert!(set || commented, "{section}.{key} is not in registry.toml");
        }
    }
}

#[test]
fn shipped_file_uncommented_is_accepted_by_the_plugin_too() {
    let uncommented = SHIPPED.replace("# path = ", "path = ").replace("# plugin_dir = ", "plugin_dir = ");
    assert_ne!(uncommented, SHIPPED);
    let output = check_with_plugins(&Place::with(&uncommented), &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("registry.toml is fine\n"));
}

#[test]
fn storage_is_swapped_by_one_line() {
    let swapped = SHIPPED.replace("\nplugin = \"sqlite\"\n", "\nplugin = \"memory\"\n");
    assert_eq!(swapped.lines().zip(SHIPPED.lines()).filter(|(a, b)| a != b).count(), 1);
    let output = check_with_plugins(&Place::with(&swapped), &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("plugin \"memory\" is "));
}

#[test]
fn flags_count_before_the_command_as_behind_it() {
    let place = Place::empty();
    let other = place.write("other.toml", "server.req_port = 7001\n");
    let arguments = ["-c", other.to_str().unwrap(), "-s", "log.level=debug", "-s", "server.pub_port=1"];
    let behind = ["config", "show", "--json", "--set", "server.pub_port=7002"];
    let output = place.run(&[&arguments[..], &behind].concat(), &[]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let server = &shown["config"]["server"];
    assert_eq!((&server["req_port"], &server["pub_port"]), (&json!(7001), &json!(7002)));
    assert_eq!(shown["config"]["log"]["level"], "debug");
}

#[test]
fn flags_are_refused_by_commands_that_do_not_go_by_them() {
    for command in [&["keygen"][..], &["token", "x"], &["plugin", "new", "x", "--api", "."]] {
        let output = Place::empty().run(&[&["--set", "log.level=debug"], command].concat(), &[]);
        assert_eq!(output.status.code(), Some(2));
        let refusal = text(&output.stderr);
        assert!(refusal.contains("`keygen`, `token`, `migrate` and `plugin new` do not go by that"), "{refusal}");
    }
}

#[test]
fn each_layer_goes_over_the_one_before() {
    let place = Place::with("[server]\nreq_port = 1001\npub_port = 1002\nheartbeat_port = 1003\n");
    let environment = [("REGISTRY_SERVER__PUB_PORT", "2002"), ("REGISTRY_SERVER__HEARTBEAT_PORT", "2003")];
    let shown = place.show(&["server.heartbeat_port=3002", "server.heartbeat_port=3003"], &environment);
    let server = &shown["config"]["server"];
    assert_eq!([&server["req_port"], &server["pub_port"], &server["heartbeat_port"]], [1001, 2002, 3003]);
    let origin = |key: &str| shown["origins"][key].as_str().unwrap().to_string();
    assert_eq!(origin("server.bind"), "default");
    assert_eq!(origin("server.req_port"), "registry.toml");
    assert_eq!(origin("server.pub_port"), "REGISTRY_SERVER__PUB_PORT");
    assert_eq!(origin("server.heartbeat_port"), "--set");
}

const QUOTA: &str = "[{name = 'q', clients = ['*'], services = 7}]";

#[test]
fn every_key_can_be_set_by_variable_and_by_flag() {
    let cases = [
        ("server.bind", "::1", json!("::1")),
        ("server.trusted_network", "true", json!(true)),
        ("server.transport", "zeromq", json!("zeromq")),
        ("server.req_port", "0", json!(0)),
        ("server.pub_port", "0", json!(0)),
        ("server.heartbeat_port", "0", json!(0)),
        ("server.ipc_dir", "/run/registry", json!("/run/registry")),
        ("server.cleanup_interval", "2", json!(2.0)),
        ("server.mass_expiry_share", "0", json!(0.0)),
        ("server.mass_expiry_hold", "5", json!(5.0)),
        ("server.enforce_unique_service_types", "true", json!(true)),
        ("server.allow_terminate", "true", json!(true)),
        ("server.allow_swap", "true", json!(true)),
        ("server.receive_high_water_mark", "1", json!(1)),
        ("server.pending_changes_max", "7", json!(7)),
        ("http.enabled", "false", json!(false)),
        ("http.bind", "::1", json!("::1")),
        ("http.port", "0", json!(0)),
        ("http.plain_text", "true", json!(true)),
        ("http.hosts", "[\"registry.example\", \"a\"]", json!(["registry.example", "a"])),
        ("http.connections", "70", json!(70)),
        ("http.connections_per_address", "7", json!(7)),
        ("http.request_timeout", "0.5", json!(0.5)),
        ("http.buffered_bytes", "5000", json!(5000)),
        ("limits.message_bytes", "2048", json!(2048)),
        ("limits.message_frames", "3", json!(3)),
        ("limits.json_depth", "9", json!(9)),
        ("limits.id_bytes", "99", json!(99)),
        ("limits.name_bytes", "98", json!(98)),
        ("limits.type_bytes", "97", json!(97)),
        ("limits.types", "96", json!(96)),
        ("limits.connections", "70", json!(70)),
        ("limits.connections_per_address", "7", json!(7)),
        ("limits.handshake_timeout", "0.5", json!(0.5)),
        ("limits.heartbeat_interval", "0.5", json!(0.5)),
        ("limits.heartbeat_timeout", "60", json!(60.0)),
        ("limits.reply_queue_bytes", "5000", json!(5000)),
        ("limits.unread_timeout", "0.5", json!(0.5)),
        ("limits.event_queue_bytes", "5000", json!(5000)),
        ("limits.buffered_bytes", "5000", json!(5000)),
        ("limits.pending_bytes", "5000", json!(5000)),
        ("limits.services_bytes", "5000", json!(5000)),
        ("limits.subscriptions", "1", json!(1)),
        ("limits.requests_waiting", "16", json!(16)),
        ("limits.requests_per_second", "100", json!(100)),
        ("limits.waiting_watchers", "100", json!(100)),
        ("limits.waiting_watchers_per_address", "50", json!(50)),
        ("limits.quotas", QUOTA, json!([{"name": "q", "clients": ["*"], "services": 7}])),
        ("events.history_changes", "5000", json!(5000)),
        ("events.history_bytes", "2000000", json!(2_000_000)),
        ("events.service_history_bytes", "5000", json!(5000)),
        ("log.level", "warn,registry_sqlite=debug", json!("warn,registry_sqlite=debug")),
        ("log.format", "json", json!("json")),
        ("log.audit", "log", json!("log")),
        ("backend.plugin", "memory", json!("memory")),
        ("backend.plugin_dir", "/opt/plugins", json!("/opt/plugins")),
        ("backend.reply_timeout", "0.25", json!(0.25)),
        ("backend.call_timeout", "60", json!(60.0)),
        ("backend.reopen_closed", "true", json!(true)),
    ];
    let place = Place::empty();
    let defaults = place.show(&[], &[])["config"].clone();
    for (key, value, expected) in &cases {
        let pointer = format!("/{}", key.replace('.', "/"));
        assert_ne!(defaults.pointer(&pointer), Some(expected), "{key}");
        let variable = format!("REGISTRY_{}", key.replace('.', "__").to_uppercase());
        let by_variable = place.show(&[], &[(&variable, value)]);
        assert_eq!(by_variable["config"].pointer(&pointer), Some(expected), "{variable}");
        let by_flag = place.show(&[&format!("{key}={value}")], &[]);
        assert_eq!(by_flag["config"].pointer(&pointer), Some(expected), "{key}");
    }
    // Those are in config/security.rs, and http.tokens and those of TLS in config/http.rs.
    const OTHER_KEYS: usize = 6 + http::TLS_KEYS;
    let keys: usize = defaults.as_object().unwrap().values().map(|section| section.as_object().unwrap().len()).sum();
    assert_eq!(
        keys,
        cases.len() + 1 + OTHER_KEYS,
        "all but backend.options, [security], http.tokens and TLS are in the list above"
    );
}

#[test]
fn a_file_that_is_named_stands_in_for_the_default_one() {
    let place = Place::with("no toml at all");
    let other = place.write("other.toml", "log.level = \"debug\"\n");
    let output = place.run(&["config", "show", "--json", "-c", other.to_str().unwrap()], &[]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["config"]["log"]["level"], "debug");
    assert_eq!(Path::new(shown["origins"]["log.level"].as_str().unwrap()), other);
}

#[test]
fn what_is_shown_can_be_loaded_and_means_the_same() {
    let file = "[server]\nbind = \"*\"\ntrusted_network = true\ncleanup_interval = 3\n[backend.options]\npath = \"a \\\"b\\\"\\n# c\"\n\
                \"odd key\" = 1.5\nlist = [1, 2]\n";
    let place = Place::with(file);
    let output = place.run(&["config", "show", "-s", "log.level=debug"], &[("REGISTRY_SERVER__REQ_PORT", "7")]);
    let shown = text(&output.stdout);
    let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap().to_string();
    assert!(line("bind").ends_with("# registry.toml") && line("pub_port").ends_with("# default"), "{shown}");
    assert!(line("req_port").ends_with("# REGISTRY_SERVER__REQ_PORT") && line("level").ends_with("# --set"), "{shown}");

    let again = Place::with(&shown).show(&[], &[]);
    let before = place.show(&["log.level=debug"], &[("REGISTRY_SERVER__REQ_PORT", "7")]);
    assert_eq!(again["config"], before["config"]);
}

#[test]
fn only_a_loopback_address_is_bound_without_saying_that_the_network_is_trusted() {
    for address in ["*", "::", "0.0.0.0", "192.168.1.5", "fe80::1"] {
        let refusal = Place::refusal_of(&format!("[server]\nbind = \"{address}\"\n"));
        let expected = format!("registry: server.bind is \"{address}\" (registry.toml, line 2), where everybody");
        assert!(refusal.starts_with(&expected), "{refusal}");
        assert!(refusal.contains("\"127.0.0.1\"") && refusal.contains("server.trusted_network = true"), "{refusal}");
        let trusted = format!("[server]\nbind = \"{address}\"\ntrusted_network = true\n");
        assert_eq!(Place::with(&trusted).show(&[], &[])["config"]["server"]["bind"], address);
    }
    for address in ["127.0.0.1", "127.9.9.9", "::1"] {
        let file = format!("[server]\nbind = \"{address}\"\n");
        assert_eq!(Place::with(&file).show(&[], &[])["config"]["server"]["bind"], address);
    }
}

#[test]
fn the_zeromq_transport_binds_loopback_addresses_only_whatever_is_trusted() {
    let file = "[server]\nbind = \"*\"\ntrusted_network = true\ntransport = \"zeromq\"\n";
    let refusal = Place::refusal_of(file);
    assert!(refusal.contains("server.transport = \"zeromq\" cannot bear clients"), "{refusal}");
}

#[test]
fn a_peer_is_asked_before_it_is_given_up() {
    let refusal = Place::refusal_of("[limits]\nheartbeat_timeout = 10\n");
    let expected = "registry: limits.heartbeat_timeout is 10 (registry.toml, line 2): expected more than \
                    limits.heartbeat_interval, which is 10.0 (default)";
    assert_eq!(refusal.trim_end(), expected);
}

#[test]
fn check_refuses_a_plugin_that_is_not_there() {
    let output = check_with_plugins(&Place::empty(), &["backend.plugin=nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    let refusal = text(&output.stderr);
    assert!(refusal.starts_with("registry: no plugin \"nowhere\""), "{refusal}");
    assert!(refusal.contains("backend.plugin_dir") && refusal.contains("`registry plugin list`"), "{refusal}");
}

#[test]
fn serve_refuses_a_wrong_configuration_in_one_line() {
    for arguments in [&["--set", "server.req_port=x"][..], &["serve", "--set", "server.req_port=x"]] {
        let refusal = Place::empty().refusal(arguments, &[]);
        assert!(refusal.starts_with("registry: server.req_port = \"x\" (--set): expected a port"), "{refusal}");
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
}
