//! What cannot be seen through a plugin that was built from the same sources: other versions, and the limits.

use std::time::{Duration, Instant};

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec};
use tracing::subscriber::with_default;

use super::emit::{self, DESCRIPTIONS_MAX};
use super::load::{Refusal, check_layout, check_version};
use super::types::{RawChange, RawError, RawOption};
use crate::{Change, Error, ErrorKind, Host, OptionSpec, Options};

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
fn only_the_major_version_decides() {
    for plugin in ["1.0.0", "1.7.3", "1.0.0-rc.1"] {
        assert!(check_version("1.2.0", plugin).is_ok(), "{plugin}");
    }
    for plugin in ["2.0.0", "0.9.0", "10.0.0", "", "one"] {
        let refusal = check_version("1.2.0", plugin).unwrap_err();
        assert!(matches!(refusal, Refusal::Version { built_against } if built_against == plugin));
    }
}

#[test]
fn all_kinds_of_errors_cross() {
    use ErrorKind::*;
    for kind in [Unavailable, InvalidOption, Corrupt, HistoryLost, Unsupported, Panicked, Internal] {
        let error = Error::new(kind, "message");
        assert_eq!(Error::from(RawError::from(error.clone())), error);
    }
}

#[test]
fn a_change_of_an_unknown_kind_is_an_error() {
    let mut raw = RawChange::from(Change::Renew { id: "id".to_string(), last_heartbeat_ms: 1 });
    raw.set_kind(99);
    let error = Change::try_from(raw).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("unknown kind of change 99"), "{error}");
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
