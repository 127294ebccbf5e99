//! `[security]`: keys and rules.

use super::*;

/// A key of zmq_curve(7).
const KEY: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
const CURVE: &str =
    "[security]\nmechanism = \"curve\"\nkey_file = \"registry.key_secret\"\nauthorized_clients = \"clients\"\n";

/// A place with keys: the registry's, and a client's among those that are authorized.
fn place_with_keys(file: &str) -> Place {
    let place = Place::with(file);
    std::fs::create_dir(place.directory.path().join("clients")).unwrap();
    for out in ["registry.key", "clients/camera.key"] {
        let made = place.run(&["keygen", "--out", out], &[]);
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
    std::fs::rename(
        place.directory.path().join("clients/camera.key_secret"),
        place.directory.path().join("camera.key_secret"),
    )
    .unwrap();
    place
}

fn refusal_of_rule(rule: &str) -> String {
    let refusal = Place::refusal_of(&format!(
        "{CURVE}[[security.rules]]\nclients = [\"*\"]\nallow = [\"read\"]\n[[security.rules]]\n{rule}\n"
    ));
    let start = "registry: security.rules (registry.toml, line 5): rule 2: ";
    assert_eq!(refusal.lines().count(), 1, "{refusal}");
    refusal.trim_end().strip_prefix(start).unwrap_or_else(|| panic!("{refusal}")).to_string()
}

#[test]
fn the_shipped_lines_can_be_uncommented() {
    let section = SHIPPED.split("\n[security]\n").nth(1).unwrap().split("\n[log]\n").next().unwrap();
    let lines = section.lines().filter_map(|line| {
        let code = line.strip_prefix("# ").unwrap_or(line);
        (code.contains(" = ") && !code.contains("   ") || code.starts_with("[[")).then_some(code)
    });
    let uncommented: Vec<_> = lines.map(|line| line.replace("= \"null\"", "= \"curve\"")).collect();
    assert_eq!(uncommented.len(), 4 + 3 + 4, "{uncommented:?}");
    let place = place_with_keys(&format!("[security]\n{}\n", uncommented.join("\n")));
    let own = place.directory.path().join("registry.key_secret");
    std::fs::copy(&own, own.with_file_name("registry-before.key_secret")).unwrap();
    let output = check_with_plugins(&place, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = format!("registry: security.rules names the key {KEY}, which is not among the authorized ones\n");
    assert_eq!(text(&output.stderr), told);
}

#[test]
fn every_key_can_be_set_by_variable_and_by_flag_and_shown() {
    let place = Place::with(CURVE);
    let rules = format!("[{{clients = [{KEY:?}], allow = [\"register\"], types = [\"camera*\"]}}]");
    let shown = json!([{"clients": [KEY], "allow": ["register"], "types": ["camera*"]}]);
    for (key, value, expected) in [
        ("key_file", "other", json!("other")),
        ("previous_key_file", "other", json!("other")),
        ("authorized_clients", "other", json!("other")),
        ("rules", &rules, shown.clone()),
    ] {
        let by_variable = place.show(&[], &[(&format!("REGISTRY_SECURITY__{}", key.to_uppercase()), value)]);
        assert_eq!(by_variable["config"]["security"][key], expected);
        let by_flag = place.show(&[&format!("security.{key}={value}")], &[]);
        assert_eq!(by_flag["config"]["security"][key], expected);
    }
    assert_eq!(place.show(&[], &[])["config"]["security"]["mechanism"], "curve");
    let output = place.run(&["config", "show", "--set", &format!("security.rules={rules}")], &[]);
    assert_eq!(Place::with(&text(&output.stdout)).show(&[], &[])["config"]["security"]["rules"], shown);
}

#[test]
fn curve_needs_keys_and_keys_need_curve() {
    let refusal = Place::refusal_of("[security]\nmechanism = \"curve\"\n");
    for key in ["security.key_file", "security.authorized_clients"] {
        assert!(refusal.contains(&format!("{key} is not set, and security.mechanism = \"curve\"")), "{refusal}");
    }
    let idle = CURVE.replace("\"curve\"", "\"null\"") + "[[security.rules]]\nclients = [\"*\"]\nallow = [\"read\"]\n";
    let refusal = Place::refusal_of(&idle);
    for key in ["security.key_file", "security.authorized_clients", "security.rules"] {
        let expected = format!("{key} is set (registry.toml, line ");
        assert!(refusal.contains(&expected) && refusal.contains("protects nothing"), "{refusal}");
    }
    let refusal = Place::refusal_of(&format!("[server]\ntransport = \"zeromq\"\n{CURVE}"));
    assert!(refusal.contains("which server.transport = \"zeromq\" (registry.toml, line 2) does not know"), "{refusal}");
    let refusal = Place::refusal_of("[server]\ntransport = \"zeromq\"\nipc_dir = \".\"\n");
    assert!(refusal.contains("server.ipc_dir is \".\" (registry.toml, line 3), which"), "{refusal}");
}

#[test]
fn with_keys_any_address_can_be_bound() {
    let shown = Place::with(&format!("[server]\nbind = \"*\"\n{CURVE}")).show(&[], &[]);
    assert_eq!(shown["config"]["server"]["bind"], "*");
    let refusal = Place::refusal_of("[server]\nbind = \"*\"\n");
    assert!(refusal.contains("or security.mechanism = \"curve\""), "{refusal}");
}

#[test]
fn a_rule_that_cannot_be_used_is_told_by_number_and_part() {
    let rule = |clients: &str, rest: &str| refusal_of_rule(&format!("clients = {clients}\n{rest}"));
    let everybody = |rest: &str| rule("[\"*\"]", rest);
    assert!(
        rule("[\"camera\"]", "allow = [\"read\"]")
            .starts_with("clients has \"camera\": expected a list of public keys")
    );
    assert!(rule("\"*\"", "allow = [\"read\"]").starts_with("clients has \"*\": expected a list"));
    assert!(rule("[]", "allow = [\"read\"]").starts_with("clients is missing or empty"));
    assert!(refusal_of_rule("allow = [\"read\"]").starts_with("clients is missing or empty"));
    assert!(everybody("").starts_with("allow is missing or empty"));
    assert!(everybody("allow = [\"raed\"]").starts_with("allow has \"raed\": expected a list of \"read\""));
    assert_eq!(everybody("allows = [\"read\"]"), "unknown key allows: did you mean allow?");
    assert_eq!(everybody("x = 1"), "unknown key x: expected clients, allow, types, names");
    assert!(
        everybody("allow = [\"read\"]\ntypes = [\"a\"]").starts_with("types says which services may be registered")
    );
    assert!(everybody("allow = [\"register\", \"admin\"]\nnames = [\"a\"]").contains("without \"admin\""));
    assert!(everybody("allow = [\"register\"]\ntypes = []").starts_with("types = []: expected a list of texts"));
    assert!(everybody("allow = [\"register\"]\nnames = [1]").starts_with("names has 1: expected a list of texts"));
    let refusal = Place::refusal_of(&format!("{CURVE}rules = 7\n"));
    assert!(refusal.contains("7: expected tables [[security.rules]]"), "{refusal}");
}

#[test]
fn check_and_serve_look_at_the_keys() {
    use std::os::unix::fs::PermissionsExt;
    let place = place_with_keys(CURVE);
    assert!(check_with_plugins(&place, &[]).status.success());
    let key = place.directory.path().join("registry.key_secret");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let plugins = plugin_dir();
    // The keys come first: a host that passed them over would say that it has no plugin.
    for command in
        [&["config", "check", "--running", "--set", &plugins][..], &["serve", "--set", "backend.plugin=none"]]
    {
        let output = place.run(command, &[]);
        let refusal = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{refusal}");
        let last = refusal.lines().last().unwrap();
        assert!(last.contains("security.key_file: registry.key_secret can be read or changed by others"), "{refusal}");
    }
    // As systemd hands it to a service.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o440)).unwrap();
    for (credentials, is_fine) in [("", false), ("/run/credentials/other", false), (".", true)] {
        let arguments = ["config", "check", "-s", &plugins, "-s", "security.key_file=./registry.key_secret"];
        let output = place.run(&[&arguments[..], &FREE_PORTS].concat(), &[("CREDENTIALS_DIRECTORY", credentials)]);
        assert_eq!(output.status.success(), is_fine, "{credentials:?}: {}", text(&output.stderr));
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = check_with_plugins(&place, &["security.authorized_clients=nowhere"]);
    let nowhere = place.directory.path().canonicalize().unwrap().join("nowhere");
    let expected = format!("security.authorized_clients: cannot read {}", nowhere.display());
    assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
}
