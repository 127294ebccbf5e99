//! What `register` is told about a service.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use registry_client::ServiceInfo;
use serde_json::Value;

use super::arguments::seconds;
use super::selection::key_and_json;

/// A service to be registered.
#[derive(Args, Clone, Debug)]
pub(super) struct Service {
    /// The service's name
    pub name: String,
    /// Where it runs: a host name or address
    pub host: String,
    /// The port that it listens on
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// The type by which others discover it
    #[arg(long = "type", value_name = "TYPE")]
    pub service_type: Option<String>,
    /// The id; if a service has it already, this one takes its place [default: made from the name]
    #[arg(long)]
    pub id: Option<String>,
    /// A further type that it answers to; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Something that it says of itself: a text (room=4), or JSON (room:=4); may be repeated
    #[arg(long, visible_alias = "meta", value_name = "KEY=VALUE|KEY:=JSON", value_parser = key_and_json)]
    pub metadata: Vec<(String, Value)>,
    /// How long it lives after a heartbeat [default: the registry's, 30 seconds]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub ttl: Option<Duration>,
    /// Refuse if another healthy service of the type is registered
    #[arg(long)]
    pub singleton: bool,
    /// Stay, and renew until Ctrl-C or SIGTERM; then deregister. Fails as soon as somebody else deregisters the service
    /// or registers its id
    #[arg(long, conflicts_with = "exec")]
    pub keep: bool,
    /// Run this program, and keep the service registered for as long as it runs; all that follows belongs to it
    #[arg(long, value_name = "[--] PROGRAM [ARGUMENT]...", num_args = 1.., allow_hyphen_values = true)]
    pub exec: Vec<OsString>,
    /// With --exec: start the program first, and register it once something listens at HOST and PORT
    #[arg(long, requires_all = ["exec", "id"])]
    pub when_open: bool,
    /// With --exec: end the program (SIGTERM) if somebody else deregisters the service or registers its id
    #[arg(long, requires = "exec")]
    pub stop_when_lost: bool,
}

impl Service {
    /// The program and its arguments; empty without one. Who separates them by `--`, as `env` and `sudo` have it, means no
    /// program of that name.
    pub(super) fn program(&self) -> &[OsString] {
        match &self.exec[..] {
            [separator, program @ ..] if separator == "--" => program,
            program => program,
        }
    }

    /// As the client library has it.
    pub(super) fn info(&self) -> ServiceInfo {
        let mut info = ServiceInfo::new(&self.name, self.port).host(&self.host).singleton(self.singleton);
        if let Some(id) = &self.id {
            info = info.id(id);
        }
        if let Some(service_type) = &self.service_type {
            info = info.service_type(service_type);
        }
        for tag in &self.tags {
            info = info.tag(tag);
        }
        for (key, value) in &self.metadata {
            info = info.metadata(key, value.clone());
        }
        match self.ttl {
            Some(ttl) => info.ttl(ttl),
            None => info,
        }
    }
}
