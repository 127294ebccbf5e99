//! Clients in Python, by a worker that asks what it is told to: `worker.py`.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rand::RngExt;
use serde_json::{Value, json};

use crate::clients::{Around, Client};
use crate::harness::{python, workspace};
use crate::request;

/// How long it waits for an answer, in seconds.
const PATIENCE: f64 = 2.5;

struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(kind: &str) -> Option<Worker> {
        let mut command = Command::new(python()?);
        command.arg(workspace().join("tests/recorded/worker.py")).arg(kind);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let (input, output) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        Some(Worker { child, input, output })
    }

    fn ask(&mut self, request: &Value) -> io::Result<Option<Value>> {
        self.say(&json!({"ask": request, "patience": PATIENCE}))
    }

    fn say(&mut self, line: &Value) -> io::Result<Option<Value>> {
        writeln!(self.input, "{line}")?;
        self.input.flush()?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut said: Value = serde_json::from_str(&line)?;
        Ok(Some(said["reply"].take()).filter(|reply| !reply.is_null()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is a client of this kind until it is over: `plain` or `cgse`.
pub(crate) fn run(around: &Around, kind: &str, seed: u64) {
    let Some(mut worker) = Worker::start(kind) else { return };
    let mut client = Client::new(around, 0, seed);
    while let Some(door) = around.door() {
        // Nobody waits for it: it does not notice when a host is gone.
        let (life, ports) = (door.life, door.ports);
        drop(door);
        if let Err(error) = talk(&mut client, &mut worker, life, ports, kind) {
            let text = format!("a client in Python: {error}");
            return around.problems.lock().expect("no thread panics with it").push(text);
        }
    }
}

fn talk(client: &mut Client<'_>, worker: &mut Worker, life: usize, ports: [u16; 3], kind: &str) -> io::Result<()> {
    let number = client.around.next_client();
    worker.say(&json!({"connect": ports.map(|port| format!("tcp://127.0.0.1:{port}"))}))?;
    for _ in 0..client.rng.random_range(5..100) {
        if client.around.is_over() || client.around.life() != Some(life) {
            return Ok(());
        }
        let ask = client.ask();
        let call = client.around.recorder.asked(number, ask.clone());
        match worker.ask(&request::body(&ask, call))? {
            Some(reply) => {
                client.around.note(&format!("python: {kind} was answered"));
                client.around.recorder.answered(life, call, reply);
            }
            None => {
                client.around.recorder.gave_up(call);
                return Ok(());
            }
        }
        std::thread::sleep(client.rest());
    }
    Ok(())
}
