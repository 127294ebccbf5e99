//! One suite over every storage plugin, through its real library: the conformance kit, which is the contract of
//! `plugin-api`, and what users of the whole program get with it. A new plugin joins by one line.

mod harness;
#[path = "harness/kit.rs"]
mod kit;

use std::path::Path;

use harness::{Host, eventually, plugin_dir, register};
use registry_host::plugin::{Plugin, find};
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
        let plugin = Plugin::load(find(self.name, Some(&plugin_dir())).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (backend, contents) = registry_host::store::open(&plugin, self.options(directory)).await.unwrap();
            backend.close().await.unwrap();
            contents.records.into_iter().map(|record| record.id).collect()
        })
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
