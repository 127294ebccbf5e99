//! Lines on their way to stderr, which nobody waits for.
//!
//! Whoever reads the log may stop reading: a collector that hangs, a terminal that is held, a disk that is away. A line
//! is written to a pipe or a socket at once while there is room for it, so that a crash loses none; otherwise a thread
//! writes it, and what it cannot get rid of is left out.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How many bytes may wait.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// A pipe that says that it is writable has room for so many bytes (POSIX's PIPE_BUF, on Linux).
const AT_ONCE_BYTES_MAX: usize = 4096;

/// Lines that wait to be written.
pub(super) struct Lines {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Whether what is written to tells of its room, once that has been looked up.
    tells_of_room: OnceLock<bool>,
}

struct Waiting {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// One has been taken off and is being written.
    is_writing: bool,
    left_out: u64,
}

impl Lines {
    pub(super) const fn new() -> Self {
        let waiting = Waiting { lines: VecDeque::new(), bytes: 0, is_writing: false, left_out: 0 };
        Lines { waiting: Mutex::new(waiting), changed: Condvar::new(), tells_of_room: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Writes a line now or soon, and never waits.
    pub(super) fn put(&self, line: &[u8], to: &mut (impl Write + AsFd)) -> io::Result<()> {
        let mut waiting = self.lock();
        let tells_of_room = *self.tells_of_room.get_or_init(|| tells_of_room(to));
        if tells_of_room && waiting.is_empty() && line.len() <= AT_ONCE_BYTES_MAX && is_writable(to) {
            return to.write_all(line);
        }
        if waiting.bytes + line.len() > WAITING_BYTES_MAX {
            waiting.left_out += 1;
            return Ok(());
        }
        waiting.push(line);
        self.changed.notify_all();
        Ok(())
    }

    /// Writes what waits, for ever: a thread's work.
    #[allow(clippy::disallowed_methods, reason = "a thread of its own")]
    pub(super) fn write_to(&self, to: &mut impl Write) {
        let mut waiting = self.lock();
        loop {
            let Some(line) = waiting.take() else {
                waiting = self.changed.wait(waiting).unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            };
            drop(waiting);
            // A log that cannot be written cannot say so.
            let _ = to.write_all(&line);
            waiting = self.lock();
            waiting.is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits until everything is written, but not for long.
    #[allow(clippy::disallowed_methods, reason = "the host is about to end")]
    pub(super) fn flush(&self, time_max: Duration) {
        let _ = self.changed.wait_timeout_while(self.lock(), time_max, |waiting| !waiting.is_empty());
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && !self.is_writing && self.left_out == 0
    }

    fn push(&mut self, line: &[u8]) {
        self.bytes += line.len();
        self.lines.push_back(line.into());
    }

    /// The next line to be written. What was left out is told when there is room again.
    fn take(&mut self) -> Option<Box<[u8]>> {
        if self.lines.is_empty() && self.left_out > 0 {
            let left_out = std::mem::take(&mut self.left_out);
            self.push(format!("{left_out} lines were left out here: the log was not read\n").as_bytes());
        }
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        self.is_writing = true;
        Some(line)
    }
}

/// Whether a write does not block, to what tells of its room.
fn is_writable(to: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(to, PollFlags::OUT)];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Whether what is written to says when it has room: a pipe or a socket does. A file always says so, however long its
/// disk takes, and a terminal does while there is less room than for a line.
fn tells_of_room(to: &impl AsFd) -> bool {
    let kind = to.as_fd().try_clone_to_owned().and_then(|copy| File::from(copy).metadata()).map(|of| of.file_type());
    kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket())
}

/// Where lines are put.
pub(super) struct Stderr(pub(super) &'static Lines);

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line, &mut io::stderr())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Lines that a thread writes to a socket, and its two ends.
    fn lines() -> (&'static Lines, UnixStream, UnixStream) {
        let lines: &'static Lines = Box::leak(Box::new(Lines::new()));
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let other = ours.try_clone().unwrap();
        std::thread::spawn(move || lines.write_to(&mut ours));
        (lines, other, theirs)
    }

    #[test]
    fn what_nobody_reads_waits_in_order_and_then_is_left_out() {
        let (lines, mut ours, mut theirs) = lines();
        // Much more than a socket and the queue hold; each line says which it is.
        let line = |number: usize| format!("{number:0>1023}\n");
        let sent = 2 * WAITING_BYTES_MAX / 1024;
        for number in 0..sent {
            lines.put(line(number).as_bytes(), &mut ours).unwrap();
        }
        let mut read = Vec::new();
        let mut expected = 0;
        theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let told = loop {
            let mut bytes = [0; 1024];
            theirs.read_exact(&mut bytes[..1]).unwrap();
            if bytes[0] != b'0' {
                read.push(bytes[0]);
                while read.last() != Some(&b'\n') {
                    theirs.read_exact(&mut bytes[..1]).unwrap();
                    read.push(bytes[0]);
                }
                break String::from_utf8(read).unwrap();
            }
            theirs.read_exact(&mut bytes[1..]).unwrap();
            assert_eq!(String::from_utf8_lossy(&bytes), line(expected));
            expected += 1;
        };
        assert_eq!(told, format!("{} lines were left out here: the log was not read\n", sent - expected));
        assert!(expected >= WAITING_BYTES_MAX / 1024, "{expected}");
        lines.flush(Duration::from_secs(20));
        lines.put(b"now\n", &mut ours).unwrap();
        let mut now = [0; 4];
        theirs.read_exact(&mut now).unwrap();
        assert_eq!(&now, b"now\n");
    }

    #[test]
    fn a_file_is_written_by_the_thread_alone_in_order_and_completely() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let lines: &'static Lines = Box::leak(Box::new(Lines::new()));
        let path = file.path().to_path_buf();
        let line = |number: usize| format!("line {number}\n");
        let put = |numbers: std::ops::Range<usize>, file: &mut std::fs::File| {
            numbers.for_each(|number| lines.put(line(number).as_bytes(), file).unwrap());
        };
        put(0..10, file.as_file_mut());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "who logs would wait for the disk");
        let mut other = file.as_file().try_clone().unwrap();
        std::thread::spawn(move || lines.write_to(&mut other));
        put(10..1000, file.as_file_mut());
        lines.flush(Duration::from_secs(20));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), (0..1000).map(line).collect::<String>());
    }

    #[test]
    fn only_pipes_and_sockets_are_written_at_once() {
        let (reader, writer) = std::io::pipe().unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        assert!(tells_of_room(&writer) && tells_of_room(&socket));
        assert!(!tells_of_room(&tempfile::tempfile().unwrap()));
        assert!(!tells_of_room(&std::fs::File::open("/dev/null").unwrap()));
        drop(reader);
    }
}
