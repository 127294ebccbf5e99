//! The plugin's half of logging. A plugin has its own copy of `tracing`, which nobody listens to: this hands its
//! events to the host. Spans stay in the plugin.

use std::fmt::{Debug, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use abi_stable::std_types::{RSlice, RStr, Tuple2};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Dispatch, Event, Interest, Level, Metadata, Subscriber, dispatcher};

use super::module::HostTable_Ref;

static HOST: OnceLock<HostTable_Ref> = OnceLock::new();

/// Sends this plugin's events to the host from now on. Later calls change nothing.
pub(super) fn install(host: HostTable_Ref) {
    if HOST.set(host).is_ok() {
        // Fails if the plugin has set a subscriber of its own, which then is what its author wants.
        let _ = dispatcher::set_global_default(Dispatch::new(Forward { next_span: AtomicU64::new(1) }));
    }
}

/// Logs an error that does not come from an event.
pub(super) fn error(target: &str, message: &str, fields: &[(&'static str, String)]) {
    send(level_code(Level::ERROR), target, message, fields);
}

fn send(level: u32, target: &str, message: &str, fields: &[(&'static str, String)]) {
    let Some(host) = HOST.get() else { return };
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| Tuple2(RStr::from(*name), RStr::from(value.as_str()))).collect();
    (host.log())(host.plugin(), level, target.into(), message.into(), RSlice::from_slice(&fields));
}

fn level_code(level: Level) -> u32 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        _ => 5,
    }
}

struct Forward {
    next_span: AtomicU64,
}

impl Subscriber for Forward {
    /// The host's filter may change at any time, so it is asked at every event.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = level_code(*metadata.level());
        HOST.get().is_some_and(|host| (host.log_enabled())(host.plugin(), level, metadata.target().into()))
    }

    fn event(&self, event: &Event<'_>) {
        let mut texts = Texts::default();
        event.record(&mut texts);
        let metadata = event.metadata();
        send(level_code(*metadata.level()), metadata.target(), &texts.message, &texts.fields);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.next_span.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event as text.
#[derive(Default)]
struct Texts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => self.fields.push((name, value.to_string())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            // Writing to a String does not fail.
            "message" => drop(write!(self.message, "{value:?}")),
            name => self.fields.push((name, format!("{value:?}"))),
        }
    }
}
