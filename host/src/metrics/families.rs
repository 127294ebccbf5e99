//! The table of all that is shown: names and units by Prometheus' conventions, and how each comes to its values.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::protocol::event::EventKind;
use crate::protocol::reply::Code;
use crate::registry::{Counts, Figures};

use super::cells::Number;
use super::process::Process;
use super::text::Samples;
use super::{Kind, Metrics, PER_SECOND, Transport};

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";

/// What is shown together under one name.
struct Family {
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Seen, &mut Samples),
}

/// Everything, at one moment.
struct Seen<'m> {
    metrics: &'m Metrics,
    core: Arc<Figures>,
    process: Process,
}

/// All of it.
pub(super) fn shown(metrics: &Metrics) -> String {
    let seen = Seen { metrics, core: metrics.core(), process: Process::read() };
    let mut text = String::with_capacity(64 * 1024);
    for Family { name, kind, labels, help, samples } in FAMILIES {
        samples(&seen, &mut Samples::begin(&mut text, (name, kind, help), labels));
    }
    text
}

/// The table as it is documented.
#[cfg(test)]
pub(super) fn rows() -> impl Iterator<Item = String> {
    FAMILIES.iter().map(|Family { name, kind, labels, help, .. }| {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{} ", labels.join(", ")) };
        format!("| `{name}` | {kind} | {labels}| {help} |")
    })
}

const fn family(
    (name, kind): (&'static str, &'static str),
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Seen, &mut Samples),
) -> Family {
    Family { name, kind, labels, help, samples }
}

fn seconds(nanoseconds: &Number) -> f64 {
    nanoseconds.get() as f64 / PER_SECOND
}

fn by_state(samples: &mut Samples, service_type: Option<&str>, counts: Counts) {
    let states = [("passing", counts.passing), ("drained", counts.drained), ("critical", counts.critical)];
    for (state, count) in states {
        let values: Vec<&str> = service_type.into_iter().chain([state]).collect();
        samples.one(&values, count);
    }
}

fn by_result(samples: &mut Samples, [good, bad]: &[Number; 2]) {
    samples.one(&["ok"], good.get());
    samples.one(&["failed"], bad.get());
}

fn fronts<'m>(seen: &Seen<'m>) -> [(&'static str, &'m Transport); 2] {
    [("zeromq", &seen.metrics.zeromq), ("http", &seen.metrics.http)]
}

static FAMILIES: &[Family] = &[
    family(("registry_build_info", GAUGE), &["version"], "1, with the version of the registry", |_, samples| {
        samples.one(&[env!("CARGO_PKG_VERSION")], 1)
    }),
    family(
        ("registry_requests_total", COUNTER),
        &["action", "code"],
        "Requests that were answered, over ZeroMQ and HTTP; code is ok, or why it failed",
        |seen, samples| {
            for (asked, code, count) in seen.metrics.requests.iter() {
                samples.one(&[asked.as_str(), code.map_or("ok", Code::as_str)], count);
            }
        },
    ),
    family(
        ("registry_request_seconds", HISTOGRAM),
        &["kind"],
        "From when the serving thread took a request to when its turn was over, or its reply was there; those that are \
         meant to wait are left out",
        |seen, samples| {
            for (kind, histogram) in Kind::ALL.iter().zip(&seen.metrics.latency) {
                samples.all(&[kind.as_str()], histogram);
            }
        },
    ),
    family(
        ("registry_http_responses_total", COUNTER),
        &["status"],
        "Responses over HTTP, those among them that never came to the registry",
        |seen, samples| {
            for (status, number) in seen.metrics.statuses.iter().enumerate().filter(|(_, number)| number.get() > 0) {
                samples.one(&[&status.to_string()], number.get());
            }
        },
    ),
    family(
        ("registry_connections", GAUGE),
        &["front"],
        "Clients that are connected: for requests, heartbeats and events over ZeroMQ, and over HTTP",
        |seen, samples| {
            let Metrics { zeromq, http, .. } = seen.metrics;
            for (front, number) in ["requests", "heartbeats", "events"].iter().zip(&zeromq.connections) {
                samples.one(&[front], number.get());
            }
            samples.one(&["http"], http.connections[0].get());
        },
    ),
    family(("registry_client_waiting_bytes", GAUGE), &["front"], "What waits for and from clients", |seen, samples| {
        fronts(seen).iter().for_each(|(front, all)| samples.one(&[front], all.waiting[0].get()))
    }),
    family(
        ("registry_client_waiting_limit_bytes", GAUGE),
        &["front"],
        "How much of it may wait: limits.buffered_bytes and http.buffered_bytes",
        |seen, samples| fronts(seen).iter().for_each(|(front, all)| samples.one(&[front], all.waiting[1].get())),
    ),
    family(
        ("registry_client_incidents_total", COUNTER),
        &["front", "incident", "reason"],
        "Clients that went too far: connections that were refused, handshakes that failed, clients that were cut off, \
         events that were missed",
        |seen, samples| {
            for (front, all) in fronts(seen) {
                for (incident, reason, count) in all.incidents.all() {
                    samples.one(&[front, incident.as_str(), reason], count);
                }
            }
        },
    ),
    family(
        ("registry_quota_refused_total", COUNTER),
        &["quota", "limit"],
        "What quotas have refused, by their names: limit is services or requests",
        |seen, samples| {
            for (quota, counts) in &seen.core.refused_by_quota {
                for (limit, count) in ["services", "requests"].iter().zip(counts) {
                    samples.one(&[quota, limit], *count);
                }
            }
        },
    ),
    family(
        ("registry_services", GAUGE),
        &["state"],
        "Services that can be discovered, are drained, or have run out",
        |seen, samples| by_state(samples, None, seen.core.services),
    ),
    family(
        ("registry_services_by_type", GAUGE),
        &["type", "state"],
        "The same by type, for the 100 types with the most services; a service may have several",
        |seen, samples| {
            for (name, counts) in &seen.core.by_type.largest {
                by_state(samples, Some(name), *counts);
            }
        },
    ),
    family(
        ("registry_services_of_other_types", GAUGE),
        &["state"],
        "The same for all other types together, and for those with names of more than 128 bytes",
        |seen, samples| by_state(samples, None, seen.core.by_type.others),
    ),
    family(("registry_service_types", GAUGE), &[], "Types that services have", |seen, samples| {
        samples.one(&[], seen.core.types);
    }),
    family(("registry_services_bytes", GAUGE), &[], "About how much memory all services take", |seen, samples| {
        samples.one(&[], seen.core.services_bytes);
    }),
    family(
        ("registry_changes_total", COUNTER),
        &["change"],
        "Services that were registered or changed, deregistered, or expired",
        |seen, samples| {
            for (kind, number) in EventKind::ALL.iter().zip(&seen.metrics.changes) {
                samples.one(&[kind.as_str()], number.get());
            }
        },
    ),
    family(("registry_revision", GAUGE), &[], "The revision of the last change", |seen, samples| {
        samples.one(&[], seen.core.revision);
    }),
    family(
        ("registry_mass_expiries_total", COUNTER),
        &[],
        "How often so many services ran out together that they were held",
        |seen, samples| samples.one(&[], seen.core.mass_expiries.0),
    ),
    family(
        ("registry_mass_expiry", GAUGE),
        &[],
        "1 while services are held that have run out together",
        |seen, samples| samples.one(&[], u8::from(seen.core.mass_expiries.1)),
    ),
    family(
        ("registry_silence", GAUGE),
        &[],
        "1 while no service is heard of, though heartbeats are due",
        |seen, samples| samples.one(&[], u8::from(seen.core.is_silent)),
    ),
    family(
        ("registry_storage_info", GAUGE),
        &["plugin", "epoch"],
        "1, with the storage plugin in charge, and the name of the history that revisions count in",
        |seen, samples| samples.one(&[&seen.core.plugin, &seen.core.epoch], 1),
    ),
    family(
        ("registry_storage_failing_seconds", GAUGE),
        &[],
        "For how long the storage has been failing or stalled; 0 if it works",
        |seen, samples| samples.one(&[], seen.core.stale_ms.map_or(0.0, |ms| ms.max(1) as f64 / 1000.0)),
    ),
    family(
        ("registry_storage_failures_total", COUNTER),
        &[],
        "Groups of changes that the storage failed to store",
        |seen, samples| samples.one(&[], seen.metrics.failures.get()),
    ),
    family(
        ("registry_storage_commit_seconds", HISTOGRAM),
        &[],
        "How long the storage took for a group of changes",
        |seen, samples| samples.all(&[], &seen.metrics.commits),
    ),
    family(
        ("registry_storage_group_changes", HISTOGRAM),
        &[],
        "How many changes a group has that goes to the storage, heartbeats among them",
        |seen, samples| samples.all(&[], &seen.metrics.groups),
    ),
    family(
        ("registry_storage_queue_changes", GAUGE),
        &[],
        "Changes that wait for their turn with the storage",
        |seen, samples| samples.one(&[], seen.core.queue.0),
    ),
    family(("registry_storage_waiting_clients", GAUGE), &[], "Clients that wait for the storage", |seen, samples| {
        samples.one(&[], seen.core.queue.1);
    }),
    family(("registry_watchers", GAUGE), &[], "Clients that wait for changes to come", |seen, samples| {
        samples.one(&[], seen.core.watchers.0)
    }),
    family(
        ("registry_watchers_behind", GAUGE),
        &[],
        "Those among them for whom some have come, and who have not been told yet",
        |seen, samples| samples.one(&[], seen.core.watchers.1),
    ),
    family(
        ("registry_watch_lag_changes", GAUGE),
        &[],
        "Changes that no watcher may be told of yet, since one before them is in doubt",
        |seen, samples| samples.one(&[], seen.core.untold_changes),
    ),
    family(("registry_waiting_discoveries", GAUGE), &[], "Clients that wait for a service to come", |seen, samples| {
        samples.one(&[], seen.core.waiting_discoveries);
    }),
    family(("registry_waiting_lists", GAUGE), &[], "Clients that wait for a long list", |seen, samples| {
        samples.one(&[], seen.core.waiting_lists);
    }),
    family(("registry_history_changes", GAUGE), &[], "Recent changes that are kept for watchers", |seen, samples| {
        samples.one(&[], seen.core.history.0);
    }),
    family(("registry_history_bytes", GAUGE), &[], "About how much memory they take", |seen, samples| {
        samples.one(&[], seen.core.history.1);
    }),
    family(
        ("registry_config_reloads_total", COUNTER),
        &["result"],
        "How often the configuration was read again to be taken over",
        |seen, samples| by_result(samples, &seen.metrics.reloads),
    ),
    family(("registry_storage_swaps_total", COUNTER), &["result"], "Moves to another storage", |seen, samples| {
        by_result(samples, &seen.metrics.swaps)
    }),
    family(
        ("registry_restores_total", COUNTER),
        &["result"],
        "Backups put in place of all services",
        |seen, samples| by_result(samples, &seen.metrics.restores),
    ),
    family(
        ("registry_held_up_seconds_total", COUNTER),
        &[],
        "For how long the host was stopped, swapped out or starved; gaps of less than a second are left out",
        |seen, samples| samples.one(&[], seconds(&seen.metrics.held_up)),
    ),
    family(
        ("registry_http_certificate_expiry_timestamp_seconds", GAUGE),
        &[],
        "When the certificate of HTTP runs out, in seconds since the Unix epoch; 0 if there is none",
        |seen, samples| samples.one(&[], seen.metrics.certificate_until.get()),
    ),
    family(
        ("registry_ready", GAUGE),
        &[],
        "1 if the registry has its services and its storage works",
        |seen, samples| {
            let is_ready = !seen.core.is_starting && seen.core.stale_ms.is_none() && !seen.core.epoch.is_empty();
            samples.one(&[], u8::from(is_ready));
        },
    ),
    family(("process_cpu_seconds_total", COUNTER), &[], "Time on a processor", |seen, samples| {
        samples.one(&[], seen.process.cpu_seconds);
    }),
    family(("process_resident_memory_bytes", GAUGE), &[], "Memory that is in use", |seen, samples| {
        samples.one(&[], seen.process.resident_bytes);
    }),
    family(("process_open_fds", GAUGE), &[], "Open files and sockets", |seen, samples| {
        samples.one(&[], seen.process.open_fds);
    }),
    family(("process_max_fds", GAUGE), &[], "How many may be open, if there is a limit", |seen, samples| {
        seen.process.fds_max.into_iter().for_each(|max| samples.one(&[], max));
    }),
    family(("process_threads", GAUGE), &[], "Threads", |seen, samples| samples.one(&[], seen.process.threads)),
    family(
        ("process_start_time_seconds", GAUGE),
        &[],
        "When the host began to serve, in seconds since the Unix epoch",
        |seen, samples| {
            let began = seen.metrics.began.duration_since(UNIX_EPOCH).unwrap_or_default();
            samples.one(&[], began.as_secs_f64());
        },
    ),
];
