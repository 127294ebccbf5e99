//! What drives this library through the scenarios that all client libraries are put through: see
//! `tests/clients/scenarios/ADAPTER.md`.

#[path = "adapter/commands.rs"]
mod commands;
#[path = "adapter/reading.rs"]
mod reading;

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};

use registry_client::{Cache, Code, Error, Registration, Registry, Service, Watch};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Things by the names that the driver gives them.
struct Named<T>(Mutex<HashMap<String, Arc<T>>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Mutex::default())
    }
}

impl<T> Named<T> {
    fn put(&self, name: &str, thing: T) {
        self.0.lock().unwrap().insert(name.to_string(), Arc::new(thing));
    }

    fn get(&self, name: &str) -> Result<Arc<T>, Failed> {
        self.0.lock().unwrap().get(name).cloned().ok_or_else(|| bad(format!("there is no {name:?}")))
    }

    fn take(&self, name: &str) -> Option<Arc<T>> {
        self.0.lock().unwrap().remove(name)
    }

    fn take_all(&self) -> Vec<Arc<T>> {
        self.0.lock().unwrap().drain().map(|(_, thing)| thing).collect()
    }
}

/// What there is.
#[derive(Default)]
struct Things {
    registries: Named<Registry>,
    addresses: Named<Mutex<String>>,
    registrations: Named<Registration>,
    watches: Named<tokio::sync::Mutex<Option<Watch>>>,
    caches: Named<Cache>,
    services: Named<Service>,
    crowds: Named<Vec<(Registry, Registration)>>,
}

/// How a command fails.
struct Failed(Value);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Unreachable { .. } => "Unreachable".to_string(),
            Error::TimedOut { .. } => "TimedOut".to_string(),
            Error::Closed => "Closed".to_string(),
            Error::Protocol { .. } => "Protocol".to_string(),
            Error::Invalid(_) => "Bad".to_string(),
            Error::Refused(refusal) => match &refusal.code {
                Code::Other(_) => "Refused".to_string(),
                known => format!("{known:?}"),
            },
            _ => "Panic".to_string(),
        };
        Failed(json!({ "kind": kind, "code": error.code().map(Code::as_str), "text": error.to_string() }))
    }
}

fn failed(kind: &str, text: impl std::fmt::Display) -> Failed {
    Failed(json!({ "kind": kind, "text": text.to_string() }))
}

fn bad(text: impl std::fmt::Display) -> Failed {
    failed("Bad", text)
}

fn count<T: Eq + Hash>(all: impl Iterator<Item = T>) -> HashMap<T, u64> {
    let mut counts = HashMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    counts
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (sender, mut lines) = mpsc::channel(64);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let things = Arc::new(Things::default());
    while let Some(line) = lines.recv().await {
        let things = things.clone();
        tokio::spawn(async move {
            let command: Value = serde_json::from_str(&line).expect("a command is JSON");
            let answer = match commands::obey(&things, &command).await {
                Ok(ok) => json!({ "n": command["n"], "ok": ok }),
                Err(Failed(failed)) => json!({ "n": command["n"], "failed": failed }),
            };
            writeln!(std::io::stdout().lock(), "{answer}").expect("the driver reads");
        });
    }
    commands::close_all(&things).await;
}
