//! `register --exec`: a program, registered for as long as it runs.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use registry_client::{Service as Registered, State};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::MissedTickBehavior;

use super::EXIT_CODES;
use super::arguments::{Connection, wrong_usage};
use super::client::{Client, Patience};
use super::output::{self, Failure};
use super::register::{News, Signals, leave, lost};
use super::service::Service;

/// As shells have it: the program is not there, or cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
/// As shells have it: the program was ended by a signal, whose number is added.
const BY_SIGNAL: i32 = 128;

/// How often and how long it is tried whether something listens.
const TRY_EVERY: Duration = Duration::from_millis(100);
const TRY_FOR: Duration = Duration::from_secs(2);

/// What `--help` says of it.
pub(super) fn help() -> String {
    format!(
        "\
With --exec:
  The service is registered, then the program is started, with
  REGISTRY_SERVICE_ID in its environment. When it ends, the service is
  deregistered, and the exit code is the program's: 128 and the signal's number
  if a signal ended it, 127 if there is no such program, 126 if it cannot be
  run.

  SIGTERM is handed on to the program; the service is deregistered meanwhile.
  Ctrl-C reaches it by itself.

  A registry that is away keeps no program from starting: the service is
  registered when there is one. If the registry refuses the service, the program
  is not started.

  With --when-open the program is started first, and registered once something
  listens at HOST and PORT: so nobody is led to a port that is not open yet. If
  the registry refuses the service, the program is ended (SIGTERM).

  If somebody else deregisters the service or registers its id, standard error
  says so and the program runs on, unless --stop-when-lost.

Example:
  registry register camera 10.0.0.7 7000 --type Camera \\
    --exec -- ./camera --port 7000
  registry register camera 10.0.0.7 7000 --id camera-1 --when-open \\
    --exec -- ./camera --port 7000

{EXIT_CODES}"
    )
}

/// Runs the program. The exit code is the program's.
pub(super) fn exec(service: &Service, connection: &Connection) -> Result<ExitCode, Failure> {
    if service.program().is_empty() {
        wrong_usage("--exec needs the name of a program");
    }
    super::wait_for(run(service, connection))
}

async fn run(service: &Service, connection: &Connection) -> Result<ExitCode, Failure> {
    // Caught before the service is there, so that no signal can end this command and leave the service behind.
    let mut signals = Signals::new()?;
    let client = Client::new(connection, Patience::None)?;
    let mut early = match &service.id {
        Some(id) if service.when_open => match start_and_open(service, id, &mut signals).await {
            Ok(child) => Some(child),
            Err(code) => return Ok(code),
        },
        _ => None,
    };
    let started = Registered::start_with(client.registry().clone(), service.info()).await;
    let started = match client.understood(started, &json!({})) {
        Ok(started) => started,
        Err(refused) => {
            if let Some(child) = &mut early {
                terminate(child);
                let _ = wait_on(child, &mut signals).await;
            }
            return Err(refused);
        }
    };
    let mut registration = started.into_registration();
    let id = registration.id().to_string();
    let mut news = News::new(&client).begun(&registration);
    match registration.state() {
        State::Registered => output::note(&format!("{id} is registered")),
        _ => output::note(&format!("no registry answers: {id} is registered when one does")),
    }
    let mut child = match early.map_or_else(|| start(service.program(), &id), Ok) {
        Ok(child) => child,
        Err(code) => {
            let _ = leave(&client, registration).await;
            return Ok(code);
        }
    };
    let mut is_lost = false;
    loop {
        tokio::select! {
            ended = child.wait() => {
                // Of what was lost there is nothing to deregister, and enough has been said.
                if !is_lost {
                    tell_of(leave(&client, registration).await);
                }
                return ended.map(code_of).map_err(|error| Failure::Failed(format!("cannot wait for {id}: {error}")));
            }
            () = signals.terminated() => {
                terminate(&child);
                // Nobody new is to find it while it ends.
                let (left, ended) = tokio::join!(leave(&client, registration), wait_on(&mut child, &mut signals));
                tell_of(left);
                return ended.map(code_of).map_err(|error| Failure::Failed(format!("cannot wait for {id}: {error}")));
            }
            state = news.follow(&client, &mut registration), if !is_lost => {
                is_lost = true;
                let then = if service.stop_when_lost { "the program is ended" } else { "the program runs on" };
                output::note(&format!("{}; {then}", lost(&id, state)));
                if service.stop_when_lost {
                    terminate(&child);
                }
            }
        }
    }
}

/// Starts the program, or says why not: the exit code then.
fn start(program: &[OsString], id: &str) -> Result<Child, ExitCode> {
    let started = Command::new(&program[0]).args(&program[1..]).env("REGISTRY_SERVICE_ID", id).spawn();
    started.map_err(|error| {
        output::note(&format!("{}: {error}", program[0].display()));
        ExitCode::from(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE })
    })
}

/// Starts the program and waits until something listens where it is to be found. The exit code, if it ends before.
async fn start_and_open(service: &Service, id: &str, signals: &mut Signals) -> Result<Child, ExitCode> {
    let mut child = start(service.program(), id)?;
    let ended = tokio::select! {
        () = opened(&service.host, service.port) => return Ok(child),
        ended = child.wait() => ended,
        () = signals.terminated() => {
            terminate(&child);
            wait_on(&mut child, signals).await
        }
    };
    Err(ended.map_or(ExitCode::FAILURE, code_of))
}

/// Waits until something listens there.
async fn opened(host: &str, port: u16) {
    let mut ticks = tokio::time::interval(TRY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let connected = tokio::time::timeout(TRY_FOR, TcpStream::connect((host, port))).await;
        if matches!(connected, Ok(Ok(_))) {
            return;
        }
    }
}

/// Waits for the end, and hands on what comes once more.
async fn wait_on(child: &mut Child, signals: &mut Signals) -> std::io::Result<ExitStatus> {
    loop {
        tokio::select! {
            ended = child.wait() => return ended,
            () = signals.terminated() => terminate(child),
        }
    }
}

/// Sends SIGTERM, if the program still runs.
fn terminate(child: &Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now, which is as good.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| BY_SIGNAL + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The exit code is the program's: this can only be said.
fn tell_of(left: Result<(), Failure>) {
    if let Err(Failure::Failed(text) | Failure::NoAnswer(text) | Failure::Refused { text, .. }) = left {
        output::note(&text);
    }
}
