//! Both sides against each other, and each against what an attacker can do: change, cut, repeat, and mix.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::keys::key::{KeyPair, PublicKey};

const CLIENT_METADATA: &[u8] = b"\x0bSocket-Type\0\0\0\x06DEALER";
const SERVER_METADATA: &[u8] = b"\x0bSocket-Type\0\0\0\x06ROUTER";

fn server(keys: &Arc<KeyPair>) -> ServerHandshake {
    ServerHandshake::new([KeyPair::clone(keys)].into(), SERVER_METADATA.to_vec())
}

fn client(keys: &KeyPair, server: &PublicKey) -> (ClientHandshake, Vec<u8>) {
    ClientHandshake::new(keys.clone(), *server, CLIENT_METADATA.to_vec()).unwrap()
}

fn yes(_: &PublicKey) -> bool {
    true
}

fn reply(step: Result<Step, HandshakeError>) -> Vec<u8> {
    match step {
        Ok(Step::Reply(command)) => command,
        other => panic!("expected a reply, got {other:?}"),
    }
}

fn client_reply(step: Result<ClientStep, HandshakeError>) -> Vec<u8> {
    match step {
        Ok(ClientStep::Reply(command)) => command,
        other => panic!("expected a reply, got {other:?}"),
    }
}

/// A handshake up to INITIATE, which the server has not seen yet.
struct Begun {
    server: ServerHandshake,
    client: ClientHandshake,
    initiate: Vec<u8>,
}

fn begin(server_keys: &Arc<KeyPair>, client_keys: &KeyPair) -> Begun {
    let mut server = server(server_keys);
    let (mut client, hello) = client(client_keys, server_keys.public());
    let welcome = reply(server.receive(&hello, yes));
    let initiate = client_reply(client.receive(&welcome));
    Begun { server, client, initiate }
}

fn keys() -> (Arc<KeyPair>, KeyPair) {
    (Arc::new(KeyPair::generate()), KeyPair::generate())
}

/// The server's session and the client's.
fn connect() -> (Session, Session) {
    let (server_keys, client_keys) = keys();
    let mut begun = begin(&server_keys, &client_keys);
    let Ok(Step::Established { ready, session: server, .. }) = begun.server.receive(&begun.initiate, yes) else {
        panic!("the server does not let the client in");
    };
    match begun.client.receive(&ready).unwrap() {
        ClientStep::Established { session: client, .. } => (server, client),
        step => panic!("{step:?}"),
    }
}

fn sealed(session: &mut Session, more: bool, command: bool, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    session.seal(more, command, body, &mut out);
    out
}

#[test]
fn a_client_may_know_any_of_the_servers_keys() {
    let [new, old, other, client_keys] = [(); 4].map(|()| KeyPair::generate());
    let server = || ServerHandshake::new([new.clone(), old.clone()].into(), SERVER_METADATA.to_vec());
    for known in [&new, &old] {
        let mut server = server();
        let (mut client, hello) = client(&client_keys, known.public());
        let welcome = reply(server.receive(&hello, yes));
        let ClientStep::Reply(initiate) = client.receive(&welcome).unwrap() else { panic!("INITIATE is next") };
        let step = server.receive(&initiate, yes).unwrap();
        assert!(matches!(step, Step::Established { client, .. } if client == *client_keys.public()), "{step:?}");
    }
    let (_, hello) = client(&client_keys, other.public());
    assert!(server().receive(&hello, yes).is_err());
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let (server_keys, client_keys) = keys();
    let mut server = server(&server_keys);
    let (mut client, hello) = client(&client_keys, server_keys.public());
    assert_eq!(hello.len(), 200);
    let welcome = reply(server.receive(&hello, |_| panic!("nobody has proved anything yet")));
    assert_eq!(welcome.len(), 168);
    let initiate = client_reply(client.receive(&welcome));
    assert_eq!(initiate.len(), 257 + CLIENT_METADATA.len());
    let mut asked = Vec::new();
    let step = server.receive(&initiate, |key| {
        asked.push(*key);
        true
    });
    assert_eq!(asked, [*client_keys.public()]);
    let Ok(Step::Established { client: known, metadata, ready, .. }) = step else { panic!("{step:?}") };
    assert_eq!((known, metadata.as_slice()), (*client_keys.public(), CLIENT_METADATA));
    assert_eq!(ready.len(), 30 + SERVER_METADATA.len());
    match client.receive(&ready).unwrap() {
        ClientStep::Established { metadata, .. } => assert_eq!(metadata, SERVER_METADATA),
        step => panic!("{step:?}"),
    }
}

#[test]
fn metadata_may_be_empty_or_long() {
    for length in [0, 1, 255, 70_000] {
        let (server_keys, client_keys) = keys();
        let mut server = ServerHandshake::new([KeyPair::clone(&server_keys)].into(), vec![7; length]);
        let (mut client, hello) = ClientHandshake::new(client_keys, *server_keys.public(), vec![8; length]).unwrap();
        let initiate = client_reply(client.receive(&reply(server.receive(&hello, yes))));
        let Ok(Step::Established { metadata, ready, .. }) = server.receive(&initiate, yes) else { panic!("{length}") };
        assert_eq!(metadata, vec![8; length]);
        let Ok(ClientStep::Established { metadata, .. }) = client.receive(&ready) else { panic!("{length}") };
        assert_eq!(metadata, vec![7; length]);
    }
}

#[test]
fn a_client_that_is_not_allowed_is_told_so_as_libzmq_would() {
    let (server_keys, client_keys) = keys();
    let mut begun = begin(&server_keys, &client_keys);
    let step = begun.server.receive(&begun.initiate, |_| false);
    let Ok(Step::Refused { client, error }) = step else { panic!("{step:?}") };
    assert_eq!((client, error.as_slice()), (*client_keys.public(), b"\x05ERROR\x03400".as_slice()));
    assert_eq!(begun.client.receive(&error).unwrap_err(), HandshakeError::Refused("400".to_string()));
    assert_eq!(begun.server.receive(&begun.initiate, yes).unwrap_err(), HandshakeError::Over);
}

#[test]
fn a_client_of_another_server_is_refused() {
    let (server_keys, client_keys) = keys();
    let (_, hello) = client(&client_keys, KeyPair::generate().public());
    let error = server(&server_keys).receive(&hello, yes).unwrap_err();
    assert_eq!(error, HandshakeError::Sealed("HELLO"));
}

#[test]
fn a_welcome_to_another_client_does_not_open() {
    let (server_keys, client_keys) = keys();
    let (mut waiting, _) = client(&client_keys, server_keys.public());
    let (_, hello) = client(&client_keys, server_keys.public());
    let welcome = reply(server(&server_keys).receive(&hello, yes));
    assert_eq!(waiting.receive(&welcome).unwrap_err(), HandshakeError::Sealed("WELCOME"));
}

#[test]
fn a_hello_changed_anywhere_is_refused() {
    let (server_keys, client_keys) = keys();
    let (_, hello) = client(&client_keys, server_keys.public());
    for position in 0..hello.len() {
        let mut changed = hello.clone();
        changed[position] ^= 1;
        assert!(server(&server_keys).receive(&changed, yes).is_err(), "byte {position}");
    }
    let mut version = hello;
    version[6..8].copy_from_slice(&[2, 1]);
    assert_eq!(server(&server_keys).receive(&version, yes).unwrap_err(), HandshakeError::Version(2, 1));
}

#[test]
fn a_welcome_changed_anywhere_is_refused() {
    let (server_keys, client_keys) = keys();
    for position in 0..168 {
        let (mut client, hello) = client(&client_keys, server_keys.public());
        let mut welcome = reply(server(&server_keys).receive(&hello, yes));
        welcome[position] ^= 1;
        assert!(client.receive(&welcome).is_err(), "byte {position}");
        assert_eq!(client.receive(&welcome).unwrap_err(), HandshakeError::Over);
    }
}

#[test]
fn an_initiate_changed_anywhere_is_refused() {
    let (server_keys, client_keys) = keys();
    for position in 0..257 + CLIENT_METADATA.len() {
        let mut begun = begin(&server_keys, &client_keys);
        begun.initiate[position] ^= 1;
        let step = begun.server.receive(&begun.initiate, |_| panic!("byte {position} was changed"));
        assert!(step.is_err(), "byte {position}");
        begun.initiate[position] ^= 1;
        assert_eq!(begun.server.receive(&begun.initiate, yes).unwrap_err(), HandshakeError::Over);
    }
}

#[test]
fn a_ready_changed_anywhere_is_refused() {
    let (server_keys, client_keys) = keys();
    for position in 0..30 + SERVER_METADATA.len() {
        let mut begun = begin(&server_keys, &client_keys);
        let Ok(Step::Established { mut ready, .. }) = begun.server.receive(&begun.initiate, yes) else { panic!() };
        ready[position] ^= 1;
        assert!(begun.client.receive(&ready).is_err(), "byte {position}");
    }
}

#[test]
fn commands_of_any_other_length_are_refused() {
    let (server_keys, client_keys) = keys();
    let (_, hello) = client(&client_keys, server_keys.public());
    for length in 0..hello.len() {
        assert!(server(&server_keys).receive(&hello[..length], yes).is_err(), "{length} bytes");
    }
    let longer = [hello.as_slice(), &[0]].concat();
    let error = server(&server_keys).receive(&longer, yes).unwrap_err();
    assert_eq!(error, HandshakeError::Length { command: "HELLO", length: 201 });
    let whole = begin(&server_keys, &client_keys).initiate.len();
    for length in 0..=whole + 1 {
        let mut begun = begin(&server_keys, &client_keys);
        begun.initiate.resize(length, 0);
        assert_eq!(begun.server.receive(&begun.initiate, yes).is_ok(), length == whole, "{length} bytes");
    }
    for length in 0..=169 {
        let (mut client, hello) = client(&client_keys, server_keys.public());
        let mut welcome = reply(server(&server_keys).receive(&hello, yes));
        welcome.resize(length, 0);
        assert_eq!(client.receive(&welcome).is_ok(), length == 168, "{length} bytes");
    }
}

#[test]
fn a_cookie_is_good_for_the_connection_that_it_was_made_for() {
    let (server_keys, client_keys) = keys();
    let old = begin(&server_keys, &client_keys);
    let mut new = begin(&server_keys, &client_keys);
    assert_eq!(new.server.receive(&old.initiate, yes).unwrap_err(), HandshakeError::Cookie);
    let other_keys = Arc::new(KeyPair::generate());
    let mut other = begin(&other_keys, &client_keys);
    assert_eq!(other.server.receive(&old.initiate, yes).unwrap_err(), HandshakeError::Cookie);
}

/// What INITIATE is made of can be taken from no other connection, not even if the cookie is the right one.
#[test]
fn a_box_of_another_connection_does_not_fit() {
    let (server_keys, client_keys) = keys();
    let old = begin(&server_keys, &client_keys);
    let mut new = begin(&server_keys, &client_keys);
    new.initiate[105..].copy_from_slice(&old.initiate[105..]);
    assert_eq!(new.server.receive(&new.initiate, yes).unwrap_err(), HandshakeError::Sealed("INITIATE"));
}

#[test]
fn a_client_has_to_hold_its_secret_key() {
    let (server_keys, client_keys) = keys();
    let mut thief = client_keys.clone();
    thief.claim(*KeyPair::generate().public());
    let mut begun = begin(&server_keys, &thief);
    assert_eq!(begun.server.receive(&begun.initiate, yes).unwrap_err(), HandshakeError::Vouch);
    // With a key that makes no secret, a vouch could be made by anybody.
    thief.claim(PublicKey::from_bytes([0; 32]));
    let mut begun = begin(&server_keys, &thief);
    assert_eq!(begun.server.receive(&begun.initiate, yes).unwrap_err(), HandshakeError::Vouch);
}

/// A vouch that was made for another connection or another server, by the client itself, is worth nothing: a server
/// that the client has trusted could have kept it.
#[test]
fn a_vouch_is_for_one_connection_and_one_server() {
    use super::cipher::{BoxKey, counted, drawn};
    let (server_keys, client_keys) = keys();
    let connection = KeyPair::generate();
    let attempt = |vouched: [&PublicKey; 2]| {
        let mut server = server(&server_keys);
        let key = BoxKey::agree(connection.secret(), server_keys.public()).unwrap();
        let signature = key.seal(&counted(b"CurveZMQHELLO---", 1), &[0; 64]);
        let number = 1_u64.to_be_bytes();
        let hello = [b"\x05HELLO\x01\0", &[0; 72][..], connection.public().as_bytes(), &number, &signature].concat();
        let welcome = reply(server.receive(&hello, yes));
        let text = key.open(&drawn(b"WELCOME-", welcome[8..24].try_into().unwrap()), &welcome[24..]).unwrap();
        let server_connection = PublicKey::from_bytes(text[..32].try_into().unwrap());
        let vouch_key = BoxKey::agree(client_keys.secret(), &server_connection).unwrap();
        let vouch = vouch_key.seal(&drawn(b"VOUCH---", &[5; 16]), &vouched.map(|key| *key.as_bytes()).concat());
        let identity = [client_keys.public().as_bytes(), &[5; 16][..], &vouch].concat();
        let key = BoxKey::agree(connection.secret(), &server_connection).unwrap();
        let sealed = key.seal(&counted(b"CurveZMQINITIATE", 1), &identity);
        server.receive(&[b"\x08INITIATE", &text[32..], &number, &sealed].concat(), yes)
    };
    let step = attempt([connection.public(), server_keys.public()]);
    assert!(matches!(step, Ok(Step::Established { .. })), "{step:?}");
    let other = KeyPair::generate();
    for vouched in [[other.public(), server_keys.public()], [connection.public(), other.public()]] {
        assert_eq!(attempt(vouched).unwrap_err(), HandshakeError::Vouch);
    }
}

#[test]
fn keys_that_make_no_secret_are_refused() {
    let (server_keys, client_keys) = keys();
    let (_, mut hello) = client(&client_keys, server_keys.public());
    hello[80..112].fill(0);
    // The box that anybody can make, since everybody knows the key.
    let key = cipher::BoxKey::of_shared_secret(&[0; 32]);
    hello.truncate(120);
    hello.extend_from_slice(&key.seal(&cipher::counted(b"CurveZMQHELLO---", 1), &[0; 64]));
    let error = server(&server_keys).receive(&hello, yes).unwrap_err();
    assert_eq!(error, HandshakeError::Sealed("HELLO"));
    let error = ClientHandshake::new(client_keys, PublicKey::from_bytes([0; 32]), Vec::new()).unwrap_err();
    assert_eq!(error, HandshakeError::Sealed("HELLO"));
}

#[test]
fn commands_in_another_order_are_refused() {
    let (server_keys, client_keys) = keys();
    let mut begun = begin(&server_keys, &client_keys);
    assert_eq!(server(&server_keys).receive(&begun.initiate, yes).unwrap_err(), HandshakeError::Unexpected("HELLO"));
    let (_, hello) = client(&client_keys, server_keys.public());
    assert_eq!(begun.server.receive(&hello, yes).unwrap_err(), HandshakeError::Unexpected("INITIATE"));
    for other in [b"".as_slice(), b"\x05ERROR\x03400", b"\x05READY", b"\xff", b"\0"] {
        assert_eq!(server(&server_keys).receive(other, yes).unwrap_err(), HandshakeError::Unexpected("HELLO"));
    }
}

#[test]
fn an_error_says_why_and_nothing_else() {
    let (server_keys, client_keys) = keys();
    let told = |error: &[u8]| client(&client_keys, server_keys.public()).0.receive(error).unwrap_err();
    assert_eq!(told(b"\x05ERROR\x03500and more"), HandshakeError::Refused("500".to_string()));
    assert_eq!(told(b"\x05ERROR\0"), HandshakeError::Refused(String::new()));
    assert_eq!(told(b"\x05ERROR\x03\x1b[m"), HandshakeError::Refused("\\u{1b}[m".to_string()));
    assert_eq!(told(b"\x05ERROR\x03no"), HandshakeError::Length { command: "ERROR", length: 9 });
    assert_eq!(told(b"\x05ERROR"), HandshakeError::Length { command: "ERROR", length: 6 });
}

#[test]
fn messages_come_out_as_they_went_in() {
    let (mut server, mut client) = connect();
    let bodies = [Vec::new(), b"x".to_vec(), vec![0; 63], vec![1; 64], vec![2; 65], vec![3; 100_000]];
    for (round, body) in bodies.iter().enumerate() {
        for (more, command) in [(false, false), (true, false), (false, true), (true, true)] {
            let flags = Flags { more, command };
            let frame = sealed(&mut client, more, command, body);
            assert_eq!(frame.len(), body.len() + MESSAGE_OVERHEAD);
            assert_eq!(server.open(&frame).unwrap(), (flags, Bytes::copy_from_slice(body)), "round {round}");
            let frame = sealed(&mut server, more, command, body);
            assert_eq!(client.open_owned(frame).unwrap(), (flags, Bytes::copy_from_slice(body)), "round {round}");
        }
    }
}

#[test]
fn a_message_is_appended_to_what_is_there() {
    let (mut server, mut client) = connect();
    let mut out = BytesMut::from(&b"before"[..]);
    server.seal(false, false, b"one", &mut out);
    server.seal(true, false, b"two", &mut out);
    assert_eq!(out.split_to(6), b"before"[..]);
    assert_eq!(client.open_owned(out.split_to(3 + MESSAGE_OVERHEAD)).unwrap().1, b"one"[..]);
    assert_eq!(client.open_owned(out).unwrap().1, b"two"[..]);
}

#[test]
fn opening_in_place_copies_nothing() {
    let (mut server, mut client) = connect();
    let frame = sealed(&mut client, false, false, b"where it is");
    let place = frame.as_ptr() as usize + MESSAGE_OVERHEAD;
    assert_eq!(server.open_owned(frame).unwrap().1.as_ptr() as usize, place);
}

#[test]
fn a_message_changed_anywhere_is_refused_and_the_right_one_still_taken() {
    let (mut server, mut client) = connect();
    let frame = sealed(&mut client, true, false, b"a request");
    for position in 0..frame.len() {
        let mut changed = frame.clone();
        changed[position] ^= 1;
        assert!(server.open(&changed).is_err(), "byte {position}");
    }
    for length in 0..frame.len() {
        assert!(server.open(&frame[..length]).is_err(), "{length} bytes");
    }
    assert!(server.open(&[&frame[..], &[0]].concat()).is_err());
    assert_eq!(server.open(&frame).unwrap().1, b"a request"[..]);
}

#[test]
fn a_message_is_taken_once_and_in_order() {
    let (mut server, mut client) = connect();
    let first = sealed(&mut client, false, false, b"first");
    let second = sealed(&mut client, false, false, b"second");
    let third = sealed(&mut client, false, false, b"third");
    assert_eq!(server.open(&second).unwrap().1, b"second"[..]);
    assert_eq!(server.open(&second).unwrap_err(), SessionError::Replayed);
    assert_eq!(server.open(&first).unwrap_err(), SessionError::Replayed);
    assert_eq!(server.open(&third).unwrap().1, b"third"[..]);
}

#[test]
fn numbers_go_on_from_those_of_the_handshake() {
    let (mut server, mut client) = connect();
    let number = |frame: BytesMut| u64::from_be_bytes(frame[8..16].try_into().unwrap());
    assert_eq!(number(sealed(&mut client, false, false, b"")), 3);
    assert_eq!(number(sealed(&mut client, false, false, b"")), 4);
    assert_eq!(number(sealed(&mut server, false, false, b"")), 2);
}

#[test]
fn a_message_is_of_one_direction_and_one_connection() {
    let (mut server, mut client) = connect();
    let (mut other_server, mut other_client) = connect();
    let frame = sealed(&mut client, false, false, b"mine");
    assert_eq!(client.open(&frame).unwrap_err(), SessionError::Sealed);
    assert_eq!(other_server.open(&frame).unwrap_err(), SessionError::Sealed);
    sealed(&mut server, false, false, b"to count further");
    let frame = sealed(&mut server, false, false, b"mine");
    assert_eq!(server.open(&frame).unwrap_err(), SessionError::Sealed);
    assert_eq!(other_client.open(&frame).unwrap_err(), SessionError::Sealed);
}

#[test]
fn what_is_no_message_is_refused() {
    let (mut server, _) = connect();
    for frame in [b"".as_slice(), b"\x07MESSAGE", b"hello", b"\x04PING\0\0", &[0xff; 64]] {
        assert_eq!(server.open(frame).unwrap_err(), SessionError::NotAMessage);
    }
}
