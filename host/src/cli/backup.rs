//! `backup`, `restore`: all services of a running registry, as lines of JSON that people can read and change.
//!
//! The first line says what it is: `registry_backup` (the version of the format), `epoch`, `revision`, `services` (how
//! many follow) and `taken`. Each line behind it is a service as `list` shows it, all of the same moment.

use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::arguments::Connection;
use super::client::{Client, Patience};
use super::output::{self, Failure};
use super::table::now_seconds;
use crate::text::{counted, utc};

/// The version of the format.
const FORMAT: u64 = 1;
/// How long the services of one part are together, in bytes, and how many there are, at most.
const PART_BYTES: usize = 256 << 10;
const PART_SERVICES: usize = 1000;
/// What stands for standard input or output in place of a file.
const STANDARD: &str = "-";

fn in_file(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: {error}", file.display()))
}

/// Writes all services to a file, whole or not at all.
pub(super) async fn backup(file: &Path, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let list = client.request("list", json!({})).await?;
    let services = list["services"].as_array().map_or(&[][..], Vec::as_slice);
    let (epoch, revision) = (&list["epoch"], &list["revision"]);
    let head = json!({
        "registry_backup": FORMAT, "epoch": epoch, "revision": revision, "services": services.len(),
        "taken": utc(now_seconds()),
    });
    let lines: String = std::iter::once(&head).chain(services).map(|line| format!("{line}\n")).collect();
    let count = counted(services.len(), "service", "services");
    if file == Path::new(STANDARD) {
        output::line(lines.trim_end())?;
    } else {
        write(file, &lines).map_err(|error| in_file(file, error))?;
        let revision = revision.as_u64().unwrap_or_default();
        if !connection.json {
            output::line(&format!("{count} at revision {revision} in {}", file.display()))?;
        }
    }
    if connection.json && file != Path::new(STANDARD) { output::json(&head) } else { Ok(()) }
}

/// Writes a file beside its place and moves it there: what was there before stays until all is on the disk.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::NamedTempFile::new_in(directory)?;
    beside.write_all(text.as_bytes())?;
    beside.as_file().sync_all()?;
    beside.persist(file)?;
    Ok(())
}

/// Puts the services of a file in the place of all that are registered.
pub(super) async fn restore(file: &Path, connection: &Connection) -> Result<(), Failure> {
    let text = read(file).map_err(|error| in_file(file, error))?;
    let services = services(&text).map_err(|error| in_file(file, error))?;
    let client = Client::new(connection, Patience::None)?;
    let mut name = Value::Null;
    let mut rest = &services[..];
    loop {
        let mut bytes = 0;
        let count = rest.iter().take(PART_SERVICES).take_while(|(_, line)| {
            bytes += line.len();
            bytes <= PART_BYTES
        });
        let count = count.count().clamp(1, rest.len().max(1)).min(rest.len());
        let (part, left) = rest.split_at(count);
        let list: Vec<&Value> = part.iter().map(|(service, _)| service).collect();
        let is_last = left.is_empty();
        let request = json!({ "restore": name, "services": list, "commit": is_last });
        let reply = client
            .request_once("restore", request)
            .await
            .map_err(|failure| told(failure, file, text.as_str(), part))?;
        if is_last {
            if connection.json {
                return output::json(&reply);
            }
            let restored = counted(services.len(), "service", "services");
            return output::line(&format!("{restored} restored; a new epoch has begun, and clients list again"));
        }
        name = reply["restore"].clone();
        rest = left;
    }
}

/// A refusal of a part, with the line of the file that it is about.
fn told(failure: Failure, file: &Path, text: &str, part: &[(Value, &str)]) -> Failure {
    let Failure::Refused { text: said, reply } = failure else { return failure };
    let place = reply["place"].as_u64().and_then(|place| part.get(usize::try_from(place).ok()?.checked_sub(1)?));
    let line = place.and_then(|(_, refused)| text.lines().position(|line| std::ptr::eq(line, *refused)));
    let said = line.map_or(said.clone(), |line| format!("{}, line {}: {said}", file.display(), line + 1));
    Failure::Refused { text: said, reply }
}

fn read(file: &Path) -> std::io::Result<String> {
    if file != Path::new(STANDARD) {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// The services of a backup, each with its line.
fn services(text: &str) -> Result<Vec<(Value, &str)>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let value = |(number, line): (usize, &str)| {
        serde_json::from_str::<Value>(line).map_err(|error| format!("line {}: {error}", number + 1))
    };
    let head = lines.next().map(value).transpose()?.unwrap_or_default();
    match head["registry_backup"].as_u64() {
        Some(FORMAT) => {}
        Some(other) => return Err(format!("it has the format {other}, expected {FORMAT}")),
        None => return Err("it is no backup: its first line has no \"registry_backup\"".into()),
    }
    let services: Vec<_> =
        lines.map(|(number, line)| Ok((value((number, line))?, line))).collect::<Result<_, String>>()?;
    // A file that was cut off has lost services; one that somebody has shortened says so.
    match head["services"].as_u64() {
        Some(count) if count != services.len() as u64 => Err(format!(
            "its first line says that there are {count} services, and {} are there: set \"services\" to that if you mean it",
            services.len()
        )),
        _ => Ok(services),
    }
}
