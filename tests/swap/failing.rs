//! A store that is slow, fails or hangs is left nevertheless, if its operator says so.

use std::path::Path;

use serde_json::json;

use crate::harness::{Host, eventually, plugin_dir, register};
use crate::{FROM, TO, ids, refused, run, text};

/// A store that fails as the file `control` says.
fn failing() -> String {
    let sqlite = plugin_dir().join("libregistry_sqlite.so");
    format!(
        "[server]\nallow_swap = true\n[backend]\nplugin = \"faulty\"\noptions.path = \"service_registry.db\"\n\
         options.library = {sqlite:?}\noptions.control = \"control\"\ncall_timeout = 0.5\n"
    )
}

fn control(directory: &Path, word: &str) {
    // At once, so that nobody reads half of it.
    std::fs::write(directory.join("control.new"), word).unwrap();
    std::fs::rename(directory.join("control.new"), directory.join("control")).unwrap();
}

/// A registry on a store that may fail, with a service, and its epoch.
fn start(directory: &Path) -> (Host, serde_json::Value) {
    std::fs::write(directory.join("to.toml"), TO).unwrap();
    let host = Host::start(directory, &failing());
    let mut client = host.client();
    assert_eq!(client.call(register("a", "web", 600.0))["success"], true);
    let epoch = client.call(json!({"action": "info"}))["epoch"].clone();
    (host, epoch)
}

#[test]
fn a_store_that_is_slow_is_left_if_changes_may_wait_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (host, epoch) = start(directory);
    // What it has is not stored before the first swap has given up.
    control(directory, "slow 8000");
    // Changes all the time, so that the store always has some, and one before anybody moves.
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut client = host.client();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                client.call(register("a", "web", 600.0));
            }
        });
        eventually(&mut host.client(), json!({"action": "health"}), |health| health["backend"]["state"] == "stalled");
        let refused = run(directory, &host, &["swap", "--to", "to.toml"]);
        let moved = run(directory, &host, &["swap", "--to", "to.toml", "--hold", "30s"]);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        writing.join().unwrap();
        assert!(text(&refused.stderr).contains("too much to do: --hold has changes wait for longer"), "{refused:?}");
        assert!(moved.status.success(), "{moved:?}");
    });
    assert_eq!(host.client().call(json!({"action": "info"}))["epoch"], epoch, "the history goes on");
    host.wait_for_log("a storage that is not in charge is closed");
    host.kill();
    assert!(refused(directory, FROM).contains("this store is closed"));
}

#[test]
fn a_store_that_fails_is_left_only_by_who_abandons_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (host, _) = start(directory);
    let mut subscriber = host.subscriber();
    let mut client = host.client();
    let epoch = client.call(json!({"action": "info"}))["epoch"].clone();
    control(directory, "error");
    assert_eq!(client.call(register("b", "web", 600.0))["code"], "backend_unavailable");
    let refused = run(directory, &host, &["swap", "--to", "to.toml"]);
    assert!(text(&refused.stderr).contains("the storage in charge fails, so that it cannot be closed"), "{refused:?}");
    let list = client.call(json!({"action": "list"}));
    let watch = json!({"action": "watch", "epoch": list["epoch"], "after": list["revision"], "wait": 60});
    let mut watcher = host.client();
    watcher.send(&[b"", watch.to_string().as_bytes()]);
    let moved = run(directory, &host, &["swap", "--to", "to.toml", "--abandon"]);
    assert!(moved.status.success(), "{moved:?}\n{}", host.log());
    assert!(text(&moved.stderr).contains("the storage before could not be closed"), "{moved:?}");
    host.wait_for_log("a registry that is started on it goes on with what was in it");
    let told: serde_json::Value = serde_json::from_slice(&watcher.receive()[1]).unwrap();
    assert_eq!(told["code"], "compacted", "{told}");
    let (topic, notice) = subscriber.next();
    assert_eq!((topic.as_str(), &notice["reason"]), ("epoch", &json!("swap")));
    assert_eq!(client.call(register("b", "web", 600.0))["success"], true);
    let other = client.call(json!({"action": "info"}))["epoch"].clone();
    assert!(other != epoch && other == notice["epoch"]);
    host.kill();
    let host = Host::start(directory, TO);
    assert_eq!(ids(&mut host.client()), ["a", "b"]);
    assert_eq!(host.client().call(json!({"action": "info"}))["epoch"], other);
}

#[test]
fn a_store_that_hangs_is_left_with_what_it_has_not_answered() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (host, _) = start(directory);
    control(directory, "slow 4000");
    let mut waiting = host.client();
    waiting.send(&[b"", register("b", "web", 600.0).to_string().as_bytes()]);
    let mut client = host.client();
    eventually(&mut client, json!({"action": "health"}), |health| health["backend"]["state"] == "stalled");
    let moved = run(directory, &host, &["swap", "--to", "to.toml", "--abandon"]);
    assert!(moved.status.success(), "{moved:?}\n{}", host.log());
    let told: serde_json::Value = serde_json::from_slice(&waiting.receive()[1]).unwrap();
    assert_eq!(told["code"], "backend_unavailable", "{told}");
    assert_eq!(client.call(register("c", "web", 600.0))["success"], true);
    assert_eq!(ids(&mut client), ["a", "c"]);
    host.wait_for_log("a storage that is not in charge is closed");
    host.kill();
    let host = Host::start(directory, TO);
    assert_eq!(ids(&mut host.client()), ["a", "c"]);
    host.stop();
    // It has answered in the end, and could be closed.
    assert!(refused(directory, FROM).contains("this store is closed"));
}

/// Whether what closes the store is stored is not known: it is told the contrary until that is stored.
#[test]
fn a_store_that_may_be_closed_is_told_that_it_is_not_until_it_says_yes() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (host, epoch) = start(directory);
    control(directory, "bare");
    let failed = run(directory, &host, &["swap", "--to", "to.toml"]);
    assert!(text(&failed.stderr).contains("could not be closed: disk I/O error"), "{failed:?}");
    assert!(text(&failed.stderr).contains("--abandon"), "{failed:?}");
    let mut client = host.client();
    assert_eq!(ids(&mut client), ["a"], "reads go on");
    let again = run(directory, &host, &["swap", "--to", "to.toml"]);
    assert!(text(&again.stderr).contains("may be closed for that of"), "{again:?}");
    std::fs::write(directory.join("registry.toml"), TO).unwrap();
    host.signal("HUP");
    host.wait_for_log("the registry does not move to the storage that is configured now: the storage in charge fails");
    control(directory, "none");
    assert_eq!(client.call(register("b", "web", 600.0))["success"], true);
    host.wait_for_log("stays in charge");
    host.wait_for_log("a storage that is not in charge is closed");
    host.kill();
    assert!(refused(directory, TO).contains("this store is not whole"));
    let host = Host::start(directory, FROM);
    assert_eq!(ids(&mut host.client()), ["a", "b"]);
    assert_eq!(host.client().call(json!({"action": "info"}))["epoch"], epoch);
}

#[test]
fn a_host_that_dies_while_its_store_may_be_closed_leaves_the_new_one_whole() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (host, epoch) = start(directory);
    control(directory, "bare");
    assert!(!run(directory, &host, &["swap", "--to", "to.toml"]).status.success());
    host.kill();
    // What could not be stored was stored, or not: here it was, in the end, that the old one is in charge.
    let host = Host::start(directory, TO);
    assert!(host.log().contains("If a host has been started on that one since, it knows more"), "{}", host.log());
    assert_eq!(ids(&mut host.client()), ["a"]);
    assert_ne!(host.client().call(json!({"action": "info"}))["epoch"], epoch);
}

#[test]
fn a_move_that_cannot_be_taken_back_is_completed_by_who_abandons_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (host, epoch) = start(directory);
    control(directory, "bare");
    assert!(!run(directory, &host, &["swap", "--to", "to.toml"]).status.success());
    std::fs::write(directory.join("third.toml"), TO.replace("other", "third")).unwrap();
    let elsewhere = run(directory, &host, &["swap", "--to", "third.toml", "--abandon"]);
    assert!(text(&elsewhere.stderr).contains("may be closed for that of"), "{elsewhere:?}");
    let moved = run(directory, &host, &["swap", "--to", "to.toml", "--abandon"]);
    assert!(moved.status.success(), "{moved:?}\n{}", host.log());
    let mut client = host.client();
    assert_eq!(client.call(register("b", "web", 600.0))["success"], true);
    assert_ne!(client.call(json!({"action": "info"}))["epoch"], epoch);
    host.kill();
    let host = Host::start(directory, TO);
    assert_eq!(ids(&mut host.client()), ["a", "b"]);
}
