//! The README, taken at its word: each command in it is run here or by `.ci/run`, each piece of TOML is a
//! configuration, and each link leads somewhere.

mod harness;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Host, plugin_dir, python, registry, workspace};
use serde_json::{Value, json};

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

/// The commands that talk to a registry.
const CLIENT_COMMANDS: [&str; 18] = [
    "list",
    "types",
    "discover",
    "wait",
    "register",
    "renew",
    "update",
    "deregister",
    "history",
    "watch",
    "health",
    "info",
    "drain",
    "undrain",
    "reload",
    "config diff",
    "backup",
    "restore",
];

/// The ports of a configuration, in the environment.
fn ports_as_variables(ports: [u16; 3]) -> impl Iterator<Item = (String, String)> {
    let names = ["REQ_PORT", "PUB_PORT", "HEARTBEAT_PORT"];
    names.into_iter().zip(ports).map(|(name, port)| (format!("REGISTRY_SERVER__{name}"), port.to_string()))
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
        // Wherever the README says that a registry is, it is this one; and no port is taken from anybody.
        let command = command.replace("127.0.0.1:5556", &format!("127.0.0.1:{}", host.requests));
        let mut shell = Command::new("sh");
        let path = format!("{}:/usr/bin:/bin", Path::new(env!("CARGO_BIN_EXE_registry")).parent().unwrap().display());
        shell.args(["-c", &command]).current_dir(directory.path()).env_clear().env("PATH", path);
        let is_client = CLIENT_COMMANDS.iter().any(|name| command.contains(&format!("registry {name}")));
        let ports = if is_client { [host.requests, 0, 0] } else { [0; 3] };
        shell.envs(ports_as_variables(ports));
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
        let mut check = registry(directory.path());
        let output = check.args(["config", "check"]).envs(ports_as_variables([0; 3])).output().unwrap();
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
    assert!(lines <= 11, "a client in some ten lines has {lines}");
    let script = blocks[0].replace("127.0.0.1:5556", &format!("127.0.0.1:{}", host.requests));
    assert_ne!(script, blocks[0]);
    let output = Command::new(python).args(["-c", &script]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("'name': 'Camera 1'"), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_client_in_python_does_not_wait_for_ever_where_no_registry_is() {
    let Some(python) = python() else { return };
    // Connections are taken, and nothing is ever said.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let script = blocks("python")[0].replace("127.0.0.1:5556", &format!("127.0.0.1:{port}"));
    let client = Command::new(python).args(["-c", &script]).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, ended) = std::sync::mpsc::channel();
    let pid = client.id();
    std::thread::spawn(move || sender.send(client.wait_with_output().unwrap()));
    let Ok(output) = ended.recv_timeout(harness::PATIENCE) else {
        let _ = Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status();
        panic!("the client waits for ever");
    };
    assert!(String::from_utf8_lossy(&output.stderr).contains("zmq.error.Again"), "{output:?}");
}

/// The names of all fields, with the names of those that they are in.
fn fields(value: &Value, path: &str) -> BTreeSet<String> {
    let Some(fields) = value.as_object() else { return BTreeSet::from([path.to_string()]) };
    fields.iter().flat_map(|(name, value)| self::fields(value, &format!("{path}.{name}"))).collect()
}

#[test]
fn the_reply_and_the_event_that_are_shown_have_the_fields_of_real_ones() {
    let [reply, event] = &blocks("json")[..] else { panic!("one reply and one event are shown") };
    let [reply, event] = [reply, event].map(|text| serde_json::from_str::<Value>(text).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), "[backend]\nplugin = \"memory\"\n");
    let mut subscriber = host.subscriber();
    let mut client = host.client();
    let camera = json!({"name": "Camera 1", "host": "10.0.0.7", "port": 7000, "type": "camera"});
    assert_eq!(client.call(json!({"action": "register", "service_info": camera}))["success"], true);
    let real = client.call(json!({"action": "discover", "service_type": "camera"}));
    assert_eq!(fields(&reply, ""), fields(&real, ""));
    assert_eq!(fields(&event, ""), fields(&subscriber.next().1, ""));
}

#[test]
fn the_version_of_rust_is_the_one_that_cargo_asks_for() {
    let told = format!("You need Rust ({} or newer)", env!("CARGO_PKG_RUST_VERSION"));
    assert!(readme().contains(&told), "{told}");
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

/// The README and everything in `docs`, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = std::fs::read_dir(workspace().join("docs")).expect("there are docs");
    let paths = docs.map(|entry| entry.unwrap().path()).chain([workspace().join("README.md")]);
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The headings of a page, as links name them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    titles.map(|title| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    })
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for (page, text) in pages() {
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("https://") && !link.starts_with('#')) {
            count += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} is not there", page.display());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(target).unwrap();
                assert!(headings(&text).any(|there| there == heading), "{}: {link} is not there", page.display());
            }
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn every_place_in_the_code_that_is_named_is_there() {
    let mut count = 0;
    for (page, text) in pages() {
        let quoted = text.split('`').skip(1).step_by(2);
        for place in quoted.filter(|word| word.contains('/') && (word.ends_with(".rs") || word.ends_with('/'))) {
            count += 1;
            let is_there = ["", "host/src"].iter().any(|root| workspace().join(root).join(place).exists());
            assert!(is_there, "{}: {place} is not there", page.display());
        }
    }
    assert!(count > 20, "{count}");
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
