//! `plugin check`: the conformance kit on the command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use registry_plugin_api::OptionSpec;
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use super::EXIT_CODES;
use super::arguments::{Arguments, Configuration, key_and_value, seconds};
use super::output::{self, Failure, printable};
use crate::conformance::{self, ChildTask, NoCheck, Progress, Settings};
use crate::plugin::Plugin;

/// What to check, and how much of it.
#[derive(Args, Clone, Debug)]
pub(super) struct CheckPlugin {
    /// The plugin's file, or its name as in backend.plugin
    #[arg(value_name = "FILE|NAME")]
    name_or_path: String,
    #[command(flatten)]
    pub from: Configuration,
    /// An option of the plugin, as in [backend.options]; {dir} in it is a new directory for each store; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    options: Vec<(String, String)>,
    /// What the random histories are made from: the same seed makes the same ones [default: another each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How many random histories are played
    #[arg(long, value_name = "NUMBER", default_value_t = conformance::DEFAULT_HISTORIES)]
    histories: usize,
    /// How many steps a random history has
    #[arg(long, value_name = "NUMBER", default_value_t = conformance::DEFAULT_STEPS)]
    steps: usize,
    /// How many records the largest store has [default: 100000, or as many as it takes in three times --timeout]
    #[arg(long, value_name = "NUMBER")]
    records: Option<usize>,
    /// How often a process that writes to a durable store is killed
    #[arg(long, value_name = "NUMBER", default_value_t = conformance::DEFAULT_KILLS)]
    kills: usize,
    /// How long a call may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// What a process does that is going to be killed.
#[derive(Args, Clone, Debug)]
pub(super) struct CheckChild {
    file: PathBuf,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    number: u64,
    #[arg(long)]
    groups: usize,
    #[arg(long)]
    group_end: u64,
}

/// What `--help` says after the options.
pub(super) fn help() -> String {
    format!(
        "\
Every rule of the contract that can be tried has its line, which is printed when its check is over: ok, FAILED, not \
claimed, not tried (--kills 0 and the like), or undecided (another rule failed first), and what was tried. Below are the \
rules that failed: what the contract says, what was expected, what happened, and the shortest history that was found to \
show it.

It takes some seconds with a store on a local disk, and minutes with one whose commits are slow: there are about a \
thousand. --records, --histories and --kills say how much is tried; --kills 300 finds what goes wrong only now and \
then. What a power cut does cannot be tried: a process that is killed leaves the system's caches whole. A commit that \
does not sync passes here.

Each store is a new one. An option with {{dir}} in it says where: {{dir}} becomes a directory that is another for each \
store, with a short path such as /tmp/registry-check-Yc3bXk/17, and is removed at the end. A durable plugin that has a \
text option \"path\" gets path={{dir}}/store unless another is given. For a store that is no file, {{dir}} is a text that \
is different each time: prefix={{dir}}. Such stores are left behind, and named at the end.

Examples:
  registry plugin check ./target/debug/libregistry_mine.so
  registry plugin check mine --options url=http://localhost:2379 --options prefix={{dir}}
  registry plugin check mine --seed 7 --histories 1000

{EXIT_CODES}"
    )
}

/// Checks the plugin, and prints the result.
pub(super) fn check(wanted: &CheckPlugin) -> Result<(), Failure> {
    let plugin = super::plugin::load(&wanted.name_or_path, &wanted.from)?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::Failed(format!("cannot find this program's own file: {error}")))?;
    let directory = directory_of_stores()?;
    let settings = Settings {
        options: options(&plugin.info().options, &wanted.options),
        seed: wanted.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        histories: wanted.histories,
        steps: wanted.steps,
        records: wanted.records.unwrap_or(conformance::DEFAULT_RECORDS),
        filling_limit: wanted.records.is_none().then(|| wanted.timeout * 3),
        kills: wanted.kills,
        timeout: wanted.timeout,
        program,
        directory: directory.path().to_path_buf(),
    };
    let package = plugin.info().package.clone();
    let mut printed = Ok(());
    let is_watched = std::io::stderr().is_terminal();
    let report = conformance::run(plugin, &settings, |progress| {
        let text = match progress {
            Progress::Trying(rule) if is_watched => return status(&format!("{} ...", rule.name())),
            Progress::Trying(_) => return,
            Progress::Begun(text) => text.to_string(),
            Progress::Known(line) => line.to_string(),
        };
        if is_watched {
            status("");
        }
        if !wanted.json && printed.is_ok() {
            printed = lines(&text);
        }
    });
    drop(directory);
    let report = match report {
        Ok(report) => report,
        Err(NoCheck::Options(error)) => wrong_usage(&error),
        Err(NoCheck::Open(error)) => {
            return Err(Failure::Failed(format!(
                "{package} cannot open a store with these options, so nothing was checked: {error}"
            )));
        }
    };
    printed?;
    match wanted.json {
        true => output::json(&report.to_json())?,
        false => lines(&report.to_string())?,
    }
    match report.failed().count() {
        0 => Ok(()),
        failed => Err(Failure::Failed(format!("{} breaks {failed} of the contract's rules", report.info.package))),
    }
}

/// Prints text of several lines, some of them a plugin's.
fn lines(text: &str) -> Result<(), Failure> {
    output::line(&text.split('\n').map(printable).collect::<Vec<_>>().join("\n"))
}

/// Shows on a terminal what is going on, in place of what was shown before.
fn status(text: &str) {
    let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
}

/// A directory for the stores. It is gone when this program ends, even if a signal ends it.
fn directory_of_stores() -> Result<TempDir, Failure> {
    let directory = tempfile::Builder::new().prefix("registry-check-").tempdir();
    let directory =
        directory.map_err(|error| Failure::Failed(format!("cannot make a directory for the stores: {error}")))?;
    let wait_for_signal =
        catch_signals().map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))?;
    let path = directory.path().to_path_buf();
    std::thread::spawn(move || {
        wait_for_signal();
        // The check goes on meanwhile, and may make a file once more.
        for _ in 0..3 {
            if std::fs::remove_dir_all(&path).is_ok() {
                break;
            }
        }
        std::process::exit(1);
    });
    Ok(directory)
}

/// Catches the signals that would end this program, from now on, and gives what waits for the first of them.
fn catch_signals() -> std::io::Result<impl FnOnce() + Send + 'static> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let caught = {
        let _context = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let [interrupt, terminate, hangup] = caught;
    let (mut interrupt, mut terminate, mut hangup) = (interrupt?, terminate?, hangup?);
    Ok(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
    })
}

/// Does what the process does that is going to be killed.
pub(super) fn work_as_child(wanted: &CheckChild) -> Result<(), Failure> {
    let CheckChild { seed, number, groups, group_end, .. } = wanted.clone();
    let mut options = String::new();
    std::io::stdin().read_line(&mut options).map_err(|error| Failure::Failed(error.to_string()))?;
    let options = json_object(&options).map_err(Failure::Failed)?;
    let plugin = Plugin::load(&wanted.file).map_err(|error| super::failed(error.into()))?;
    conformance::work_as_child(&plugin, &ChildTask { options, seed, number, groups, group_end });
    Ok(())
}

/// The options with values of the declared types. What cannot be such a value stays text, and is refused as that.
fn options(declared: &[OptionSpec], given: &[(String, String)]) -> Map<String, Value> {
    let value = |name: &str, text: &str| {
        let kind = declared.iter().find(|option| option.name() == name).map_or("text", OptionSpec::kind);
        let parsed = if kind == "text" { None } else { serde_json::from_str(text).ok() };
        parsed.unwrap_or_else(|| Value::from(text))
    };
    given.iter().map(|(name, text)| (name.clone(), value(name, text))).collect()
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    value.as_object().cloned().ok_or_else(|| "expected a JSON object".to_string())
}

/// Ends the program as after any other mistake on its command line.
fn wrong_usage(error: &str) -> ! {
    let mut command = Arguments::command();
    command.build();
    let check = command.find_subcommand_mut("plugin").and_then(|plugin| plugin.find_subcommand_mut("check"));
    let error = match check {
        Some(check) => check.error(ErrorKind::ValueValidation, error),
        None => command.error(ErrorKind::ValueValidation, error),
    };
    error.exit()
}
