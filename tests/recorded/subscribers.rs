//! Subscribers: the one that the history has its events from, and others that come and go, read slowly, and have to
//! know whenever they have missed something.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::clients::{Around, Door};
use crate::history::{Event, History, What};
use crate::recorder::{HOST, Recorder};
use crate::wire::Wire;

/// Subscribes to everything before anything can happen, and writes down all of it until the host is gone.
pub(crate) fn follow(recorder: &Arc<Recorder>, door: &Door) -> io::Result<()> {
    let mut wire = Wire::connect(door.ports[1], "SUB", false)?;
    wire.subscribe()?;
    let (recorder, door) = (recorder.clone(), door.clone());
    std::thread::spawn(move || {
        loop {
            match wire.receive(Duration::from_secs(1)) {
                Ok(Some(body)) => match notice(&body) {
                    Some(notice) => recorder.noticed(door.life, What::Noticed { host: HOST, notice }),
                    None => recorder.announced(door.life, read(&body)),
                },
                Ok(None) => {}
                Err(_) => return,
            }
        }
    });
    Ok(())
}

/// What subscribers are told that is no change.
fn notice(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(|notice: &Value| notice["type"] == "mass_expiry")
}

fn read(body: &[u8]) -> Result<Event, String> {
    let event: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Event::read(event)
}

/// What one of the others has heard, in order.
pub(crate) type Heard = Vec<Result<Event, String>>;

/// Listens until it is over, with pauses in which events are missed or left unread.
pub(crate) fn listen(around: &Around, seed: u64, heard: &Mutex<Heard>) {
    let mut rng = StdRng::seed_from_u64(seed);
    // Nobody waits for them: they may have much to read from a host that is gone.
    while let Some(port) = around.door().map(|door| door.ports[1]) {
        let _ = listen_for_a_while(around, port, &mut rng, heard);
        std::thread::sleep(Duration::from_millis(rng.random_range(1..300)));
    }
}

fn listen_for_a_while(around: &Around, port: u16, rng: &mut StdRng, heard: &Mutex<Heard>) -> io::Result<()> {
    let is_slow = rng.random_bool(0.5);
    let mut wire = Wire::connect(port, "SUB", is_slow)?;
    wire.subscribe()?;
    for _ in 0..rng.random_range(1..200) {
        if around.is_over() {
            return Ok(());
        }
        if is_slow {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..100)));
        }
        if let Some(body) = wire.receive(Duration::from_millis(100))?.filter(|body| notice(body).is_none()) {
            heard.lock().expect("no thread panics with it").push(read(&body));
        }
    }
    Ok(())
}

/// What a listener has come to.
#[derive(Default)]
pub(crate) struct Listened {
    pub(crate) events: u64,
    pub(crate) gaps: u64,
}

/// Whether a subscriber could know of everything that it has missed, and has heard nothing else than everybody.
pub(crate) fn judge(history: &History, heard: &Heard) -> Result<Listened, String> {
    let mut told: BTreeMap<(&str, u64), &Event> = BTreeMap::new();
    for entry in &history.entries {
        if let What::Announced { event: Ok(event), .. } = &entry.what {
            told.insert((&event.epoch, event.revision), event);
        }
    }
    let mut listened = Listened::default();
    let mut last: Option<&Event> = None;
    for event in heard {
        let event = event.as_ref().map_err(|problem| format!("an event cannot be read: {problem}"))?;
        listened.events += 1;
        let revision = event.revision;
        match told.get(&(event.epoch.as_str(), revision)) {
            Some(told) if told.kind == event.kind && told.service.fixed == event.service.fixed => {}
            Some(told) => return Err(format!("{revision} is {event:?} for one and {told:?} for another")),
            // The last words of a host that was killed may have reached one and not the other.
            None => {}
        }
        if let Some(last) = last.filter(|last| last.epoch == event.epoch) {
            if revision <= last.revision {
                return Err(format!("{revision} comes after {}", last.revision));
            }
            let Some(previous) = event.previous else { return Err(format!("{revision} without previous")) };
            let missed = told.range((event.epoch.as_str(), last.revision + 1)..(event.epoch.as_str(), revision));
            let missed = missed.map(|((_, missed), _)| *missed).next_back();
            if missed.is_some_and(|missed| previous < missed) {
                return Err(format!(
                    "{revision} says that {previous} was before it, so that {missed:?} cannot be seen to be missing \
                     after {}",
                    last.revision
                ));
            }
            let is_named = previous > last.revision;
            listened.gaps += u64::from(is_named);
            // What nobody has heard may still be missing: what a killed host has stored, and told nobody.
            if !is_named && previous < last.revision {
                return Err(format!("{revision} says that {previous} was before it, {} was", last.revision));
            }
        }
        last = Some(event);
    }
    Ok(listened)
}
