//! Printing: whole lines, nothing that a terminal would obey, and no panic when the reader has gone.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use serde_json::Value;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something was not found, or went wrong.
    Failed(String),
    /// The registry has said no.
    Refused {
        /// What it said, as a line of text.
        text: String,
        /// All that it said.
        reply: Value,
    },
    /// The registry could not be reached or did not answer.
    NoAnswer(String),
    /// Standard output is gone, as with `| head`. That is no failure.
    NobodyReads,
}

impl Failure {
    /// Prints the failure, once, and says how to exit. Programs get the registry's reply besides.
    pub(super) fn report(self, as_json: bool) -> ExitCode {
        match self {
            Failure::Failed(text) => {
                note(&text);
                ExitCode::from(1)
            }
            Failure::Refused { text, reply } => {
                if as_json {
                    // The exit code says more than another failure could.
                    let _ = json(&reply);
                }
                note(&text);
                ExitCode::from(1)
            }
            Failure::NoAnswer(text) => {
                note(&text);
                ExitCode::from(3)
            }
            Failure::NobodyReads => ExitCode::SUCCESS,
        }
    }
}

/// Prints text and a line feed on standard output, at once.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Failed(format!("cannot write to standard output: {error}")),
    })
}

/// Prints JSON over several lines.
pub(super) fn json(value: &Value) -> Result<(), Failure> {
    line(&escape_in_json(&format!("{value:#}")))
}

/// Prints JSON in one line.
pub(super) fn json_line(value: &Value) -> Result<(), Failure> {
    line(&escape_in_json(&value.to_string()))
}

/// Prints a line about the command itself on standard error, if that is open.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "registry: {}", printable(text));
}

/// Prints what to do next on standard error, if that is open.
pub(super) fn advise(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Text from others, safe to show: escapes what a terminal would obey, and what would reverse the line.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_obeyed(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// Escapes the rest of what terminals obey. JSON itself escapes the first 32 characters; the others can only stand
/// inside text.
fn escape_in_json(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' => c.to_string(),
        c if is_obeyed(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Control characters, line separators, and marks that change the direction of writing.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_others_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\u{9b}\u{202e}é"), "a\\u{1b}[2Jb\\u{a}\\u{9b}\\u{202e}é");
    }

    #[test]
    fn escaped_json_is_still_the_same_json() {
        let value = Value::from("\x1b \u{9b} \u{202e} \u{7f} é\n");
        let text = escape_in_json(&format!("{value:#}"));
        assert!(!text.contains(is_obeyed), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
