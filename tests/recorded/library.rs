//! The client library for Rust: a watch that no restart of the host ends, and a cache that has to be as the registry.
//!
//! The library knows one address, and each host has ports of its own: a [gate](Gate) stands between.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use registry_client::{Filter, Registry};
use serde_json::Value;

use crate::clients::Around;
use crate::history::{History, What};

/// How long a cache may be behind when nothing happens any more.
const BEHIND_MAX: Duration = Duration::from_secs(8);

/// What a watch was told: epoch, revision and service, in order.
pub(crate) type Told = Vec<(String, u64, String)>;

/// A port that stays the same, and leads to whatever host serves.
pub(crate) struct Gate {
    listener: TcpListener,
    pub(crate) port: u16,
}

impl Gate {
    pub(crate) fn open() -> io::Result<Gate> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Gate { listener, port })
    }

    /// Lets everybody through until `is_closed`.
    pub(crate) fn run(&self, around: &Around, is_closed: impl Fn() -> bool) {
        while !is_closed() {
            match (self.listener.accept(), around.ports()) {
                (Ok((client, _)), Some(ports)) => {
                    let _ = connect(client, ports[0]);
                }
                (Ok(_), None) => {}
                (Err(_), _) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

fn connect(client: TcpStream, port: u16) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let host = TcpStream::connect(("127.0.0.1", port))?;
    for (from, to) in [(client.try_clone()?, host.try_clone()?), (host, client)] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut &from, &mut &to);
            let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}

/// Follows by the library until `is_closed`, and compares its cache with a list when nothing happens any more.
pub(crate) fn run(around: &Around, port: u16, told: &Mutex<Told>, is_closed: impl Fn() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is a runtime");
    let ended = runtime.block_on(async {
        let registry = Registry::builder()
            .host(format!("127.0.0.1:{port}"))
            .timeout(Duration::from_secs(5))
            .backoff(Duration::from_millis(20), Duration::from_millis(300))
            .connect()
            .map_err(|error| error.to_string())?;
        let cache = registry.cache(Filter::default());
        // Its first list may be lost with a host, as any call.
        let mut watch = loop {
            match registry.watch_existing(Filter::default()).await {
                Ok(watch) => break watch,
                Err(_) if around.is_over() => return Ok(()),
                Err(_) => {}
            }
        };
        while !around.is_over() {
            match tokio::time::timeout(Duration::from_millis(50), watch.next()).await {
                Ok(Some(Ok(change))) => {
                    let place = (change.position.epoch.clone(), change.position.revision);
                    if !change.synthesized {
                        around.note("library: told of a change");
                        let id = change.id().to_string();
                        told.lock().expect("no thread panics with it").push((place.0, place.1, id));
                    }
                }
                Ok(Some(Err(error))) => return Err(format!("a watch failed: {error}")),
                Ok(None) => return Err("a watch has ended".to_string()),
                Err(_) => {}
            }
        }
        let deadline = Instant::now() + BEHIND_MAX;
        loop {
            let listed = registry.list(Filter::default()).await;
            let calls = |fields: &serde_json::Map<String, Value>| (fields["call"].clone(), fields["metadata"].clone());
            let cached = cache.list().map(|cached| {
                let shown = cached.iter().map(|record| (record.id().to_string(), calls(record.fields())));
                shown.collect::<BTreeMap<_, _>>()
            });
            let listed = listed.map(|listed| {
                let shown = listed.services.iter().map(|record| (record.id().to_string(), calls(record.fields())));
                shown.collect::<BTreeMap<_, _>>()
            });
            match (&cached, &listed) {
                (Ok(cached), Ok(listed)) if cached == listed => {
                    around.note("library: its cache is as the registry");
                    return Ok(());
                }
                _ if is_closed() => return Ok(()),
                _ if Instant::now() > deadline => {
                    return Err(format!("the cache of the library has {cached:?}, the registry has {listed:?}"));
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    if let Err(text) = ended {
        around.problems.lock().expect("no thread panics with it").push(text);
    }
}

/// Whether a watch was told each change once and in order, from the first that it was told of to the last.
pub(crate) fn judge(history: &History, told: &Told) -> Result<(), String> {
    let mut announced: BTreeMap<(&str, u64), &str> = BTreeMap::new();
    for entry in &history.entries {
        if let What::Announced { event: Ok(event), .. } = &entry.what {
            announced.insert((&event.epoch, event.revision), &event.service.id);
        }
    }
    let mut last: Option<(&str, u64)> = None;
    for (epoch, revision, id) in told {
        let place = (epoch.as_str(), *revision);
        if let Some(last) = last.filter(|last| last.0 == place.0) {
            if place.1 <= last.1 {
                return Err(format!("a watch of the library was told of {} after {}", place.1, last.1));
            }
            if let Some(((_, missed), id)) = announced.range((last.0, last.1 + 1)..place).next() {
                return Err(format!("a watch of the library was not told of {missed}: {id}"));
            }
        }
        if announced.get(&place).is_some_and(|announced| announced != id) {
            return Err(format!("a watch of the library was told of {id} at {revision}"));
        }
        last = Some(place);
    }
    Ok(())
}
