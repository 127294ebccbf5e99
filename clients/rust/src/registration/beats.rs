//! The heartbeats of all services of one client: those that are due at about the same time go in one message.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::answer;
use crate::error::Error;
use crate::registry::{Registry, named};

/// How long the others are waited for.
const GATHER_FOR: Duration = Duration::from_millis(10);
/// What a registry takes in one message.
const TOGETHER_MAX: usize = 1000;
/// How long the ids in a message may be together, in bytes: well below what any registry takes.
const ID_BYTES_MAX: usize = 64 << 10;

/// What is due, and the call to those who will be due soon.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    calls: watch::Sender<u64>,
    due: Mutex<Vec<Beat>>,
}

#[derive(Debug)]
struct Beat {
    id: String,
    generation: Option<u64>,
    patience: Duration,
    done: oneshot::Sender<Result<(), Error>>,
}

impl Beats {
    /// Changes whenever a message is put together: who will be due soon can go with it.
    pub(super) fn calls(&self) -> watch::Receiver<u64> {
        self.calls.subscribe()
    }

    fn take(&self) -> Vec<Beat> {
        std::mem::take(&mut *self.due.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it is the first of its message.
    fn add(&self, beat: Beat) -> bool {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.push(beat);
        due.len() == 1
    }
}

/// Renews a service, together with others of the client if it has some that are due.
pub(super) async fn renew(
    registry: &Registry,
    id: &str,
    generation: Option<u64>,
    patience: Duration,
) -> Result<(), Error> {
    if *registry.keepers.count.borrow() < 2 {
        return renew_alone(registry, id, generation, patience).await;
    }
    let (done, result) = oneshot::channel();
    let beats = &registry.keepers.beats;
    if beats.add(Beat { id: id.to_string(), generation, patience, done }) {
        beats.calls.send_modify(|calls| *calls += 1);
        tokio::spawn(send(registry.clone()));
    }
    result.await.unwrap_or(Err(Error::Closed))
}

async fn renew_alone(registry: &Registry, id: &str, generation: Option<u64>, patience: Duration) -> Result<(), Error> {
    registry.ask_within("renew", named(id, generation), patience, true).await.0.map(drop)
}

async fn send(registry: Registry) {
    tokio::time::sleep(GATHER_FOR).await;
    for beats in messages(registry.keepers.beats.take()) {
        tokio::spawn(send_together(registry.clone(), beats));
    }
}

/// What fits into a message each, and in each an id once: that is how a registry names what it refuses.
fn messages(due: Vec<Beat>) -> Vec<Vec<Beat>> {
    let (mut messages, mut ids, mut id_bytes) = (Vec::<Vec<Beat>>::new(), HashSet::new(), 0);
    for beat in due {
        let id = beat.id.clone();
        let is_full = ids.len() >= TOGETHER_MAX || id_bytes + id.len() > ID_BYTES_MAX || ids.contains(&id);
        match messages.last_mut() {
            Some(message) if !is_full => message.push(beat),
            _ => {
                (ids, id_bytes) = (HashSet::new(), 0);
                messages.push(vec![beat]);
            }
        }
        id_bytes += id.len();
        ids.insert(id);
    }
    messages
}

async fn send_together(registry: Registry, beats: Vec<Beat>) {
    let patience = beats.iter().map(|beat| beat.patience).min().unwrap_or_default();
    let services: Vec<Value> = beats.iter().map(|beat| named(&beat.id, beat.generation)).collect();
    if beats.len() == 1 {
        return send_each(&registry, beats);
    }
    let told = match registry.ask_within("renew", json!({ "services": services }), patience, true).await.0 {
        Ok(mut reply) => refusals(&registry, &mut reply),
        Err(error) => Err(error),
    };
    match told {
        Ok(mut refusals) => {
            for Beat { id, done, .. } in beats {
                let _ = done.send(refusals.remove(&id).map_or(Ok(()), Err));
            }
        }
        // An older registry, which knows no more than one in a message; or none is to be renewed, each for its own reason.
        Err(error @ Error::Refused(_)) if !error.may_pass() => send_each(&registry, beats),
        Err(error) => {
            for beat in beats {
                let _ = beat.done.send(Err(error.clone()));
            }
        }
    }
}

/// What was refused, by the ids.
fn refusals(registry: &Registry, reply: &mut Value) -> Result<HashMap<String, Error>, Error> {
    let Some(Value::Array(failed)) = reply.get_mut("failed").map(Value::take) else {
        return Err(answer::without(&registry.endpoint(), "failed"));
    };
    let refused = |failed: Value| {
        let id = failed.get("service_id").and_then(Value::as_str)?.to_string();
        Some((id, answer::refused(failed, &registry.endpoint())))
    };
    Ok(failed.into_iter().filter_map(refused).collect())
}

fn send_each(registry: &Registry, beats: Vec<Beat>) {
    for Beat { id, generation, patience, done } in beats {
        let registry = registry.clone();
        tokio::spawn(async move {
            let _ = done.send(renew_alone(&registry, &id, generation, patience).await);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(beats: &[Beat]) -> Vec<&str> {
        beats.iter().map(|beat| beat.id.as_str()).collect()
    }

    fn cut(ids: impl IntoIterator<Item = String>) -> Vec<Vec<Beat>> {
        let beat = |id| Beat { id, generation: None, patience: Duration::ZERO, done: oneshot::channel().0 };
        messages(ids.into_iter().map(beat).collect())
    }

    #[test]
    fn what_is_too_much_for_a_message_goes_with_the_next() {
        let many = cut((0..2500).map(|number| number.to_string()));
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
        let long = cut((0..5).map(|number| format!("{number}{}", "x".repeat(25_000))));
        assert_eq!(long.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn no_id_is_twice_in_a_message() {
        let messages = cut(["a", "b", "a", "c"].map(String::from));
        assert_eq!(messages.iter().map(|beats| ids(beats)).collect::<Vec<_>>(), [vec!["a", "b"], vec!["a", "c"]]);
    }
}
