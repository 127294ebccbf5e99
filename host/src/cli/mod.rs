//! The command line. `registry` alone runs the host; the other commands work on its configuration, or talk to a running
//! registry as any client does.
//!
//! A failure is printed once, as one line on standard error. All commands have the same exit codes, which every
//! `--help` lists.

mod arguments;
mod backup;
mod client;
mod clients;
mod config;
mod endpoint;
mod exec;
mod expiry;
mod keygen;
mod keys;
mod lookup;
mod operate;
mod order;
mod output;
mod plugin;
mod plugin_check;
mod plugin_inspect;
mod plugin_new;
mod register;
mod selection;
mod service;
mod status;
pub(crate) mod store_trial;
mod table;
mod token;
mod watch;

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;

use arguments::{Arguments, Command, ConfigCommand, Configuration};
use output::Failure;

/// What the exit code says; part of every `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done; an empty `list`, `types` or `history` is an answer, too
  1  the registry refused, or the command failed, or there is no such service
     (get, discover, wait, renew, update, deregister): standard error says why
  2  wrong usage
  3  nothing listens, or there was no answer within the timeout";

/// Runs the command that the arguments of this process ask for.
pub fn main() -> ExitCode {
    let mut arguments = arguments::parse();
    let connection = arguments.command.as_mut().and_then(Command::connection);
    let as_json = connection.is_some_and(|connection| connection.json);
    match run(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(as_json),
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut command = arguments.command.unwrap_or(Command::Serve(Configuration::default()));
    match command.configuration() {
        Some(from) => from.begin_with(arguments.serve),
        None if arguments.serve == Configuration::default() => {}
        None => arguments::wrong_usage(
            "--config and --set say how a registry is configured: `keygen`, `token`, `migrate` and `plugin new` do not go by that",
        ),
    }
    let done = match command {
        Command::Serve(from) => {
            let loaded = crate::config::load(from.config.as_deref(), &from.set)?;
            crate::server::start::run(loaded).map_err(failed)
        }
        Command::Config(ConfigCommand::Check { from, running }) => config::check(&from, running),
        Command::Config(ConfigCommand::Show { from, json }) => config::show(&from, json),
        Command::Config(ConfigCommand::Diff(connection)) => wait_for(operate::reload(true, &connection)),
        Command::Plugin(command) => plugin::run(&command),
        Command::Keygen(wanted) => keygen::keygen(&wanted),
        Command::Token(wanted) => token::token(&wanted),
        Command::Restore { file, replace, offline: true, connection } => {
            backup::restore_offline(&file, &connection.from, replace)
        }
        Command::Restore { file, replace, connection, .. } => wait_for(backup::restore(&file, &connection, replace)),
        Command::Migrate { from, to, merge } => {
            let copied = crate::migrate::run(&from, &to, merge).map_err(failed)?;
            output::line(&format!("{} copied", crate::log::counted(copied, "service", "services")))
        }
        Command::List { service_type, type_option, selection, fields, connection } => {
            let service_type = service_type.or(type_option);
            wait_for(lookup::list(service_type.as_deref(), &selection, &fields, &connection))
        }
        Command::Types { connection } => wait_for(lookup::types(&connection)),
        Command::Get { id, connection } => wait_for(lookup::get(&id, &connection)),
        Command::Discover { service_type, selection, connection } => {
            wait_for(lookup::discover(&service_type, &selection, &connection))
        }
        Command::Wait { service_type, selection, connection } => {
            wait_for(lookup::wait(&service_type, &selection, &connection))
        }
        Command::History { id, connection } => wait_for(lookup::history(&id, &connection)),
        Command::Register { service, connection } if service.exec.is_empty() => {
            wait_for(register::register(&service, &connection))
        }
        Command::Register { service, connection } => return exec::exec(&service, &connection),
        Command::Renew { id, connection } => wait_for(register::renew(&id, &connection)),
        Command::Update { id, metadata, connection } => wait_for(register::update(&id, metadata, &connection)),
        Command::Operate(operation) => wait_for(operate::run(&operation)),
        Command::Watch { events, existing, service_type, selection, connection } => {
            let filter = selection.filter(service_type.as_deref());
            wait_for(watch::watch(&events, existing, filter, &connection))
        }
        Command::Expiry { way, connection } => wait_for(expiry::end(way, &connection)),
        Command::Health { connection } => wait_for(status::health(&connection)),
        Command::Info { connection } => wait_for(status::info(&connection)),
        Command::Stop { connection } => wait_for(status::stop(&connection)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Runs a client command. One thread is enough: these commands wait for one thing at a time.
fn wait_for<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
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
