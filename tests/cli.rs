//! The command line against a registry that runs, and against files as they are.

mod harness;

use std::path::Path;
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::{Host, keys, register, registry};
use serde_json::{Value, json};

fn run(directory: &Path, arguments: &[&str]) -> Output {
    registry(directory).args(arguments).output().expect("the program can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command says that is to fail with exit code 1.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stderr)
}

/// A host whose storage fails while there is a file `outage`.
fn host_with_outages(directory: &Path, more: &str) -> Host {
    Host::start(
        directory,
        &format!("{more}[backend]\nplugin = \"moody\"\nreply_timeout = 1.2\noptions.outage = \"outage\"\n"),
    )
}

#[test]
fn health_is_degraded_while_the_storage_fails_and_ok_again_after_that() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = host_with_outages(directory, "");
    let connect = format!("127.0.0.1:{}", host.requests);
    let health = ["health", "--connect", &connect];
    assert_eq!(text(&run(directory, &health).stdout), "ok\n");
    std::fs::write(directory.join("outage"), "").unwrap();
    let mut client = host.client();
    assert_eq!(client.call(register("x", "web", 60.0))["code"], "backend_unavailable");
    let told = refused(directory, &health);
    assert!(told.starts_with("registry: degraded: storage failing since "), "{told}");
    assert!(told.ends_with(" (the power is out); registrations are refused\n"), "{told}");
    // Old clients look at these two.
    let reply = client.call(json!({"action": "health"}));
    assert_eq!((&reply["success"], &reply["status"]), (&json!(true), &json!("ok")));
    let since = reply["backend"]["since"].as_u64().expect("a time");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now - 60..=now).contains(&since), "{since} at {now}");
    // It waits for the storage, longer than a second.
    assert_eq!(client.call(register("x", "web", 60.0))["code"], "backend_unavailable");
    let later = client.call(json!({"action": "health"}));
    assert_eq!(later["backend"]["since"], since, "since it began to fail, not since it failed last");
    std::fs::remove_file(directory.join("outage")).unwrap();
    harness::eventually(&mut client, register("x", "web", 60.0), |reply| reply["success"] == true);
    let output = run(directory, &health);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "ok\n".to_string()));
}

#[test]
fn what_a_plugin_says_of_its_failure_is_for_admins() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = host_with_outages(directory, &keys::make(directory));
    std::fs::write(directory.join("outage"), "").unwrap();
    let connect = format!("127.0.0.1:{}", host.requests);
    let ask = |who: &str, arguments: &[&str]| {
        let key = format!("{who}.key_secret");
        let connection = ["--connect", &connect, "--key", &key, "--server-key", "registry.key"];
        run(directory, &[arguments, &connection].concat())
    };
    assert_eq!(ask("camera", &["register", "x", "h", "1"]).status.code(), Some(1));
    for (who, is_told) in [("camera", false), ("mute", false), ("admin", true)] {
        for action in ["health", "info"] {
            let output = ask(who, &[action, "--json"]);
            let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
            let backend = if who == "mute" && action == "info" { continue } else { &reply["backend"] };
            assert_eq!(backend["state"], "failing", "{who}: {reply}");
            assert_eq!(backend.get("error").is_some(), is_told, "{who}: {reply}");
        }
    }
    let told = text(&ask("camera", &["health"]).stderr);
    assert!(told.contains("storage failing since ") && !told.contains("power"), "{told}");
}

#[test]
fn migrating_from_a_store_that_is_not_there_is_refused_and_makes_none() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::write(directory.join("old.toml"), "backend.options.path = \"x.db\"\n").unwrap();
    std::fs::write(directory.join("new.toml"), "backend.options.path = \"y.db\"\n").unwrap();
    let told = refused(directory, &["migrate", "--from", "old.toml", "--to", "new.toml"]);
    assert_eq!(told, "registry: old.toml: x.db does not exist: nothing to copy\n");
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 2, "a database was made");
}

#[test]
fn keygen_says_how_to_go_on_with_the_kind_of_key_that_it_has_made() {
    let directory = tempfile::tempdir().unwrap();
    let made = |arguments: &[&str]| {
        let output = run(directory.path(), &[&["keygen"], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let (for_registry, for_client) = ("in registry.toml:", "into the directory that security.authorized_clients names");
    for (arguments, is_client) in
        [(&[][..], false), (&["--out", "camera.key"], true), (&["--out", "main.key", "--for", "registry"], false)]
    {
        let told = made(arguments);
        assert_eq!((told.contains(for_client), told.contains(for_registry)), (is_client, !is_client), "{told}");
    }
}

#[test]
fn a_program_given_as_a_plugin_is_told_from_a_library() {
    let directory = tempfile::tempdir().unwrap();
    let told = refused(directory.path(), &["plugin", "inspect", env!("CARGO_BIN_EXE_registry")]);
    assert!(told.contains("is not a shared library (it is a program): name a plugin's library"), "{told}");
}

#[test]
fn what_a_new_plugin_needs_is_said_as_it_works_here() {
    let directory = tempfile::tempdir().unwrap();
    let api = harness::workspace().join("plugin-api");
    let program = Path::new(env!("CARGO_BIN_EXE_registry"));
    let next_steps = |name: &str, path: &Path| {
        let mut command = registry(directory.path());
        command.args(["plugin", "new", name, "--api"]).arg(&api).env("PATH", path);
        text(&command.output().unwrap().stdout)
    };
    let on_the_path = next_steps("one", program.parent().unwrap());
    assert!(on_the_path.contains("\n  registry plugin check ./target/release/"), "{on_the_path}");
    let elsewhere = next_steps("two", directory.path());
    assert!(elsewhere.contains(&format!("\n  {} plugin check ./target/release/", program.display())), "{elsewhere}");
    let manifest = std::fs::read_to_string(directory.path().join("registry_one/Cargo.toml")).unwrap();
    let rust = format!("rust-version = \"{}\"\n", env!("CARGO_PKG_RUST_VERSION"));
    assert!(manifest.contains(&rust), "{manifest}");
}
