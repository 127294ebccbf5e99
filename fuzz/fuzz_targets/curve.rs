//! CURVE lets nobody in but who does all of it right. The server's side against any commands: it never establishes.
//! The honest client and the server with one step spoilt on the way, or taken from another connection: whoever gets it
//! refuses it, and stays refusing; a spoilt, repeated or strange MESSAGE never opens, and the right one still does. A
//! client whose boxes open, with the wrong things in them: only the proof of the right key lets it in, as the right
//! client, whatever its metadata. Keys are drawn anew each time, as the code under test draws them.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use registry_fuzz::edit;
use registry_fuzz::forger::Forger;
use registry_zmtp::codec::{Kind, put_frame};
use registry_zmtp::curve::{
    ClientHandshake, ClientStep, Flags, HandshakeError, ServerHandshake, Session, SessionError, Step,
};
use registry_zmtp::keys::key::{KeyPair, PublicKey, SecretKey};
use registry_zmtp::wire::Wire;

const METADATA: &[u8] = b"\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0";
const CLIENT: [u8; 32] = [7; 32];

static SERVER: LazyLock<Arc<[KeyPair]>> = LazyLock::new(|| [SecretKey::from_bytes(&[1; 32]).into()].into());
static PEER: LazyLock<KeyPair> = LazyLock::new(|| SecretKey::from_bytes(&CLIENT).into());

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    match choice % 8 {
        0 => strange_commands(rest),
        1 => forged(rest),
        step => spoilt(step - 2, rest),
    }
});

fn server() -> ServerHandshake {
    ServerHandshake::new(SERVER.clone(), METADATA.to_vec())
}

fn yes(_: &PublicKey) -> bool {
    true
}

/// Commands that the fuzzer makes up, each with its length before it: to a new server, after an honest HELLO, and as
/// MESSAGEs of an established connection.
fn strange_commands(mut input: &[u8]) {
    let mut fresh = server();
    let (mut after_hello, mut session, mut out) = (None, None, BytesMut::new());
    while let Some((length, rest)) = input.split_first() {
        let (command, rest) = rest.split_at(rest.len().min(usize::from(*length) * 2));
        input = rest;
        assert!(!matches!(fresh.receive(command, yes), Ok(Step::Established { .. } | Step::Refused { .. })));
        let waiting = after_hello.get_or_insert_with(|| {
            let mut server = server();
            let (_, hello) = client();
            server.receive(&hello, yes).expect("an honest HELLO is answered");
            server
        });
        assert!(waiting.receive(command, yes).is_err());
        let (opens, _) = session.get_or_insert_with(connected);
        assert!(opens.open(command).is_err());
    }
    if let Some((mut server, mut client)) = session {
        client.seal(true, false, input, &mut out);
        opens(&mut server, &out, true, false, input);
    }
}

fn client() -> (ClientHandshake, Vec<u8>) {
    ClientHandshake::new(PEER.clone(), *SERVER[0].public(), METADATA.to_vec()).expect("the server's key is a good one")
}

/// The commands of an honest handshake, in their order.
struct Connection {
    server: ServerHandshake,
    client: ClientHandshake,
    hello: Vec<u8>,
}

impl Connection {
    fn new() -> Self {
        let (client, hello) = client();
        Connection { server: server(), client, hello }
    }

    fn welcome(&mut self) -> Vec<u8> {
        match self.server.receive(&self.hello, |_| panic!("nobody has proved anything")) {
            Ok(Step::Reply(welcome)) => welcome,
            other => panic!("{other:?}"),
        }
    }

    fn initiate(&mut self) -> Vec<u8> {
        let welcome = self.welcome();
        match self.client.receive(&welcome) {
            Ok(ClientStep::Reply(initiate)) => initiate,
            other => panic!("{other:?}"),
        }
    }

    fn ready(&mut self) -> (Vec<u8>, Session) {
        let initiate = self.initiate();
        match self.server.receive(&initiate, |key| key == PEER.public()) {
            Ok(Step::Established { client, metadata, ready, session }) => {
                assert_eq!((&client, metadata.as_slice()), (PEER.public(), METADATA));
                (ready, session)
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The server's session and the client's.
fn connected() -> (Session, Session) {
    let mut connection = Connection::new();
    let (ready, server) = connection.ready();
    match connection.client.receive(&ready) {
        Ok(ClientStep::Established { session, metadata }) => {
            assert_eq!(metadata, METADATA);
            (server, session)
        }
        other => panic!("{other:?}"),
    }
}

/// What becomes of the right bytes on the way: edited, or with a part of another connection's in them.
fn on_the_way(right: &[u8], other: impl FnOnce() -> Vec<u8>, edits: &[u8]) -> Vec<u8> {
    let mut spoilt = right.to_vec();
    match edits {
        [255, from, length, edits @ ..] => {
            let end = (usize::from(*from) + usize::from(*length) * 2).min(right.len());
            let from = usize::from(*from).min(end);
            let other = other();
            // Metadata and bodies can be of different lengths.
            if other.len() == right.len() {
                spoilt[from..end].copy_from_slice(&other[from..end]);
            }
            edit(&mut spoilt, edits);
        }
        edits => edit(&mut spoilt, edits),
    }
    spoilt
}

fn spoilt(step: u8, edits: &[u8]) {
    let mut connection = Connection::new();
    match step {
        0 => {
            let spoilt = on_the_way(&connection.hello, || client().1, edits);
            let other_key = spoilt[..spoilt.len().min(112)] != connection.hello[..112];
            match connection.server.receive(&spoilt, yes) {
                // X25519 takes no notice of a key's last bit, and another's whole HELLO is a right one: both are found
                // out by the vouch, which has the client's own.
                Ok(Step::Reply(welcome)) if other_key && spoilt != connection.hello => {
                    let Ok(ClientStep::Reply(initiate)) = connection.client.receive(&welcome) else { return };
                    refused_by_server(connection.server, &initiate, &connection.hello);
                }
                Ok(Step::Reply(_)) if spoilt == connection.hello => {}
                Err(_) if spoilt != connection.hello => {
                    refused_by_server(connection.server, &connection.hello, &spoilt)
                }
                other => panic!("{other:?}"),
            }
        }
        1 => {
            let welcome = connection.welcome();
            let spoilt = on_the_way(&welcome, || Connection::new().welcome(), edits);
            let answered = connection.client.receive(&spoilt);
            assert_eq!(answered.is_ok(), spoilt == welcome, "{answered:?}");
            if answered.is_err() {
                assert_eq!(connection.client.receive(&welcome).err(), Some(HandshakeError::Over));
            }
        }
        2 => {
            let initiate = connection.initiate();
            let spoilt = on_the_way(&initiate, || Connection::new().initiate(), edits);
            if spoilt == initiate {
                let step = connection.server.receive(&spoilt, yes);
                assert!(matches!(step, Ok(Step::Established { .. })), "{step:?}");
            } else {
                refused_by_server(connection.server, &spoilt, &initiate);
            }
        }
        3 => {
            let (ready, _) = connection.ready();
            let spoilt = on_the_way(&ready, || Connection::new().ready().0, edits);
            let answered = connection.client.receive(&spoilt);
            let is_established = matches!(answered, Ok(ClientStep::Established { .. }));
            assert!(is_established == (spoilt == ready) && answered.is_ok() == is_established, "{answered:?}");
        }
        step => spoilt_message(step == 4, edits),
    }
}

/// Neither what was spoilt gets anybody in, nor the right command after it.
fn refused_by_server(mut server: ServerHandshake, spoilt: &[u8], right: &[u8]) {
    let step = server.receive(spoilt, |_| panic!("nobody has proved anything"));
    assert!(step.is_err(), "{step:?}");
    for command in [right, spoilt] {
        assert_eq!(server.receive(command, yes).err(), Some(HandshakeError::Over));
    }
}

/// MESSAGEs from the client or from the server, the second of which is spoilt.
fn spoilt_message(from_client: bool, input: &[u8]) {
    let Some(([flags, length], edits)) = input.split_first_chunk() else { return };
    let body = &vec![*length; usize::from(*length) * 3][..];
    let (more, command) = (flags & 1 != 0, flags & 2 != 0);
    let (server, client) = connected();
    let (mut to, mut from) = if from_client { (server, client) } else { (client, server) };
    let seal = |session: &mut Session| {
        let mut out = BytesMut::new();
        session.seal(more, command, body, &mut out);
        out
    };
    let (first, second) = (seal(&mut from), seal(&mut from));
    opens(&mut to, &first, more, command, body);
    let spoilt = on_the_way(&second, || first.to_vec(), edits);
    if spoilt != second {
        assert!(to.open(&spoilt).is_err(), "a spoilt MESSAGE opens");
    }
    assert_eq!(to.open(&first).err(), Some(SessionError::Replayed));
    opens(&mut to, &second, more, command, body);
    assert_eq!(to.open(&second).err(), Some(SessionError::Replayed));
    assert!(from.open(&second).is_err(), "a MESSAGE goes one way");

    // The same on a connection's wire.
    let mut wire = Wire::default();
    put_frame(Kind::Message { more: false }, &spoilt, &mut wire.out);
    let mut frame = wire.out.split();
    put_frame(Kind::Message { more: false }, &seal(&mut from), &mut frame);
    wire.encrypt(to);
    wire.input.feed(frame);
    assert!(wire.next_frame(1 << 20).is_err(), "the second has come already, or was spoilt");
}

fn opens(session: &mut Session, message: &[u8], more: bool, command: bool, body: &[u8]) {
    let (flags, opened) = session.open(message).expect("the right MESSAGE opens");
    assert_eq!((flags, &opened[..]), (Flags { more, command }, body));
}

/// A client that can make boxes puts the wrong things in them.
fn forged(input: &[u8]) {
    let Some(([part, metadata_length], edits)) = input.split_first_chunk() else { return };
    let (metadata, edits) = edits.split_at(edits.len().min(usize::from(*metadata_length)));
    let forger = Forger::new(CLIENT, [9; 32], *SERVER[0].public().as_bytes());
    let mut server = server();
    let right = forger.identity(metadata);
    let (mut signature, mut identity) = (vec![0; 64], right.clone());
    match part % 4 {
        0 => edit(&mut signature, edits),
        1 => identity.client.iter_mut().zip(edits).for_each(|(byte, edit)| *byte ^= edit),
        2 => edit(&mut identity.vouched, edits),
        _ => {}
    }
    let welcome = match server.receive(&forger.hello(&signature), yes) {
        Ok(Step::Reply(welcome)) if signature == [0; 64] => welcome,
        Err(_) if signature != [0; 64] => return,
        other => panic!("a HELLO that holds {signature:?}: {other:?}"),
    };
    let initiate = forger.initiate(&welcome, &identity).expect("the server is honest");
    let is_right = identity == right;
    match server.receive(&initiate, |client| client == PEER.public()) {
        Ok(Step::Established { client, metadata: shown, .. }) => {
            assert!(is_right, "{identity:?} is let in");
            assert_eq!((&client, shown.as_slice()), (PEER.public(), metadata));
        }
        // X25519 takes no notice of a key's last bit: who says it otherwise has the secret key, but not a known key.
        Ok(Step::Refused { client, .. }) => assert!(!is_right && client != *PEER.public()),
        other => assert!(!is_right && other.is_err(), "{other:?}"),
    }
}
