//! What is done for each command.

use std::time::Duration;

use registry_client::{Change, Connectivity, Position, Record, Registration, Registry, Service, State};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::reading::{filter, object, registry, service, set_address, settings, text, texts, time};
use super::{Failed, Things, bad, count, failed};

/// How long something is waited for whose command says no time.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn obey(things: &Things, command: &Value) -> Result<Value, Failed> {
    let name = |field: &str| text(command, field);
    let id = || text(command, "service_id");
    let generation = command["generation"].as_u64();
    let wait = time(&command["wait"], "wait")?;
    let (seconds, reason) = (time(&command["seconds"], "seconds")?, command["reason"].as_str());
    let limit = command["limit"].as_u64().unwrap_or(1) as usize;
    match name("do")? {
        "connect" => {
            let name = name("registry")?;
            let connected = settings(things, name, command)?.connect()?;
            if let Some(old) = things.registries.take(name) {
                (*old).clone().close().await;
            }
            things.registries.put(name, connected);
            Ok(Value::Null)
        }
        "set_address" => {
            set_address(things, command)?;
            Ok(Value::Null)
        }
        "close" => match things.registries.take(name("registry")?) {
            Some(registry) => {
                (*registry).clone().close().await;
                Ok(Value::Null)
            }
            None => Ok(Value::Null),
        },
        "register" => {
            let name = name("registration")?;
            let registration = registry(things, command)?.register(service(command)?).await?;
            if let Some(old) = things.registrations.take(name) {
                old.close().await?;
            }
            things.registrations.put(name, registration);
            Ok(state_of(&*things.registrations.get(name)?))
        }
        "state" => Ok(state_of(&*things.registrations.get(name("registration")?)?)),
        "wait_state" => {
            let registration = things.registrations.get(name("registration")?)?;
            let states = texts(&command["states"]);
            let wanted = registration.until(|state| states.iter().any(|wanted| wanted == word(state)));
            let reached = timeout_at(deadline(command)?, wanted).await;
            match reached {
                Ok(state) if states.iter().any(|wanted| wanted == word(state)) => Ok(state_of(&registration)),
                _ => Err(failed("TimedOut", format!("it is {}", word(registration.state())))),
            }
        }
        "update_registration" => {
            let registration = things.registrations.get(name("registration")?)?;
            registration.update(object(&command["patch"])).await?;
            Ok(state_of(&registration))
        }
        "close_registration" => {
            things.registrations.get(name("registration")?)?.close().await?;
            Ok(Value::Null)
        }
        "renew" => {
            registry(things, command)?.renew(id()?, generation).await?;
            Ok(Value::Null)
        }
        "update" => {
            let patch = object(&command["patch"]);
            registry(things, command)?.update(id()?, &patch, generation).await?;
            Ok(Value::Null)
        }
        "deregister" => {
            registry(things, command)?.deregister(id()?, generation).await?;
            Ok(Value::Null)
        }
        "drain" => {
            registry(things, command)?.drain(id()?, seconds, reason, generation).await?;
            Ok(Value::Null)
        }
        "undrain" => {
            registry(things, command)?.undrain(id()?, generation).await?;
            Ok(Value::Null)
        }
        "drain_registration" => {
            things.registrations.get(name("registration")?)?.drain(seconds, reason).await?;
            Ok(Value::Null)
        }
        "undrain_registration" => {
            things.registrations.get(name("registration")?)?.undrain().await?;
            Ok(Value::Null)
        }
        "get" => Ok(registry(things, command)?.get(id()?).await?.into()),
        "discover" => {
            let (registry, filter) = (registry(things, command)?, filter(command));
            Ok(match wait {
                Some(wait) => registry.discover_within(filter, wait).await?.into(),
                None => registry.discover(filter).await?.into(),
            })
        }
        "discover_many" => {
            let (registry, filter) = (registry(things, command)?, filter(command));
            let found = match wait {
                Some(wait) => registry.discover_many_within(filter, limit, wait).await?,
                None => registry.discover_many(filter, limit).await?,
            };
            Ok(found.into_iter().map(Value::from).collect())
        }
        "list" => {
            let (registry, filter) = (registry(things, command)?, filter(command));
            let listing = match command["page"].as_u64() {
                Some(page) => registry.list_by(filter, page as usize).await?,
                None => registry.list(filter).await?,
            };
            let (position, stale_seconds) =
                (listing.position.ok_or_else(|| bad("no position"))?, listing.stale_seconds);
            let services: Value = listing.services.into_iter().map(Value::from).collect();
            Ok(json!({ "services": services, "epoch": position.epoch, "revision": position.revision,
                       "stale_seconds": stale_seconds }))
        }
        "types" => {
            let types = registry(things, command)?.types().await?.into_iter();
            let types = types.map(|(name, of)| {
                (name, json!({ "passing": of.passing, "drained": of.drained, "critical": of.critical }))
            });
            Ok(Value::Object(types.collect()))
        }
        "history" => {
            let entries = registry(things, command)?.history(id()?).await?;
            Ok(entries.into_iter().map(|entry| Value::Object(entry.fields)).collect())
        }
        "health" => Ok(Value::Object(registry(things, command)?.health().await?.fields)),
        "request" => {
            let request = &command["request"];
            Ok(registry(things, command)?.request(text(request, "action")?, request.clone()).await?)
        }
        "connectivity" => Ok(shown_connectivity(&registry(things, command)?.connectivity().borrow())),
        "other_connectivity" => {
            let mut connectivity = registry(things, command)?.connectivity();
            connectivity.mark_unchanged();
            let deadline = deadline(command)?;
            let changed = timeout_at(deadline, connectivity.changed()).await;
            changed
                .map_err(|_| failed("TimedOut", "it is as it was"))?
                .map_err(|_| failed("Closed", "it is closed"))?;
            Ok(shown_connectivity(&connectivity.borrow()))
        }
        "watch" => {
            let (registry, filter) = (registry(things, command)?, filter(command));
            let watch = match &command["after"] {
                Value::Object(after) => {
                    let epoch = after["epoch"].as_str().unwrap_or_default();
                    registry.watch_after(filter, Position::new(epoch, after["revision"].as_u64().unwrap_or_default()))
                }
                _ if command["existing"] == true => registry.watch_existing(filter).await?,
                _ => registry.watch(filter).await?,
            };
            things.watches.put(name("watch")?, Some(watch).into());
            Ok(Value::Null)
        }
        "next" => next(things, command).await,
        "close_watch" => {
            drop(things.watches.get(name("watch")?)?.lock().await.take());
            Ok(Value::Null)
        }
        "cache" => {
            things.caches.put(name("cache")?, registry(things, command)?.cache(filter(command)));
            Ok(Value::Null)
        }
        "cache_ready" => {
            let within = time(&command["timeout"], "timeout")?.unwrap_or(PATIENCE);
            things.caches.get(name("cache")?)?.ready(within).await?;
            Ok(Value::Null)
        }
        "cache_get" => {
            let found = things.caches.get(name("cache")?)?.get(id()?)?;
            Ok(found.map_or(Value::Null, |record| shown(&record)))
        }
        "cache_list" => {
            let cache = things.caches.get(name("cache")?)?;
            let all = match command["service_type"].as_str() {
                Some(service_type) => cache.list_of(service_type)?,
                None => cache.list()?,
            };
            let mut ids: Vec<&str> = all.iter().map(|record| record.id()).collect();
            ids.sort_unstable();
            Ok(json!({ "ids": ids, "age": cache.age().map(|age| age.as_secs_f64()) }))
        }
        "cache_discover" => {
            let found = things.caches.get(name("cache")?)?.discover(name("service_type")?)?;
            found.map(|record| shown(&record)).ok_or_else(|| failed("NoneHealthy", "there is none"))
        }
        "close_cache" => {
            drop(things.caches.take(name("cache")?));
            Ok(Value::Null)
        }
        "service" => {
            let name = name("service")?;
            let registry = settings(things, name, command)?.connect()?;
            things.services.put(name, Service::start_with(registry, service(command)?).await?);
            Ok(state_of(things.services.get(name)?.registration()))
        }
        "service_state" => Ok(state_of(things.services.get(name("service")?)?.registration())),
        "drain_service" => {
            things.services.get(name("service")?)?.drain(seconds, reason).await?;
            Ok(Value::Null)
        }
        "undrain_service" => {
            things.services.get(name("service")?)?.undrain().await?;
            Ok(Value::Null)
        }
        "close_service" => match things.services.take(name("service")?) {
            Some(service) => {
                close_service(&service).await?;
                Ok(Value::Null)
            }
            None => Ok(Value::Null),
        },
        "crowd" => {
            let crowd = gather(things, command).await?;
            things.crowds.put(name("crowd")?, crowd);
            Ok(Value::Null)
        }
        "crowd_states" => {
            let crowd = things.crowds.get(name("crowd")?)?;
            Ok(json!(count(crowd.iter().map(|(_, registration)| word(registration.state())))))
        }
        "close_crowd" => match things.crowds.take(name("crowd")?) {
            Some(crowd) => {
                disperse(&crowd).await?;
                Ok(Value::Null)
            }
            None => Ok(Value::Null),
        },
        other => Err(failed("Unknown", format!("there is no command {other:?}"))),
    }
}

/// Closes what is left, each as the library closes it.
pub(crate) async fn close_all(things: &Things) {
    for service in things.services.take_all() {
        let _ = close_service(&service).await;
    }
    for crowd in things.crowds.take_all() {
        let _ = disperse(&crowd).await;
    }
    things.caches.take_all();
    for registry in things.registries.take_all() {
        (*registry).clone().close().await;
    }
}

async fn close_service(service: &Service) -> Result<(), Failed> {
    service.registration().close().await?;
    service.registry().clone().close().await;
    Ok(())
}

async fn next(things: &Things, command: &Value) -> Result<Value, Failed> {
    let deadline = deadline(command)?;
    let watch = things.watches.get(text(command, "watch")?)?;
    let mut watch = watch.lock().await;
    let (mut changes, mut position) = (Vec::new(), None);
    if let Some(watch) = &mut *watch {
        while changes.len() < command["count"].as_u64().unwrap_or(1) as usize {
            match timeout_at(deadline, watch.next()).await {
                Ok(Some(change)) => changes.push(change_as_json(&change?)),
                Ok(None) | Err(_) => break,
            }
        }
        position = watch.position().map(|at| json!({ "epoch": at.epoch, "revision": at.revision }));
    }
    Ok(json!({ "changes": changes, "position": position }))
}

fn change_as_json(change: &Change) -> Value {
    json!({ "type": change.kind.as_str(), "id": change.id(), "record": shown(&change.record),
            "epoch": change.position.epoch, "revision": change.position.revision, "synthesized": change.synthesized })
}

fn shown(record: &Record) -> Value {
    Value::Object(record.fields().clone())
}

fn shown_connectivity(now: &Connectivity) -> Value {
    let (endpoint, local_address) = match now {
        Connectivity::Connected { endpoint, local_address, .. } => {
            (Some(format!("tcp://{endpoint}")), local_address.map(|address| address.to_string()))
        }
        _ => (None, None),
    };
    json!({ "endpoint": endpoint, "local_address": local_address, "text": now.to_string() })
}

fn deadline(command: &Value) -> Result<Instant, Failed> {
    Ok(Instant::now() + time(&command["timeout"], "timeout")?.unwrap_or(PATIENCE))
}

fn state_of(registration: &Registration) -> Value {
    json!({ "id": registration.id(), "generation": registration.generation(), "state": word(registration.state()),
            "error": registration.error().map(|error| error.to_string()) })
}

fn word(state: State) -> &'static str {
    match state {
        State::Registered => "registered",
        State::Unsure => "unsure",
        State::Refused => "refused",
        State::Deregistered => "deregistered",
        State::Replaced => "replaced",
        State::Closed => "closed",
        _ => "of a newer library",
    }
}

/// Many clients, each with a service.
async fn gather(things: &Things, command: &Value) -> Result<Vec<(Registry, Registration)>, Failed> {
    let name = text(command, "crowd")?;
    let mut coming = JoinSet::new();
    for number in 0..command["count"].as_u64().unwrap_or_default() {
        let registry = settings(things, name, command)?.connect()?;
        let mut one = command.clone();
        one["name"] = json!(format!("{name}-{number}"));
        one["id"] = one["name"].clone();
        one["port"] = json!(4000 + number);
        let service = service(&one)?;
        coming.spawn(async move {
            let registration = registry.register(service).await?;
            Ok::<_, registry_client::Error>((registry, registration))
        });
    }
    let all = coming.join_all().await.into_iter();
    Ok(all.collect::<Result<_, _>>()?)
}

async fn disperse(crowd: &[(Registry, Registration)]) -> Result<(), Failed> {
    let mut going = JoinSet::new();
    for (registry, _) in crowd {
        going.spawn(registry.clone().close());
    }
    going.join_all().await;
    Ok(())
}
