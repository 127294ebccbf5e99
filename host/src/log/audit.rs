//! The audit: one line for each change and for each thing that an operator asked for, with who did it and from where.
//!
//! It goes to the log, or to a file of its own, which a thread writes: nobody waits for its disk, and what that cannot
//! take is left out and counted. The file is opened anew when the configuration is read again, for those who rotate it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::lines::Lines;
use crate::registry::Deed;
use crate::security::guard::Guard;
use crate::security::principal::Principal;

/// What stands for the log in place of a file.
const LOG: &str = "log";
/// What is on its way to the file.
static LINES: Lines = Lines::new();
/// The file is to be opened anew.
static OPEN_ANEW: AtomicBool = AtomicBool::new(false);

/// Where it goes.
#[derive(Debug, Default)]
pub(crate) enum Audit {
    /// Nowhere.
    #[default]
    Off,
    /// To the log, at info.
    Log,
    /// To a file, which the thread writes.
    File(File),
}

impl Audit {
    /// Begins it, as `[log] audit` says.
    ///
    /// # Errors
    /// The file cannot be written, or there is no thread to be had.
    pub(crate) fn begin(to: Option<&str>) -> Result<Self, String> {
        let path = match to {
            None => return Ok(Audit::Off),
            Some(LOG) => return Ok(Audit::Log),
            Some(path) => Path::new(path),
        };
        let failed = |error: io::Error| format!("log.audit: cannot write {}: {error}", path.display());
        let file = open(path).map_err(failed)?;
        let mut written = Rotated { path: path.to_path_buf(), file: file.try_clone().map_err(failed)? };
        std::thread::Builder::new().name("audit".into()).spawn(move || LINES.write_to(&mut written)).map_err(failed)?;
        Ok(Audit::File(file))
    }

    /// Whether anything is to be written.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(self, Audit::Off)
    }

    /// Writes a line.
    pub(crate) fn note(&mut self, deed: &Deed, guard: &Guard) {
        let text = told(deed, guard);
        match self {
            Audit::Off => {}
            Audit::Log => tracing::info!(target: "audit", "{text}"),
            // What cannot be written cannot be told there either.
            Audit::File(file) => drop(LINES.put(format!("time={} {text}\n", utc(deed.unix_ms)).as_bytes(), file)),
        }
    }
}

/// Has the file opened anew.
pub(crate) fn open_anew() {
    OPEN_ANEW.store(true, Ordering::Relaxed);
}

/// Waits until the last lines are written.
pub(super) fn flush(time_max: Duration) {
    LINES.flush(time_max);
}

#[expect(clippy::disallowed_methods, reason = "before anybody is served, and on a thread of its own")]
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// A file that may be moved away and begun anew.
struct Rotated {
    path: PathBuf,
    file: File,
}

impl Write for Rotated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if OPEN_ANEW.swap(false, Ordering::Relaxed) {
            match open(&self.path) {
                Ok(file) => self.file = file,
                Err(error) => tracing::error!("log.audit: cannot write {}: {error}", self.path.display()),
            }
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A deed as `key=value` pairs. What clients have said is quoted.
fn told(deed: &Deed, guard: &Guard) -> String {
    let mut text = format!("what={}", deed.what);
    // Writing to a text cannot fail.
    if let Some(id) = &deed.service_id {
        let _ = write!(text, " service_id={}", quoted(id));
    }
    let Some(by) = &deed.by else { return text };
    if let Some(address) = by.address.shown() {
        let _ = write!(text, " address={address}");
    }
    match by.principal {
        Principal::Key(key) => {
            let _ = write!(text, " key={}", quoted(&key.to_string()));
            if let Some(name) = guard.name(&key) {
                let _ = write!(text, " name={}", quoted(&name));
            }
        }
        Principal::Token(name) => drop(write!(text, " token={}", quoted(&name.to_string()))),
        Principal::Certificate(name) => drop(write!(text, " certificate={}", quoted(&name.to_string()))),
        Principal::Nobody | Principal::Stranger => {}
    }
    text
}

/// A text in quotes, all of it, in one line.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A moment as RFC 3339 has it.
fn utc(unix_ms: u64) -> String {
    let text = crate::text::utc((unix_ms / 1000) as f64);
    format!("{}.{:03}Z", text.trim_end_matches('Z'), unix_ms % 1000)
}
