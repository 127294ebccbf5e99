//! The host's half of logging: what a plugin hands over becomes an event of the host, with the plugin's own level,
//! target and fields, so that the host's filter and format apply to it as to the host's own events.
//!
//! `tracing` wants the description of an event to live for ever, so there is one, leaked, for each combination of
//! level, target and field names. They are as many as there are places in the plugin that log, and no more than
//! [`DESCRIPTIONS_MAX`] for each plugin: whatever comes after is logged under the plugin's own name.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use tracing_core::callsite::{Callsite, Identifier};
use tracing_core::field::{DisplayValue, FieldSet, Value, display};
use tracing_core::metadata::Kind;
use tracing_core::{Event, Interest, Level, LevelFilter, Metadata, dispatcher};

use super::budget::{Budget, MESSAGES_PER_SECOND_MAX, Verdict};

/// How many descriptions of events are kept for one plugin.
pub const DESCRIPTIONS_MAX: usize = 400;

const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

/// A plugin whose log is written: an index into `SOURCES`.
#[derive(Clone, Copy, Debug)]
pub struct SourceId(pub u64);

static SOURCES: RwLock<Vec<&'static Source>> = RwLock::new(Vec::new());

struct Source {
    name: String,
    /// By target. What is known of a target is a short list.
    descriptions: RwLock<HashMap<String, Vec<&'static Description>>>,
    fallback: [&'static Description; LEVELS.len()],
    budget: Mutex<Budget>,
}

/// What all events from one place have in common.
struct Description {
    level: Level,
    metadata: OnceLock<Metadata<'static>>,
}

impl Callsite for Description {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.get()
    }
}

impl Description {
    fn leak(level: Level, target: &str, fields: &[&str]) -> &'static Description {
        let target: &'static str = String::leak(target.to_string());
        let names = std::iter::once("message").chain(fields.iter().map(|name| &*String::leak(name.to_string())));
        let names: &'static [&'static str] = Vec::leak(names.collect());
        let description: &'static Description = Box::leak(Box::new(Description { level, metadata: OnceLock::new() }));
        let fields = FieldSet::new(names, Identifier(description));
        description
            .metadata
            .get_or_init(|| Metadata::new("plugin event", target, level, None, None, None, fields, Kind::EVENT));
        description
    }

    fn get(&self) -> &Metadata<'static> {
        // `leak` sets it before anybody else sees the description.
        self.metadata.get().expect("a description has its metadata from the start")
    }

    fn matches(&self, level: Level, fields: &[&str]) -> bool {
        let names = self.get().fields();
        self.level == level
            && names.len() == fields.len() + 1
            && names.iter().skip(1).map(|f| f.name()).eq(fields.iter().copied())
    }
}

/// The place for a plugin's log. A plugin that is loaded again gets the same.
pub fn source(plugin: &str) -> SourceId {
    let mut sources = SOURCES.write().unwrap_or_else(PoisonError::into_inner);
    let index = sources.iter().position(|source| source.name == plugin).unwrap_or_else(|| {
        let fallback = LEVELS.map(|level| Description::leak(level, plugin, &[]));
        let descriptions = RwLock::default();
        let budget = Mutex::default();
        sources.push(Box::leak(Box::new(Source { name: plugin.to_string(), descriptions, fallback, budget })));
        sources.len() - 1
    });
    SourceId(index as u64)
}

fn find_source(id: SourceId) -> Option<&'static Source> {
    let sources = SOURCES.read().unwrap_or_else(PoisonError::into_inner);
    usize::try_from(id.0).ok().and_then(|index| sources.get(index).copied())
}

impl Source {
    /// `None` if there are too many already.
    fn describe(&self, level: Level, target: &str, fields: &[&str]) -> Option<&'static Description> {
        let known = self.descriptions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = find(&known, level, target, fields) {
            return Some(found);
        }
        drop(known);
        let mut known = self.descriptions.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = find(&known, level, target, fields) {
            return Some(found);
        }
        if known.values().map(Vec::len).sum::<usize>() >= DESCRIPTIONS_MAX {
            return None;
        }
        let description = Description::leak(level, target, fields);
        known.entry(target.to_string()).or_default().push(description);
        Some(description)
    }

    /// What the plugin's budget has to say to one more message.
    fn judge(&self) -> Verdict {
        static START: OnceLock<Instant> = OnceLock::new();
        let now = START.get_or_init(Instant::now).elapsed();
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).spend(now)
    }

    fn fallback(&self, level: Level) -> &'static Description {
        let index = LEVELS.iter().position(|known| *known == level).unwrap_or_default();
        self.fallback[index]
    }
}

fn find(
    known: &HashMap<String, Vec<&'static Description>>,
    level: Level,
    target: &str,
    fields: &[&str],
) -> Option<&'static Description> {
    known.get(target)?.iter().find(|description| description.matches(level, fields)).copied()
}

/// The level for a code. A code that nobody knows is a trace.
fn level(code: u32) -> Level {
    let index = usize::try_from(code).ok().and_then(|code| code.checked_sub(1));
    index.and_then(|index| LEVELS.get(index).copied()).unwrap_or(Level::TRACE)
}

/// Whether the host's filter lets events of that level and target through.
pub fn enabled(id: SourceId, level_code: u32, target: &str) -> bool {
    let level = level(level_code);
    if level > LevelFilter::current() {
        return false;
    }
    let Some(source) = find_source(id) else { return false };
    let description = source.describe(level, target, &[]).unwrap_or(source.fallback(level));
    dispatcher::get_default(|dispatch| dispatch.enabled(description.get()))
}

/// Writes an event to the host's log.
pub fn emit(id: SourceId, level_code: u32, target: &str, message: &str, fields: &[(&str, &str)]) {
    let level = level(level_code);
    let Some(source) = find_source(id) else { return };
    match source.judge() {
        Verdict::Log => {}
        Verdict::LogAfter(left_out) => {
            let message = format!("{left_out} messages were left out: more than {MESSAGES_PER_SECOND_MAX} in a second");
            dispatch(source.fallback(Level::WARN), &message, &[]);
        }
        Verdict::LeaveOut => return,
    }
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    match source.describe(level, target, &names) {
        Some(description) => dispatch(description, message, fields),
        None => {
            let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            dispatch(source.fallback(level), &format!("{target}: {message}{fields}"), &[]);
        }
    }
}

/// `fields` are those of the description, in order.
fn dispatch(description: &'static Description, message: &str, fields: &[(&str, &str)]) {
    let texts: Vec<DisplayValue<&str>> =
        std::iter::once(message).chain(fields.iter().map(|(_, value)| *value)).map(display).collect();
    let values: Vec<Option<&dyn Value>> = texts.iter().map(|text| Some(text as &dyn Value)).collect();
    let metadata = description.get();
    dispatcher::get_default(|dispatch| {
        if dispatch.enabled(metadata) {
            dispatch.event(&Event::new(metadata, &metadata.fields().value_set_all(&values)));
        }
    });
}
