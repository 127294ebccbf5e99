//! `registry serve`: from a configuration to a running server.
//!
//! Whatever can be wrong is found before anybody is served, in the order of what it costs to find: the plugin, the
//! ports, the store.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::config::{Loaded, Transport};
use crate::fronts::Listeners;
use crate::fronts::zeromq::ZeroMq;
use crate::plugin::{self, Plugin};
use crate::registry::{About, Now, Policy, Registry};
use crate::security::guard::Security;
use crate::server::clock::Clock;
use crate::server::signals::{self, Stop};
use crate::server::{Server, warn_of_unreadable};
use crate::store::{Contents, Store};
use crate::transport::zmtp::Zmtp;

type Failure = Box<dyn Error + Send + Sync>;

/// Runs the server until it is told to stop.
///
/// # Errors
/// Why it could not start, or what was lost when it stopped: one line.
pub fn run(mut loaded: Loaded) -> Result<(), Failure> {
    crate::log::start(&loaded.config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    {
        let _within = runtime.enter();
        signals::ignore_others()?;
    }
    let version = env!("CARGO_PKG_VERSION");
    match &loaded.file {
        Some(file) => tracing::info!("registry {version}, configured by {}", file.display()),
        None => tracing::info!("registry {version}, configured by defaults: there is no registry.toml here"),
    }
    for (is_slip, line) in loaded.unused_options() {
        if is_slip { tracing::warn!("{line}") } else { tracing::info!("{line}") }
    }
    let security = Security::load(&loaded.config.security)?;
    security.news().log();
    loaded.config.limits.connections = crate::open_files::raise(loaded.config.limits.connections);
    let plugin = load_plugin(&loaded)?;
    let config = loaded.config;
    let backend = plugin.info().name.clone();
    let watches = plugin.info().capabilities.has(registry_plugin_api::Capabilities::NONE.watches());
    let balances = plugin.info().capabilities.has(registry_plugin_api::Capabilities::NONE.balances());
    let listeners = Listeners::bind(&config.server)?;
    let began = Instant::now();
    let failed = |error| format!("the storage {backend} cannot be opened: {error}");
    let options = config.backend.options.clone();
    let (store, contents) = Store::open(plugin, options, config.backend.call_timeout()).map_err(failed)?;

    let policy = Policy {
        enforce_unique_service_types: config.server.enforce_unique_service_types,
        allow_terminate: config.server.allow_terminate,
        reply_timeout_ms: millis(config.backend.reply_timeout()),
        call_timeout_ms: millis(config.backend.call_timeout()),
        cleanup_interval_ms: millis(config.server.cleanup_interval()),
        pending_changes_max: config.server.pending_changes_max as usize,
        pending_bytes_max: config.limits.pending_bytes as usize,
        services_bytes_max: config.limits.services_bytes as usize,
        balances,
        watches,
        access: config.security.access(),
    };
    let about = About {
        req_port: listeners.requests.local_addr()?.port(),
        pub_port: listeners.events.local_addr()?.port(),
        heartbeat_port: listeners.heartbeats.local_addr()?.port(),
        version: version.into(),
        plugin: backend,
    };
    let endpoint = |port: u16| format!("tcp://{}:{port}", show_address(&config.server.bind));
    let endpoints = [endpoint(about.req_port), endpoint(about.pub_port), endpoint(about.heartbeat_port)];
    let [requests, events, heartbeats] = endpoints;
    let described = security.describe();
    let announce = || {
        tracing::info!("{described}");
        if let Some(directory) = &config.server.ipc_dir {
            let directory = directory.display();
            tracing::info!("ipc://{directory}/requests, ipc://{directory}/events, ipc://{directory}/heartbeats");
        }
        tracing::info!("requests on {requests}, events on {events}, heartbeats on {heartbeats}");
    };
    let limits = config.limits.for_requests(about.req_port);
    let serve = async {
        let stop = Stop::listen()?.wait();
        match config.server.transport {
            Transport::Zmtp => {
                let registry = load_registry(policy, about, contents, began);
                // Time begins when everything is loaded.
                let clock = Clock::start();
                let transport = Zmtp::serve(listeners, config.limits.for_transport(&config.server), security.clone())?;
                announce();
                Server::new(transport, store, registry, clock, limits, security).run(stop).await?;
            }
            Transport::ZeroMq => {
                let registry = load_registry(policy, about, contents, began);
                let clock = Clock::start();
                let batch_max = config.server.receive_high_water_mark as usize;
                let transport = ZeroMq::serve(listeners, batch_max).await?;
                announce();
                Server::new(transport, store, registry, clock, limits, security).run(stop).await?;
            }
        }
        Ok(())
    };
    // One thread for all of it: connections need no locks among themselves.
    let served = tokio::task::LocalSet::new().block_on(&runtime, serve);
    // A look at a file that hangs, on a disk that is away, has nothing to keep the end waiting for.
    runtime.shutdown_background();
    served
}

/// The core with what the store holds.
fn load_registry<C>(policy: Policy, about: About, contents: Contents, began: Instant) -> Registry<C> {
    let Contents { epoch, revision, records } = contents;
    let mut registry = Registry::new(policy, about, epoch, revision, rand::make_rng());
    let load = |record| registry.load(record, Now::default()).err();
    let unreadable: Vec<_> = records.into_iter().filter_map(load).collect();
    warn_of_unreadable(&unreadable);
    let services = crate::log::counted(registry.len(), "service", "services");
    tracing::info!("{services} loaded in {} ms", began.elapsed().as_millis());
    registry
}

/// Finds and loads the configured plugin, and checks its options.
pub(crate) fn load_plugin(loaded: &Loaded) -> Result<Plugin, Failure> {
    let config = &loaded.config;
    let path = plugin::find(&config.backend.plugin, config.backend.plugin_dir.as_deref())?;
    let plugin = Plugin::load(&path)?;
    let info = plugin.info();
    let (name, version, capabilities) = (&info.name, &info.version, info.capabilities.names());
    tracing::info!("storage {name} {version} ({}), from {}", words(&capabilities), plugin.path().display());
    loaded.check_options(&plugin)?;
    Ok(plugin)
}

fn words(capabilities: &[&str]) -> String {
    if capabilities.is_empty() { "not durable".into() } else { capabilities.join(", ") }
}

fn show_address(bind: &str) -> String {
    if bind.contains(':') { format!("[{bind}]") } else { bind.to_string() }
}

/// In milliseconds, and never none: the configuration allows no less.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
