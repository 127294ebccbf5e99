//! The database server: how it is reached, and what its errors mean.

use std::error;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use registry_plugin_api::{Error, ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Config, Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, error::Severity};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::schema::FENCED;

/// For a host of the URL that does not answer, unless the URL says otherwise.
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
    config: Config,
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
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Error::invalid_option("option \"url\" names no host, expected postgres://USER@HOST/DATABASE"));
        }
        if config.get_application_name().is_none() {
            config.application_name("registry");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(2);
        config.tcp_user_timeout(SILENCE_MAX);
        let tls = MakeRustlsConnect::new(tls(config.get_ssl_mode(), ca)?);
        let name = name(&config);
        Ok(Server { config, tls, name })
    }

    /// A connection with its settings. It ends when the client is dropped.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let connected = self.config.connect(self.tls.clone()).await;
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
