//! Damaged databases. A host that finds one either refuses to start, and says which file is damaged, or has all of
//! what was stored at some time. What it cannot read of that it names. It never panics, and never has less than what it
//! says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::clients::one_of;
use crate::database::{self, NAME, Stored};
use crate::history::Service;
use crate::host::{Host, Launch, NotStarted, has_panicked};
use crate::reached::Reached;
use crate::wire::Wire;

/// Damages the database in one way, and says how.
fn damage(directory: &Path, rng: &mut StdRng) -> String {
    let files = database::files(directory);
    let path = &files[rng.random_range(0..files.len())];
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut bytes = fs::read(path).expect("a database can be read");
    let text = match rng.random_range(0..3) {
        0 => {
            let length = rng.random_range(0..bytes.len());
            bytes.truncate(length);
            format!("{name} cut off after {length} bytes")
        }
        1 => {
            let count = one_of(rng, &[1, 1, 3, 20]);
            let mut places = Vec::new();
            for _ in 0..count {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
                places.push(at);
            }
            format!("{name} with bits flipped at {places:?}")
        }
        _ => {
            let from = rng.random_range(0..bytes.len()) / 512 * 512;
            let to = (from + one_of(rng, &[512, 4096])).min(bytes.len());
            bytes[from..to].fill(0);
            format!("{name} with zeros from {from} to {to}")
        }
    };
    fs::write(path, bytes).expect("a database can be written");
    text
}

/// What a host shows of a database: all services, and where it stands.
fn shown(host: &Host) -> Result<Value, String> {
    let ask = || -> std::io::Result<Option<Vec<u8>>> {
        let mut wire = Wire::connect(host.ports[0], "REQ", false)?;
        wire.send(&[b"", br#"{"action":"list"}"#])?;
        wire.receive(std::time::Duration::from_secs(10))
    };
    let reply = ask().map_err(|error| error.to_string())?.ok_or("no answer")?;
    serde_json::from_slice(&reply).map_err(|error| error.to_string())
}

/// Starts a host on a damaged copy of a database, and says what must not have been. `states` are what was ever found
/// in the database, by epoch and revision.
pub(crate) fn try_once(launch: &Launch, sound: &Path, rng: &mut StdRng, reached: &mut Reached) -> Result<(), String> {
    let directory = &launch.directory;
    let before = database::read(sound)?;
    database::copy(sound, directory);
    let how = damage(directory, rng);
    let verdict = match Host::start(launch, None) {
        Err(NotStarted { status, log }) => {
            reached.note("damage: refused");
            let last = log.lines().last().unwrap_or_default().to_string();
            let is_clear = status.code() == Some(1) && last.starts_with("registry: ") && last.contains(NAME);
            if has_panicked(&log) || !is_clear { Err(format!("it ended with {status}:\n{log}")) } else { Ok(()) }
        }
        Ok(host) => {
            let shown = shown(&host);
            let log = host.kill();
            let verdict = shown.and_then(|shown| expect_whole(&before, &shown, &log, reached));
            if has_panicked(&log) { Err("it panicked".into()) } else { verdict }
                .map_err(|text| format!("{text}\n{log}"))
        }
    };
    verdict.map_err(|text| format!("{how}: {text}"))
}

/// A host that takes a database for sound has all of what was stored at some time, but for what it says is damaged.
fn expect_whole(before: &Stored, shown: &Value, log: &str, reached: &mut Reached) -> Result<(), String> {
    let services = shown["services"].as_array().ok_or_else(|| format!("no list: {shown}"))?;
    let shown_service = |service: &Value| Service::read(service.clone()).map(|service| (service.id, service.fixed));
    let listed: BTreeMap<String, Value> = services.iter().map(shown_service).collect::<Result<_, _>>()?;
    if let Some((id, fixed)) = listed.iter().find(|(id, fixed)| !before.had(id, fixed)) {
        return Err(format!("{id} is shown as {fixed}, which was never stored"));
    }
    // Each of the first few that are left out has a line in the log.
    let lines = log.lines().filter(|line| line.contains(" is left out, it cannot be read: ")).count();
    let (epoch, revision) = (shown["epoch"].as_str(), shown["revision"].as_u64().unwrap_or_default());
    let is_moved = epoch != Some(before.epoch.as_str());
    if let Some(was) = before.told_until(revision).filter(|_| !is_moved || lines > 0) {
        let differs = listed.iter().find(|(id, fixed)| was.get(*id) != Some(fixed));
        let left_out = was.len().saturating_sub(listed.len());
        if differs.is_some() || lines != left_out.min(5) {
            return Err(format!(
                "at {revision} there was {was:?}, and shown is {listed:?}: {differs:?}, {left_out} are not there"
            ));
        }
    }
    reached.note(match lines {
        1.. => "damage: named what was left out",
        _ if is_moved => "damage: a new epoch",
        _ if revision == before.revision => "damage: without effect",
        _ => "damage: an earlier state",
    });
    Ok(())
}

/// Damages the database of a host that was stopped, and that of one that was killed, so many times each.
pub(crate) fn try_many(seed: u64, tries: usize, reached: &mut Reached) {
    let mut rng = StdRng::seed_from_u64(seed);
    for is_killed in [false, true] {
        let copies = tempfile::tempdir().expect("there is room for a copy");
        let (directory, sound) = (copies.path().join("d"), copies.path().join("sound"));
        for path in [&directory, &sound] {
            fs::create_dir(path).expect("the directory can be written");
        }
        let launch = Launch { config: format!("[backend.options]\npath = {NAME:?}\n"), directory, wall: None };
        let host = Host::start(&launch, None).ok().expect("a new database can be opened");
        let mut wire = Wire::connect(host.ports[0], "REQ", false).expect("it serves");
        for number in 0..150 {
            let info = json!({"id": format!("s{}", number % 120), "name": "N", "host": "h", "port": 1, "call": number});
            let request = json!({"action": "register", "service_info": info, "ttl": 600}).to_string();
            wire.send(&[b"", request.as_bytes()]).expect("it serves");
            wire.receive(std::time::Duration::from_secs(10)).expect("it serves").expect("it answers");
        }
        if is_killed {
            drop(host.kill())
        } else {
            drop(host.stop())
        }
        database::copy(&launch.directory, &sound);
        for _ in 0..tries {
            let tried = try_once(&launch, &sound, &mut rng, reached);
            assert!(tried.is_ok(), "{}", tried.unwrap_err());
        }
    }
}
