//! The database server: how it is reached, and what its errors mean.

use std::error;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use registry_plugin_api::{Error, ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_postgres::config::{Config, Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, error::Severity};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::schema::FENCED;

/// For a host of the URL to let the registry in, before it is the next one's turn, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection stays that says nothing more, on both sides: what a dead machine has locked is free then.
const KEEPALIVE: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// For each session. A commit that the operator has set to be safer than `on` stays so; one that is less is no commit.
const SETTINGS: &str = "
    SET statement_timeout = '10s';
    SET lock_timeout = '3s';
    SET idle_in_transaction_session_timeout = '10s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 2;
    SET tcp_user_timeout = '15s';
    SET default_transaction_isolation = 'read committed';
    SET search_path = pg_catalog;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";

/// Where the database is.
pub(crate) struct Server {
    /// For each host of the URL.
    configs: Vec<Config>,
    tls: MakeRustlsConnect,
    /// Without what is secret, for messages.
    name: String,
}

impl Server {
    pub(crate) fn new(url: &str, ca: &str) -> Result<Self> {
        // What is wrong with it may be the password: nothing of it is told.
        let mut config: Config = url.parse().map_err(|_| {
            Error::invalid_option(
                "option \"url\" cannot be read, expected postgres://USER:PASSWORD@HOST[:PORT]/DATABASE with all odd \
                 characters as %XX",
            )
        })?;
        let (hosts, addresses, ports) =
            (config.get_hosts().len(), config.get_hostaddrs().len(), config.get_ports().len());
        let count = hosts.max(addresses);
        if count == 0 {
            return Err(Error::invalid_option("option \"url\" names no host, expected postgres://USER@HOST/DATABASE"));
        }
        if ![0, count].contains(&hosts) || ![0, count].contains(&addresses) || ![0, 1, count].contains(&ports) {
            return Err(Error::invalid_option(format!(
                "option \"url\" names {hosts} hosts, {addresses} addresses and {ports} ports, expected as many of each"
            )));
        }
        if config.get_application_name().is_none() {
            config.application_name("registry");
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(2);
        config.tcp_user_timeout(SILENCE_MAX);
        let tls = MakeRustlsConnect::new(tls(config.get_ssl_mode(), ca)?);
        let name = name(&config);
        Ok(Server { configs: each_host(&config), tls, name })
    }

    /// A connection with its settings. It ends when the client is dropped.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let mut failure = None;
        for config in &self.configs {
            match self.connect_to(config).await {
                Ok(client) => return Ok(client),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::internal("there are no hosts")))
    }

    async fn connect_to(&self, config: &Config) -> Result<Client> {
        // What the library waits for no longer than it is told is the connection alone.
        let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        let Ok(connected) = timeout(limit, config.connect(self.tls.clone())).await else {
            let name = name(config);
            return Err(Error::unavailable(format!("cannot reach PostgreSQL at {name}: it does not answer")));
        };
        let (client, connection) = connected.map_err(|error| self.error("reach", &error))?;
        tokio::spawn(async move {
            // Whoever waits for an answer is told what has happened.
            if let Err(error) = connection.await {
                tracing::debug!(error = %chain(&error), "a connection to PostgreSQL has ended");
            }
        });
        client.batch_execute(SETTINGS).await.map_err(|error| self.error("reach", &error))?;
        Ok(client)
    }

    /// What went wrong, in one line. `action` is what was to be done.
    pub(crate) fn error(&self, action: &str, error: &tokio_postgres::Error) -> Error {
        let name = &self.name;
        let Some(db) = error.as_db_error() else {
            let is_ours = error.to_string().starts_with("error deserializing");
            let kind = if is_ours { ErrorKind::Corrupt } else { ErrorKind::Unavailable };
            let hint = match chain(error) {
                text if text.contains("certificate") => {
                    format!("{text}; name its authority by option \"ca\", or end the url in ?sslmode=disable")
                }
                text => text,
            };
            return Error::new(kind, format!("cannot {action} PostgreSQL at {name}: {hint}"));
        };
        let code = db.code().code();
        if code == FENCED {
            return Error::unavailable(format!("another host has taken over the store in PostgreSQL at {name}"));
        }
        let kind = match &code[..2] {
            // Somebody has changed the tables, or data of theirs does not fit.
            "22" | "23" | "42" if action != "reach" && code != "42501" => ErrorKind::Corrupt,
            "XX" => ErrorKind::Internal,
            _ => ErrorKind::Unavailable,
        };
        let message = db.message().replace('\n', " ");
        Error::new(kind, format!("cannot {action} PostgreSQL at {name}: {message} ({code})"))
    }

    /// The same for what only an operator can say more of.
    pub(crate) fn refusal(&self, kind: ErrorKind, reason: &str) -> Error {
        Error::new(kind, format!("PostgreSQL at {}: {reason}", self.name))
    }
}

/// Whether the connection goes on after this error, and the transaction has not been committed.
pub(crate) fn is_harmless(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

/// An error with its causes, in one line.
fn chain(error: &dyn error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.replace('\n', " ")
}

/// A configuration for each host that one names.
fn each_host(config: &Config) -> Vec<Config> {
    let mut common = Config::new();
    config.get_user().map(|user| common.user(user));
    config.get_password().map(|password| common.password(password));
    config.get_dbname().map(|name| common.dbname(name));
    config.get_options().map(|options| common.options(options));
    config.get_application_name().map(|name| common.application_name(name));
    config.get_connect_timeout().map(|limit| common.connect_timeout(*limit));
    config.get_tcp_user_timeout().map(|limit| common.tcp_user_timeout(*limit));
    config.get_keepalives_interval().map(|interval| common.keepalives_interval(interval));
    config.get_keepalives_retries().map(|count| common.keepalives_retries(count));
    common
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .target_session_attrs(config.get_target_session_attrs());
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let one = |number: usize| {
        let mut one = common.clone();
        match hosts.get(number) {
            Some(Host::Tcp(host)) => drop(one.host(host)),
            Some(Host::Unix(path)) => drop(one.host_path(path)),
            None => {}
        }
        addresses.get(number).map(|address| one.hostaddr(*address));
        ports.get(number).or(ports.first()).map(|port| one.port(*port));
        one
    };
    (0..hosts.len().max(addresses.len())).map(one).collect()
}

fn name(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |number: usize| ports.get(number).or(ports.first()).copied().unwrap_or(5432);
    let hosts = config.get_hosts().iter().enumerate().map(|(number, host)| match host {
        Host::Tcp(host) => format!("{host}:{}", port(number)),
        Host::Unix(path) => format!("{}:{}", path.display(), port(number)),
    });
    let mut hosts: Vec<String> = hosts.collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

/// The server's certificate always has to be signed by somebody known, and has to name the host of the URL.
fn tls(mode: SslMode, ca: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let unreadable = |reason: String| Error::invalid_option(format!("option \"ca\": cannot read {ca:?}: {reason}"));
    if !ca.is_empty() {
        let text = fs::read(ca).map_err(|error| unreadable(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unreadable("it holds no certificate".to_string()));
        }
    } else if mode != SslMode::Disable {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| Error::internal(format!("cannot set up encryption: {error}")))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}
