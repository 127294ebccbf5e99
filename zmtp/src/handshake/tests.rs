use super::super::curve::{ClientHandshake, ClientStep};
use super::*;

/// What a client sends that speaks NULL.
fn null_client(socket_type: &str, identity: &[u8]) -> Vec<u8> {
    let mut data = command::metadata(socket_type).to_vec();
    data.truncate(data.len() - 4);
    data.extend((identity.len() as u32).to_be_bytes());
    data.extend(identity);
    let mut bytes = BytesMut::from(&greeting::ours(Mechanism::Null)[..]);
    codec::put_frame(Kind::Command, &command::body("READY", &data), &mut bytes);
    bytes.to_vec()
}

/// Plays bytes that come in pieces of that length: the peer, and what the server has said.
fn play(socket_type: SocketType, bytes: &[u8], piece: usize) -> (Result<Option<Peer>, HandshakeError>, Wire) {
    let mut wire = Wire::default();
    let mut handshake = Handshake::begin(socket_type, None, &mut wire.out);
    for piece in bytes.chunks(piece) {
        wire.input.feed(BytesMut::from(piece));
        match handshake.advance(&mut wire, |_| true) {
            Ok(None) => wire.input.settle(),
            over => return (over, wire),
        }
    }
    (Ok(None), wire)
}

/// The commands behind the greeting in what the server has said.
fn commands(said: &BytesMut) -> Vec<Bytes> {
    let mut decoder = codec::Decoder::default();
    decoder.feed(BytesMut::from(&said[GREETING_BYTES..]));
    std::iter::from_fn(|| decoder.next_frame(COMMAND_BYTES_MAX).unwrap().map(|frame| frame.body)).collect()
}

#[test]
fn a_null_client_is_ready_however_its_bytes_are_cut() {
    let mut bytes = null_client("DEALER", b"me");
    for piece in [1, 5, 64, bytes.len()] {
        let (result, wire) = play(SocketType::Router, &bytes, piece);
        let peer = result.unwrap().expect("it is ready");
        assert_eq!((peer.minor_version, peer.client), (1, None));
        assert_eq!((&peer.metadata.socket_type[..], &peer.metadata.identity[..]), (&b"DEALER"[..], &b"me"[..]));
        assert_eq!(wire.out[..GREETING_BYTES], greeting::ours(Mechanism::Null));
        let said = commands(&wire.out);
        assert_eq!(said.len(), 1);
        let ready = command::read_metadata(command::split(&said[0]).unwrap().1).unwrap();
        assert_eq!(&ready.socket_type[..], b"ROUTER");
    }
    bytes.extend(b"first");
    let (_, wire) = play(SocketType::Router, &bytes, bytes.len());
    assert_eq!(wire.input.peek(), b"first", "what follows is left");
}

#[test]
fn only_peers_that_fit_are_let_in_and_others_are_told_why() {
    for (socket_type, peers) in [(SocketType::Router, "REQ DEALER ROUTER"), (SocketType::Publisher, "SUB XSUB")] {
        for peer in ["REQ", "DEALER", "ROUTER", "SUB", "XSUB", "PUB", "PULL", ""] {
            let (result, wire) = play(socket_type, &null_client(peer, b""), 1000);
            if peers.split(' ').any(|known| known == peer) {
                result.unwrap().expect("it is ready");
                continue;
            }
            let ours = socket_type.name();
            assert_eq!(result, Err(HandshakeError::SocketType { theirs: peer.into(), ours }));
            let Some(Ok(Command::Error(reason))) = commands(&wire.out).last().map(command::read) else {
                panic!("an error, got {:?}", commands(&wire.out));
            };
            assert!(reason.contains("cannot talk to a"), "{reason}");
        }
    }
}

#[test]
fn what_is_no_ready_ends_the_handshake() {
    let after_greeting = |frame: &[u8]| {
        let bytes = [&greeting::ours(Mechanism::Null)[..], frame].concat();
        play(SocketType::Router, &bytes, 1000).0.unwrap_err()
    };
    assert_eq!(after_greeting(b"\x00\x01x"), HandshakeError::Unexpected("a message".into()));
    assert_eq!(after_greeting(b"\x04\x07\x04PING\x00\x00"), HandshakeError::Unexpected("\"PING\"".into()));
    assert_eq!(after_greeting(b"\x04\x09\x05ERROR\x02no"), HandshakeError::Peer("no".into()));
    assert_eq!(after_greeting(b"\x04\x02\x05R"), CommandError("nameless").into());
    let long = FrameError::TooLong { announced: 9000, max: COMMAND_BYTES_MAX };
    assert_eq!(after_greeting(b"\x06\x00\x00\x00\x00\x00\x00\x23\x28"), long.into());
    let identity = null_client("REQ", &[1; 256]);
    assert_eq!(play(SocketType::Router, &identity, 1000).0, Err(CommandError("READY").into()));
}

#[test]
fn no_byte_that_is_changed_or_missing_does_more_than_end_the_handshake() {
    let good = null_client("REQ", b"me");
    for position in 0..good.len() {
        assert!(matches!(play(SocketType::Router, &good[..position], 1000).0, Ok(None)), "cut at {position}");
        for value in 0..=255 {
            let mut bytes = good.clone();
            bytes[position] = value;
            let (_, wire) = play(SocketType::Router, &bytes, 1000);
            assert!(wire.out.len() < 1000, "byte {position} is {value}");
        }
    }
}

/// A server, and the clients that it lets in.
struct Server {
    keys: Arc<[KeyPair]>,
    clients: Vec<PublicKey>,
}

impl Server {
    fn of(clients: &[&KeyPair]) -> Self {
        let clients = clients.iter().map(|keys| *keys.public()).collect();
        Server { keys: [KeyPair::generate()].into(), clients }
    }

    fn public(&self) -> PublicKey {
        *self.keys[0].public()
    }
}

/// A whole handshake with a client that has these keys and takes the server for `known_as`: what the server makes of it, and the client's last step.
fn curve(
    server: &Server,
    known_as: PublicKey,
    client: KeyPair,
) -> (Result<Option<Peer>, HandshakeError>, Wire, Option<ClientStep>) {
    curve_with(SocketType::Router, server, known_as, client)
}

/// The same with a server's socket of any role.
fn curve_with(
    socket_type: SocketType,
    server: &Server,
    known_as: PublicKey,
    client: KeyPair,
) -> (Result<Option<Peer>, HandshakeError>, Wire, Option<ClientStep>) {
    let mut wire = Wire::default();
    let mut handshake = Handshake::begin(socket_type, Some(server.keys.clone()), &mut wire.out);
    let is_allowed = |key: &PublicKey| server.clients.contains(key);
    let metadata = command::metadata("DEALER").to_vec();
    let (mut client, hello) = ClientHandshake::new(client, known_as, metadata).unwrap();
    let mut greeting = greeting::ours(Mechanism::Curve);
    greeting[32] = 0;
    wire.input.feed(BytesMut::from(&greeting[..]));
    assert_eq!(handshake.advance(&mut wire, is_allowed), Ok(None));
    let mut next = hello;
    loop {
        let said = commands(&wire.out).len();
        let mut bytes = BytesMut::new();
        codec::put_frame(Kind::Command, &next, &mut bytes);
        wire.input.feed(bytes);
        let result = handshake.advance(&mut wire, is_allowed);
        let Some(answer) = commands(&wire.out).get(said).cloned() else { return (result, wire, None) };
        match client.receive(&answer) {
            Ok(ClientStep::Reply(reply)) => next = reply,
            step => return (result, wire, step.ok()),
        }
    }
}

#[test]
fn a_client_with_an_authorized_key_talks_encrypted() {
    let keys = KeyPair::generate();
    let server = Server::of(&[&keys]);
    let public = *keys.public();
    let (result, mut wire, step) = curve(&server, server.public(), keys);
    let peer = result.unwrap().expect("it is ready");
    assert_eq!(peer.client, Some(public));
    assert_eq!(&peer.metadata.socket_type[..], b"DEALER");
    let Some(ClientStep::Established { mut session, .. }) = step else { panic!("the client is ready") };

    let mut sealed = BytesMut::new();
    session.seal(true, false, b"question", &mut sealed);
    let mut bytes = BytesMut::new();
    codec::put_frame(Kind::Message { more: false }, &sealed, &mut bytes);
    wire.input.feed(bytes.clone());
    let frame = wire.next_frame(100).unwrap().expect("it is whole");
    assert_eq!((frame.kind, &frame.body[..]), (Kind::Message { more: true }, &b"question"[..]));
    wire.input.feed(bytes);
    wire.next_frame(100).expect_err("the same once more is refused");

    wire.out.clear();
    wire.put(Kind::Command, b"\x04PONG");
    let mut decoder = codec::Decoder::default();
    assert_eq!(wire.frame_bytes(5), wire.out.len());
    decoder.feed(wire.out.split());
    let frame = decoder.next_frame(100).unwrap().expect("it is whole");
    assert_eq!(frame.kind, Kind::Message { more: false });
    let (flags, body) = session.open(&frame.body).unwrap();
    assert!(flags.command && !flags.more && &body[..] == b"\x04PONG");
}

#[test]
fn a_client_at_the_wrong_port_sees_what_it_is_for() {
    let keys = KeyPair::generate();
    let server = Server::of(&[&keys]);
    let (result, _, step) = curve_with(SocketType::Publisher, &server, server.public(), keys);
    assert_eq!(result, Err(HandshakeError::SocketType { theirs: "DEALER".into(), ours: "PUB" }));
    let Some(ClientStep::Established { metadata, .. }) = step else { panic!("the server says what it is") };
    assert_eq!(&command::read_metadata(metadata.into()).unwrap().socket_type[..], b"PUB");
}

#[test]
fn what_is_not_encrypted_is_refused_once_that_is_agreed() {
    let keys = KeyPair::generate();
    let server = Server::of(&[&keys]);
    let (_, mut wire, _) = curve(&server, server.public(), keys);
    wire.input.feed(BytesMut::from(&b"\x00\x02{}"[..]));
    wire.next_frame(100).expect_err("plain text is refused");
}

#[test]
fn other_keys_are_refused() {
    let server = Server::of(&[&KeyPair::generate()]);
    let keys = KeyPair::generate();
    let public = *keys.public();
    let (result, wire, step) = curve(&server, server.public(), keys);
    assert_eq!(result, Err(HandshakeError::Refused(public)));
    assert!(step.is_none());
    assert_eq!(commands(&wire.out).last().map(command::read), Some(Ok(Command::Error("400".into()))));
    // Who takes another for the server gets nowhere, and is told nothing.
    let (result, wire, _) = curve(&server, public, KeyPair::generate());
    assert!(matches!(result, Err(HandshakeError::Curve(_))), "{result:?}");
    assert_eq!(wire.out.len(), GREETING_BYTES);
}
