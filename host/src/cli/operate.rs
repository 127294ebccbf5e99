//! `drain`, `undrain`, `deregister`, `reload`, `swap`, `backup`, `clients`: what operators do to a running registry and
//! its services.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::arguments::{Connection, seconds};
use super::backup::backup;
use super::client::{Client, Patience};
use super::clients;
use super::output::{self, Failure};
use crate::registry::NOT_DRAINED;
use crate::text::counted;

/// Commands for operators.
#[derive(Debug, Subcommand)]
pub(super) enum Operation {
    /// Take a service out of discovery: it stays registered and listed, and nobody is led to it
    ///
    /// It stays so over heartbeats, restarts and the service's own re-registration, until `undrain`, its end, or its
    /// deregistration. Who deregisters as it stops, as programs with a client library and those of `register --exec` do,
    /// comes back undrained.
    Drain {
        /// The service's id
        id: String,
        /// For how long: 90, 90s, 10m, 2h [default: until `registry undrain`]
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        lasts: Option<Duration>,
        /// What everybody is told about it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Have a drained service discovered again
    Undrain {
        /// The service's id
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove a service, or all of a type, or those that are critical
    ///
    /// With --type or --stale each one that is removed is printed. One that registers again meanwhile stays.
    Deregister {
        /// The service's id
        #[arg(required_unless_present_any = ["service_type", "stale"], conflicts_with_all = ["service_type", "stale"])]
        id: Option<String>,
        /// All services of this type
        #[arg(long = "type", value_name = "TYPE")]
        service_type: Option<String>,
        /// Only services that are critical: that have not been heard of within their ttl
        #[arg(long)]
        stale: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Save all services of a running registry to a file, as they are at one moment
    ///
    /// It has a line of JSON for each service, which you may read and change; the first line says what it is.
    #[command(mut_arg("timeout", |timeout| timeout.default_value("60")))]
    Backup {
        /// The file to write, - for standard output
        file: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Have the registry move to another storage while it serves
    ///
    /// All services are copied, changes wait for a moment, reads and heartbeats do not. The storage before is closed: it
    /// is refused when it is opened again. Needs server.allow_swap, or a key that proves an admin.
    #[command(mut_arg("timeout", |timeout| timeout.default_value("600").help("How long to wait for the end")))]
    Swap {
        /// A configuration file, on the registry's machine, whose [backend] says where to
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// How long changes may wait at a time; for a storage that is slow [default: 0.2]
        #[arg(long, value_name = "TIME", value_parser = time)]
        hold: Option<Duration>,
        /// Leave the storage even if its last write cannot be made, for a disk that dies
        ///
        /// A new epoch begins then. Opened again, that storage would not know that another one has taken its place.
        #[arg(long)]
        abandon: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show who is connected: those first for whom most bytes wait
    ///
    /// Each connection has a line, over ZeroMQ and over HTTP. WAITING is what waits for a client and from it, in bytes;
    /// ASKED is how many of its requests are not answered yet, and how many of these wait for something to happen.
    /// SERVICES are those that it has registered, together with all that count as one client with it: who has the same
    /// key or token, or comes from the same address.
    #[command(after_help = format!("\
Examples:
  registry clients --address 10.0.0.7
  registry clients --principal ci --json

{}", super::EXIT_CODES))]
    Clients {
        /// Only those from this IP address; \"ipc\" for Unix sockets
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// Only those that have proved to be this one: a public key, or the name of a key or a token
        #[arg(long, value_name = "KEY|NAME")]
        principal: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Have the registry read its configuration again, and take over what it can without a restart
    ///
    /// SIGHUP does the same. If anything is wrong with the file, nothing is changed.
    Reload {
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        connection: Connection,
    },
}

impl Operation {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match self {
            Operation::Drain { connection, .. }
            | Operation::Undrain { connection, .. }
            | Operation::Deregister { connection, .. }
            | Operation::Swap { connection, .. }
            | Operation::Backup { connection, .. }
            | Operation::Clients { connection, .. }
            | Operation::Reload { connection, .. } => connection,
        }
    }
}

/// Does it.
pub(super) async fn run(operation: &Operation) -> Result<(), Failure> {
    match operation {
        Operation::Drain { id, lasts, reason, connection } => {
            let mut fields = Map::from_iter([("service_id".to_string(), json!(id))]);
            fields.extend(lasts.map(|lasts| ("seconds".to_string(), json!(lasts.as_secs_f64()))));
            fields.extend(reason.as_ref().map(|reason| ("reason".to_string(), json!(reason))));
            simply("drain", fields.into(), &format!("{id} drained"), connection).await
        }
        Operation::Undrain { id, connection } => undrain(id, connection).await,
        Operation::Deregister { id: Some(id), connection, .. } => {
            simply("deregister", json!({ "service_id": id }), &format!("{id} deregistered"), connection).await
        }
        Operation::Deregister { id: None, service_type, stale, connection } => {
            deregister_all(service_type.as_deref(), *stale, connection).await
        }
        Operation::Backup { file, connection } => backup(file, connection).await,
        Operation::Swap { to, hold, abandon, connection } => swap(to, *hold, *abandon, connection).await,
        Operation::Clients { address, principal, connection } => {
            clients::list(address.as_deref(), principal.as_deref(), connection).await
        }
        Operation::Reload { dry_run, connection } => reload(*dry_run, connection).await,
    }
}

async fn undrain(id: &str, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let reply = client.request("undrain", json!({ "service_id": id })).await?;
    if connection.json {
        return output::json(&reply);
    }
    let was_drained = reply["message"] != NOT_DRAINED;
    let done = if was_drained { "undrained" } else { "was not drained" };
    output::line(&output::printable(&format!("{id} {done}")))
}

async fn simply(action: &str, fields: Value, done: &str, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let reply = client.request(action, fields).await?;
    match connection.json {
        true => output::json(&reply),
        false => output::line(&output::printable(done)),
    }
}

/// Removes all services of a type, or those that are critical, as they are now: none that registers meanwhile.
async fn deregister_all(service_type: Option<&str>, stale: bool, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let fields = service_type.map_or(json!({}), |service_type| json!({ "service_type": service_type }));
    let list = client.request("list", fields).await?;
    let (mut removed, mut left) = (Vec::new(), 0);
    for service in list["services"].as_array().into_iter().flatten() {
        if stale && service["health"] != "critical" {
            continue;
        }
        let Some(id) = service["id"].as_str() else { continue };
        match client.request("deregister", json!({ "service_id": id, "generation": service["generation"] })).await {
            Ok(_) => {
                if !connection.json {
                    output::line(&output::printable(&format!("{id} deregistered")))?;
                }
                removed.push(id);
            }
            Err(Failure::Failed(text) | Failure::Refused { text, .. }) => {
                left += 1;
                output::note(&output::printable(&format!("{id}: {text}")));
            }
            Err(failure) => return Err(failure),
        }
    }
    if connection.json {
        output::json(&json!({ "deregistered": removed }))?;
    } else if removed.is_empty() && left == 0 {
        output::note("there is no such service");
    }
    match left {
        0 => Ok(()),
        _ => Err(Failure::Failed(format!("{} not deregistered", counted(left, "service is", "services are")))),
    }
}

/// Has the registry move to another storage.
async fn swap(to: &Path, hold: Option<Duration>, abandon: bool, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    // The registry runs in a directory of its own.
    let file = std::path::absolute(to).unwrap_or_else(|_| to.to_path_buf());
    let hold = hold.map(|hold| hold.as_secs_f64());
    let reply = client.request_once("swap", json!({ "file": file, "hold": hold, "abandon": abandon })).await?;
    if connection.json {
        return output::json(&reply);
    }
    let text = |field: &str| reply[field].as_str().unwrap_or_default();
    let number = |field: &str| reply[field].as_u64().unwrap_or_default();
    let services = counted(number("services") as usize, "service", "services");
    let (storage, held_ms) = (text("storage"), number("held_ms"));
    output::line(&output::printable(&format!("moved to {storage} with {services}; changes waited {held_ms} ms")))?;
    if reply["closed"] == false {
        output::note(&output::printable(text("message")));
    }
    output::note("registry.toml has to say the same in [backend] before the registry is started again");
    Ok(())
}

/// Has the configuration read again, and says what has changed.
pub(super) async fn reload(dry_run: bool, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let reply = client.request("reload", json!({ "dry_run": dry_run })).await?;
    if connection.json {
        return output::json(&reply);
    }
    let changed = reply["changed"].as_array().map_or(&[][..], Vec::as_slice);
    for change in changed {
        let key = change["key"].as_str().unwrap_or_default();
        output::line(&output::printable(&format!("{key}: {} -> {}", change["from"], change["to"])))?;
    }
    let fixed = reply["needs_restart"].as_array().map_or(&[][..], Vec::as_slice);
    for key in fixed.iter().filter_map(Value::as_str) {
        output::line(&output::printable(&format!("{key}: takes a restart")))?;
    }
    if let Some(plugin) = reply["swap"].as_str() {
        let verb = if dry_run { "would move" } else { "moves" };
        output::line(&output::printable(&format!("[backend]: the registry {verb} to the storage {plugin}")))?;
        if changed.is_empty() && fixed.is_empty() {
            return Ok(());
        }
    }
    if let Some(storage) = reply["in_charge"].as_str() {
        output::line(&output::printable(&format!(
            "[backend]: the registry has been moved to the storage {storage}, which the file has to name before the \
             registry is started again"
        )))?;
    }
    let verb = if dry_run { "would be taken over" } else { "taken over" };
    match (changed.len(), fixed.len()) {
        (0, 0) => output::line("nothing has changed"),
        (count, _) => output::line(&format!("{} {verb}", counted(count, "setting", "settings"))),
    }
}

/// A time with its unit; without one, in seconds.
fn time(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(format!("unknown unit {unit:?}, expected s, m, h or d")),
    };
    seconds(number).map(|time| time * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90", 90.0), ("1.5s", 1.5), ("10m", 600.0), ("2h", 7200.0), ("1d", 86_400.0)] {
            assert_eq!(time(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for wrong in ["", "m", "-1m", "0", "1w", "1 m m"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
