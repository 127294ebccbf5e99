//! What can be written on the command line, and the help for it.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use registry_client::Endpoint;
use serde_json::Value;

use super::EXIT_CODES;
use super::expiry::Ending;
use super::keygen::NewKeys;
use super::operate::Operation;
use super::order;
use super::plugin::PluginCommand;
use super::selection::{Selection, key_and_json};
use super::service::Service;
use super::token::NewToken;

const ABOUT: &str = "A service registry for ZeroMQ microservices. Without a command it serves.";
const EXAMPLES: &str = "\
Examples:
  registry                                          serve, as ./registry.toml says
  registry -c /etc/registry.toml -s log.level=debug serve, with another file and a louder log
  registry register camera 10.0.0.7 7000 --type Camera --exec -- ./camera --quiet
  registry wait Camera --timeout 60                 until there is one
  registry discover Camera --json
  registry --connect 10.0.0.1:5556 list             options may stand before the command
  registry watch register expire --type Camera

Environment:
  REGISTRY_SERVER__REQ_PORT and the like            override registry.toml: server.req_port
  REGISTRY_CONNECT                                  where client commands find the registry;
                                                    without it, where registry.toml says
  REGISTRY_KEY, REGISTRY_SERVER_KEY                 the keys they use, if it asks for some
";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "registry",
    version,
    about = ABOUT,
    after_help = format!("{EXAMPLES}\n{EXIT_CODES}"),
    disable_help_subcommand = true
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: Configuration,
}

/// What this process was told; ends it if that is not understood.
pub(super) fn parse() -> Arguments {
    // With a mistake, clap shows what was given as if it were required, even if it came from the environment: the usage
    // that `--help` shows is the right one.
    let mut command = Arguments::command();
    command.build();
    let command = command.mut_subcommands(|mut subcommand| {
        let usage = subcommand.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").to_string();
        if subcommand.has_subcommands() { subcommand } else { subcommand.override_usage(usage) }
    });
    let given = order::behind_the_command(std::env::args_os().collect());
    let arguments = Arguments::from_arg_matches(&command.get_matches_from(given));
    arguments.unwrap_or_else(|error| error.format(&mut Arguments::command()).exit())
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub(super) struct Configuration {
    /// The configuration file [default: ./registry.toml if it is there]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override a key of the file and of the environment, such as server.req_port=6556; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Configuration {
    /// Takes in the flags that stood before the command. Those behind it win.
    pub(super) fn begin_with(&mut self, earlier: Configuration) {
        self.config = self.config.take().or(earlier.config);
        self.set.splice(0..0, earlier.set);
    }
}

/// How a client command reaches the registry.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection", after_help = EXIT_CODES)]
pub(super) struct Connection {
    /// The registry's request port: HOST:PORT or ipc://PATH, several with commas between them [default: where a registry
    /// with this configuration (-c, -s) serves, 127.0.0.1:5556 if nothing else]
    #[arg(long, value_name = "ENDPOINT", env = "REGISTRY_CONNECT", value_delimiter = ',')]
    pub connect: Vec<Endpoint>,
    #[command(flatten)]
    pub from: Configuration,
    /// Your secret certificate, for a registry that asks for keys: `registry keygen` makes one
    #[arg(long, value_name = "FILE", env = "REGISTRY_KEY", requires = "server_key")]
    pub key: Option<PathBuf>,
    /// The registry's public key, or its certificate
    #[arg(long, value_name = "KEY|FILE", env = "REGISTRY_SERVER_KEY", requires = "key")]
    pub server_key: Option<String>,
    /// How long to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, allow_negative_numbers = true)]
    pub timeout: Duration,
    /// Print JSON, for programs: the registry's whole reply if it refuses
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the registry (the same as no command)
    #[command(after_help = EXIT_CODES)]
    Serve(Configuration),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make, show, list and check storage plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Make a key pair, for a registry or for a client
    #[command(after_help = super::keygen::help())]
    Keygen(NewKeys),
    /// Make a token, by which a client proves who it is over HTTP
    #[command(after_help = super::token::help())]
    Token(NewToken),
    /// Copy all services from one store to another, while no registry runs on either
    #[command(after_help = format!("\
Both are configuration files: their [backend] says which store is meant.
A target that keeps nothing, such as memory, is refused.

Example:
  registry migrate --from old.toml --to registry.toml

{EXIT_CODES}"))]
    Migrate {
        /// The configuration of the store to copy from
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// The configuration of the store to copy to
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Copy even if the target has services, over those with the same id
        #[arg(long)]
        merge: bool,
    },
    /// Put the services of a backup in place of all that a running registry has
    ///
    /// All of it is checked before anything changes, and the registry has all of before or all of the backup, whenever it
    /// dies. A new epoch begins: all who follow changes list everything again. Changes wait meanwhile, or are refused.
    #[command(mut_arg("timeout", |timeout| timeout.default_value("600").help("How long to wait for the end")))]
    Restore {
        /// The file that `registry backup` has written, - for standard input
        file: PathBuf,
        /// Remove what is registered and not in the backup
        #[arg(long)]
        replace: bool,
        /// Put it into the configured store, while no registry runs on that
        #[arg(long, conflicts_with_all = ["connect", "key", "server_key", "timeout", "json"])]
        offline: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// List the services, all or those of one type
    #[command(after_help = format!("\
Examples:
  registry list Camera --tag north
  registry list --metadata room:=4 --fields host,port
  registry list --version '>=1.2, <2' --json

{EXIT_CODES}"))]
    List {
        /// Only services of this type
        #[arg(value_name = "TYPE")]
        service_type: Option<String>,
        /// The same as TYPE, written as for `watch`
        #[arg(long = "type", value_name = "TYPE", conflicts_with = "service_type")]
        type_option: Option<String>,
        /// Show only these fields, and the ids: names with commas between them
        #[arg(long, value_name = "FIELD", value_delimiter = ',')]
        fields: Vec<String>,
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        connection: Connection,
    },
    /// List the types by which services are discovered, and how many services each has
    Types {
        #[command(flatten)]
        connection: Connection,
    },
    /// Show one service
    Get {
        /// The service's id
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show one healthy service of a type: if there are several, one at random, or the one that the storage chooses
    Discover {
        /// The service type; case matters
        #[arg(value_name = "TYPE")]
        service_type: String,
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        connection: Connection,
    },
    /// Wait until there is a healthy service of a type, and show it
    ///
    /// A registry that is not there yet is waited for as well. Exit code 1: there was no such service in time; 3: there
    /// was no registry.
    #[command(mut_arg("timeout", |timeout| timeout.default_value("60").help("How long to wait")))]
    Wait {
        /// The service type; case matters
        #[arg(value_name = "TYPE")]
        service_type: String,
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        connection: Connection,
    },
    /// Register a service, and print its id
    #[command(after_long_help = super::exec::help())]
    Register {
        #[command(flatten)]
        service: Service,
        #[command(flatten)]
        connection: Connection,
    },
    /// Send a heartbeat for a service, so that it lives for another ttl
    Renew {
        /// The service's id
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Change a service's metadata, without registering it again
    #[command(after_help = format!("\
Example:
  registry update camera-1 --metadata room=lab --metadata floor:=4 --metadata old:=null

{EXIT_CODES}"))]
    Update {
        /// The service's id
        id: String,
        /// What it is to say of itself: a text (room=4), or JSON (room:=4); room:=null takes it away. May be repeated
        #[arg(long, value_name = "KEY=VALUE|KEY:=JSON", value_parser = key_and_json, required = true)]
        metadata: Vec<(String, Value)>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show what has happened to a service: when, what, and by whom
    ///
    /// It is what this run of the registry remembers, refusals too; if the storage keeps recent changes, as sqlite does,
    /// those of earlier runs as well.
    History {
        /// The service's id
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
    #[command(flatten)]
    Operate(Operation),
    /// Print what happens to services, one line for each event, as it comes
    ///
    /// A registry that is not there is waited for, at the start as later: after that, watching goes on where it was, and
    /// nothing is left out or told twice. If the registry does not know any more what has happened meanwhile, or has come
    /// back with another store, standard error says so, and the difference is told: as `register` what is new or other
    /// than before, as `leave` what is gone.
    ///
    /// That many services have run out together and are held is told as `mass_expiry`, whichever services are watched.
    #[command(after_help = format!("\
Examples:
  registry watch --existing --type Camera
  registry watch register expire --tag north --json

{EXIT_CODES}"))]
    Watch {
        /// Only these events
        #[arg(value_name = "EVENT", value_enum)]
        events: Vec<EventType>,
        /// Begin with what is there, as `register`
        #[arg(long)]
        existing: bool,
        /// Only services of this type
        #[arg(long = "type", value_name = "TYPE")]
        service_type: Option<String>,
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        connection: Connection,
    },
    /// Ask whether the registry is well: ok, or with exit code 1 that it is starting, or degraded if its storage fails
    ///
    /// A mass expiry is told of, with exit code 0: the registry is well then, and nothing is to be restarted for it.
    Health {
        #[command(flatten)]
        connection: Connection,
    },
    /// Show the registry's ports and state
    Info {
        #[command(flatten)]
        connection: Connection,
    },
    /// End a mass expiry: services that have run out together, and that the registry holds for a while
    ///
    /// If a good part of all services is not heard of any more at the same time, they are more likely cut off than dead. So
    /// the registry removes few of them for a while; they are critical, and nobody discovers them. `registry health` says
    /// whether it is so. Whoever knows better ends it by this.
    Expiry {
        /// What becomes of them
        #[arg(value_name = "remove|keep", value_enum)]
        way: Ending,
        #[command(flatten)]
        connection: Connection,
    },
    /// Stop the registry, if its configuration allows that
    Stop {
        #[command(flatten)]
        connection: Connection,
    },
}

impl Command {
    /// The configuration that the command goes by, if it goes by one.
    pub(super) fn configuration(&mut self) -> Option<&mut Configuration> {
        match self {
            Command::Serve(from)
            | Command::Config(ConfigCommand::Check { from, .. } | ConfigCommand::Show { from, .. }) => Some(from),
            Command::Plugin(command) => command.configuration(),
            _ => self.connection().map(|connection| &mut connection.from),
        }
    }

    /// How the command reaches a registry, if it does.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        match self {
            Command::List { connection, .. }
            | Command::Types { connection }
            | Command::Wait { connection, .. }
            | Command::Update { connection, .. }
            | Command::History { connection, .. }
            | Command::Expiry { connection, .. }
            | Command::Get { connection, .. }
            | Command::Discover { connection, .. }
            | Command::Register { connection, .. }
            | Command::Renew { connection, .. }
            | Command::Watch { connection, .. }
            | Command::Health { connection }
            | Command::Info { connection }
            | Command::Restore { connection, .. }
            | Command::Stop { connection } => Some(connection),
            Command::Operate(operation) => Some(operation.connection()),
            Command::Config(ConfigCommand::Diff(connection)) => Some(connection),
            Command::Serve(_)
            | Command::Config(_)
            | Command::Plugin(_)
            | Command::Keygen(_)
            | Command::Token(_)
            | Command::Migrate { .. } => None,
        }
    }
}

/// Ends the program as after any other mistake on its command line.
pub(super) fn wrong_usage(error: &str) -> ! {
    Arguments::command().error(ErrorKind::ArgumentConflict, error).exit()
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check whether a registry would start: the file, the environment, the flags, keys, ports, the plugin and its
    /// store
    ///
    /// Nothing is changed by it. Ports are bound for a moment; a store in a file is copied, and the copy is opened.
    #[command(after_help = EXIT_CODES)]
    Check {
        #[command(flatten)]
        from: Configuration,
        /// A registry is running with this configuration: leave out what it holds, its ports and its store
        #[arg(long)]
        running: bool,
    },
    /// Show what `registry reload` would change in a running registry
    Diff(Connection),
    /// Show what is in force, and where each value comes from
    #[command(after_help = EXIT_CODES)]
    Show {
        #[command(flatten)]
        from: Configuration,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

/// What is no event of a service, but of many.
pub(super) const MASS_EXPIRY: &str = "mass_expiry";

/// A kind of event, as it is named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EventType {
    /// A service was registered or changed
    Register,
    /// A service was removed by request
    Deregister,
    /// A service was removed because no heartbeat came
    Expire,
    /// A service does not meet the filter any more, or has gone while nobody could tell how
    Leave,
    /// Many services have run out together and are held, or are not any more: see `registry expiry --help`
    #[value(name = MASS_EXPIRY)]
    MassExpiry,
}

impl EventType {
    /// As it stands in an event.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            EventType::Register => "register",
            EventType::Deregister => "deregister",
            EventType::Expire => "expire",
            EventType::Leave => "leave",
            EventType::MassExpiry => MASS_EXPIRY,
        }
    }
}

/// Longer than anybody waits; a `Duration` panics on much larger numbers.
const SECONDS_MAX: f64 = 31_536_000.0;

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= SECONDS_MAX => Ok(Duration::from_secs_f64(number)),
        _ => Err("expected a number of seconds greater than 0, at most a year".to_string()),
    }
}

pub(super) fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err("expected KEY=VALUE".to_string()),
    }
}
