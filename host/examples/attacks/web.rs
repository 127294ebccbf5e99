//! A client that speaks HTTP/1.1, waits, and can be as rude as it likes; and one who only wants to know how the registry
//! is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::Result;
use crate::witness::milliseconds;

/// Longer than any attack keeps a registry busy that is worth measuring.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the witness waits between an answer and its next request.
const PAUSE: Duration = Duration::from_millis(2);
/// What is told as it happens.
const LONG: Duration = Duration::from_millis(200);
/// How often the witness tries in a row, over a connection that is cut or for an answer that is no 200.
const TRIES_MAX: u32 = 20;

/// A connection.
pub(crate) struct Web {
    pub(crate) stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Web {
    /// Connects, with room for so many bytes that it has not read, if that is said. Whoever is gone leaves nothing behind
    /// on this machine, so there are always ports for more.
    pub(crate) fn open(port: u16, room_bytes: Option<usize>) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(bytes) = room_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.set_linger(Some(Duration::ZERO))?;
        socket.connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)).into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::with_capacity(1 << 14, stream.try_clone()?);
        Ok(Web { stream, reader })
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The status of the next answer, of which the rest is read and thrown away.
    pub(crate) fn status(&mut self) -> Result<u16> {
        let mut line = String::new();
        self.line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("not HTTP")?;
        let mut length = None;
        loop {
            self.line(&mut line)?;
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = Some(value.trim().parse::<u64>()?);
            }
        }
        match length {
            Some(length) => drop(std::io::copy(&mut (&mut self.reader).take(length), &mut std::io::sink())?),
            // A body without a length ends with its chunks, which nobody here asks for.
            None if status == 304 => {}
            None => return Err("an answer without Content-Length".into()),
        }
        Ok(status)
    }

    /// Sends a request and waits for its answer's status.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.write(request)?;
        self.status()
    }

    /// Reads so many bytes of what has come, whatever they are; 0 at the end.
    pub(crate) fn read_some(&mut self, bytes: usize) -> Result<usize> {
        let mut buffer = vec![0; bytes];
        Ok(self.reader.read(&mut buffer)?)
    }

    fn line(&mut self, line: &mut String) -> Result<()> {
        line.clear();
        if self.reader.read_line(line)? == 0 {
            return Err("the connection was closed".into());
        }
        line.truncate(line.trim_end().len());
        Ok(())
    }
}

/// A request without a body.
pub(crate) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// A request with one.
pub(crate) fn put(target: &str, body: &[u8]) -> Vec<u8> {
    let mut request = head_of_put(target, body.len());
    request.extend_from_slice(body);
    request
}

/// The head of a request with a body of this length.
pub(crate) fn head_of_put(target: &str, length: usize) -> Vec<u8> {
    format!(
        "PUT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// What the witness saw.
pub(crate) struct Served {
    pub(crate) p99_ms: f64,
    pub(crate) longest_ms: f64,
    pub(crate) asked: usize,
    /// Answers that were no 200, and connections that were cut before the answer had come: it tries again.
    pub(crate) refused: usize,
    pub(crate) cut_off: usize,
}

/// A witness at work: it registers, renews and asks for `/live`, sometimes over a new connection.
pub(crate) struct WebWitness {
    is_over: Arc<AtomicBool>,
    work: JoinHandle<Result<Served>>,
}

impl WebWitness {
    /// Begins.
    pub(crate) fn begin(port: u16) -> Result<Self> {
        let mut work = Work::default();
        work.ask(port, &requests()[0])?;
        work = Work::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let work = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for request in requests() {
                    work.ask(port, &request)?;
                    sleep(PAUSE);
                }
                // Half of those who ask come for the first time.
                work.connected = work.connected.take().filter(|_| work.latencies.len() % 2 == 0);
            }
            Ok(work.served())
        });
        Ok(WebWitness { is_over, work })
    }

    /// Ends.
    pub(crate) fn end(self) -> Result<Served> {
        self.is_over.store(true, Ordering::Relaxed);
        self.work.join().map_err(|_| "the witness over HTTP has panicked")?
    }
}

fn requests() -> [Vec<u8>; 3] {
    let service = br#"{"name": "witness", "host": "10.0.0.1", "port": 1, "type": "witness", "ttl": 60}"#;
    [put("/v1/services/witness", service), get("/live"), get("/v1/discover/witness")]
}

#[derive(Default)]
struct Work {
    connected: Option<Web>,
    latencies: Vec<Duration>,
    refused: usize,
    cut_off: usize,
}

impl Work {
    /// Asks until it is answered by a 200, as who is told to try again does.
    fn ask(&mut self, port: u16, request: &[u8]) -> Result<()> {
        let start = Instant::now();
        for _ in 0..TRIES_MAX {
            let connected = self.connected.take().map_or_else(|| Web::open(port, None), Ok);
            match connected.and_then(|mut web| Ok((web.ask(request)?, web))) {
                Ok((200, web)) => {
                    self.connected = Some(web);
                    let latency = start.elapsed();
                    self.latencies.push(latency);
                    if latency > LONG {
                        eprintln!("attacks: a request over HTTP took {:.0} ms", milliseconds(latency));
                    }
                    return Ok(());
                }
                Ok((_, web)) => {
                    self.refused += 1;
                    self.connected = Some(web);
                }
                Err(_) => self.cut_off += 1,
            }
            sleep(PAUSE);
        }
        let (refused, cut_off) = (self.refused, self.cut_off);
        Err(format!("no answer over HTTP in {TRIES_MAX} tries (refused {refused}, cut off {cut_off} times)").into())
    }

    fn served(mut self) -> Served {
        self.latencies.sort_unstable();
        let part = |part: f64| milliseconds(self.latencies[((self.latencies.len() - 1) as f64 * part) as usize]);
        let (p99_ms, longest_ms) = (part(0.99), part(1.0));
        Served { p99_ms, longest_ms, asked: self.latencies.len(), refused: self.refused, cut_off: self.cut_off }
    }
}
