//! Unix sockets for clients on the same machine: `ipc://` in ZeroMQ's words.
//!
//! They are files in a directory. Its permissions, and the umask of the registry, decide who may connect.

use std::fs;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

/// The three sockets. Dropping this removes their files.
#[derive(Debug)]
pub struct IpcListeners {
    /// For requests.
    pub requests: UnixListener,
    /// For events.
    pub events: UnixListener,
    /// For heartbeats.
    pub heartbeats: UnixListener,
    /// Their files.
    pub files: SocketFiles,
}

/// The sockets' files. Dropping this removes them.
#[derive(Debug, Default)]
pub struct SocketFiles(Vec<SocketFile>);

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Which file it was: another registry may have put its own in its place.
    device: u64,
    inode: u64,
}

/// A socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on ipc://{} (server.ipc_dir): {error}{}", path.display(), hint(error))]
pub struct IpcError {
    path: PathBuf,
    error: Error,
}

fn hint(error: &Error) -> &'static str {
    match error.kind() {
        // Not a stream: what the registry makes are streams.
        _ if error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()) => {
            "; another program's socket has this name"
        }
        ErrorKind::NotFound => "; expected a directory that is there",
        ErrorKind::AddrInUse => "; is another registry running?",
        ErrorKind::AlreadyExists => "; something else than a socket has this name",
        _ => "",
    }
}

/// Says what would keep [`IpcListeners::bind`] from its work in that directory now, and touches nothing there.
///
/// # Errors
/// The first socket that could not be made, and why.
pub fn check(directory: &Path) -> Result<(), IpcError> {
    for name in ["requests", "events", "heartbeats"] {
        let path = directory.join(name);
        // A file without a name, which nobody ever sees, can be made where sockets can.
        let checked = is_left(&path).and_then(|_| tempfile::tempfile_in(directory).map(drop));
        checked.map_err(|error| IpcError { path, error })?;
    }
    Ok(())
}

/// Whether there is a socket that nobody listens on, and that may be replaced.
fn is_left(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(present) if !present.file_type().is_socket() => Err(ErrorKind::AlreadyExists.into()),
        Ok(_) => may_be_replaced(connect(path).map(drop)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Connects to whoever listens on a socket, without waiting until there is room among those who wait to be accepted.
fn connect(path: &Path) -> Result<Socket, Error> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// What came of connecting to a socket, as whether it is there and may be replaced.
fn may_be_replaced(connected: Result<(), Error>) -> Result<bool, Error> {
    let Err(error) = connected else { return Err(ErrorKind::AddrInUse.into()) };
    match error.kind() {
        ErrorKind::ConnectionRefused => Ok(true),
        ErrorKind::NotFound => Ok(false),
        // Somebody listens, and is slow to accept.
        ErrorKind::WouldBlock => Err(ErrorKind::AddrInUse.into()),
        // Another user's or another program's, which may well be in use.
        _ => Err(error),
    }
}

impl IpcListeners {
    /// Makes `requests`, `events` and `heartbeats` in a directory, in place of those that a killed registry has left.
    ///
    /// # Errors
    /// The first that cannot be made, and why.
    pub fn bind(directory: &Path) -> Result<Self, IpcError> {
        let mut files = SocketFiles::default();
        let mut bind = |name: &str| {
            let path = directory.join(name);
            files.bind(&path).map_err(|error| IpcError { path, error })
        };
        let (requests, events, heartbeats) = (bind("requests")?, bind("events")?, bind("heartbeats")?);
        Ok(IpcListeners { requests, events, heartbeats, files })
    }
}

impl SocketFiles {
    fn bind(&mut self, path: &Path) -> Result<UnixListener, Error> {
        if is_left(path)? {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let metadata = fs::symlink_metadata(path)?;
        self.0.push(SocketFile { path: path.to_path_buf(), device: metadata.dev(), inode: metadata.ino() });
        Ok(listener)
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for file in &self.0 {
            let is_ours = |present: fs::Metadata| (present.dev(), present.ino()) == (file.device, file.inode);
            if fs::symlink_metadata(&file.path).is_ok_and(is_ours) {
                // If this fails, the next registry replaces the file.
                let _ = fs::remove_file(&file.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn sockets_are_there_while_they_are_listened_on() {
        let directory = tempfile::tempdir().unwrap();
        let listeners = IpcListeners::bind(directory.path()).unwrap();
        assert_eq!(names(directory.path()), ["events", "heartbeats", "requests"]);
        UnixStream::connect(directory.path().join("events")).unwrap();
        let error = IpcListeners::bind(directory.path()).unwrap_err().to_string();
        assert!(error.contains("requests (server.ipc_dir)") && error.contains("another registry"), "{error}");
        assert_eq!(names(directory.path()), ["events", "heartbeats", "requests"], "the first one's are left alone");
        drop(listeners);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn what_a_killed_registry_leaves_is_replaced_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut left = IpcListeners::bind(directory.path()).unwrap();
        std::mem::take(&mut left.files.0);
        drop(left);
        assert_eq!(names(directory.path()).len(), 3);
        drop(IpcListeners::bind(directory.path()).unwrap());
        fs::write(directory.path().join("heartbeats"), "precious").unwrap();
        let error = IpcListeners::bind(directory.path()).unwrap_err().to_string();
        assert!(error.contains("heartbeats") && error.contains("something else"), "{error}");
        assert_eq!(names(directory.path()), ["heartbeats"], "no others are left behind");
        assert_eq!(fs::read_to_string(directory.path().join("heartbeats")).unwrap(), "precious");
        let error = IpcListeners::bind(&directory.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("expected a directory that is there"), "{error}");
    }

    #[test]
    fn another_registrys_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let first = IpcListeners::bind(directory.path()).unwrap();
        fs::remove_file(directory.path().join("requests")).unwrap();
        let _second = UnixListener::bind(directory.path().join("requests")).unwrap();
        drop(first);
        assert_eq!(names(directory.path()), ["requests"]);
    }

    #[test]
    fn a_socket_that_somebody_else_has_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("requests");
        let datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let error = IpcListeners::bind(directory.path()).unwrap_err().to_string();
        assert!(error.contains("requests (server.ipc_dir)") && error.contains("another program"), "{error}");
        assert!(check(directory.path()).is_err());
        assert_eq!(names(directory.path()), ["requests"]);
        drop(datagrams);
        // Its file stays, and now nobody has it.
        drop(IpcListeners::bind(directory.path()).unwrap());
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn only_a_refused_connection_tells_that_nobody_listens() {
        let kind = |kind: ErrorKind| may_be_replaced(Err(kind.into())).map_err(|error| error.kind());
        assert_eq!(may_be_replaced(Ok(())).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(kind(ErrorKind::ConnectionRefused), Ok(true));
        assert_eq!(kind(ErrorKind::NotFound), Ok(false));
        assert_eq!(kind(ErrorKind::WouldBlock), Err(ErrorKind::AddrInUse));
        assert_eq!(kind(ErrorKind::PermissionDenied), Err(ErrorKind::PermissionDenied));
    }

    #[test]
    fn a_registry_that_accepts_nobody_any_more_is_running() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("requests");
        let stuck = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        stuck.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        stuck.listen(0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(client) = connect(&path) {
            waiting.push(client);
        }
        let (done, is_done) = std::sync::mpsc::channel();
        let within = directory.path().to_path_buf();
        std::thread::spawn(move || done.send(IpcListeners::bind(&within).map(drop)));
        let bound = is_done.recv_timeout(std::time::Duration::from_secs(20)).expect("it waits for a stuck registry");
        let error = bound.unwrap_err().to_string();
        assert!(error.contains("another registry"), "{error}");
        assert_eq!(names(directory.path()), ["requests"]);
    }
}
