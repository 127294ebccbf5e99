//! What is tried on purpose, besides the random histories: options, text, many records, unknown changes, closing.

use std::time::{Duration, Instant};

use registry_plugin_api::{Capabilities, Change, ErrorKind, Outcome, Put, Query, Record, Remove, Renew};
use serde_json::Value;

use super::Settings;
use super::history::{begin_new, reopen};
use super::lane::{Mismatch, Store, Trouble};
use super::model::{Model, name};
use super::rules::Rule;
use super::site::{Place, Site, WRONG_SECRET};
use super::tally::Finding;
use crate::log::counted;

/// How many changes are in a group that fills a store.
const FILLING_GROUP: usize = 1000;
/// The longest document that is tried.
const LONG_BYTES: usize = 1 << 20;

/// Opens a new store and begins its history. Trouble breaks that rule.
pub(super) fn begin(site: &Site, rule: Rule) -> Result<(Place, Store, Model), Mismatch> {
    let place = site.place();
    let store = site.open(&place).map_err(|trouble| trouble.breaks(rule))?;
    let model = begin_new(&store, rule)?;
    Ok((place, store, model))
}

/// Commits, and takes in the outcomes. Trouble breaks that rule.
pub(super) fn commit(store: &Store, model: &mut Model, changes: &[Change], rule: Rule) -> Result<(), Mismatch> {
    let group = model.group(changes);
    let outcomes = store.commit(group.clone()).map_err(|trouble| trouble.breaks(rule))?;
    model.apply(&group, &outcomes)
}

/// Compares what is stored with the model. Trouble breaks that rule.
pub(super) fn compare(store: &Store, model: &Model, rule: Rule) -> Result<(), Mismatch> {
    model.compare(&store.load().map_err(|trouble| trouble.breaks(rule))?)
}

pub(super) fn put_of(id: &str) -> Change {
    let mut record = Record::new(id, format!("{{\"id\":{}}}", Value::from(id)));
    record.types = vec!["web".to_string()];
    (record.ttl_ms, record.last_heartbeat_ms) = (86_400_000, 1_700_000_000_000);
    Put::new(record).into()
}

pub(super) fn remove_of(id: &str) -> Change {
    Remove::new(id, 0).into()
}

/// Rule [`Options`](Rule::Options).
pub(super) fn options(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Options;
    let place = site.place();
    let store = site.open(&place).map_err(|trouble| trouble.breaks(rule))?;
    store.load().map_err(|trouble| trouble.breaks(rule))?;
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    let mut tried = 0;
    let declared = &site.plugin().info().options;
    let known = ["text", "integer", "number", "boolean"];
    let wrong = declared.iter().filter(|option| known.contains(&option.kind())).map(|option| {
        let is_text = option.kind() == "text";
        (option.name(), if is_text { Value::from(1) } else { Value::from("no such value") })
    });
    for (option, value) in wrong.chain([("no_such_option", Value::from(1))]) {
        let mut options = place.options.clone();
        options.insert(option.to_string(), value.clone());
        let expected = format!("{option} = {value} to be refused, with its name in the message");
        match site.open_with(&place, &options) {
            Err(Trouble { error: Some(error), .. })
                if error.kind() == ErrorKind::InvalidOption && error.message().contains(option) => {}
            Err(trouble) => return Err(Mismatch::new(rule, expected, trouble.breaks(rule).got).into()),
            Ok(_) => return Err(Mismatch::new(rule, expected, "the store was opened").into()),
        }
        tried += 1;
    }
    Ok(format!("{} declared, {tried} wrong ones refused", declared.len()))
}

/// Rule [`Runtime`](Rule::Runtime): nothing here has a runtime, so all that is left to do is to make each call.
pub(super) fn runtime(site: &Site, _: &Settings) -> Result<String, Finding> {
    let on_its_own = |mismatch: Mismatch| match mismatch.got.contains("no reactor running") {
        true => Mismatch { rule: Rule::Runtime, ..mismatch },
        false => mismatch,
    };
    let calls = || -> Result<(), Mismatch> {
        let (_place, store, mut model) = begin(site, Rule::Runtime)?;
        commit(&store, &mut model, &[put_of("a"), put_of("b")], Rule::Runtime)?;
        compare(&store, &model, Rule::Runtime)?;
        store.close().map_err(|trouble| trouble.breaks(Rule::Close))
    };
    calls().map_err(on_its_own)?;
    Ok("open, load, commit, close on a thread without a runtime".to_string())
}

/// Rule [`Text`](Rule::Text).
pub(super) fn text(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Text;
    let as_text = |mismatch: Mismatch| mismatch.seen_by(rule);
    let records = odd_records();
    let count = records.len();
    let (place, mut store, mut model) = begin(site, rule)?;
    let mut refused = Vec::new();
    for record in &records {
        let group = model.group(&[Put::new(record.clone()).into()]);
        let outcomes = store.commit(group.clone()).map_err(|trouble| trouble.breaks(rule))?;
        match &outcomes[..] {
            [Outcome::Refused(error)] => {
                refused.push(format!("{} ({error})", name(&record.id)));
                model.position = group.position;
            }
            outcomes => model.apply(&group, outcomes).map_err(as_text)?,
        }
    }
    compare(&store, &model, rule).map_err(as_text)?;
    if site.claimed().has(Capabilities::NONE.durable()) {
        store = reopen(site, &place, store, &mut model).map_err(|mismatch| match mismatch.rule {
            Rule::Reopen => as_text(mismatch),
            _ => mismatch,
        })?;
    }
    // What was stored under an odd id must be found under it.
    let stored: Vec<String> = model.records.keys().cloned().collect();
    let renewals: Vec<Change> = stored.iter().map(|id| Renew::new(id, u64::from(u32::MAX)).into()).collect();
    commit(&store, &mut model, &renewals, rule).map_err(as_text)?;
    compare(&store, &model, rule).map_err(as_text)?;
    let removals: Vec<Change> = stored.iter().map(|id| remove_of(id)).collect();
    commit(&store, &mut model, &removals, rule).map_err(as_text)?;
    compare(&store, &model, rule).map_err(as_text)?;
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    let refused = match refused.len() {
        0 => String::new(),
        refusals => format!("; {refusals} refused: {}", refused.join(", ")),
    };
    Ok(format!("{count} odd or long ids, documents, types and times{refused}"))
}

/// One record for each thing that a store might get wrong.
fn odd_records() -> Vec<Record> {
    let long_id = "long-".repeat(200);
    let ids = [
        "a",
        "A",
        "a ",
        " a",
        "%_'\";--",
        "\\",
        "/../x",
        "{}",
        "null",
        "0",
        "00",
        "line\nbreak",
        "tab\t",
        "nul\0byte",
        "\u{1}",
        "\u{7f}",
        "e\u{301}",
        "\u{e9}",
        "\u{df}",
        "\u{1F980}",
        "\u{202e}turned",
        "日本語",
        "\u{fffd}",
        "\u{10ffff}",
        &long_id,
    ];
    let mut records: Vec<Record> = ids.iter().map(|id| with_document(id, &Value::from(*id).to_string())).collect();
    records.push(with_document("long-document", &format!("\"{}\"", "x".repeat(LONG_BYTES))));
    records.push(with_document("long-unicode-document", &format!("\"{}\"", "é日\u{1F980}".repeat(LONG_BYTES / 9))));
    records.push(with_document("escapes", r#""\u0000\ud83e\udd80\"\\\/\b""#));
    records.push(with_document("spaces", "[ 1 ,\n\t2.50, 1e400, 18446744073709551616 ]"));
    let mut push = |id: &str, change: &dyn Fn(&mut Record)| {
        let mut record = with_document(id, "1");
        change(&mut record);
        records.push(record);
    };
    push("no-types", &|record| record.types = Vec::new());
    push("many-types", &|record| record.types = (0..1000).map(|number| format!("type {number} é'\",")).collect());
    push("odd-types", &|record| record.types = ids.iter().map(ToString::to_string).collect());
    push("last-heartbeat", &|record| record.last_heartbeat_ms = u64::MAX);
    push("first-heartbeat", &|record| record.last_heartbeat_ms = 0);
    push("longest-ttl", &|record| record.ttl_ms = u64::MAX);
    push("no-ttl", &|record| record.ttl_ms = 0);
    records
}

fn with_document(id: &str, inner: &str) -> Record {
    let mut record = Record::new(id, format!("{{\"value\":{inner}}}"));
    record.types = vec!["web".to_string()];
    (record.ttl_ms, record.last_heartbeat_ms) = (86_400_000, 1_700_000_000_000);
    record
}

/// Rule [`Pages`](Rule::Pages).
pub(super) fn pages(site: &Site, settings: &Settings) -> Result<String, Finding> {
    let rule = Rule::Pages;
    let (_place, store, mut model) = begin(site, rule)?;
    let filling = Instant::now();
    let is_time_left = || settings.filling_limit.is_none_or(|limit| filling.elapsed() < limit);
    let mut stored = 0;
    while stored < settings.records && is_time_left() {
        let group = stored..settings.records.min(stored + FILLING_GROUP);
        stored = group.end;
        let changes: Vec<Change> = group.map(|number| put_of(&format!("service-{number}"))).collect();
        commit(&store, &mut model, &changes, rule)?;
    }
    let (filling, loading) = (filling.elapsed(), Instant::now());
    let loaded = store.load().map_err(|trouble| trouble.breaks(rule))?;
    let loading = loading.elapsed();
    let (pages, count) = (loaded.pages.len(), loaded.records().count());
    model.compare(&loaded).map_err(|mismatch| match count == stored {
        true => mismatch,
        false => Mismatch { rule, got: format!("{count} records of {stored}, in {pages} pages"), ..mismatch },
    })?;
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    let (filling, loading) = (seconds(filling), seconds(loading));
    let cut = match settings.records - stored {
        0 => String::new(),
        _ => format!("; --records {} would take longer", settings.records),
    };
    let (count, pages) = (counted(count, "record", "records"), counted(pages, "page", "pages"));
    Ok(format!("{count} in {pages}, stored in {filling}, loaded in {loading}{cut}"))
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Rule [`Close`](Rule::Close).
pub(super) fn close(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Close;
    let (place, mut store, _) = begin(site, rule)?;
    let rounds = 5;
    for round in 0..rounds {
        store.close().map_err(|trouble| trouble.breaks(rule))?;
        store = site.open(&place).map_err(|trouble| trouble.breaks_reopening(rule))?;
        if round % 2 == 0 {
            let loaded = store.load().map_err(|trouble| trouble.breaks(rule))?;
            let durable = site.claimed().has(Capabilities::NONE.durable());
            let mut model = match loaded.position() {
                None if !durable => begin_new(&store, rule)?,
                _ => Model::of(&loaded).map_err(|mismatch| mismatch.seen_by(Rule::Reopen))?,
            };
            commit(&store, &mut model, &[put_of("a")], rule)?;
        }
    }
    store.close().map_err(|trouble| trouble.breaks(rule))?;
    Ok(format!("{} times, with and without changes", rounds + 1))
}

/// Rule [`Unknown`](Rule::Unknown): a newer host has changes of other kinds.
pub(super) fn unknown(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Unknown;
    let (_place, store, mut model) = begin(site, rule)?;
    for place in 0..3 {
        let mut group = model.group(&[put_of("a"), put_of("b"), remove_of("a")]);
        let mut outcomes = store.commit_unknown(group.clone(), place).map_err(|trouble| trouble.breaks(rule))?;
        let is_refused =
            |outcome: &Outcome| matches!(outcome, Outcome::Refused(error) if error.kind() == ErrorKind::Unsupported);
        if outcomes.len() != 3 || !is_refused(&outcomes[place]) {
            let expected = format!("3 outcomes, and number {} to be `Refused`, as unsupported", place + 1);
            return Err(Mismatch::new(rule, expected, format!("{outcomes:?}")).into());
        }
        outcomes.remove(place);
        group.changes.remove(place);
        let as_unknown = |mismatch: Mismatch| mismatch.seen_by(rule);
        model.apply(&group, &outcomes).map_err(as_unknown)?;
        compare(&store, &model, rule).map_err(as_unknown)?;
    }
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    Ok("1 change of 3, in each place".to_string())
}

/// Rule [`Discover`](Rule::Discover).
pub(super) fn discover(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Discover;
    let (_place, store, mut model) = begin(site, rule)?;
    let ids: Vec<String> = (0..10).map(|number| format!("service-{number}")).collect();
    let puts: Vec<Change> = ids.iter().map(|id| put_of(id)).collect();
    commit(&store, &mut model, &puts, rule)?;
    let (mut chosen, mut left) = (0, 0);
    for round in 0..100 {
        let candidates = ids[round % 8..].to_vec();
        let choice = store.discover(Query::new("web", candidates)).map_err(|trouble| trouble.breaks(rule))?;
        *if choice.is_some() { &mut chosen } else { &mut left } += 1;
    }
    // Whatever is chosen, nothing is changed by it.
    compare(&store, &model, rule)?;
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    Ok(format!("100 queries: {chosen} chosen, {left} left to the host"))
}

/// Rule [`Secrets`](Rule::Secrets): the last, since all other checks listen as well.
pub(super) fn secrets(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Secrets;
    let declared = &site.plugin().info().options;
    let secret: Vec<_> = declared.iter().filter(|option| option.is_secret()).collect();
    for option in secret.iter().filter(|option| option.kind() == "text") {
        let place = site.place();
        let mut options = place.options.clone();
        options.insert(option.name().to_string(), WRONG_SECRET.into());
        if let Ok(store) = site.open_with(&place, &options) {
            let _ = store.close();
        }
    }
    match site.secrets().told() {
        Some(message) => Err(Mismatch::new(rule, "no secret in any message", message).into()),
        None if secret.is_empty() => Ok("no option is secret".to_string()),
        None => Ok(format!("{}, right and wrong", counted(secret.len(), "option", "options"))),
    }
}
