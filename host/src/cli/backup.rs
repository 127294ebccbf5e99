//! `backup`, `restore`: all services of a running registry, as lines of JSON that people can read and change; and from
//! there into a running registry, or into a store.
//!
//! The first line says what it is: `registry_backup` (the version of the format), `registry` (which one has written it),
//! `epoch`, `revision`, `services` (how many follow) and `taken`. Each line behind it is a service as `list` shows it, all
//! of the same moment.
//!
//! The format is the way back to an earlier version, too, which keeps what it does not know: fields of the first line, and
//! of services. So only what an earlier version would get wrong takes another number.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use registry_client::{Code, ConnectionProblem, Error};
use registry_plugin_api::Record;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::arguments::{Configuration, Connection};
use super::client::{Client, Patience};
use super::output::{self, Failure};
use super::table::now_seconds;
use crate::config;
use crate::protocol::reply::Reply;
use crate::protocol::request::Limits;
use crate::protocol::restore::Restored;
use crate::server::upload;
use crate::text::{counted, utc};

/// The version of the format. All since 1 are read.
const FORMAT: u64 = 1;
/// Which version this is.
const OWN: &str = env!("CARGO_PKG_VERSION");
/// How long the services of one part are, in bytes, and one beyond; and how many there are.
const PART_BYTES: usize = 200_000;
const PART_SERVICES: usize = 500;
/// How long it is waited for a quota to allow the next part, in seconds: the registry gives up who sends nothing for 30.
const QUOTA_SECONDS_MAX: f64 = 20.0;
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
        "registry_backup": FORMAT, "registry": OWN, "epoch": epoch, "revision": revision, "services": services.len(),
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

/// Has the services of a backup take the place of all that a running registry has, if there are some only with `replace`.
pub(super) async fn restore(file: &Path, connection: &Connection, replace: bool) -> Result<(), Failure> {
    let text = read(file).map_err(|error| in_file(file, error))?;
    let lines = lines(&text).map_err(|error| in_file(file, error))?;
    let client = Client::new(connection, Patience::None)?;
    let offline = |failure| match failure {
        Failure::NoAnswer(text) => {
            let hint = "if no registry runs, --offline restores into the configured store";
            Failure::NoAnswer(format!("{text}; {hint}"))
        }
        failure => failure,
    };
    let upload = format!("{:016x}", rand::random::<u64>());
    send(file, &lines, &client, &upload).await.map_err(offline)?;
    let end = json!({ "upload": upload, "total": lines.len(), "replace": replace });
    let reply = client.understood(ask(&client, &end).await, &end).map_err(offline)?;
    if connection.json {
        return output::json(&reply);
    }
    let number = |field: &str| reply[field].as_u64().unwrap_or_default();
    let (count, held_ms) = (counted(number("services") as usize, "service", "services"), number("held_ms"));
    output::line(&format!("{count} restored, in a new epoch; changes waited {held_ms} ms"))
}

/// Sends the services of a backup in parts, no longer than the registry takes them.
async fn send(file: &Path, lines: &[(usize, &str)], client: &Client, upload: &str) -> Result<(), Failure> {
    // One without services has a part, too, which begins it.
    let (mut next, mut part, mut most, mut is_again) = (0, 0, PART_SERVICES, false);
    while next < lines.len() || part == 0 {
        let (mut end, mut bytes, mut services) = (next, 0, Vec::new());
        while let Some((number, line)) = lines.get(end).filter(|_| bytes < PART_BYTES && services.len() < most) {
            let service: Value =
                serde_json::from_str(line).map_err(|error| in_file(file, format!("line {number}: {error}")))?;
            services.push(service);
            bytes += line.len();
            end += 1;
        }
        let count = services.len();
        let request = json!({ "upload": upload, "part": part, "services": services });
        match ask(client, &request).await {
            Ok(_) => (next, part, is_again) = (end, part + 1, false),
            // Connections get lost; and they are cut off if a message is too long.
            Err(error) if is_lost(&error) && !is_again => is_again = true,
            Err(error) if is_lost(&error) && count > 1 => (most, is_again) = (count / 2, false),
            Err(error) if is_lost(&error) && count == 1 => {
                let (number, line) = lines[next];
                let told = format!(
                    "line {number}: the registry cuts the connection off when it gets this service of {} bytes, which may \
                     be more than its limits.message_bytes",
                    line.len()
                );
                return Err(in_file(file, told));
            }
            Err(error) => {
                return Err(match client.failure(error, &request) {
                    Failure::Refused { text, reply } if reply["item"].is_u64() => {
                        let place = next + reply["item"].as_u64().unwrap_or_default() as usize;
                        let number = lines.get(place).map_or(0, |(number, _)| *number);
                        Failure::Refused { text: format!("{}: line {number}: {text}", file.display()), reply }
                    }
                    failure => failure,
                });
            }
        }
    }
    Ok(())
}

/// Asks for a step of a restore, as soon as quotas allow it.
async fn ask(client: &Client, request: &Value) -> Result<Value, Error> {
    loop {
        let answered = client.registry().request_once("restore", request.clone()).await;
        let seconds = match &answered {
            Err(Error::Refused(refusal)) if refusal.code == Code::TooManyRequests => {
                refusal.reply["retry_after"].as_f64().filter(|seconds| (0.0..=QUOTA_SECONDS_MAX).contains(seconds))
            }
            _ => None,
        };
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
            None => return answered,
        }
    }
}

/// Whether there was a connection, which is no more.
fn is_lost(error: &Error) -> bool {
    let Error::Unreachable { cause: Some(cause) } = error else { return false };
    matches!(cause.problem, ConnectionProblem::Other(_))
}

/// Puts the services of a backup into the store that is configured, while no registry runs on it, and says how many. With
/// `replace` they take the place of all that is in it.
pub(super) fn restore_offline(file: &Path, from: &Configuration, replace: bool) -> Result<(), Failure> {
    let text = read(file).map_err(|error| in_file(file, error))?;
    let loaded = config::load(from.config.as_deref(), &from.set)?;
    let limits = loaded.config.limits.for_requests(loaded.config.server.req_port);
    let records = records(&text, &limits).map_err(|error| in_file(file, error))?;
    let count = crate::migrate::restore(&loaded, records, replace).map_err(super::failed)?;
    output::line(&format!("{} restored", counted(count, "service", "services")))
}

fn read(file: &Path) -> std::io::Result<String> {
    if file != Path::new(STANDARD) {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// The services of a backup, as a store keeps them.
fn records(text: &str, limits: &Limits) -> Result<Vec<Record>, String> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let read = |(number, line)| {
        let record = record(line, limits).map_err(|problem| format!("line {number}: {problem}"))?;
        match places.insert(record.id.clone(), number) {
            Some(earlier) => Err(format!("line {number}: {:?} is in line {earlier}, too", record.id)),
            None => Ok(record),
        }
    };
    lines(text)?.into_iter().map(read).collect()
}

/// The lines of a backup that are services, each with its number.
fn lines(text: &str) -> Result<Vec<(usize, &str)>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let head = lines.next().map_or("null", |(_, line)| line);
    let head: Value = serde_json::from_str(head).map_err(|error| format!("line 1: {error}"))?;
    match head["registry_backup"].as_u64() {
        Some(FORMAT) => {}
        Some(other) if other > FORMAT => {
            let registry = head["registry"].as_str().map(|version| format!(" {version:?}")).unwrap_or_default();
            return Err(format!(
                "it has the format {other}, of the newer registry{registry}, and this one, {OWN}, reads 1 to {FORMAT}: restore \
                 it with that one"
            ));
        }
        _ => return Err("it is no backup: its first line has no \"registry_backup\"".into()),
    }
    let lines: Vec<(usize, &str)> = lines.map(|(place, line)| (place + 1, line.trim())).collect();
    // A file that was cut off has lost services; one that somebody has shortened says so.
    match head["services"].as_u64() {
        Some(count) if count != lines.len() as u64 => Err(format!(
            "its first line says that there are {count} services, and {} are there: set \"services\" to that if you mean it",
            lines.len()
        )),
        _ => Ok(lines),
    }
}

fn record(line: &str, limits: &Limits) -> Result<Record, String> {
    serde_json::from_str::<&RawValue>(line).map_err(|error| error.to_string())?;
    let refused = |refusal: Reply| {
        let reply: Value = serde_json::from_str(&refusal.finish(None).into_text()).unwrap_or_default();
        reply["error"].as_str().unwrap_or_default().to_string()
    };
    Restored::read(line, limits).map(upload::record).map_err(refused)
}
