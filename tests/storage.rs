//! One suite over every storage plugin, through its real library: the conformance kit, which is the contract of
//! `plugin-api`, and what users of the whole program get with it. A new plugin joins by one line.

mod harness;
#[path = "harness/kit.rs"]
mod kit;

use std::path::Path;
use std::time::Duration;

use harness::{Host, eventually, plugin_dir, register};
use registry_host::plugin::{Plugin, find};
use registry_host::store::{self, Answer, Contents, Store};
use registry_plugin_api::{Event, Group, Position, Put, Record};
use serde_json::{Map, Value, json};

/// Makes a module for each plugin, with every promise of the suite as a test in it.
macro_rules! every_plugin {
    ($($name:ident => $options:expr,)+) => {
        $(mod $name {
            use super::*;

            #[test]
            fn the_contract_is_kept() {
                super::the_contract_is_kept(&Fixture::new(stringify!($name), $options));
            }

            #[test]
            fn the_rules_of_the_registry_hold() {
                super::the_rules_of_the_registry_hold(&Fixture::new(stringify!($name), $options));
            }
        })+
    };
}

every_plugin! {
    memory => |_| json!({}),
    sqlite => |directory| json!({ "path": directory.join("store.db") }),
    jsonl => |directory| json!({ "path": directory.join("store.jsonl") }),
    redb => |directory| json!({ "path": directory.join("store.redb") }),
    c => |directory| json!({ "path": directory.join("store.log") }),
}

/// A plugin, and how to tell it the directory for what it stores.
struct Fixture {
    name: &'static str,
    make_options: fn(&Path) -> Value,
}

impl Fixture {
    fn new(name: &'static str, make_options: fn(&Path) -> Value) -> Fixture {
        Fixture { name, make_options }
    }

    fn options(&self, directory: &Path) -> Map<String, Value> {
        (self.make_options)(directory).as_object().expect("options are an object").clone()
    }

    /// The ids of all that is stored.
    fn ids(&self, directory: &Path) -> Vec<String> {
        let contents = contents(self.name, self.options(directory));
        contents.records.into_iter().map(|record| record.id).collect()
    }
}

fn the_contract_is_kept(fixture: &Fixture) {
    // The kit makes a directory for each store.
    let options = fixture.options(Path::new("{dir}"));
    let options = options.iter().map(|(name, value)| match value {
        Value::String(text) => format!("--options={name}={text}"),
        other => format!("--options={name}={other}"),
    });
    let arguments: Vec<String> = options.chain(["--records".to_string(), "20000".to_string()]).collect();
    kit::expect_conformant(fixture.name, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The same short life of a service, whatever stores it.
fn the_rules_of_the_registry_hold(fixture: &Fixture) {
    let directory = tempfile::tempdir().unwrap();
    let options = toml_of(&fixture.options(directory.path()));
    let config = format!(
        "[server]\ncleanup_interval = 0.1\n[backend]\nplugin = \"{}\"\n[backend.options]\n{options}",
        fixture.name
    );
    let host = Host::start(directory.path(), &config);
    let mut client = host.client();
    assert_eq!(client.call(register("x", "web", 0.5))["service_id"], "x");
    assert_eq!(client.call(register("stays", "mail", 60.0))["success"], true);
    let discover = json!({"action": "discover", "service_type": "web"});
    assert_eq!(client.call(discover.clone())["service"]["id"], "x");
    assert_eq!(client.call(json!({"action": "renew", "service_id": "x"}))["success"], true);
    eventually(&mut client, discover, |reply| reply["code"] == "none_healthy");
    eventually(&mut client, json!({"action": "get", "service_id": "x"}), |reply| reply["code"] == "not_found");
    let list = client.call(json!({"action": "list"}));
    assert_eq!((list["services"].as_array().unwrap().len(), &list["revision"]), (1, &json!(3)));
    assert_eq!(client.call(json!({"action": "deregister", "service_id": "stays"}))["success"], true);
    host.stop();
    assert_eq!(fixture.ids(directory.path()), [""; 0]);
}

fn toml_of(options: &Map<String, Value>) -> String {
    options.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// A log of `examples/jsonl` with this position and one record, which was put at revision 41.
fn log_at(epoch: &str, revision: u64) -> String {
    let head = json!({"format": "registry_jsonl 2", "epoch": epoch, "revision": revision});
    let record = json!({
        "id": "a", "document": "{}", "types": [], "ttl_ms": 1000, "last_heartbeat_ms": 7, "revision": 41,
    });
    format!("{head}\n{}\n", json!({"epoch": epoch, "revision": revision, "changes": [{"put": record}]}))
}

#[test]
fn a_new_epoch_begins_if_a_store_has_no_position_or_one_that_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    let options = Map::from_iter([("path".to_string(), json!(directory.path().join("log")))]);
    let open = || contents("jsonl", options.clone());
    for (epoch, revision, is_kept) in [("old", 41, true), ("old", 60, true), ("old", 40, false), ("", 0, false)] {
        std::fs::write(directory.path().join("log"), log_at(epoch, revision)).unwrap();
        let first = open();
        assert_eq!(first.position.epoch == epoch, is_kept, "{:?}", first.position);
        // Revisions go on after what is there.
        assert_eq!(first.position.revision, revision.max(41));
        assert_eq!(first.history.complete_after, first.position.revision, "it keeps no history");
        assert_eq!(open().position, first.position, "the new epoch is stored");
    }
}

fn closed(mut store: Store) {
    store.close();
    let answer = run(store.answer());
    assert!(matches!(answer, Answer::Closed(Ok(()))), "{answer:?}");
}

#[test]
fn recent_changes_are_taken_over_from_a_store_that_has_kept_them() {
    let directory = tempfile::tempdir().unwrap();
    let options = Map::from_iter([("path".to_string(), json!(directory.path().join("store.db")))]);
    let begun = contents("sqlite", options.clone());
    assert_eq!((begun.history.complete_after, begun.history.events.len()), (0, 0));
    let events: Vec<Event> = (1..=5000).map(|revision| Event::new(revision, format!("event {revision}"))).collect();
    run(async {
        let (backend, _) = store::open(&plugin("sqlite"), options.clone()).await.unwrap();
        let puts = events.iter().map(|event| {
            let mut record = Record::new("a", "{}");
            record.revision = event.revision;
            Put::new(record).with_event(&event.text).into()
        });
        let mut group = Group::new(Position::new(begun.position.epoch.as_str(), 5000), puts.collect());
        group.forget_before = 8;
        backend.commit(group).await.unwrap();
        backend.close().await.unwrap();
    });
    let (store, without) = Store::open(plugin("sqlite"), options.clone(), Duration::from_secs(5), None).unwrap();
    assert_eq!((without.history.complete_after, without.history.events.len()), (5000, 0), "nobody wanted it");
    closed(store);
    let opened = contents("sqlite", options);
    assert_eq!(opened.position, Position::new(begun.position.epoch, 5000));
    assert_eq!(opened.history.complete_after, 7);
    assert!(opened.history.events.iter().eq(&events[7..]), "{:?}", opened.history.events.front());
}

fn plugin(name: &str) -> Plugin {
    Plugin::load(find(name, Some(&plugin_dir())).unwrap()).unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

/// What the host finds in a store.
fn contents(name: &str, options: Map<String, Value>) -> Contents {
    run(async {
        let (backend, contents) = store::open(&plugin(name), options).await.unwrap();
        backend.close().await.unwrap();
        contents
    })
}
