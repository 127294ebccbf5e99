//! `[http]`: which of it can be used.

use serde_json::json;

use super::*;

const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn off_loopback_somebody_has_to_say_so_and_to_be_asked_for_a_proof() {
    let everywhere = "[http]\nbind = \"*\"\n";
    let refusal = Place::refusal_of(everywhere);
    assert!(refusal.contains("http.bind is \"*\" (registry.toml, line 2), and HTTP sends everything"), "{refusal}");
    assert!(refusal.contains("or http.plain_text = true") && refusal.contains("or http.tokens"), "{refusal}");
    let plain = format!("{everywhere}plain_text = true\n");
    let refusal = Place::refusal_of(&plain);
    assert!(refusal.lines().count() == 1 && refusal.contains("register, deregister and read"), "{refusal}");
    let token = format!("[[http.tokens]]\nname = \"a\"\nhash = \"{HASH}\"\nallow = [\"read\"]\n");
    for fine in [
        format!("{plain}{token}"),
        format!("{plain}[server]\ntrusted_network = true\n"),
        format!("{everywhere}enabled = false\n"),
        "[http]\nbind = \"127.0.0.2\"\n".to_string(),
        "[http]\nbind = \"::1\"\n".to_string(),
    ] {
        assert!(Place::with(&fine).show(&[], &[])["config"]["http"].is_object(), "{fine}");
    }
    let refusal = Place::refusal_of(&format!("{everywhere}{token}"));
    assert!(refusal.lines().count() == 1 && refusal.contains("in plain text"), "{refusal}");
}

#[test]
fn its_port_is_none_of_the_others_unless_nobody_has_asked_for_it() {
    let refusal = Place::refusal_of("[http]\nport = 5557\n");
    let expected = "server.pub_port and http.port are both 5557 (default; registry.toml, line 2)";
    assert!(refusal.contains(expected), "{refusal}");
    Place::with("[server]\nreq_port = 5559\n").show(&[], &[]);
    Place::with("[http]\nport = 5557\nenabled = false\n").show(&[], &[]);
}

/// How many keys are about TLS. Each is of no use without another.
pub(crate) const TLS_KEYS: usize = 5;

#[test]
fn what_is_said_of_tls_can_be_said_by_variables_and_flags() {
    let all: [(&str, &str); TLS_KEYS] = [
        ("certificate_file", "a.pem"),
        ("key_file", "a.key"),
        ("client_ca_file", "ca.pem"),
        ("client_crl_file", "crl.pem"),
        ("rules", "[{clients = [\"*.lab\"], allow = [\"read\"]}]"),
    ];
    let variables = all.map(|(key, value)| (format!("REGISTRY_HTTP__{}", key.to_uppercase()), value));
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, *value)).collect();
    let flags = all.map(|(key, value)| format!("http.{key}={value}"));
    let flags: Vec<&str> = flags.iter().map(|flag| &**flag).collect();
    let place = Place::empty();
    for shown in [place.show(&[], &variables), place.show(&flags, &[])] {
        for (key, value) in &all[..4] {
            assert_eq!(shown["config"]["http"][key], *value);
        }
        assert_eq!(shown["config"]["http"]["rules"], json!([{"clients": ["*.lab"], "allow": ["read"]}]));
    }
}

#[test]
fn what_cannot_be_used_is_told() {
    for (line, expected) in [
        ("port = \"a\"", "http.port = \"a\" (registry.toml, line 2): expected a port"),
        ("hosts = [\"a:80\"]", "expected a list of names without ports"),
        ("hosts = [\"\"]", "expected a list of names without ports"),
        ("hosts = \"a\"", "expected a list of names without ports"),
        ("tokens = 7", "http.tokens (registry.toml, line 2): 7: expected tables [[http.tokens]]"),
    ] {
        let refusal = Place::refusal_of(&format!("[http]\n{line}\n"));
        assert!(refusal.contains(expected), "{line}: {refusal}");
    }
    let refusal_of_token = |lines: &str| Place::refusal_of(&format!("[[http.tokens]]\n{lines}\n"));
    let good = format!("name = \"a\"\nhash = \"{HASH}\"\nallow = [\"read\"]\n");
    for (from, to, expected) in [
        ("name = \"a\"", "", "token 1: name is missing or empty: expected a text of at most 128 bytes"),
        ("name = \"a\"", "name = \" a\"", "token 1: name is \" a\": expected a text"),
        ("sha256:ba", "sha256:", "expected sha256: and 64 hexadecimal digits"),
        ("[\"read\"]", "[\"write\"]", "token 1: allow has \"write\": expected a list of"),
        ("[\"read\"]", "[\"read\"]\ntypes = [\"a\"]", "types says which services may be registered"),
        ("name", "nam", "unknown key nam: did you mean name?"),
    ] {
        let refusal = refusal_of_token(&good.replacen(from, to, 1));
        assert!(refusal.contains(expected), "{refusal}");
    }
    let refusal = refusal_of_token(&format!("{good}[[http.tokens]]\n{good}"));
    assert!(refusal.contains("token 2: name is that of another token"), "{refusal}");
    let refusal = refusal_of_token(&format!("{good}[[http.tokens]]\n{}", good.replacen("\"a\"", "\"b\"", 1)));
    assert!(refusal.contains("token 2: hash is that of another token"), "{refusal}");
}

#[test]
fn tokens_can_be_set_by_variable_and_by_flag_and_are_shown_as_they_can_be_read() {
    let place = Place::empty();
    let tokens = format!("[{{name = \"a\", hash = \"{HASH}\", allow = [\"register\"], types = [\"x*\"]}}]");
    let expected = json!([{"name": "a", "hash": HASH, "allow": ["register"], "types": ["x*"]}]);
    let set = format!("http.tokens={tokens}");
    assert_eq!(place.show(&[&set], &[])["config"]["http"]["tokens"], expected);
    assert_eq!(place.show(&[], &[("REGISTRY_HTTP__TOKENS", &tokens)])["config"]["http"]["tokens"], expected);
    let output = place.run(&["config", "show", "--set", &set], &[]);
    assert_eq!(Place::with(&text(&output.stdout)).show(&[], &[])["config"]["http"]["tokens"], expected);
}
