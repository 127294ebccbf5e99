//! One suite over every storage plugin, through its real library: what the contract of `plugin-api` says, and what
//! users of the whole program get with it. A new plugin joins by one line.

mod harness;

use std::path::{Path, PathBuf};

use harness::{Host, eventually, plugin_dir, register};
use registry_host::plugin::{OpenBackend, Plugin, find};
use registry_plugin_api::{Capabilities, Change, Cursor, ErrorKind, Outcome, Record, RemoveReason};
use serde_json::{Map, Value, json};

/// Makes a module for each plugin, with every promise of the suite as a test in it.
macro_rules! every_plugin {
    ($($name:ident => $options:expr,)+) => {
        $(every_plugin! { @plugin $name $options;
            what_was_put_is_loaded_field_by_field,
            a_put_takes_the_place_of_the_record_with_that_id,
            what_was_removed_is_gone,
            what_is_not_there_is_missing_and_changes_nothing,
            a_renewal_moves_the_heartbeat_and_not_the_revision,
            the_revision_grows_with_each_put_and_remove,
            a_group_is_made_in_order,
            a_group_of_nothing_is_fine,
            everything_is_loaded_once_in_pages,
            ids_and_documents_may_be_any_text,
            a_new_store_is_a_new_epoch,
            a_durable_store_comes_back_as_it_was,
            an_unknown_option_is_refused_by_name,
            the_rules_of_the_registry_hold,
        })+
    };
    (@plugin $name:ident $options:expr; $($promise:ident,)+) => {
        mod $name {
            use super::*;

            $(#[test]
            fn $promise() {
                super::$promise(&Fixture::new(stringify!($name), $options));
            })+
        }
    };
}

every_plugin! {
    memory => |_| json!({}),
    sqlite => |directory| json!({ "path": directory.join("store.db") }),
}

/// A plugin, and a fresh directory for what it stores.
struct Fixture {
    name: &'static str,
    make_options: fn(&Path) -> Value,
    options: Map<String, Value>,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new(name: &'static str, make_options: fn(&Path) -> Value) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let Value::Object(options) = make_options(directory.path()) else { panic!("options are an object") };
        Fixture { name, make_options, options, directory }
    }

    fn plugin(&self) -> Plugin {
        let file: PathBuf = find(self.name, Some(&plugin_dir())).unwrap();
        Plugin::load(&file).unwrap()
    }

    fn is_durable(&self) -> bool {
        self.plugin().info().capabilities.has(Capabilities::NONE.durable())
    }

    fn open(&self) -> Store {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let backend = runtime.block_on(self.plugin().open(self.options.clone())).unwrap();
        Store { runtime, backend }
    }
}

/// An open store, used from one thread as the host does.
struct Store {
    runtime: tokio::runtime::Runtime,
    backend: OpenBackend,
}

/// Everything in a store.
#[derive(Debug, PartialEq)]
struct Contents {
    epoch: String,
    revision: u64,
    records: Vec<Record>,
    pages: usize,
}

impl Store {
    fn commit(&self, changes: Vec<Change>) -> Vec<Outcome> {
        self.runtime.block_on(self.backend.commit(changes)).unwrap()
    }

    fn load(&self) -> Contents {
        let mut contents = Contents { epoch: String::new(), revision: 0, records: Vec::new(), pages: 0 };
        let mut after = Cursor::start();
        loop {
            let page = self.runtime.block_on(self.backend.load(after.clone())).unwrap();
            contents.pages += 1;
            (contents.epoch, contents.revision) = (page.epoch, page.revision);
            contents.records.extend(page.records);
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        contents.records.sort_by(|one, other| one.id.cmp(&other.id));
        contents
    }

    fn ids(&self) -> Vec<String> {
        self.load().records.into_iter().map(|record| record.id).collect()
    }

    fn close(self) {
        self.runtime.block_on(self.backend.close()).unwrap();
    }
}

fn record(id: &str) -> Record {
    let mut record = Record::new(id, json!({ "id": id, "name": "N" }).to_string());
    record.types = vec!["web".into(), "mail".into()];
    record.ttl_ms = 30_000;
    record.last_heartbeat_ms = 1_700_000_000_123;
    record
}

fn put(id: &str) -> Change {
    Change::Put { record: record(id), unique: None }
}

fn remove(id: &str) -> Change {
    Change::Remove { id: id.into(), reason: RemoveReason::Deregistered }
}

fn renew(id: &str) -> Change {
    Change::Renew { id: id.into(), last_heartbeat_ms: 1_800_000_000_000 }
}

/// The revision of a change that was done.
fn done(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Done { revision } => *revision,
        other => panic!("not done: {other:?}"),
    }
}

fn what_was_put_is_loaded_field_by_field(fixture: &Fixture) {
    let store = fixture.open();
    let revision = done(&store.commit(vec![put("x")])[0]);
    let mut expected = record("x");
    expected.revision = revision;
    assert_eq!(store.load().records, [expected]);
    store.close();
}

fn a_put_takes_the_place_of_the_record_with_that_id(fixture: &Fixture) {
    let store = fixture.open();
    store.commit(vec![put("x")]);
    let mut update = record("x");
    update.document = r#"{"id":"x","new":true}"#.into();
    update.types = vec![];
    let revision = done(&store.commit(vec![Change::Put { record: update.clone(), unique: None }])[0]);
    update.revision = revision;
    assert_eq!(store.load().records, [update]);
    store.close();
}

fn what_was_removed_is_gone(fixture: &Fixture) {
    let store = fixture.open();
    store.commit(vec![put("x"), put("y")]);
    done(&store.commit(vec![remove("x")])[0]);
    assert_eq!(store.ids(), ["y"]);
    store.close();
}

fn what_is_not_there_is_missing_and_changes_nothing(fixture: &Fixture) {
    let store = fixture.open();
    store.commit(vec![put("x")]);
    let before = store.load();
    assert_eq!(store.commit(vec![remove("y"), renew("y")]), [Outcome::Missing, Outcome::Missing]);
    assert_eq!(store.load(), before);
    store.close();
}

fn a_renewal_moves_the_heartbeat_and_not_the_revision(fixture: &Fixture) {
    let store = fixture.open();
    let revision = done(&store.commit(vec![put("x")])[0]);
    assert_eq!(done(&store.commit(vec![renew("x")])[0]), revision);
    let mut expected = record("x");
    expected.last_heartbeat_ms = 1_800_000_000_000;
    expected.revision = revision;
    let contents = store.load();
    assert_eq!((contents.revision, contents.records), (revision, vec![expected]));
    store.close();
}

fn the_revision_grows_with_each_put_and_remove(fixture: &Fixture) {
    let store = fixture.open();
    let before = store.load().revision;
    let outcomes = store.commit(vec![put("x"), put("y"), remove("x")]);
    let revisions: Vec<u64> = outcomes.iter().map(done).collect();
    assert!(before < revisions[0] && revisions.is_sorted_by(|one, next| one < next), "{before} {revisions:?}");
    assert_eq!(store.load().revision, revisions[2]);
    store.close();
}

fn a_group_is_made_in_order(fixture: &Fixture) {
    let store = fixture.open();
    store.commit(vec![put("x")]);
    let outcomes = store.commit(vec![renew("x"), remove("x"), renew("x"), put("y"), renew("y")]);
    assert_eq!(outcomes[2], Outcome::Missing);
    [0, 1, 3, 4].iter().for_each(|position: &usize| assert!(done(&outcomes[*position]) > 0));
    let records = store.load().records;
    assert_eq!((records.len(), records[0].last_heartbeat_ms), (1, 1_800_000_000_000));
    store.close();
}

fn a_group_of_nothing_is_fine(fixture: &Fixture) {
    let store = fixture.open();
    assert_eq!(store.commit(vec![]), []);
    store.close();
}

fn everything_is_loaded_once_in_pages(fixture: &Fixture) {
    let store = fixture.open();
    assert_eq!(store.load().records, []);
    let ids: Vec<String> = (0..12_000).map(|number| format!("s{number:05}")).collect();
    for group in ids.chunks(1000) {
        store.commit(group.iter().map(|id| put(id)).collect());
    }
    let contents = store.load();
    assert!(contents.pages > 1, "12,000 records in one page");
    assert_eq!(contents.records.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ids);
    store.close();
}

fn ids_and_documents_may_be_any_text(fixture: &Fixture) {
    let store = fixture.open();
    let ids = ["a b", "%_'\";--", "\u{1F980}", "e\u{301}", "\u{e9}", "line\nbreak", "nul\0byte", "A", "a"];
    let mut records: Vec<Record> = ids.iter().map(|id| record(id)).collect();
    records[0].document = "x".repeat(3_000_000);
    records[1].types = ids.iter().map(|id| id.to_string()).collect();
    records[2].ttl_ms = u64::MAX / 2_000_000 * 1_000_000;
    let puts = records.iter().map(|record| Change::Put { record: record.clone(), unique: None }).collect();
    for (record, outcome) in records.iter_mut().zip(store.commit(puts)) {
        record.revision = done(&outcome);
    }
    records.sort_by(|one, other| one.id.cmp(&other.id));
    assert!(store.load().records == records, "the records come back as they were put");
    store.close();
}

fn a_new_store_is_a_new_epoch(fixture: &Fixture) {
    let other = Fixture::new(fixture.name, fixture.make_options);
    let (one, two) = (fixture.open(), other.open());
    let epochs = [one.load().epoch, two.load().epoch];
    assert!(!epochs[0].is_empty() && epochs[0] != epochs[1], "{epochs:?}");
    one.close();
    two.close();
}

fn a_durable_store_comes_back_as_it_was(fixture: &Fixture) {
    let store = fixture.open();
    store.commit(vec![put("x"), put("y"), remove("x"), renew("y")]);
    let before = store.load();
    store.close();
    let store = fixture.open();
    if fixture.is_durable() {
        assert_eq!(store.load(), before);
    } else {
        assert_eq!(store.load().records, []);
        assert_ne!(store.load().epoch, before.epoch, "what begins empty is another history");
    }
    store.close();
}

fn an_unknown_option_is_refused_by_name(fixture: &Fixture) {
    let mut options = fixture.options.clone();
    options.insert("no_such_option".into(), json!(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(fixture.plugin().open(options)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidOption);
    assert!(error.message().contains("no_such_option"), "{error}");
}

/// The same short life of a service, whatever stores it.
fn the_rules_of_the_registry_hold(fixture: &Fixture) {
    let options = toml_of(&fixture.options);
    let config = format!(
        "[server]\ncleanup_interval = 0.1\n[backend]\nplugin = \"{}\"\n[backend.options]\n{options}",
        fixture.name
    );
    let host = Host::start(fixture.directory.path(), &config);
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
    let store = fixture.open();
    assert_eq!(store.ids(), [""; 0]);
    store.close();
}

fn toml_of(options: &Map<String, Value>) -> String {
    options.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}
