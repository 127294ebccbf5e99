//! The command line. `registry` alone runs the host; the other commands work on its configuration, or talk to a running
//! registry as any client does.
//!
//! A failure is printed once, as one line on standard error. All commands have the same exit codes, which every
//! `--help` lists.

mod arguments;
mod client;
mod config;
mod endpoint;
mod keygen;
mod keys;
mod lookup;
mod output;
mod plugin;
mod plugin_check;
mod plugin_inspect;
mod plugin_new;
mod register;
mod socket;
mod status;
pub(crate) mod store_trial;
mod table;
mod watch;

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;

use arguments::{Arguments, Command, ConfigCommand, Configuration};
use client::ClientError;
use output::Failure;

/// What the exit code says; part of every `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the registry refused or found nothing, or the command failed: standard error says why
  2  wrong usage
  3  nothing listens, or there was no answer within the timeout";

/// Runs the command that the arguments of this process ask for.
pub fn main() -> ExitCode {
    let mut arguments = arguments::parse();
    let connection = arguments.command.as_mut().and_then(Command::connection);
    let as_json = connection.is_some_and(|connection| connection.json);
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(as_json),
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut command = arguments.command.unwrap_or(Command::Serve(Configuration::default()));
    match command.configuration() {
        Some(from) => from.begin_with(arguments.serve),
        None if arguments.serve == Configuration::default() => {}
        None => arguments::wrong_usage(
            "--config and --set say how a registry is configured: `keygen`, `migrate` and `plugin new` do not go by that",
        ),
    }
    match command {
        Command::Serve(from) => {
            let loaded = crate::config::load(from.config.as_deref(), &from.set)?;
            crate::server::start::run(loaded).map_err(failed)
        }
        Command::Config(ConfigCommand::Check { from, running }) => config::check(&from, running),
        Command::Config(ConfigCommand::Show { from, json }) => config::show(&from, json),
        Command::Plugin(command) => plugin::run(&command),
        Command::Keygen(wanted) => keygen::keygen(&wanted),
        Command::Migrate { from, to, merge } => {
            let copied = crate::migrate::run(&from, &to, merge).map_err(failed)?;
            output::line(&format!("{} copied", crate::log::counted(copied, "service", "services")))
        }
        Command::List { service_type, connection } => wait_for(lookup::list(service_type, &connection)),
        Command::Get { id, connection } => wait_for(lookup::get(&id, &connection)),
        Command::Discover { service_type, connection } => wait_for(lookup::discover(&service_type, &connection)),
        Command::Register { service, connection } => wait_for(register::register(&service, &connection)),
        Command::Renew { id, connection } => wait_for(register::renew(&id, &connection)),
        Command::Deregister { id, connection } => wait_for(register::deregister(&id, &connection)),
        Command::Watch { events, endpoint, connection } => wait_for(watch::watch(&events, endpoint, &connection)),
        Command::Health { connection } => wait_for(status::health(&connection)),
        Command::Info { connection } => wait_for(status::info(&connection)),
        Command::Stop { connection } => wait_for(status::stop(&connection)),
    }
}

/// Runs a client command. One thread is enough: these commands wait for one thing at a time.
fn wait_for(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // A name look-up may still wait on a thread of its own, and its result is of no use any more.
    runtime.shutdown_background();
    result
}

fn failed(error: Box<dyn Error + Send + Sync>) -> Failure {
    Failure::Failed(failure_line(&*error))
}

/// An error with its causes, in one line. A cause that the error's own text already ends in is not repeated.
fn failure_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { text, reply, .. } => Failure::Refused { text, reply },
            ClientError::NoAnswer { .. } | ClientError::NobodyListens(_) => {
                Failure::NoAnswer(format!("{error}; --connect or REGISTRY_CONNECT says where the registry is"))
            }
            ClientError::Unreachable(text) | ClientError::NotARegistry(text) => Failure::NoAnswer(text),
        }
    }
}
