//! Taking over a configuration that has changed, while clients are served: by SIGHUP, or because a client asks for it.
//!
//! It is read on a thread of its own, since disks may hang. What can be used is taken over all at once, between two
//! turns of the loop; if anything is wrong, nothing is. What takes a restart is named and stays as it is.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::Server;
use super::start::{policy, warn_of};
use super::swap::{Terms, To};
use crate::config::{Backend, Changed, Config, Loaded, changed};
use crate::fronts::Front;
use crate::fronts::http::live::Steering;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::Swap;
use crate::security::guard::{self, Keys};
use crate::security::tls::Tls;
use crate::text::counted;

/// What clients may do goes by these, and who they are.
const OF_RIGHTS: [&str; 5] =
    ["security.rules", "http.tokens", "http.rules", "http.client_ca_file", "http.client_crl_file"];

/// What is found when the configuration is read again.
pub(super) type Found = Result<Box<Read>, Vec<String>>;

/// A configuration that can be used.
pub(super) struct Read {
    loaded: Loaded,
    /// The registry's keys and its clients', if they have some.
    keys: Option<Keys>,
    /// What TLS is spoken with.
    tls: Option<Arc<Tls>>,
}

/// What the server is configured by, and who wants it to be read again.
pub(super) struct Settings<C> {
    /// What is in force, but for the storage: as it was configured when that was last looked at.
    config: Config,
    /// The storage that is in charge, and how it is described if a client has had the registry moved there.
    in_charge: Backend,
    moved_to: Option<String>,
    loaded: Loaded,
    /// What HTTP is served by, if it is.
    http: Option<Steering>,
    hangup: Signal,
    /// Who asks, and whether each only wants to know what would change: what they asked for is being read.
    asking: Vec<(C, bool)>,
    /// Those who have asked since, for whom it is read once more.
    next: Vec<(C, bool)>,
    /// Whether the operator has asked by a signal: by the one that is under way, and since.
    by_signal: (bool, bool),
    under_way: Option<JoinHandle<Found>>,
}

impl<C> Settings<C> {
    /// What is in force, and where it was read from. To be called within a runtime.
    ///
    /// # Errors
    /// The signal cannot be listened to.
    pub(super) fn new(config: Config, loaded: Loaded, http: Option<Steering>) -> std::io::Result<Self> {
        let (hangup, asking, next) = (signal(SignalKind::hangup())?, Vec::new(), Vec::new());
        let in_charge = config.backend.clone();
        let (moved_to, by_signal, under_way) = (None, (false, false), None);
        Ok(Settings { config, in_charge, moved_to, loaded, http, hangup, asking, next, by_signal, under_way })
    }

    /// Waits until the configuration has been read again because somebody has asked for it. Nothing is lost if the
    /// future is dropped before it is ready.
    pub(super) async fn read_again(&mut self) -> Found {
        loop {
            self.begin();
            tokio::select! {
                found = finished(&mut self.under_way) => {
                    self.under_way = None;
                    return found;
                }
                Some(()) = self.hangup.recv() => {
                    tracing::info!("SIGHUP: the configuration is read again");
                    self.by_signal.1 = true;
                }
            }
        }
    }

    /// The registry has moved to this store, because it `is_configured` now or because a client wanted it.
    pub(super) fn set_backend(&mut self, backend: Backend, described: &str, is_configured: bool) {
        let Backend { reply_timeout, reopen_closed, .. } = self.config.backend;
        if is_configured {
            self.config.backend = Backend { reply_timeout, reopen_closed, ..backend.clone() };
        }
        self.in_charge = backend;
        self.moved_to = (!is_configured).then(|| described.to_string());
    }

    /// What a configuration changes. Files of TLS that are others under the same name are among it.
    fn changes(&self, read: &Read) -> Vec<Changed> {
        let mut all = changed(&self.config, &read.loaded.config);
        let before = self.http.as_ref().and_then(Steering::tls);
        for (key, now) in read.tls.iter().flat_map(|tls| tls.files()) {
            let was = before.iter().flat_map(|tls| tls.files()).find(|(known, was)| known == key && was != now);
            let is_named = all.iter().any(|changed| changed.key == *key);
            if let Some((_, was)) = was.filter(|_| !is_named) {
                let values = (was.as_str().into(), now.as_str().into());
                all.push(Changed { key: key.to_string(), values, is_live: true });
            }
        }
        all
    }

    fn begin(&mut self) {
        let is_asked = self.by_signal.1 || !self.next.is_empty();
        if self.under_way.is_none() && is_asked {
            self.by_signal = (self.by_signal.1, false);
            self.asking.append(&mut self.next);
            let (source, config, has_http) = (self.loaded.source.clone(), self.config.clone(), self.http.is_some());
            let in_use = self.http.as_ref().and_then(Steering::tls);
            self.under_way = Some(tokio::task::spawn_blocking(move || {
                let loaded = source.read().map_err(|error| error.problems().to_vec())?;
                let keys = guard::read_again(&loaded.config.security).map_err(|error| vec![error.to_string()])?;
                let tls = if has_http { tls_of(&config.taking_over(&loaded.config), in_use.as_deref())? } else { None };
                Ok(Box::new(Read { loaded, keys, tls }))
            }));
        }
    }
}

/// What TLS is spoken with by this configuration, if that can take the place of what is in use.
fn tls_of(config: &Config, in_use: Option<&Tls>) -> Result<Option<Arc<Tls>>, Vec<String>> {
    config.check_http()?;
    let tls = Tls::load(&config.http).map_err(|error| vec![error.to_string()])?;
    let problem = tls.as_deref().zip(in_use).and_then(|(tls, in_use)| tls.is_worse_than(in_use));
    problem.map_or(Ok(tls), |problem| Err(vec![problem]))
}

async fn finished(under_way: &mut Option<JoinHandle<Found>>) -> Found {
    match under_way {
        // One that panicked has found nothing.
        Some(read) => read.await.unwrap_or_else(|error| Err(vec![format!("it cannot be read: {error}")])),
        None => std::future::pending().await,
    }
}

impl<F: Front> Server<F> {
    /// Takes what clients have asked for.
    pub(super) fn take_reloads(&mut self) {
        for (caller, Swap { file, hold, is_abandoning }) in std::mem::take(&mut self.out.swaps) {
            self.begin_swap(To::File(file.into()), Terms::new(hold, is_abandoning), vec![caller]);
        }
        for (caller, by, step) in std::mem::take(&mut self.out.restores) {
            self.restore(caller, by, step);
        }
        let asked = self.out.reloads.drain(..);
        match &mut self.settings {
            Some(settings) => settings.next.extend(asked),
            None => drop(asked),
        }
    }

    /// Takes over what can be taken over, and tells whoever has asked.
    pub(super) fn reload(&mut self, found: Found) {
        let Some(settings) = &mut self.settings else { return };
        let asking = std::mem::take(&mut settings.asking);
        let is_meant = settings.by_signal.0 || asking.iter().any(|(_, is_trial)| !is_trial);
        let told = match &found {
            Ok(read) => Ok(Told::of(settings, read)),
            Err(problems) => Err(problems.clone()),
        };
        if is_meant {
            let has_failed = told.is_err();
            self.metrics.reloads[usize::from(has_failed)].add(1);
            match &told {
                Ok(told) => told.log(),
                Err(problems) => {
                    problems.iter().for_each(|problem| tracing::error!("{problem}"));
                    tracing::error!("the configuration cannot be used: nothing has been changed");
                }
            }
            let is_swap = told.as_ref().is_ok_and(|told| told.swap.is_some());
            if let Ok(read) = found {
                let loaded = is_swap.then(|| read.loaded.clone());
                self.take_over(*read);
                if let Some(loaded) = loaded {
                    self.begin_swap(To::Loaded(Box::new(loaded)), Terms::new(None, false), Vec::new());
                }
            }
            self.note_outcome(if has_failed { "reload_failed" } else { "reload_done" });
        }
        for (caller, is_trial) in asking {
            let reply = match &told {
                Ok(told) => told.reply(is_trial),
                Err(problems) => refusal(problems),
            };
            self.front.reply(caller, reply);
        }
        self.front.flush();
    }

    fn take_over(&mut self, read: Read) {
        let Some(settings) = &mut self.settings else { return };
        let changes = settings.changes(&read);
        let Read { loaded, keys, tls } = read;
        let mut config = settings.config.taking_over(&loaded.config);
        let reply_timeout = config.backend.reply_timeout;
        config.backend = Backend { reply_timeout, ..settings.in_charge.clone() };
        let for_http = if config.http.enabled { config.http.connections } else { 0 };
        (config.limits.connections, config.http.connections) =
            crate::open_files::raise(config.limits.connections, for_http);
        if let Err(problem) = crate::log::set_level(&config.log.level) {
            tracing::error!("{problem}");
        }
        crate::log::audit::open_anew();
        self.guard.take_over(config.access(), keys);
        self.front.set_limits(&config.limits, &config.server);
        if let Some(http) = &settings.http {
            warn_of(tls.as_deref());
            http.set(&config, tls);
        }
        let has_other_quotas = config.limits.quotas != settings.config.limits.quotas;
        if changes.iter().any(|changed| OF_RIGHTS.contains(&&*changed.key)) {
            // What a client was allowed when it began to wait it may not be now.
            self.end_waits();
            self.registry.begin_watches();
        }
        self.registry.set_policy(policy(&config));
        if has_other_quotas {
            self.registry.set_quotas(config.limits.quotas());
            super::start::warn_of_quotas(&config, &self.guard);
        }
        self.registry.set_service_history_bytes(config.events.service_history_bytes as usize);
        let Some(settings) = &mut self.settings else { return };
        // What is compared with the next time is what was asked for, as far as it is in force.
        settings.config = settings.config.taking_over(&loaded.config);
    }
}

/// What is told of a configuration that can be used.
struct Told {
    file: Option<std::path::PathBuf>,
    changes: Vec<Changed>,
    /// The plugin of the store to move to, if another one is configured.
    swap: Option<String>,
    /// The store in charge, if that is another one than the configured one, and stays so.
    in_charge: Option<String>,
}

impl Told {
    fn of<C>(settings: &Settings<C>, read: &Read) -> Self {
        let (in_charge, moved_to, loaded) = (&settings.in_charge, &settings.moved_to, &read.loaded);
        let is_of_store = |changed: &Changed| !changed.is_live && changed.key.starts_with("backend.");
        let (of_store, changes): (Vec<_>, _) = settings.changes(read).into_iter().partition(is_of_store);
        let backend = &loaded.config.backend;
        // Where a client has had it moved meanwhile, the file may say the same now.
        let is_there = backend.plugin == in_charge.plugin && backend.options == in_charge.options;
        let swap = (!of_store.is_empty() && !is_there).then(|| backend.plugin.clone());
        let in_charge = if is_there || swap.is_some() { None } else { moved_to.clone() };
        Told { file: loaded.file.clone(), changes, swap, in_charge }
    }

    fn log(&self) {
        for Changed { key, values, is_live } in &self.changes {
            match is_live {
                true => tracing::info!("{key}: {} -> {}", values.0, values.1),
                false => tracing::warn!("{key} has changed, which takes a restart"),
            }
        }
        if let Some(plugin) = &self.swap {
            tracing::info!("another storage is configured: moving to {plugin}");
        }
        if let Some(storage) = &self.in_charge {
            tracing::warn!("the registry has moved to the storage {storage}, and [backend] names another one");
        }
        match self.changes.iter().filter(|changed| changed.is_live).count() {
            0 => tracing::info!("the configuration is read again: nothing has changed that can be taken over"),
            count => tracing::info!("{} taken over", counted(count, "setting is", "settings are")),
        }
    }

    fn reply(&self, is_trial: bool) -> Reply {
        let live = self.changes.iter().filter(|changed| changed.is_live);
        let live: Vec<Value> =
            live.map(|Changed { key, values: (from, to), .. }| json!({"key": key, "from": from, "to": to})).collect();
        let fixed: Vec<&str> =
            self.changes.iter().filter(|changed| !changed.is_live).map(|changed| &*changed.key).collect();
        let reply = Reply::success();
        let reply = match &self.swap {
            Some(plugin) => reply.text("swap", plugin),
            None => reply,
        };
        let reply = match &self.in_charge {
            Some(storage) => reply.text("in_charge", storage),
            None => reply,
        };
        reply
            .json("file", &self.file.as_ref().map_or(Value::Null, |file| file.display().to_string().into()))
            .boolean("dry_run", is_trial)
            .json("changed", &live.into())
            .json("needs_restart", &fixed.into())
    }
}

fn refusal(problems: &[String]) -> Reply {
    Reply::failure(Code::ConfigRefused, "The configuration cannot be used, nothing has been changed")
        .text("message", &problems.join("; "))
        .json("problems", &problems.into())
}
