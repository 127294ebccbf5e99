//! What is tried on every plugin, besides the random histories: options, text, many records, closing, cancelling.

use std::time::{Duration, Instant};

use registry_plugin_api::{Capabilities, Change, ErrorKind, Outcome, Record, RemoveReason};
use serde_json::Value;

use super::Settings;
use super::history::{Writer, group, reopen};
use super::lane::{Mismatch, Store, Trouble};
use super::model::{Model, name};
use super::random::Random;
use super::rules::Rule;
use super::site::{Place, Site};
use super::tally::Finding;
use crate::log::counted;

/// How many changes are in a group that fills a store.
const FILLING_GROUP: usize = 1000;
/// How often a commit is dropped.
const CANCELLED: u64 = 40;
/// The longest document that is tried.
const LONG_BYTES: usize = 1 << 20;

/// Opens a new store and loads it. Trouble breaks that rule.
pub(super) fn begin(site: &Site, rule: Rule) -> Result<(Place, Store, Model), Mismatch> {
    let place = site.place();
    let broken = |trouble: Trouble| trouble.breaks(rule);
    let store = site.open(&place).map_err(broken)?;
    let model = Model::of(&store.load().map_err(broken)?)?;
    Ok((place, store, model))
}

/// Commits, and takes in the outcomes. Trouble breaks that rule.
pub(super) fn commit(store: &Store, model: &mut Model, changes: Vec<Change>, rule: Rule) -> Result<(), Mismatch> {
    let outcomes = store.commit(changes.clone()).map_err(|trouble| trouble.breaks(rule))?;
    model.apply(&changes, &outcomes)
}

/// Compares what is stored with the model. Trouble breaks that rule.
pub(super) fn compare(store: &Store, model: &Model, rule: Rule) -> Result<(), Mismatch> {
    model.compare(&store.load().map_err(|trouble| trouble.breaks(rule))?)
}

pub(super) fn put_of(id: &str) -> Change {
    let mut record = Record::new(id, format!("{{\"id\":{}}}", Value::from(id)));
    record.types = vec!["web".to_string()];
    (record.ttl_ms, record.last_heartbeat_ms) = (86_400_000, 1_700_000_000_000);
    Change::Put { record, unique: None }
}

pub(super) fn remove_of(id: &str) -> Change {
    Change::Remove { id: id.to_string(), reason: RemoveReason::Deregistered }
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
        match site.open_with(&options) {
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
        commit(&store, &mut model, vec![put_of("a"), put_of("b")], Rule::Runtime)?;
        compare(&store, &model, Rule::Runtime)?;
        store.close().map_err(|trouble| trouble.breaks(Rule::Close))
    };
    calls().map_err(on_its_own)?;
    Ok("open, load, commit, close on a thread without a runtime".to_string())
}

/// Rule [`Text`](Rule::Text).
pub(super) fn text(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Text;
    let as_text = |mismatch: Mismatch| Mismatch { rule, ..mismatch };
    let records = odd_records(site.claimed());
    let count = records.len();
    let (place, mut store, mut model) = begin(site, rule)?;
    let mut refused = Vec::new();
    for record in &records {
        let change = Change::Put { record: record.clone(), unique: None };
        let outcomes = store.commit(vec![change.clone()]).map_err(|trouble| trouble.breaks(rule))?;
        match &outcomes[..] {
            [Outcome::Refused(error)] => refused.push(format!("{} ({error})", name(&record.id))),
            outcomes => model.apply(&[change], outcomes).map_err(as_text)?,
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
    let renew = |id: &String| Change::Renew { id: id.clone(), last_heartbeat_ms: u64::from(u32::MAX) };
    commit(&store, &mut model, stored.iter().map(renew).collect(), rule).map_err(as_text)?;
    compare(&store, &model, rule).map_err(as_text)?;
    commit(&store, &mut model, stored.iter().map(|id| remove_of(id)).collect(), rule).map_err(as_text)?;
    compare(&store, &model, rule).map_err(as_text)?;
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    let refused = match refused.len() {
        0 => String::new(),
        refusals => format!("; {refusals} refused: {}", refused.join(", ")),
    };
    Ok(format!("{count} odd or long ids, documents, types and times{refused}"))
}

/// One record for each thing that a store might get wrong.
fn odd_records(claimed: Capabilities) -> Vec<Record> {
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
    if !claimed.has(Capabilities::NONE.expires()) {
        push("no-ttl", &|record| record.ttl_ms = 0);
    }
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
        let changes = group.map(|number| put_of(&format!("service-{number}"))).collect();
        commit(&store, &mut model, changes, rule)?;
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

/// Rule [`Epoch`](Rule::Epoch), as far as it is about new stores.
pub(super) fn epoch(site: &Site, _: &Settings) -> Result<String, Finding> {
    let (_one_place, one, first) = begin(site, Rule::Epoch)?;
    let (_other_place, other, second) = begin(site, Rule::Epoch)?;
    if first.epoch == second.epoch {
        let expected = "two new stores to have different epochs";
        return Err(Mismatch::new(Rule::Epoch, expected, format!("both have {:?}", first.epoch)).into());
    }
    for store in [one, other] {
        store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    }
    Ok("2 new stores".to_string())
}

/// Rule [`Close`](Rule::Close).
pub(super) fn close(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Close;
    let (place, mut store, _) = begin(site, rule)?;
    let rounds = 5;
    for round in 0..rounds {
        store.close().map_err(|trouble| trouble.breaks(rule))?;
        store = site.open(&place).map_err(|trouble| trouble.breaks_reopening(rule))?;
        // Also right after it was opened.
        if round % 2 == 0 {
            let mut model = Model::of(&store.load().map_err(|trouble| trouble.breaks(rule))?)?;
            commit(&store, &mut model, vec![put_of("a")], rule)?;
        }
    }
    store.close().map_err(|trouble| trouble.breaks(rule))?;
    Ok(format!("{} times, with and without changes", rounds + 1))
}

/// Rule [`Cancellation`](Rule::Cancellation).
pub(super) fn cancellation(site: &Site, settings: &Settings) -> Result<String, Finding> {
    let rule = Rule::Cancellation;
    let (_place, store, mut model) = begin(site, rule)?;
    let mut writer = Writer::new(settings.seed, u64::MAX, site.claimed());
    let mut random = Random::new(settings.seed, u64::MAX - 1);
    let mut history = Vec::new();
    let mut dropped = 0;
    for _ in 0..CANCELLED {
        let changes = writer.group(1, 6);
        let polls = 1 + random.below(4) as usize;
        let is_ready = match store.commit_and_drop(changes.clone(), polls) {
            Some(Ok(outcomes)) => {
                history.push(format!("commit {}", group(&changes)));
                model.apply(&changes, &outcomes).map(|()| true)
            }
            Some(Err(error)) => Err(Mismatch::new(rule, "`commit` to succeed", error.to_string())),
            None => {
                history.push(format!("commit {}, dropped after {polls} polls", group(&changes)));
                dropped += 1;
                Ok(false)
            }
        };
        let checked = is_ready.and_then(|is_ready| match is_ready {
            true => Ok(()),
            false => restore(&store, &mut model, &changes, &mut history),
        });
        checked.map_err(|mismatch| Finding { history: history.clone(), ..Mismatch { rule, ..mismatch }.into() })?;
    }
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    Ok(match dropped {
        0 => format!("{CANCELLED} commits, which never wait: none could be dropped"),
        dropped => format!("{} dropped, waiting, and made good", counted(dropped, "commit", "commits")),
    })
}

/// Does what the host does after it has dropped a commit.
fn restore(store: &Store, model: &mut Model, changes: &[Change], history: &mut Vec<String>) -> Result<(), Mismatch> {
    let rule = Rule::Cancellation;
    let restoring: Vec<Change> = changes.iter().map(|change| model.restoring(change.id())).collect();
    history.push(format!("commit {}, to make it good", group(&restoring)));
    let outcomes = store.commit(restoring.clone()).map_err(|trouble| trouble.breaks(rule))?;
    // The dropped commit may have moved the revision, once for each of its changes.
    let first = outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Done { revision } => Some(revision.saturating_sub(1)),
        _ => None,
    });
    let possible = model.revision..=model.revision + changes.len() as u64;
    model.revision = first.filter(|first| possible.contains(first)).unwrap_or(model.revision);
    for (change, outcome) in restoring.iter().zip(&outcomes) {
        match (change, outcome) {
            // Whether a record that must not be there was there is what nobody could know.
            (Change::Remove { .. }, Outcome::Done { revision }) if *revision == model.revision + 1 => {
                model.revision = *revision;
            }
            (Change::Remove { .. }, Outcome::Missing) => {}
            _ => model.apply(std::slice::from_ref(change), std::slice::from_ref(outcome))?,
        }
    }
    let loaded = store.load().map_err(|trouble| trouble.breaks(rule))?;
    if loaded.revision() < model.revision {
        let expected = format!("the revision to be {} at least", model.revision);
        return Err(Mismatch::new(Rule::Revisions, expected, loaded.revision().to_string()));
    }
    model.revision = loaded.revision();
    model.compare(&loaded)
}
