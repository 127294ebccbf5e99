//! A client that speaks HTTP/1.1 byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::harness::PATIENCE;

/// A connection.
pub(crate) struct Http {
    stream: BufReader<Box<dyn Carried>>,
    socket: TcpStream,
    port: u16,
}

/// What carries it: TCP, or TLS over that.
trait Carried: Read + Write + Send {}

impl<S: Read + Write + Send> Carried for S {}

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header, its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body, which is JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Http {
    pub(crate) fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the port is served");
        let stream = Box::new(socket.try_clone().expect("there is room"));
        Http::over(stream, socket, port)
    }

    /// A connection with TLS; its handshake is made with the first request.
    pub(crate) fn connect_tls(port: u16, config: Arc<ClientConfig>) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the port is served");
        let session =
            ClientConnection::new(config, "localhost".try_into().expect("it is a name")).expect("it is set up");
        let stream = StreamOwned::new(session, socket.try_clone().expect("there is room"));
        Http::over(Box::new(stream), socket, port)
    }

    fn over(stream: Box<dyn Carried>, socket: TcpStream, port: u16) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket has a time-out");
        Http { stream: BufReader::new(stream), socket, port }
    }

    /// A connection from another address of this machine.
    pub(crate) fn connect_from(address: [u8; 4], port: u16) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("there is room");
        socket.bind(&SocketAddr::from((address, 0)).into()).expect("it is this machine's");
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("the port is served");
        let socket = TcpStream::from(socket);
        let stream = Box::new(socket.try_clone().expect("there is room"));
        Http::over(stream, socket, port)
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the connection takes it");
    }

    /// Sends bytes as they are, if the connection takes them.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()
    }

    /// Sends a request with a `Host`, and a `Content-Length` and the type of JSON if it has a body.
    pub(crate) fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&str>) {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        let says = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !says("host") {
            text.push_str(&format!("Host: 127.0.0.1:{}\r\n", self.port));
        }
        if let Some(body) = body {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
            if !says("content-type") {
                text.push_str("Content-Type: application/json\r\n");
            }
        }
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        text.push_str(body.unwrap_or_default());
        self.send(text.as_bytes());
    }

    pub(crate) fn call(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Response {
        self.request(method, target, headers, body);
        self.response(method != "HEAD")
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.call("GET", target, &[], None)
    }

    /// Reads a response.
    pub(crate) fn response(&mut self, has_body: bool) -> Response {
        let (status, headers) = self.head().expect("there is a response");
        let mut response = Response { status, headers, body: Vec::new() };
        if !has_body || status == 304 {
            return response;
        }
        match response.header("content-length").map(|length| length.parse().expect("a length")) {
            Some(length) => {
                response.body = vec![0; length];
                self.stream.read_exact(&mut response.body).expect("the body comes whole");
            }
            None => {
                while let Some(chunk) = self.chunk() {
                    response.body.extend_from_slice(&chunk);
                }
            }
        }
        response
    }

    /// Reads the head of a response; `None` if the connection is closed instead.
    pub(crate) fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().expect("a head ends");
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        Some((status, headers))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).unwrap_or(0);
        (read > 0).then(|| line.trim_end().to_string())
    }

    /// The next chunk of a body without a length; `None` at its end, or if the connection is closed.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line()?, 16).expect("a chunk has a length");
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk).ok()?;
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    /// Whether the other side closes the connection within so long, whatever it sends before.
    pub(crate) fn closes_within(&mut self, patience: Duration) -> bool {
        use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
        self.socket.set_read_timeout(Some(patience)).expect("a socket has a time-out");
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => [ConnectionReset, UnexpectedEof].contains(&error.kind()),
        }
    }
}

/// A stream of server-sent events.
pub(crate) struct Events {
    http: Http,
    text: String,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: String,
}

impl Events {
    /// Opens a stream.
    pub(crate) fn open(port: u16, target: &str, headers: &[(&str, &str)]) -> Self {
        Events::over(Http::connect(port), target, headers)
    }

    /// Opens a stream over this connection.
    pub(crate) fn over(mut http: Http, target: &str, headers: &[(&str, &str)]) -> Self {
        http.request("GET", target, &[&[("Accept", "text/event-stream")], headers].concat(), None);
        let (status, headers) = http.head().expect("there is a response");
        assert_eq!(status, 200, "{:?}", http.chunk().map(String::from_utf8));
        assert!(headers.contains(&("content-type".into(), "text/event-stream".into())), "{headers:?}");
        Events { http, text: String::new() }
    }

    /// The next event, or an id alone; comments are passed over. `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let began = Instant::now();
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_string(), rest.to_string());
                self.text = rest;
                let mut event = Event { id: String::new(), kind: String::new(), data: String::new() };
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => event.id = id.into(),
                        Some(("event", kind)) => event.kind = kind.into(),
                        Some(("data", data)) => event.data.push_str(data),
                        Some(("retry" | "", _)) => {}
                        _ => panic!("what is {line:?}?"),
                    }
                }
                if !event.id.is_empty() {
                    return Some(event);
                }
            }
            assert!(began.elapsed() < PATIENCE, "nothing but comments");
            let chunk = self.http.chunk()?;
            self.text.push_str(str::from_utf8(&chunk).expect("events are text"));
        }
    }

    /// The next event that says something.
    pub(crate) fn change(&mut self) -> Event {
        loop {
            let event = self.next().expect("the stream goes on");
            if !event.kind.is_empty() {
                return event;
            }
        }
    }
}
