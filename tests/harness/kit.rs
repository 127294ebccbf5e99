//! The conformance kit over a plugin that cargo has just built, in amounts that fit a test.
//!
//! It runs as a program of its own, as it does for an author. In the process of a test it would not be alone: a process
//! that another test starts holds every open file, and with it a store's lock, until it becomes another program.
#![allow(dead_code, unreachable_pub)]

use std::path::Path;
use std::process::{Command, Output};

use registry_host::plugin::find;
use serde_json::Value;

use crate::harness::{plugin_dir, registry};

/// Enough to find what is wrong, and not more than a test may take.
const AMOUNTS: [[&str; 2]; 4] = [["--histories", "8"], ["--steps", "25"], ["--records", "5000"], ["--kills", "10"]];

/// `registry plugin check` for the plugin of that name, in its own amounts.
pub fn command(directory: &Path, plugin: &str) -> Command {
    let mut command = registry(directory);
    command.args(["plugin", "check"]).arg(find(plugin, Some(&plugin_dir())).unwrap()).env("TMPDIR", directory);
    command
}

/// Runs `registry plugin check` over the plugin of that name, with its temporary files in `directory`.
pub fn run(directory: &Path, plugin: &str, arguments: &[&str]) -> Output {
    let mut command = command(directory, plugin);
    let amounts = AMOUNTS.iter().filter(|[name, _]| !arguments.contains(name));
    command.args(amounts.flatten());
    command.args(arguments).output().unwrap()
}

/// What the kit says of a plugin, as JSON.
pub fn check(plugin: &str, arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let seed: &[&str] = if arguments.contains(&"--seed") { &[] } else { &["--seed", "1"] };
    let output = run(directory.path(), plugin, &[arguments, seed, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The rules that do not hold, and how.
pub fn failures(report: &Value) -> impl Iterator<Item = &Value> {
    report["rules"].as_array().unwrap().iter().filter(|rule| rule["verdict"] == "FAILED")
}

/// Checks a plugin that is to be right: each rule that it claims was tried, and holds.
pub fn expect_conformant(plugin: &str, arguments: &[&str]) {
    let report = check(plugin, arguments);
    let verdicts = report["rules"].as_array().unwrap().iter().map(|rule| text(&rule["verdict"]));
    let (held, others): (Vec<_>, Vec<_>) =
        verdicts.filter(|verdict| *verdict != "not claimed").partition(|verdict| *verdict == "ok");
    assert!(held.len() >= 11 && others.is_empty(), "{report:#}");
}

/// The text that is there.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
