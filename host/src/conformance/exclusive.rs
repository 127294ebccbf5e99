//! A durable store has one host: a second opener is refused, in this process and in another.

use registry_plugin_api::ErrorKind;

use super::Settings;
use super::basics::{begin, commit, compare, put_of, remove_of};
use super::kill::Child;
use super::lane::{Mismatch, Trouble};
use super::rules::Rule;
use super::site::Site;
use super::tally::Finding;

/// Rule [`Exclusive`](Rule::Exclusive).
pub(super) fn exclusive(site: &Site, settings: &Settings) -> Result<String, Finding> {
    let rule = Rule::Exclusive;
    let (place, first, mut model) = begin(site, rule)?;
    commit(&first, &mut model, &[put_of("a")], rule)?;
    let refusal = match site.open(&place) {
        Ok(second) => {
            drop(second);
            Err("it was opened a second time".to_string())
        }
        Err(trouble) => is_clear(&trouble),
    };
    let expected = "a second opener to be refused, by one line that is no panic";
    refusal.map_err(|got| Mismatch::new(rule, expected, got))?;
    let other_process = Child::start(site, settings, &place, 0, 0, 1)?;
    if other_process.opened()?.is_ok() {
        let expected = "a second process to be refused";
        return Err(Mismatch::new(rule, expected, "it was opened a second time").into());
    }
    drop(other_process);
    commit(&first, &mut model, &[put_of("b"), remove_of("a")], rule)?;
    compare(&first, &model, rule)?;
    first.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    let second = site.open(&place).map_err(|trouble| trouble.breaks_reopening(Rule::Close))?;
    compare(&second, &model, rule).map_err(|mismatch| mismatch.seen_by(Rule::Reopen))?;
    second.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    Ok("a second opener in the same process and one in another".to_string())
}

fn is_clear(trouble: &Trouble) -> Result<(), String> {
    match &trouble.error {
        None => Err("no answer".to_string()),
        Some(error) if error.kind() == ErrorKind::Panicked => Err(format!("a panic: {error}")),
        Some(error) if error.message().trim().is_empty() => Err("an error without a message".to_string()),
        Some(error) if error.message().lines().count() > 1 => Err(format!("several lines: {error}")),
        Some(_) => Ok(()),
    }
}
