//! The result of a check, as a table or as JSON.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use registry_plugin_api::{Capabilities, SECRET};
use serde_json::{Value, json};

use super::{Rule, Settings};
use crate::log::counted;
use crate::plugin::PluginInfo;

/// The result of a check.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// What the plugin says of itself.
    pub info: PluginInfo,
    /// What it promises with the options of this check.
    pub claimed: Capabilities,
    /// The plugin's file.
    pub path: PathBuf,
    /// What was checked.
    pub settings: Settings,
    /// One line for each rule.
    pub lines: Vec<Line>,
    /// What `{dir}` stood for in the options of stores that were not made in that directory: they are left behind.
    pub left: Vec<PathBuf>,
    /// How long it took.
    pub took: Duration,
}

/// What is known about one rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Line {
    /// The rule.
    pub rule: Rule,
    /// Whether it holds.
    pub verdict: Verdict,
    /// What was tried.
    pub tried: String,
}

/// Whether a rule holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As far as it was tried.
    Holds,
    /// It does not.
    Failed(Failure),
    /// The backend has not promised it.
    NotClaimed,
    /// That rule failed first, so that this one could not be tried.
    Undecided(Rule),
    /// It is promised, but not wanted: the setting that says so.
    NotTried(&'static str),
}

/// How a rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What should have been.
    pub expected: String,
    /// What was.
    pub got: String,
    /// What was tried when it was seen.
    pub during: &'static str,
    /// What was done up to then, step by step; empty if `during` says it.
    pub history: Vec<String>,
}

impl Report {
    /// Whether all that was claimed holds.
    pub fn is_conformant(&self) -> bool {
        self.failed().next().is_none()
    }

    /// The rules that do not hold, and how.
    pub fn failed(&self) -> impl Iterator<Item = (Rule, &Failure)> {
        self.lines.iter().filter_map(|line| match &line.verdict {
            Verdict::Failed(failure) => Some((line.rule, failure)),
            _ => None,
        })
    }

    /// Everything, for programs.
    pub fn to_json(&self) -> Value {
        let rules: Vec<Value> = self.lines.iter().map(Line::to_json).collect();
        json!({
            "plugin": self.info.package,
            "version": self.info.version,
            "path": self.path,
            "capabilities": self.claimed.names(),
            "seed": self.settings.seed,
            "histories": self.settings.histories,
            "steps": self.settings.steps,
            "seconds": self.took.as_millis() as f64 / 1000.0,
            "ok": self.is_conformant(),
            "left": self.left,
            "rules": rules,
        })
    }

    /// The command line that repeats it.
    fn repeat(&self) -> String {
        let Settings { seed, histories, steps, records, kills, options, .. } = &self.settings;
        let mut command = format!("registry plugin check {} --seed {seed}", quoted(&self.path.display().to_string()));
        let amounts = [
            ("histories", *histories, super::DEFAULT_HISTORIES),
            ("steps", *steps, super::DEFAULT_STEPS),
            ("records", *records, super::DEFAULT_RECORDS),
            ("kills", *kills, super::DEFAULT_KILLS),
        ];
        for (name, amount, _) in amounts.iter().filter(|(_, amount, default)| amount != default) {
            command += &format!(" --{name} {amount}");
        }
        for (name, value) in options {
            let is_secret = self.info.options.iter().any(|option| option.is_secret() && option.name() == name);
            let value = if is_secret { &Value::from(SECRET) } else { value };
            let value = value.as_str().map_or_else(|| value.to_string(), ToString::to_string);
            command += &format!(" --options {}", quoted(&format!("{name}={value}")));
        }
        command
    }
}

/// As a shell reads it back.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

impl Line {
    fn to_json(&self) -> Value {
        let mut line = json!({ "rule": self.rule.name(), "verdict": self.verdict.word(), "tried": self.tried });
        if let Verdict::Undecided(by) = self.verdict {
            line["failed_first"] = by.name().into();
        }
        if let Verdict::NotTried(reason) = self.verdict {
            line["tried"] = reason.into();
        }
        if let Verdict::Failed(failure) = &self.verdict {
            line["contract"] = self.rule.contract().into();
            line["expected"] = failure.expected.clone().into();
            line["got"] = failure.got.clone().into();
            line["while"] = failure.during.into();
            line["history"] = failure.history.clone().into();
        }
        line
    }
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Verdict::Holds => "ok",
            Verdict::Failed(_) => "FAILED",
            Verdict::NotClaimed => "not claimed",
            Verdict::Undecided(_) => "undecided",
            Verdict::NotTried(_) => "not tried",
        }
    }
}

/// What stands above the table: the plugin, and the seed.
pub(super) fn head(info: &PluginInfo, claimed: Capabilities, path: &Path, seed: u64) -> String {
    let claims = match claimed.names() {
        names if names.is_empty() => "claims nothing".to_string(),
        names => format!("claims {}", names.join(", ")),
    };
    let (package, version, api) = (&info.package, &info.version, &info.api_version);
    format!("{package} {version}, built against plugin-api {api}, {claims}\n{}\nseed {seed}\n", path.display())
}

/// A line of the table.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tried = match self.verdict {
            Verdict::Failed(_) => "see below",
            Verdict::Undecided(by) => &format!("{} failed first", by.name()),
            Verdict::NotTried(reason) => reason,
            Verdict::Holds | Verdict::NotClaimed => &self.tried,
        };
        let text = format!("{:<14}{:<13}{tried}", self.rule.name(), self.verdict.word());
        f.write_str(text.trim_end())
    }
}

/// What stands below the table: what failed and how.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, failure) in self.failed() {
            writeln!(f, "\n{} FAILED", rule.name())?;
            paragraph(f, "contract", rule.contract())?;
            paragraph(f, "while", failure.during)?;
            paragraph(f, "expected", &failure.expected)?;
            paragraph(f, "got", &failure.got)?;
            for (number, step) in failure.history.iter().enumerate() {
                let label = if number == 0 { "history" } else { "" };
                paragraph(f, label, &format!("{}. {step}", number + 1))?;
            }
        }
        let count = |wanted: &str| self.lines.iter().filter(|line| line.verdict.word() == wanted).count();
        let failed = count("FAILED");
        let mut summary = match count("ok") {
            1 => vec!["1 rule holds".to_string()],
            held => vec![format!("{held} rules hold")],
        };
        let others = ["FAILED", "undecided", "not tried", "not claimed"].map(|word| (count(word), word));
        summary.extend(others.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")));
        write!(f, "\n{}; {:.1} s", summary.join(", "), self.took.as_secs_f64())?;
        if let (Some(first), Some(last)) = (self.left.first(), self.left.last()) {
            let count = counted(self.left.len(), "store is", "stores are");
            let (first, last) = (first.display(), last.display());
            write!(f, "\n{count} left behind: made with {first} to {last} in place of {{dir}}, and not in there")?;
        }
        if failed > 0 {
            write!(f, "\nTo repeat: {}", self.repeat())?;
        }
        Ok(())
    }
}

/// A label and a text of lines that are not too long to be read.
fn paragraph(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    const WIDTH: usize = 100;
    let mut line = format!("  {label:<10}");
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + length >= WIDTH {
            writeln!(f, "{line}")?;
            (line, used) = (" ".repeat(12), 0);
        } else if used > 0 {
            line.push(' ');
        }
        line += word;
        used += length + 1;
    }
    writeln!(f, "{}", line.trim_end())
}
