//! `registry serve`: from a configuration to a running server.
//!
//! Whatever can be wrong is found in the order of what it costs to find: the keys and the plugin ([`prepare`]), the ports
//! ([`bind`]), the store. While that is opened, clients are told that the registry is starting (see [`starting`]); only
//! then does the log say where they are served ([`announce`]).
//!
//! [`starting`]: super::starting

use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry_plugin_api::Capabilities;

use crate::config::{self, Config, Loaded, Transport as TransportName};
use crate::fronts::both::Both;
use crate::fronts::http::Http;
use crate::fronts::http::live::{Basis, Steering};
use crate::fronts::metered::Metered;
use crate::fronts::zeromq::ZeroMq;
use crate::fronts::zmtp::Zmtp;
use crate::fronts::{self, BindError, Front, Listeners, Messages};
use crate::log::audit::Audit;
use crate::metrics::Metrics;
use crate::plugin::{self, Plugin};
use crate::registry::{About, Policy, Promises, Unreadable};
use crate::security::guard::Guard;
use crate::security::tls::Tls;
use crate::server::Server;
use crate::server::reload::Settings;
use crate::server::signals::{self, Stop};
use crate::server::starting::Starting;
use crate::store::{HistoryMax, Purpose, Store};
use crate::text::{counted, one_line, quoted};

/// How many records that cannot be read the log shows one by one.
const UNREADABLE_SHOWN_MAX: usize = 5;

type Failure = Box<dyn Error + Send + Sync>;

/// Runs the server until it is told to stop.
///
/// # Errors
/// Why it could not start, or what was lost when it stopped: one line.
pub(crate) fn run(loaded: Loaded) -> Result<(), Failure> {
    crate::log::start(&loaded.config.log)?;
    let served = start(loaded);
    crate::log::flush();
    served
}

fn start(loaded: Loaded) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    {
        let _within = runtime.enter();
        signals::ignore_others()?;
    }
    let (ports, bound) = bind(prepare(loaded)?)?;
    // One thread for all of it: connections need no locks among themselves.
    let served = tokio::task::LocalSet::new().block_on(&runtime, serve(ports, bound));
    // A look at a key file may hang, on a disk that is away: the end does not wait for it.
    runtime.shutdown_background();
    served
}

/// What is needed to serve, with nothing opened yet.
struct Prepared {
    loaded: Loaded,
    config: Config,
    /// Somebody has said which port HTTP is to have.
    has_http_port: bool,
    guard: Guard,
    tls: Option<Arc<Tls>>,
    plugin: Plugin,
}

/// The ports, bound.
struct Ports {
    listeners: Listeners,
    http: Option<TcpListener>,
}

/// All that serves, but for the ports and the store.
struct Bound {
    loaded: Loaded,
    config: Config,
    guard: Guard,
    tls: Option<Arc<Tls>>,
    plugin: Plugin,
    policy: Policy,
    promises: Promises,
    about: About,
}

fn prepare(loaded: Loaded) -> Result<Prepared, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match &loaded.file {
        Some(file) => tracing::info!("registry {version}, configured by {}", file.display()),
        None => tracing::info!("registry {version}, configured by defaults: there is no registry.toml here"),
    }
    for (is_slip, line) in loaded.unused_options() {
        if is_slip { tracing::warn!("{line}") } else { tracing::info!("{line}") }
    }
    let guard = Guard::load(&loaded.config.security)?;
    guard.news().log();
    let tls = loaded.config.http.enabled.then(|| Tls::load(&loaded.config.http)).transpose()?.flatten();
    warn_of(tls.as_deref());
    warn_of_quotas(&loaded.config, &guard);
    let plugin = load_plugin(&loaded)?;
    let has_http_port = loaded.is_set("http.port");
    let mut config = loaded.config.clone();
    let for_http = if config.http.enabled { config.http.connections } else { 0 };
    (config.limits.connections, config.http.connections) =
        crate::open_files::raise(config.limits.connections, for_http);
    Ok(Prepared { loaded, config, has_http_port, guard, tls, plugin })
}

/// Tells of quotas that are for nobody: a slip there bounds nothing, and nobody would notice.
pub(super) fn warn_of_quotas(config: &Config, guard: &Guard) {
    let lines = config.quotas_for_nobody(|key| guard.name(key).is_some());
    lines.iter().for_each(|line| tracing::warn!("{line}"));
}

/// Finds and loads the configured plugin, and checks its options.
pub(crate) fn load_plugin(loaded: &Loaded) -> Result<Plugin, Failure> {
    let config = &loaded.config;
    let path = plugin::find(&config.backend.plugin, config.backend.plugin_dir.as_deref())?;
    let plugin = Plugin::load(&path)?;
    loaded.check_options(&plugin)?;
    let (name, version) = (&plugin.info().name, &plugin.info().version);
    let capabilities = plugin.capabilities(&config.backend.options)?.names();
    tracing::info!("storage {name} {version} ({}), from {}", words(&capabilities), plugin.path().display());
    Ok(plugin)
}

fn bind(prepared: Prepared) -> Result<(Ports, Bound), Failure> {
    let Prepared { loaded, config, has_http_port, guard, tls, plugin } = prepared;
    let listeners = Listeners::bind(&config.server)?;
    let http = bind_http(&config.http, has_http_port)?;
    let about = About {
        req_port: listeners.requests.local_addr()?.port(),
        pub_port: listeners.events.local_addr()?.port(),
        heartbeat_port: listeners.heartbeats.local_addr()?.port(),
        http_port: http.as_ref().map(TcpListener::local_addr).transpose()?.map(|address| address.port()),
        version: env!("CARGO_PKG_VERSION").into(),
        plugin: plugin.info().name.clone(),
    };
    let policy = policy(&config);
    let capabilities = plugin.capabilities(&config.backend.options)?;
    let [balances, history] = [Capabilities::NONE.balances(), Capabilities::NONE.history()];
    let promises = Promises { balances: capabilities.has(balances), history: capabilities.has(history) };
    Ok((Ports { listeners, http }, Bound { loaded, config, guard, tls, plugin, policy, promises, about }))
}

/// Binds the port for HTTP. If nobody has asked for it, and somebody else has it, there is none: who runs a second
/// registry beside another need not know of it.
fn bind_http(http: &config::Http, is_set: bool) -> Result<Option<TcpListener>, BindError> {
    match fronts::bind_http(http) {
        Err(error) if error.is_taken() && !is_set => {
            tracing::warn!("there is no HTTP: {error}; http.port = 0 takes a free port, http.enabled = false none");
            Ok(None)
        }
        bound => bound,
    }
}

pub(super) fn policy(config: &Config) -> Policy {
    Policy {
        enforce_unique_service_types: config.server.enforce_unique_service_types,
        allow_terminate: config.server.allow_terminate,
        allow_swap: config.server.allow_swap,
        reply_timeout_ms: millis(config.backend.reply_timeout()),
        call_timeout_ms: millis(config.backend.call_timeout()),
        cleanup_interval_ms: millis(config.server.cleanup_interval()),
        pending_changes_max: config.server.pending_changes_max as usize,
        pending_bytes_max: config.limits.pending_bytes as usize,
        services_bytes_max: config.limits.services_bytes as usize,
        access: config.access(),
        following: config.following(),
        mass_expiry_share: config.server.mass_expiry_share,
        mass_expiry_hold_ms: millis(config.server.mass_expiry_hold()),
    }
}

/// Tells operators where clients are served, and how they are told apart.
pub(super) fn announce(config: &Config, guard: &Guard, about: &About) {
    tracing::info!("{}", guard.describe());
    if let Some(directory) = &config.server.ipc_dir {
        let directory = directory.display();
        tracing::info!("ipc://{directory}/requests, ipc://{directory}/events, ipc://{directory}/heartbeats");
    }
    if let Some(port) = about.http_port {
        let http = &config.http;
        let certificates = http.client_ca_file.is_some().then_some("certificates");
        let proof = match (http.tokens.len(), certificates, guard) {
            (0, None, Guard::Null) => String::new(),
            (0, None, Guard::Curve(_)) => ", for probes only: there are no http.tokens".to_string(),
            (0, Some(certificates), _) => format!(", for {certificates}"),
            (count, None, _) => format!(", for {}", counted(count, "token", "tokens")),
            (count, Some(certificates), _) => format!(", for {} and {certificates}", counted(count, "token", "tokens")),
        };
        let scheme = if http.certificate_file.is_some() { "https" } else { "http" };
        tracing::info!("HTTP on {scheme}://{}:{port}{proof}", show_address(&http.bind));
    }
    let address = show_address(&config.server.bind);
    let [requests, events, heartbeats] = [about.req_port, about.pub_port, about.heartbeat_port];
    tracing::info!(
        "requests on tcp://{address}:{requests}, events on tcp://{address}:{events}, \
         heartbeats on tcp://{address}:{heartbeats}"
    );
}

/// Tells operators of certificates that they should look at.
pub(super) fn warn_of(tls: Option<&Tls>) {
    tls.into_iter().flat_map(Tls::warnings).for_each(|warning| tracing::warn!("{warning}"));
}

/// Serves by the configured fronts.
async fn serve(ports: Ports, bound: Bound) -> Result<(), Failure> {
    let Ports { listeners, http } = ports;
    let Config { server, limits, .. } = &bound.config;
    let requests = limits.for_requests(bound.about.req_port);
    let metrics = Arc::<Metrics>::default();
    let basis = Basis { req_port: bound.about.req_port, has_keys: matches!(bound.guard, Guard::Curve(_)) };
    let serve_http = |http| Http::serve(http, &bound.config, bound.tls.clone(), basis, metrics.clone());
    let (http, steering) = http.map(serve_http).transpose()?.unzip();
    match server.transport {
        TransportName::Zmtp => {
            let transport = Zmtp::serve(listeners, limits.for_transport(server), bound.guard.clone(), metrics.clone())?;
            serve_by(Both::of(Messages::over(transport, requests), http), steering, metrics, bound).await
        }
        TransportName::ZeroMq => {
            let transport = ZeroMq::serve(listeners, server.receive_high_water_mark as usize).await?;
            serve_by(Both::of(Messages::over(transport, requests), http), steering, metrics, bound).await
        }
    }
}

async fn serve_by<F: Front>(
    front: F,
    http: Option<Steering>,
    metrics: Arc<Metrics>,
    bound: Bound,
) -> Result<(), Failure> {
    let Bound { loaded, config, guard, plugin, policy, promises, about, .. } = bound;
    let stop = Stop::listen()?.wait();
    let audit = Audit::begin(config.log.audit.as_deref())?;
    let settings = Settings::new(loaded.config.clone(), loaded, http)?;
    let began = Instant::now();
    let (options, call_timeout) = (config.backend.options.clone(), config.backend.call_timeout());
    let reopened = config.backend.reopen_closed;
    let history = promises.history.then_some(HistoryMax {
        changes: config.events.history_changes as usize,
        bytes: config.events.history_bytes as usize,
    });
    let store = Store::begin(plugin, options, call_timeout, history, Purpose::Serve { reopened })?;
    let starting = Starting::new(config, policy, promises, about, began);
    let front = Metered::over(front, metrics.clone());
    let server = Server::start(front, store, starting, Some(settings), audit, guard).counted_by(metrics);
    Ok(server.run(stop).await?)
}

/// What operators are told of records that the registry leaves out: the first few, and how many more there are.
pub(super) fn unreadable_lines(unreadable: &[Unreadable]) -> Vec<String> {
    let line = |Unreadable { id, reason }: &Unreadable| {
        format!("the stored service {} is left out, it cannot be read: {}", quoted(id), one_line(reason))
    };
    let (shown, others) = unreadable.split_at(unreadable.len().min(UNREADABLE_SHOWN_MAX));
    let mut lines: Vec<String> = shown.iter().map(line).collect();
    if !others.is_empty() {
        let more = counted(others.len(), "more stored service is", "more stored services are");
        lines.push(format!("{more} left out: unreadable, too; log.level \"debug\" shows each"));
        others.iter().for_each(|other| tracing::debug!("{}", line(other)));
    }
    lines
}

fn words(capabilities: &[&str]) -> String {
    if capabilities.is_empty() { "not durable".into() } else { capabilities.join(", ") }
}

fn show_address(bind: &str) -> String {
    if bind.contains(':') { format!("[{bind}]") } else { bind.to_string() }
}

/// In milliseconds, and never none: the configuration allows no less.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_port_that_is_taken_is_no_reason_not_to_serve() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut http = config::Http { port: taken.local_addr().unwrap().port(), ..config::Http::default() };
        assert!(bind_http(&http, false).unwrap().is_none());
        assert!(bind_http(&http, true).unwrap_err().is_taken());
        http.bind = "192.0.2.1".into();
        let elsewhere = bind_http(&http, false).unwrap_err().to_string();
        assert!(elsewhere.ends_with("; http.bind is no address of this machine"), "{elsewhere}");
        http.enabled = false;
        assert!(bind_http(&http, true).unwrap().is_none());
    }

    #[test]
    fn many_records_that_cannot_be_read_make_few_lines() {
        let unreadable = |number| Unreadable { id: format!("s{number}\n"), reason: "it\nis bad".into() };
        let lines = |count| unreadable_lines(&(0..count).map(unreadable).collect::<Vec<_>>());
        assert!(lines(0).is_empty());
        assert_eq!(lines(1), ["the stored service \"s0\\n\" is left out, it cannot be read: it\\nis bad"]);
        assert_eq!(lines(5).len(), 5);
        assert_eq!(lines(6)[5], "1 more stored service is left out: unreadable, too; log.level \"debug\" shows each");
        assert_eq!(lines(10_000).len(), 6);
    }
}
