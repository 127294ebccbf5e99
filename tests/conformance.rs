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
use serde_json::{Value, json};

/// Makes a test for each fault: its name, and the rules that it breaks.
macro_rules! faults {
    ($($fault:ident breaks $rules:expr,)+) => {
        $(#[test]
        fn $fault() {
            expect_broken(stringify!($fault), &$rules);
        })+
    };
}

faults! {
    needs_runtime breaks [Rule::Runtime],
    missing_as_done breaks [Rule::Outcomes],
    unsorted_outcomes breaks [Rule::Outcomes],
    reverses_group breaks [Rule::Outcomes, Rule::Contents],
    makes_an_id_s_first_change_only breaks [Rule::Contents, Rule::History],
    wrong_revision breaks [Rule::Contents],
    loses_7th_put breaks [Rule::Contents],
    ignores_put_over_existing breaks [Rule::Contents],
    loses_renewals breaks [Rule::Contents],
    expires_unasked breaks [Rule::Contents],
    begins_with_position breaks [Rule::Position],
    position_of_last_change breaks [Rule::Position],
    skips_empty_groups breaks [Rule::Position],
    refuses_empty_groups breaks [Rule::Runtime],
    duplicate_in_pages breaks [Rule::Pages],
    last_page_missing breaks [Rule::Pages],
    truncates_documents breaks [Rule::Text],
    mangles_unicode breaks [Rule::Text],
    ignores_case breaks [Rule::Text],
    drops_types breaks [Rule::Text],
    forgets_on_reopen breaks [Rule::Reopen],
    epoch_changes_on_reopen breaks [Rule::Reopen],
    loses_position_on_reopen breaks [Rule::Reopen],
    forgets_events_on_reopen breaks [Rule::History],
    loses_events_of_removals breaks [Rule::History],
    loses_events_of_what_is_missing breaks [Rule::History],
    events_in_disorder breaks [Rule::History],
    forgets_too_much breaks [Rule::History],
    hides_what_was_forgotten breaks [Rule::History],
    keeps_undone breaks [Rule::History],
    keeps_events_of_old_epochs breaks [Rule::History],
    close_hangs breaks [Rule::Close],
    close_blocks breaks [Rule::Close],
    lock_outlives_close breaks [Rule::Reopen, Rule::Close],
    opens_twice breaks [Rule::Exclusive],
    dropped_stays_locked breaks [Rule::Cancellation],
    dropped_lands_late breaks [Rule::Cancellation],
    acknowledges_first breaks [Rule::Kill],
    writes_backwards breaks [Rule::Kill],
    writes_position_later breaks [Rule::Kill],
    picks_stranger breaks [Rule::Discover],
    tells_secret breaks [Rule::Secrets],
}

#[test]
fn without_a_fault_every_rule_holds() {
    kit::expect_conformant("broken", &[]);
}

/// A store of the plugin with that fault breaks these rules and no others.
fn expect_broken(fault: &str, rules: &[Rule]) {
    // What a store hangs in is waited for.
    let timeout = if fault.starts_with("close") { "2" } else { "20" };
    let report = check("broken", &["--options", &format!("fault={fault}"), "--timeout", timeout, "--records", "500"]);
    let names: Vec<&str> = rules.iter().map(|rule| rule.name()).collect();
    assert_eq!(failures(&report).map(|failure| text(&failure["rule"])).collect::<Vec<_>>(), names, "{report:#}");
    for failure in failures(&report) {
        for part in ["contract", "while", "expected", "got"] {
            assert!(!text(&failure[part]).is_empty(), "{part} in {failure:#}");
        }
    }
}

#[test]
fn what_is_checked_goes_by_what_is_promised_with_these_options() {
    let report = check("broken", &["--options", "claims=false", "--options", "path={dir}/log"]);
    assert_eq!((&report["capabilities"], &report["ok"]), (&json!([]), &json!(true)), "{report:#}");
    let rules = report["rules"].as_array().unwrap().iter();
    let not_claimed: Vec<_> = rules.filter(|rule| rule["verdict"] == "not claimed").map(|rule| &rule["rule"]).collect();
    assert_eq!(not_claimed, ["history", "exclusive", "kill", "discover"]);
}

#[test]
fn a_store_that_cannot_be_opened_is_told_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), "broken", &["--options", "fault=refuses_to_open"]);
    assert_eq!((output.status.code(), in_utf8(&output.stdout)), (Some(1), ""));
    let told =
        "registry: registry_broken cannot open a store with these options, so nothing was checked: it does not open\n";
    assert_eq!(in_utf8(&output.stderr), told);
}

#[test]
fn stores_that_are_left_behind_are_named() {
    let [directory, elsewhere] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let given = format!("elsewhere={}", elsewhere.path().display());
    let output = run(directory.path(), "broken", &["--options", &given, "--kills", "1"]);
    let table = in_utf8(&output.stdout);
    let left = std::fs::read_dir(elsewhere.path()).unwrap().count();
    let told = format!("\n{left} stores are left behind: made with {}/registry-check-", directory.path().display());
    assert!(left > 5 && table.contains(&told), "{left}: {table}");
    let output = run(directory.path(), "broken", &["--kills", "1"]);
    assert!(!in_utf8(&output.stdout).contains("left behind"), "{output:?}");
}

#[test]
fn a_secret_is_not_in_what_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let given = ["--options", "password=no-such-hunter2", "--options", "fault=tells_secret"];
    let output = run(directory.path(), "broken", &given);
    assert!(
        in_utf8(&output.stderr).ends_with("so nothing was checked: the password (secret) is wrong\n"),
        "{output:?}"
    );
    let output =
        run(directory.path(), "broken", &["--options", "password=hunter2", "--options", "fault=loses_renewals"]);
    let table = in_utf8(&output.stdout);
    assert!(table.contains("--options 'password=(secret)'") && !table.contains("hunter2"), "{table}");
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
    let history = |seed| generate(seed, 3, 50);
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
    assert_eq!(history(7)[..20], generate(7, 3, 20), "a longer one goes on where a shorter ends");
}

#[test]
fn the_shortest_history_is_found_and_the_seed_finds_it_again() {
    let first = history("loses_renewals", Rule::Contents, "5");
    // One group or two, as it happens to be found.
    let first_changes = first.join(" ").replace("] commit [", ", ");
    let id = first_changes.trim_start_matches("commit [Put ").chars().next().unwrap();
    assert_eq!(first_changes, format!("commit [Put {id}, Renew {id}]"), "{first:?}");
    assert_eq!(history("loses_renewals", Rule::Contents, "5"), first);
}

#[test]
fn a_history_that_needs_many_changes_keeps_just_those() {
    let history = history("loses_7th_put", Rule::Contents, "1");
    let puts: usize = history.iter().map(|step| step.matches("Put").count()).sum();
    // Records that are restored are put as well, so that there may be less than seven in the groups.
    assert!(puts <= 7 && history.iter().all(|step| step.contains("Put") || step.contains("restore")), "{history:?}");
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
    let output = run(directory.path(), "broken", &["--seed", "11", "--options", "fault=loses_renewals"]);
    let table = in_utf8(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    for part in ["contents FAILED", "contract", "expected", "got", "1. commit [Put", "--seed 11"] {
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
    assert!(table.contains(" rules hold, 6 not tried, 1 not claimed;"), "{table}");
}

#[test]
fn what_is_undecided_names_the_rule_that_failed_first() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), "broken", &["--options", "fault=position_of_last_change"]);
    let table = in_utf8(&output.stdout);
    assert!(table.lines().any(|line| line == "kill          undecided    position failed first"), "{table}");
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
    let output = run(directory.path(), "broken", &["--json", "--options", "fault=begins_with_position"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["plugin"], &report["ok"]), (&json!("registry_broken"), &json!(false)));
    let rules = report["rules"].as_array().unwrap();
    let broken = rules.iter().find(|rule| rule["rule"] == "position").unwrap();
    assert_eq!(broken["verdict"], "FAILED");
    assert!(
        broken["contract"].is_string() && broken["expected"].is_string() && broken["history"].is_array(),
        "{broken}"
    );
}

#[test]
fn options_that_the_plugin_does_not_take_are_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    for (plugin, option, named) in [
        ("sqlite", "no_such_option=1", "no_such_option"),
        ("chaos", "count=many", "count"),
        // It is durable, and nothing says where its stores are to be.
        (
            "chaos",
            "count=1",
            "one of its text options (open, close, capabilities, password) a value that has {dir} in it",
        ),
    ] {
        let output = run(directory.path(), plugin, &["--options", option]);
        assert_eq!(output.status.code(), Some(2), "{plugin} {option}: {output:?}");
        assert!(in_utf8(&output.stderr).contains("Usage: registry plugin check"), "{plugin} {option}: {output:?}");
        assert!(in_utf8(&output.stderr).contains(named), "{plugin} {option}: {output:?}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files are left behind");
}
