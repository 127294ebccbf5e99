//! `config check` against `serve`: what the one refuses the other refuses, and looking changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

use super::*;
use crate::harness::{self, Host, register};

/// The files in a directory with what is in them, and the directories below it.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        }
        let bytes = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.insert(path, bytes);
    }
    found
}

/// Runs `config check`, then `serve`: both refuse, in words that have `told` in them, and nothing is changed by the
/// first.
fn refused_by_both(place: &Place, told: &str) {
    let before = contents(place.directory.path());
    let check = check_with_plugins(place, &[]);
    assert_eq!(contents(place.directory.path()), before, "{told}");
    let mut serve = harness::registry(place.directory.path());
    let serve = serve.args(["serve", "--set", "log.level=error"]).args(FREE_PORTS).output().unwrap();
    for (command, output) in [("config check", check), ("serve", serve)] {
        let refusal = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {refusal}{}", text(&output.stdout));
        assert!(refusal.contains(told), "{command}: {refusal}");
    }
}

#[test]
fn ports_that_cannot_be_bound() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    let set = format!("server.pub_port={}", address.port());
    let output = check_with_plugins(&Place::empty(), &[&set]);
    assert_eq!(output.status.code(), Some(1));
    let told = format!("registry: cannot listen on tcp://{address} (server.pub_port): Address already in use");
    assert!(text(&output.stderr).starts_with(&told), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("--running leaves out"), "{}", text(&output.stdout));
    let running = Place::empty().run(&["config", "check", "--running", "-s", &set, "-s", &plugin_dir()], &[]);
    assert!(running.status.success(), "{}", text(&running.stderr));

    // An address that is kept for documentation.
    let place = Place::with("[server]\nbind = \"192.0.2.1\"\ntrusted_network = true\n");
    refused_by_both(&place, "server.bind is no address of this machine");
}

#[test]
fn sockets_that_cannot_be_made() {
    let place = Place::with("[server]\nipc_dir = \"none\"\n");
    refused_by_both(&place, "cannot listen on ipc://none/requests (server.ipc_dir)");
    fs::create_dir(place.directory.path().join("none")).unwrap();
    assert!(check_with_plugins(&place, &[]).status.success());
    place.write("none/events", "precious");
    refused_by_both(&place, "something else than a socket has this name");
}

#[test]
fn stores_that_cannot_be_opened() {
    for (path, told) in [
        ("none/x.db", "there is no directory none"),
        ("directory", "directory is a directory"),
        ("garbage.db", "garbage.db is not an SQLite database"),
    ] {
        let place = Place::with(&format!("[backend.options]\npath = {path:?}\n"));
        fs::create_dir(place.directory.path().join("directory")).unwrap();
        place.write("garbage.db", &"garbage".repeat(100));
        refused_by_both(&place, told);
    }
}

#[test]
fn a_store_of_somebody_else_is_told_with_its_owner_and_mode() {
    let place = Place::with("[backend.options]\npath = \"x.db\"\n");
    let file = place.write("x.db", "");
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    mode(place.directory.path(), 0o777);
    // Root may write everything, and nobody else can make a file of another user's.
    mode(&file, if is_root { 0o644 } else { 0o444 });
    let as_nobody = |mut command: Command| match is_root {
        true => command.uid(65_534).gid(65_534).output().unwrap(),
        false => command.output().unwrap(),
    };
    let output = as_nobody(place.command(&["config", "check", "-s", &plugin_dir(), "-s", "server.req_port=0"]));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("x.db cannot be written"), "{}", text(&output.stderr));
    let mut serve = harness::registry(place.directory.path());
    serve.args(["serve", "--set", "log.level=error"]).args(FREE_PORTS);
    let output = as_nobody(serve);
    let told = if is_root { "x.db is not writable by nobody (0644 root)" } else { "x.db is read-only" };
    assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
}

#[test]
fn a_quota_for_nobody_is_told_of() {
    let place = Place::with("[[limits.quotas]]\nname = \"few\"\nclients = [\"token ci\"]\nservices = 1\n");
    let output = check_with_plugins(&place, &[]);
    let told = "limits.quotas: \"few\" is for \"token ci\", which is not among http.tokens";
    assert!(output.status.success() && text(&output.stderr).contains(told), "{}", text(&output.stderr));
}

#[test]
fn a_store_that_can_be_opened_is_counted_and_left_as_it_is() {
    let place = Place::empty();
    let said = |place: &Place| text(&check_with_plugins(place, &[]).stdout);
    assert!(said(&place).contains("the store service_registry.db is going to be made\n"));
    assert!(contents(place.directory.path()).is_empty());
    let host = Host::start(place.directory.path(), "");
    assert_eq!(host.client().call(register("x", "web", 60.0))["success"], true);
    // With a log beside it, in which the service is.
    host.kill();
    let before = contents(place.directory.path());
    assert!(said(&place).contains("the store service_registry.db has 1 service\n"), "{}", said(&place));
    assert_eq!(contents(place.directory.path()), before);
    let output = check_with_plugins(&place, &["backend.plugin=memory"]);
    assert!(text(&output.stdout).contains("the store is empty at each start\n"), "{}", text(&output.stdout));
}
