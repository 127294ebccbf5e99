//! What is said of mistakes: all of them at once, each with its place and a way out.

use super::*;

#[test]
fn unknown_keys_are_refused_with_place_and_nearest_key() {
    let cases = [
        (
            "[server]\nbind = \"*\"\nreqport = 1\n",
            "unknown key server.reqport (registry.toml, line 3): did you mean server.req_port?",
        ),
        ("req_port = 1\n", "unknown key req_port (registry.toml, line 1): did you mean server.req_port?"),
        ("[server]\nlevel = \"info\"\n", "unknown key server.level (registry.toml, line 2): did you mean log.level?"),
        ("[log]\nlevel.all = \"info\"\n", "unknown key log.level.all (registry.toml, line 2)"),
    ];
    for (file, expected) in cases {
        let refusal = Place::refusal_of(file);
        assert!(refusal.starts_with(&format!("registry: {expected}")), "{file}\n{refusal}");
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
    for (file, expected) in [
        (
            "[limit]\nmessage_bytes = 5\nconnections = 7\n",
            "unknown table [limit] (registry.toml, line 1): did you mean [limits]?",
        ),
        (
            "\n[metrics]\nport = 1\n[metrics.labels]\na = 1\n",
            "unknown table [metrics] (registry.toml, line 2): expected [server], [http], [limits], [events], [security], \
             [log], [backend], [backend.options]",
        ),
        (
            "[backend]\noption.path = \"a.db\"\n",
            "unknown table [backend.option] (registry.toml, line 2): did you mean [backend.options]?",
        ),
    ] {
        assert_eq!(Place::refusal_of(file), format!("registry: {expected}\n"));
    }
    let refusal = Place::refusal_of_set("backend.plugn=memory");
    assert_eq!(refusal, "registry: unknown key backend.plugn (--set): did you mean backend.plugin?\n");
}

#[test]
fn unknown_variables_are_refused_and_those_of_kubernetes_are_not() {
    let refusals = [
        ("REGISTRY_SERVER__REQ_PROT", "did you mean REGISTRY_SERVER__REQ_PORT?"),
        ("REGISTRY__SERVER__REQ_PORT", "did you mean REGISTRY_SERVER__REQ_PORT?"),
        ("REGISTRY_SERVER_REQ_PORT", "has no effect: did you mean REGISTRY_SERVER__REQ_PORT?"),
        ("REGISTRY_BACKEND_OPTIONS_PATH", "has no effect: did you mean REGISTRY_BACKEND__OPTIONS__PATH?"),
        ("REGISTRY_BACKEND__OPTIONS_PATH", "did you mean REGISTRY_BACKEND__OPTIONS__PATH?"),
        ("REGISTRY_Server__Bind", "did you mean REGISTRY_SERVER__BIND?"),
    ];
    for (name, expected) in refusals {
        let refusal = Place::refusal_of_variable(name, "1");
        assert!(refusal.contains(name) && refusal.trim_end().ends_with(expected), "{refusal}");
    }
    let kubernetes = [
        ("REGISTRY_PORT", "tcp://10.0.0.1:5556"),
        ("REGISTRY_PORT_5556_TCP_ADDR", "10.0.0.1"),
        ("REGISTRY_SERVICE_HOST", "10.0.0.1"),
        ("REGISTRY_SERVICE_PORT_REQ__MAIN", "5556"),
        ("REGISTRY_CONNECT", "tcp://10.0.0.1:5556"),
    ];
    let place = Place::empty();
    assert_eq!(place.show(&[], &kubernetes), place.show(&[], &[]));
}

#[test]
fn wrong_values_are_refused_with_key_value_origin_and_what_was_expected() {
    let cases = [
        ("server.req_port = 65536", "expected a port"),
        ("server.req_port = \"5556\"", "expected a port"),
        ("server.req_port = true", "expected a port"),
        ("server.bind = \"localhost\"", "expected an IP address"),
        ("server.cleanup_interval = 0.0", "expected a number of seconds from 0.001 to 86400"),
        ("server.cleanup_interval = nan", "expected a number of seconds"),
        ("server.cleanup_interval = inf", "expected a number of seconds"),
        ("server.cleanup_interval = 86401", "expected a number of seconds"),
        ("server.mass_expiry_share = 1.1", "expected a number from 0 to 1"),
        ("server.mass_expiry_share = -1", "expected a number from 0 to 1"),
        ("server.mass_expiry_share = \"0.2\"", "expected a number from 0 to 1"),
        ("backend.reply_timeout = -0.4", "expected a number of seconds from 0.001 to 60"),
        ("server.receive_high_water_mark = 0", "expected a whole number from 1"),
        ("server.pending_changes_max = 1.5", "expected a whole number from 1"),
        ("server.allow_terminate = \"yes\"", "expected true or false"),
        ("server.allow_terminate = 1", "expected true or false"),
        ("log.level = \"inof\"", "expected a level"),
        ("log.level = \"info,registry=loud\"", "expected a level"),
        ("log.level = \"\"", "expected a level"),
        ("log.format = \"yaml\"", "expected \"text\" or \"json\""),
        ("backend.plugin = \"\"", "expected text that is not empty"),
        ("backend.plugin = [\"sqlite\"]", "expected text"),
        ("backend.options = 1", "expected a table"),
        ("server = 1", "expected a table"),
    ];
    for (line, expected) in cases {
        let refusal = Place::refusal_of(&format!("# one\n{line}\n"));
        assert!(
            refusal.starts_with(&format!("registry: {line} (registry.toml, line 2): {expected}")),
            "{line}\n{refusal}"
        );
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
    let refusal = Place::refusal_of_variable("REGISTRY_SERVER__REQ_PORT", "http");
    assert!(refusal.starts_with("registry: server.req_port = \"http\" (REGISTRY_SERVER__REQ_PORT): expected a port"));
    let refusal = Place::refusal_of_set("server.req_port=");
    assert!(refusal.starts_with("registry: server.req_port = \"\" (--set): expected a port"), "{refusal}");
    let refusal = Place::refusal_of_set("server.req_port");
    assert!(refusal.starts_with("registry: --set server.req_port: expected key=value"), "{refusal}");
}

#[test]
fn ports_must_differ_unless_free_ones_are_taken() {
    let refusal = Place::refusal_of("[server]\npub_port = 5556\n");
    let expected = "server.req_port and server.pub_port are both 5556 (default; registry.toml, line 2)";
    assert!(refusal.starts_with(&format!("registry: {expected}")), "{refusal}");
    Place::empty().show(&["server.req_port=0", "server.pub_port=0", "server.heartbeat_port=0"], &[]);
}

#[test]
fn broken_toml_is_refused_with_file_line_and_reason() {
    for (file, expected) in [
        ("[server]\nreq_port = \n", "registry.toml, line 2: "),
        ("[server\nreq_port = 1\n", "registry.toml, line 1: unclosed table"),
        ("[log]\n\n[log]\n", "registry.toml, line 3: duplicate key"),
        ("[server]\nreq_port = 99999999999999999999\n", "registry.toml, line 2: "),
    ] {
        let refusal = Place::refusal_of(file);
        assert!(refusal.starts_with(&format!("registry: {expected}")), "{refusal}");
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let refusal = Place::with(SHIPPED).refusal(&["config", "check", "--config", "other.toml"], &[]);
    assert!(refusal.starts_with("registry: cannot read the configuration other.toml: "), "{refusal}");
    let refusal = Place::empty().refusal(&["config", "check", "--config", "."], &[]);
    assert!(refusal.starts_with("registry: cannot read the configuration .: "), "{refusal}");
}

#[test]
fn check_names_every_problem_in_a_line_of_its_own() {
    let refusal = Place::refusal_of("[server]\nreq_port = -1\nbund = \"*\"\n[log]\nformat = \"xml\"\n");
    assert_eq!(refusal.lines().count(), 3, "{refusal}");
}
