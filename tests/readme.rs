//! The README, taken at its word: each command in it is run here or by `.ci/run`, each piece of TOML is a
//! configuration, and each link leads somewhere.

mod harness;

use std::path::Path;
use std::process::Command;

use harness::{Host, plugin_dir, python, registry, workspace};

fn readme() -> String {
    std::fs::read_to_string(workspace().join("README.md")).expect("there is a README")
}

/// The blocks of code in one language.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let parts = text.split("\n```");
    // Every second part is within a block, and begins with the language.
    let blocks = parts.skip(1).step_by(2).filter_map(|block| block.strip_prefix(&format!("{language}\n")));
    blocks.map(String::from).collect()
}

#[test]
fn every_command_is_run_here_or_by_ci() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(workspace().join("registry.toml"), directory.path().join("registry.toml")).unwrap();
    std::os::unix::fs::symlink(workspace().join("plugin-api"), directory.path().join("plugin-api")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let host = Host::start(elsewhere.path(), "[backend]\nplugin = \"memory\"\n");
    let read = |path: &str| std::fs::read_to_string(workspace().join(path)).expect("it is there");
    let ci = (read(".ci/run") + &read("scripts/try-readme")).replace(" --locked", "");
    let commands: Vec<String> = blocks("sh").iter().flat_map(|block| block.lines()).map(String::from).collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        if command.starts_with("cargo ") {
            assert!(ci.lines().any(|line| line.contains(&command)), ".ci/run does not run `{command}`");
            continue;
        }
        assert!(command.contains("registry "), "what is `{command}`?");
        let mut shell = Command::new("sh");
        let path = format!("{}:/usr/bin:/bin", Path::new(env!("CARGO_BIN_EXE_registry")).parent().unwrap().display());
        shell.args(["-c", &command]).current_dir(directory.path()).env_clear().env("PATH", path);
        shell.env("REGISTRY_CONNECT", format!("tcp://127.0.0.1:{}", host.requests));
        shell.env("REGISTRY_BACKEND__PLUGIN_DIR", plugin_dir());
        let output = shell.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "`{command}`: {}{}", text(&output.stdout), text(&output.stderr));
        assert!(!output.stdout.is_empty(), "`{command}` says nothing");
    }
}

#[test]
fn every_piece_of_toml_is_a_configuration() {
    let pieces = blocks("toml");
    assert!(!pieces.is_empty());
    for piece in pieces {
        let directory = tempfile::tempdir().unwrap();
        // What the commands of the README have made.
        let keys = registry(directory.path()).arg("keygen").output().unwrap();
        assert!(keys.status.success());
        std::fs::create_dir(directory.path().join("clients")).unwrap();
        std::fs::write(directory.path().join("registry.toml"), &piece).unwrap();
        let output = registry(directory.path()).args(["config", "check"]).output().unwrap();
        assert!(output.status.success(), "{piece}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_client_in_python_finds_what_it_registers() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), "[backend]\nplugin = \"memory\"\n");
    let blocks = blocks("python");
    assert_eq!(blocks.len(), 1);
    let lines = blocks[0].lines().filter(|line| !line.is_empty()).count();
    assert!(lines <= 10, "a client in ten lines has {lines}");
    let script = blocks[0].replace("127.0.0.1:5556", &format!("127.0.0.1:{}", host.requests));
    assert_ne!(script, blocks[0]);
    let output = Command::new(python).args(["-c", &script]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("'name': 'Camera 1'"), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_client_in_python_gets_keys_by_the_lines_that_are_said_to_do_that() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let config = harness::keys::make(directory.path()) + "[backend]\nplugin = \"memory\"\n";
    let host = Host::start(directory.path(), &config);
    let [keys] = &blocks("py")[..] else { panic!("one piece of Python is about keys") };
    let script = blocks("python")[0].replace("127.0.0.1:5556", &format!("127.0.0.1:{}", host.requests));
    let with_keys = script.replace("registry.connect(", &format!("{keys}\nregistry.connect("));
    let mut command = Command::new(python);
    let output = command.args(["-c", &with_keys]).current_dir(directory.path()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("'owner_key': "), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_link_leads_somewhere() {
    let text = readme();
    let links: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 5, "{links:?}");
    for link in links.into_iter().filter(|link| !link.starts_with("https://")) {
        assert!(workspace().join(link).exists(), "{link} is not there");
    }
}

#[test]
fn every_path_in_the_code_map_is_there() {
    let text = readme();
    let map = text.split("## Code map").nth(1).expect("there is a code map");
    let paths = map.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let missing: Vec<&str> = paths.filter(|path| !workspace().join(path).exists()).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn the_lines_fit_a_narrow_screen() {
    let long: Vec<String> = readme().lines().filter(|line| line.chars().count() > 100).map(String::from).collect();
    assert_eq!(long, [""; 0]);
}
