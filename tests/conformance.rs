//! Whether the conformance kit finds what is wrong with a plugin, and nothing where nothing is: a plugin that keeps
//! every rule, and breaks one of them when it is told to.
//!
//! The kit over the plugins that are meant to be right is in `storage.rs`.

mod harness;
#[path = "harness/kit.rs"]
mod kit;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use kit::{check, failures, run, text};
use registry_host::conformance::{Rule, generate};
use registry_plugin_api::Capabilities;
use serde_json::{Value, json};

/// Makes a test for each fault: its name, and the rules that it breaks.
macro_rules! faults {
    ($plugin:ident: $($fault:ident breaks $rules:expr,)+) => {
        mod $plugin {
            use super::*;

            $(#[test]
            fn $fault() {
                expect_broken(stringify!($plugin), stringify!($fault), &$rules);
            })+

            #[test]
            fn without_a_fault_every_rule_holds() {
                kit::expect_conformant(stringify!($plugin), &[]);
            }
        }
    };
}

faults! { broken:
    refuses_to_open breaks [Rule::Options],
    needs_runtime breaks [Rule::Runtime],
    missing_as_done breaks [Rule::Outcomes],
    unsorted_outcomes breaks [Rule::Outcomes, Rule::Revisions],
    reverses_group breaks [Rule::Revisions],
    wrong_revision breaks [Rule::Revisions],
    skips_revisions breaks [Rule::Revisions],
    revision_on_renew breaks [Rule::Revisions],
    loses_7th_put breaks [Rule::Contents],
    ignores_put_over_existing breaks [Rule::Contents],
    loses_renewals breaks [Rule::Contents],
    expires_unasked breaks [Rule::Contents],
    duplicate_in_pages breaks [Rule::Pages],
    last_page_missing breaks [Rule::Pages],
    epoch_changes_on_reopen breaks [Rule::Epoch],
    epoch_never_changes breaks [Rule::Epoch],
    truncates_documents breaks [Rule::Text],
    mangles_unicode breaks [Rule::Text],
    ignores_case breaks [Rule::Text],
    drops_types breaks [Rule::Text],
    forgets_on_reopen breaks [Rule::Reopen],
    close_hangs breaks [Rule::Close],
    close_blocks breaks [Rule::Close],
    lock_outlives_close breaks [Rule::Reopen, Rule::Close],
    opens_twice breaks [Rule::Exclusive],
    dropped_stays_locked breaks [Rule::Cancellation],
    dropped_lands_late breaks [Rule::Cancellation],
    acknowledges_first breaks [Rule::Kill],
    writes_backwards breaks [Rule::Kill],
    picks_stranger breaks [Rule::Discover],
}

faults! { broken_shared:
    blind_to_others breaks [Rule::Shared],
    never_conflicts breaks [Rule::Unique],
    watch_misses_one breaks [Rule::Watch],
    watch_in_disorder breaks [Rule::Watch],
    watch_repeats breaks [Rule::Watch],
}

faults! { broken_expires:
    never_expires breaks [Rule::Expires],
    expires_early breaks [Rule::Expires],
    renewal_is_no_use breaks [Rule::Expires],
}

/// A store of the plugin with that fault breaks these rules and no others.
fn expect_broken(plugin: &str, fault: &str, rules: &[Rule]) {
    // Of a store that hangs, or keeps what it is to lose, everything is waited for.
    let timeout = if fault.starts_with("close") || fault == "never_expires" { "2" } else { "20" };
    let report = check(plugin, &["--options", &format!("fault={fault}"), "--timeout", timeout, "--records", "500"]);
    let names: Vec<&str> = rules.iter().map(|rule| rule.name()).collect();
    assert_eq!(failures(&report).map(|failure| text(&failure["rule"])).collect::<Vec<_>>(), names, "{report:#}");
    for failure in failures(&report) {
        for part in ["contract", "while", "expected", "got"] {
            assert!(!text(&failure[part]).is_empty(), "{part} in {failure:#}");
        }
    }
}

/// The steps that the fault was seen by.
fn history(fault: &str, rule: Rule, seed: &str) -> Vec<String> {
    let report = check("broken", &["--options", &format!("fault={fault}"), "--records", "10", "--seed", seed]);
    let failure = failures(&report).find(|failure| failure["rule"] == rule.name());
    let failure = failure.unwrap_or_else(|| panic!("{report:#}"));
    failure["history"].as_array().unwrap().iter().map(|step| text(step).to_string()).collect()
}

#[test]
fn a_seed_means_the_same_history_and_another_seed_another_one() {
    let history = |seed| generate(seed, 3, 50, Capabilities::NONE);
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
    assert_eq!(history(7)[..20], generate(7, 3, 20, Capabilities::NONE), "a longer one goes on where a shorter ends");
}

#[test]
fn the_shortest_history_is_found_and_the_seed_finds_it_again() {
    let first = history("revision_on_renew", Rule::Revisions, "5");
    let [put, renew] = &first[..] else { panic!("{first:?}") };
    let id = put.trim_start_matches("commit [Put ").trim_end_matches(']');
    assert_eq!((id.len(), renew), (1, &format!("commit [Renew {id}]")), "{first:?}");
    assert_eq!(history("revision_on_renew", Rule::Revisions, "5"), first);
}

#[test]
fn a_history_that_needs_many_changes_keeps_just_those() {
    let history = history("loses_7th_put", Rule::Contents, "1");
    let puts: usize = history.iter().map(|step| step.matches("Put").count()).sum();
    // Records that are restored are put as well, so that there may be less than seven in the groups.
    assert!(history.len() <= 3 && puts <= 7, "{history:?}");
}

#[test]
fn an_acknowledged_group_that_a_kill_takes_is_shown_with_nothing_besides() {
    let history = history("acknowledges_first", Rule::Kill, "1");
    assert_eq!(history.len(), 3, "{history:?}");
    assert!(history[0].starts_with("commit [") && !history[0].contains(','), "{history:?}");
    assert_eq!(history[1..], ["kill -9", "open again"]);
}

fn in_utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_command_shows_a_line_for_each_rule_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), "sqlite", &["--seed", "11"]);
    let table = in_utf8(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}{}", in_utf8(&output.stderr));
    assert!(table.contains("seed 11"), "{table}");
    for rule in Rule::ALL {
        assert!(table.lines().any(|line| line.split(' ').next() == Some(rule.name())), "{} in {table}", rule.name());
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files are left behind");
}

#[test]
fn the_command_explains_what_failed_and_how_to_repeat_it() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), "broken", &["--seed", "11", "--options", "fault=revision_on_renew"]);
    let table = in_utf8(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    for part in ["revisions FAILED", "contract", "expected", "got", "1. commit [Put", "--seed 11"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert_eq!(in_utf8(&output.stderr), "registry: registry_broken breaks 1 of the contract's rules\n");
}

#[test]
fn what_is_not_tried_is_not_said_to_hold() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), "sqlite", &["--kills", "0", "--histories", "0", "--records", "0"]);
    let table = in_utf8(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}");
    for line in [
        "contents      not tried    --histories 0",
        "pages         not tried    --records 0",
        "kill          not tried    --kills 0",
    ] {
        assert!(table.lines().any(|other| other == line), "{line} is not in {table}");
    }
    assert!(table.contains(" rules hold, 6 not tried, 5 not claimed;"), "{table}");
}

#[test]
fn what_is_undecided_names_the_rule_that_failed_first() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), "broken", &["--options", "fault=skips_revisions"]);
    let table = in_utf8(&output.stdout);
    assert!(table.lines().any(|line| line == "kill          undecided    revisions failed first"), "{table}");
}

#[test]
fn a_lock_that_outlives_the_store_is_hinted_at() {
    let report = check("broken", &["--options", "fault=lock_outlives_close", "--records", "10"]);
    for failure in failures(&report) {
        assert!(text(&failure["expected"]).contains("a lock must be gone"), "{failure:#}");
        assert!(text(&failure["got"]).contains("in use by another host"), "{failure:#}");
    }
}

#[test]
fn each_line_comes_when_its_check_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = kit::command(directory.path(), "broken");
    command.args(["--options", "fault=slow", "--histories", "1", "--steps", "3", "--records", "100000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // A hundred groups of records take it half a minute: this line must come before they are stored.
    let found = lines.by_ref().find(|line| line.starts_with("reopen "));
    let is_running = child.try_wait().unwrap().is_none();
    // It removes its directory, and its stores with it.
    assert!(Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap().success());
    child.wait().unwrap();
    assert!(found.is_some() && is_running, "{found:?}");
}

#[test]
fn a_slow_store_gets_less_records() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = kit::command(directory.path(), "broken");
    let amounts = ["--histories", "0", "--kills", "0", "--timeout", "1"];
    let output = command.args(["--options", "fault=slow"]).args(amounts).output().unwrap();
    let table = in_utf8(&output.stdout);
    let pages = table.lines().find(|line| line.starts_with("pages ")).unwrap();
    assert!(pages.contains(" ok ") && pages.ends_with("; --records 100000 would take longer"), "{table}");
}

#[test]
fn programs_get_json() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), "broken", &["--json", "--options", "fault=epoch_never_changes"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["plugin"], &report["ok"]), (&json!("registry_broken"), &json!(false)));
    let rules = report["rules"].as_array().unwrap();
    let epoch = rules.iter().find(|rule| rule["rule"] == "epoch").unwrap();
    assert_eq!(epoch["verdict"], "FAILED");
    assert!(epoch["contract"].is_string() && epoch["expected"].is_string() && epoch["history"].is_array(), "{epoch}");
}

#[test]
fn options_that_the_plugin_does_not_take_are_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    for (plugin, option, named) in [
        ("sqlite", "no_such_option=1", "no_such_option"),
        ("chaos", "count=many", "count"),
        // It is durable, and nothing says where its stores are to be.
        ("chaos", "count=1", "{dir}"),
    ] {
        let output = run(directory.path(), plugin, &["--options", option]);
        assert_eq!(output.status.code(), Some(2), "{plugin} {option}: {output:?}");
        assert!(in_utf8(&output.stderr).contains("Usage: registry plugin check"), "{plugin} {option}: {output:?}");
        assert!(in_utf8(&output.stderr).contains(named), "{plugin} {option}: {output:?}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files are left behind");
}
