//! `registry plugin new`, taken at its word: what it writes is built, tested, looked at, checked and run, without an
//! edit. And `registry plugin list`, for what it says of files that are no plugins.
//!
//! The new crate is built offline, with the crates that this workspace has brought to the machine, in a directory of
//! its own under `target`, so that only the first run takes long.

mod harness;

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::{Host, plugin_dir, register, registry, workspace};
use serde_json::{Value, json};

const NAME: &str = "made-by-test";
const LIBRARY: &str = "registry_made_by_test";

/// The `target` directory that this test was built in.
fn target_dir() -> PathBuf {
    let profile = plugin_dir().parent().expect("plugins are built in target/*/deps").to_path_buf();
    profile.parent().expect("plugins are built in target/*/deps").to_path_buf()
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn cargo(crate_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).arg("--offline").current_dir(crate_dir);
    // Of the cargo that runs this test nothing is to be handed on but where its crates are, and what rustup goes by:
    // without that it would follow the toolchain file of some dependency, and might install another compiler.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if (name.starts_with("CARGO") && name != "CARGO_HOME")
            || name.starts_with("RUSTC")
            || name.starts_with("RUSTFLAGS")
        {
            command.env_remove(&name);
        }
    }
    // Nobody debugs it, and it is built faster.
    command.env("CARGO_TARGET_DIR", target_dir().join("plugin-new")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    run(&mut command)
}

#[test]
fn a_new_plugin_works_without_an_edit() {
    let directory = tempfile::tempdir().unwrap();
    let api = workspace().join("plugin-api");
    run(registry(directory.path()).args(["plugin", "new", NAME, "--api"]).arg(api));
    let crate_dir = directory.path().join(LIBRARY);

    let built = cargo(&crate_dir, &["build"]);
    assert!(!String::from_utf8_lossy(&built.stderr).contains("warning"), "{built:?}");
    let tested = stdout(&cargo(&crate_dir, &["test"]));
    assert!(tested.contains("test result: ok. 4 passed"), "{tested}");

    let file = format!("{DLL_PREFIX}{LIBRARY}{DLL_SUFFIX}");
    let library = target_dir().join("plugin-new/debug").join(&file);
    let shown = stdout(&run(registry(directory.path()).args(["plugin", "inspect", "--json"]).arg(&library)));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["name"], &shown["capabilities"]), (&json!("made_by_test"), &json!(["durable"])));
    assert_eq!(shown["options"][0]["default"], "service_registry.jsonl");
    run(registry(directory.path()).args(["plugin", "check"]).arg(&library));

    let config = format!("[backend]\nplugin = {}\n", json!(library));
    let host = Host::start(directory.path(), &config);
    assert_eq!(host.client().call(register("x", "web", 60.0))["success"], true);
    host.kill();
    let host = Host::start(directory.path(), &config);
    assert_eq!(host.client().call(json!({"action": "get", "service_id": "x"}))["service"]["id"], "x");
    host.stop();
}

#[test]
fn nothing_is_written_over() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("mine")).unwrap();
    fs::write(directory.path().join("mine/Cargo.toml"), "mine").unwrap();
    let output = registry(directory.path())
        .args(["plugin", "new", "x", "--dir", "mine", "--api"])
        .arg(workspace().join("plugin-api"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("mine is not empty"), "{output:?}");
    assert_eq!(fs::read_to_string(directory.path().join("mine/Cargo.toml")).unwrap(), "mine");
    assert_eq!(fs::read_dir(directory.path().join("mine")).unwrap().count(), 1);
}

#[test]
fn what_could_not_work_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let api = workspace().join("plugin-api");
    for (arguments, told) in [
        (&["x"][..], "--api <PATH>"),
        (&["x", "--api", "."], "does not hold the crate registry-plugin-api"),
        (&["sqlite", "--api", api.to_str().unwrap()], "the registry comes with a plugin of that name"),
    ] {
        let output = registry(directory.path()).args(["plugin", "new"]).args(arguments).output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(told), "{output:?}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn list_shows_plugins_and_says_what_is_wrong_with_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = |name: &str| format!("{DLL_PREFIX}registry_{name}{DLL_SUFFIX}");
    fs::copy(plugin_dir().join(plugin("memory")), directory.path().join(plugin("memory"))).unwrap();
    fs::write(directory.path().join(plugin("broken")), "no library").unwrap();
    let list = |arguments: &[&str]| {
        let set = format!("backend.plugin_dir={}", json!(directory.path()));
        run(registry(directory.path()).args(["plugin", "list", "--set", &set]).args(arguments))
    };
    let output = list(&[]);
    let text = stdout(&output);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines.len(), &lines[1][..3]), (2, &["memory", "0.1.0", "none"][..]), "{text}");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.lines().count() == 1 && errors.contains("is not a shared library"), "{errors}");
    let listed: Value = serde_json::from_str(&stdout(&list(&["--json"]))).unwrap();
    assert!(listed[0]["error"].as_str().unwrap().contains("is not a shared library"), "{listed}");
    assert_eq!(listed[1]["name"], "memory");
}

#[test]
fn inspect_fails_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let bare = format!("none{DLL_SUFFIX}");
    for file in ["./none.so", &bare] {
        let output = registry(directory.path()).args(["plugin", "inspect", file]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no plugin file at"), "{output:?}");
    }
}
