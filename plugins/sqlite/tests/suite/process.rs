//! Another process that has the database open: this test binary, started again to do one job.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use crate::common::{commit, open, put, record};

const JOB: &str = "REGISTRY_SQLITE_TEST_JOB";
const PATH: &str = "REGISTRY_SQLITE_TEST_PATH";
const PATIENCE: Duration = Duration::from_secs(60);

/// How many services one group of the `commit` job registers.
pub(crate) const GROUP_SERVICES: usize = 7;

/// A process that does a job until it is killed.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts `job`, one of those in [`do_the_job`], on the database at `path`.
    pub(crate) fn start(job: &str, path: &Path) -> Self {
        Process::start_by(&mut Command::new(env::current_exe().unwrap()), job, path)
    }

    /// The same, in a process whose files cannot get longer than so many blocks: the write that would make one longer
    /// kills it, or fails.
    #[cfg(unix)]
    pub(crate) fn start_with_short_files(job: &str, path: &Path, blocks: u64, is_killed: bool) -> Self {
        let mut shell = Command::new("sh");
        let ignored = if is_killed { "" } else { "trap '' XFSZ; " };
        shell.arg("-c").arg(format!("{ignored}ulimit -c 0; ulimit -f {blocks}; exec \"$0\" \"$@\""));
        Process::start_by(shell.arg(env::current_exe().unwrap()), job, path)
    }

    fn start_by(command: &mut Command, job: &str, path: &Path) -> Self {
        let mut child = command
            .args(["--ignored", "--exact", "process::do_the_job", "--nocapture"])
            .env(JOB, job)
            .env(PATH, path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Process { child, lines }
    }

    /// Waits until it has printed this line.
    pub(crate) fn wait_for(&self, expected: &str) {
        while self.lines.recv_timeout(PATIENCE).expect("the other process should get on") != expected {}
    }

    /// Waits until it has ended by itself, without having opened the database, and returns the lines that it has
    /// printed.
    pub(crate) fn wait_for_end(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the other process does not end: {lines:?}"),
            }
        }
        self.child.wait().unwrap();
        lines
    }

    /// Kills it, without a chance to tidy up, and returns the lines that it had printed and nobody waited for.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the other process, started by the tests that need one"]
fn do_the_job() {
    let Some(path) = env::var_os(PATH) else { return };
    match env::var(JOB).unwrap().as_str() {
        "hold" => match open(&path) {
            Ok(_store) => stay_open(),
            Err(error) => println!("\n{error}"),
        },
        "open" => {
            println!("\nopening");
            match open(&path) {
                Ok(_store) => println!("\nopen"),
                Err(error) => println!("\n{error}"),
            }
        }
        "read" => {
            let connection = Connection::open(&path).unwrap();
            connection.busy_timeout(Duration::ZERO).unwrap();
            match connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
                Ok(()) => stay_open(),
                Err(error) => println!("\n{error}"),
            }
        }
        "commit" => {
            let store = open(&path).unwrap();
            commit(&store, []).unwrap();
            for group in 0..100_000 {
                let ids = (0..GROUP_SERVICES).map(|index| format!("{group}-{index}"));
                commit(&store, ids.map(|id| put(record(&id)))).unwrap();
                println!("\ncommitted {group}");
            }
        }
        other => panic!("there is no job {other}"),
    }
}

fn stay_open() {
    println!("\nopen");
    thread::sleep(2 * PATIENCE);
}
