//! What cannot be seen through a plugin that was built from the same sources: other versions, and the limits.

use std::time::{Duration, Instant};

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec};
use tracing::subscriber::with_default;

use super::emit::{self, DESCRIPTIONS_MAX};
use super::load::{Refusal, check_layout, check_version};
use super::types::{RawError, RawGroup, RawHistory, RawOption, RawOutcome, RawPage};
use crate::{
    Change, Cursor, Error, ErrorKind, Event, Group, History, Host, OptionSpec, Options, Outcome, Page, Position, Put,
    Record, Remove, Renew,
};

/// Plugin-apis as they might become, or must not.
mod versions {
    #![allow(non_camel_case_types, dead_code, missing_docs, unreachable_pub, unsafe_code)]

    macro_rules! version {
        ($name:ident, { $($before:tt)* }, $last:ident: $last_type:ty, { $($after:tt)* }, { $($value:tt)* }) => {
            pub mod $name {
                use super::super::*;

                #[repr(C)]
                #[derive(StableAbi)]
                pub struct Value { $($value)* }

                #[repr(C)]
                #[derive(StableAbi)]
                #[sabi(kind(Prefix(prefix_ref = Table_Ref)))]
                #[sabi(missing_field(option))]
                pub struct Table {
                    pub first: u32,
                    $($before)*
                    #[sabi(last_prefix_field)]
                    pub $last: $last_type,
                    $($after)*
                }
            }
        };
    }

    version!(base, {}, last: extern "C" fn(Value), {}, { a: u32, b: RString });
    version!(grown, {}, last: extern "C" fn(Value), { pub third: u64, pub fourth: i16, }, { a: u32, b: RString });
    version!(in_the_middle, { pub added: u32, }, last: extern "C" fn(Value), {}, { a: u32, b: RString });
    version!(longer_prefix, { pub last: extern "C" fn(Value), }, added: u32, {}, { a: u32, b: RString });
    version!(other_value, {}, last: extern "C" fn(Value), {}, { a: u32, added: u64, b: RString });
    version!(swapped_value, {}, last: extern "C" fn(Value), {}, { b: RString, a: u32 });
    version!(other_type, {}, last: extern "C" fn(Value), {}, { a: i32, b: RString });
}

macro_rules! layout {
    ($version:ident) => {
        <versions::$version::Table_Ref as StableAbi>::LAYOUT
    };
}

#[test]
fn an_older_plugin_fits_a_newer_host_and_the_other_way_round() {
    assert_eq!(check_layout(layout!(base), layout!(base)), Ok(()));
    assert_eq!(check_layout(layout!(grown), layout!(base)), Ok(()));
    assert_eq!(check_layout(layout!(base), layout!(grown)), Ok(()));
}

#[test]
fn whatever_is_not_at_the_end_of_a_table_does_not_fit() {
    let others = [
        layout!(in_the_middle),
        layout!(longer_prefix),
        layout!(other_value),
        layout!(swapped_value),
        layout!(other_type),
    ];
    for (index, other) in others.into_iter().enumerate() {
        assert!(check_layout(layout!(base), other).is_err(), "{index} as a plugin");
        assert!(check_layout(other, layout!(base)).is_err(), "{index} as a host");
        assert!(check_layout(layout!(grown), other).is_err(), "{index} in a newer host");
    }
}

#[test]
fn one_check_does_not_change_the_next() {
    for _ in 0..2 {
        assert_eq!(check_layout(layout!(grown), layout!(base)), Ok(()));
        assert!(check_layout(layout!(base), layout!(in_the_middle)).is_err());
        assert_eq!(check_layout(layout!(grown), layout!(grown)), Ok(()));
        assert_eq!(check_layout(layout!(base), layout!(grown)), Ok(()));
    }
}

#[test]
fn only_the_series_decides() {
    let fitting =
        [("0.1.0", "0.1.0"), ("0.1.0", "0.1.7"), ("0.1.7", "0.1.0-rc.1"), ("1.2.0", "1.0.0"), ("1.2.0", "1.7.3")];
    for (host, plugin) in fitting {
        assert!(check_version(host, plugin).is_ok(), "{plugin} in {host}");
    }
    let others = [("0.1.0", "0.2.0"), ("0.2.0", "0.1.9"), ("0.1.0", "1.1.0"), ("1.2.0", "0.2.0"), ("1.2.0", "2.2.0")];
    for (host, plugin) in others.into_iter().chain(["10.1.0", "", "one", "0", "0.x"].map(|plugin| ("0.1.0", plugin))) {
        let refusal = check_version(host, plugin).unwrap_err();
        assert!(matches!(refusal, Refusal::Version { built_against } if built_against == plugin));
    }
}

#[test]
fn all_kinds_of_errors_cross() {
    use ErrorKind::*;
    for kind in [Unavailable, InvalidOption, Corrupt, Unsupported, Panicked, Internal] {
        let error = Error::new(kind, "message");
        assert_eq!(Error::from(RawError::from(error.clone())), error);
    }
}

#[test]
fn a_group_crosses_whole() {
    let mut record = Record::new("a", "{}");
    (record.types, record.ttl_ms, record.last_heartbeat_ms, record.revision) = (vec!["web".to_string()], 1, 2, 3);
    let changes = vec![
        Put::new(record).with_event("put").into(),
        Remove::new("b", 4).with_event("remove").into(),
        Renew::new("c", 5).into(),
    ];
    let mut group = Group::new(Position::new("epoch", 4), changes);
    (group.forget_before, group.undone) = (2, vec![1]);
    let (crossed, unknown) = RawGroup::from(group.clone()).into_known();
    assert_eq!(crossed, group);
    assert_eq!(unknown.put_among(vec![Outcome::Done]), [Outcome::Done], "one outcome too few is the host's to see");
}

#[test]
fn a_change_of_an_unknown_kind_is_refused_for_itself() {
    let renew = |id: &str| Change::from(Renew::new(id, 1));
    let group = Group::new(Position::new("epoch", 1), vec![renew("a"), renew("b"), renew("c"), renew("d")]);
    let mut raw = RawGroup::from(group);
    [1, 3, 99].into_iter().for_each(|place| raw.make_unknown(place));
    let (known, unknown) = raw.into_known();
    assert_eq!(known.changes, [renew("a"), renew("c")]);
    let outcomes = unknown.put_among(vec![Outcome::Done, Outcome::Missing]);
    assert_eq!((&outcomes[0], &outcomes[2], outcomes.len()), (&Outcome::Done, &Outcome::Missing, 4));
    for place in [1, 3] {
        let Outcome::Refused(error) = &outcomes[place] else { panic!("{outcomes:?}") };
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("4294967295"), "{error}");
    }
}

#[test]
fn what_a_store_gives_back_crosses_whole() {
    for position in [None, Some(Position::new("epoch", 7))] {
        let page = Page::new(position).with_records(vec![Record::new("a", "{}")]).with_next(Cursor::after("a"));
        assert_eq!(Page::from(RawPage::from(page.clone())), page);
    }
    let history = History::new(3).with_events(vec![Event::new(4, "four")]).with_next(Cursor::after("4"));
    assert_eq!(History::from(RawHistory::from(history.clone())), history);
    for outcome in [Outcome::Done, Outcome::Missing, Outcome::unknown()] {
        assert_eq!(Outcome::from(RawOutcome::from(outcome.clone())), outcome);
    }
}

#[test]
fn options_cross_with_their_types_and_defaults() {
    let specs = [
        OptionSpec::text("a", None, "a text"),
        OptionSpec::text("b", Some("\"x\"\n"), "another"),
        OptionSpec::integer("c", Some(i64::MIN), "an integer"),
        OptionSpec::number("d", Some(0.1), "a number"),
        OptionSpec::boolean("e", Some(true), "a boolean"),
        OptionSpec::boolean("f", None, "another"),
        OptionSpec::text("g", None, "a password").secret(),
    ];
    let raw: RVec<RawOption> = specs.iter().map(RawOption::from).collect();
    assert_eq!(raw.into_iter().map(OptionSpec::from).collect::<Vec<_>>(), specs);
}

#[test]
fn an_option_of_an_unknown_type_is_left_to_the_plugin() {
    let specs =
        [OptionSpec::declared("hosts", "list", Some("[]"), "some"), OptionSpec::declared("port", "port", None, "one")];
    assert_eq!((specs[0].kind(), specs[0].default_value()), ("list", Some(serde_json::json!([]))));
    let check = |given: serde_json::Value| Options::check(&specs, given.as_object().cloned().unwrap_or_default());
    assert!(check(serde_json::json!({"hosts": ["a"], "port": "http"})).is_ok());
    assert!(check(serde_json::json!({"port": 1})).is_ok());
    assert!(check(serde_json::json!({})).unwrap_err().message().contains("\"port\" is missing"));
}

/// Keeps target and text of all events, except for those of the target `silent`.
#[derive(Default)]
struct Counting {
    seen: std::sync::Mutex<Vec<(String, String)>>,
}

impl tracing::Subscriber for &'static Counting {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() != "silent"
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{}={value:?};", field.name());
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.seen.lock().unwrap().push((event.metadata().target().to_string(), message.0));
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_plugin_with_too_many_targets_logs_under_its_own_name() {
    let log: &'static Counting = Box::leak(Box::default());
    let plugin = emit::source("talkative");
    with_default(log, || {
        for index in 0..DESCRIPTIONS_MAX + 5 {
            emit::emit(plugin, 3, &format!("target-{index}"), "hello", &[("a", "1")]);
        }
        emit::emit(emit::source("another"), 3, "another-target", "hello", &[]);
    });
    let seen = log.seen.lock().unwrap();
    assert_eq!(seen.len(), DESCRIPTIONS_MAX + 6);
    let last_own = &seen[DESCRIPTIONS_MAX - 1];
    assert_eq!(*last_own, (format!("target-{}", DESCRIPTIONS_MAX - 1), "message=hello;a=1;".to_string()));
    let first_other = &seen[DESCRIPTIONS_MAX];
    assert_eq!(*first_other, ("talkative".to_string(), format!("message=target-{DESCRIPTIONS_MAX}: hello a=1;")));
    assert_eq!(seen[DESCRIPTIONS_MAX + 5].0, "another-target");
}

#[test]
fn a_plugin_hears_what_the_filter_lets_through() {
    let plugin = emit::source("curious");
    with_default(Box::leak(Box::<Counting>::default()) as &'static Counting, || {
        assert!(emit::enabled(plugin, 5, "loud"));
        assert!(!emit::enabled(plugin, 1, "silent"));
    });
}

#[test]
fn the_same_place_is_described_once() {
    let plugin = emit::source("modest");
    let log: &'static Counting = Box::leak(Box::default());
    with_default(log, || {
        for _ in 0..DESCRIPTIONS_MAX / 2 + 1 {
            emit::emit(plugin, 3, "place", "hello", &[("a", "1")]);
            emit::emit(emit::source("modest"), 4, "place", "hello", &[("b", "1")]);
        }
        emit::emit(plugin, 3, "later", "hello", &[]);
    });
    assert_eq!(log.seen.lock().unwrap().last().unwrap().0, "later");
}

#[tokio::test]
async fn the_host_of_unit_tests_waits() {
    let host = Host::for_tests();
    let started = Instant::now();
    let moment = Duration::from_millis(20);
    tokio::time::timeout(Duration::from_secs(20), host.sleep(moment)).await.unwrap();
    assert!(started.elapsed() >= moment);
    assert_eq!(host.version(), env!("CARGO_PKG_VERSION"));
}
