//! A handshake without keys, from any bytes, from a valid client's that were spoilt, and from a client's that says
//! anything of itself: it comes to the same however the bytes are cut; a peer is let in only if what it has sent says
//! what it has to; a valid client is let in, and everybody else is refused or has not said enough yet; and what the
//! server says is little, and ZMTP.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use registry_fuzz::{edit, pieces};
use registry_zmtp::codec::{Decoder, Kind, put_frame};
use registry_zmtp::command::{self, Command, IDENTITY_BYTES_MAX};
use registry_zmtp::greeting::{self, GREETING_BYTES, Mechanism};
use registry_zmtp::handshake::{Handshake, HandshakeError, Peer, SocketType};
use registry_zmtp::wire::Wire;

const ROUTER_PEERS: [&str; 3] = ["REQ", "DEALER", "ROUTER"];
const PUBLISHER_PEERS: [&str; 2] = ["SUB", "XSUB"];
/// More than a greeting and the longest command of a handshake.
const ENOUGH_BYTES: usize = GREETING_BYTES + 9 + 8192;
/// The greeting, READY and ERROR.
const SAID_BYTES_MAX: usize = GREETING_BYTES + 64 + 2 + 262;

fuzz_target!(|input: &[u8]| {
    let Some(([choice, lengths @ ..], rest)) = input.split_first_chunk::<4>() else { return };
    let socket_type = if choice & 1 == 0 { SocketType::Router } else { SocketType::Publisher };
    let mut bytes = rest.to_vec();
    let mut is_valid = false;
    let peers: &[&str] = if socket_type == SocketType::Router { &ROUTER_PEERS } else { &PUBLISHER_PEERS };
    let peer = peers[usize::from(choice >> 4) % peers.len()].as_bytes();
    match choice >> 1 & 3 {
        0 => {}
        1 | 2 => {
            let valid = client(&[(b"Socket-Type", peer), (b"Identity", &rest[..rest.len().min(3)])]);
            bytes = valid.clone();
            edit(&mut bytes, rest.get(3..).unwrap_or_default());
            is_valid = bytes.starts_with(&valid);
        }
        _ => bytes = client(&properties(rest, peer)),
    }

    let (result, wire) = play(socket_type, [BytesMut::from(&bytes[..])]);
    let (cut_result, cut_wire) = play(socket_type, pieces(&bytes, lengths));
    assert_eq!(cut_result, result, "in pieces of {lengths:?}");
    assert_eq!(cut_wire.out, wire.out, "in pieces of {lengths:?}");

    match &result {
        Ok(Some(peer)) => {
            assert!(bytes.ends_with(wire.input.peek()), "what follows is left as it came");
            check_peer(peers, &bytes, peer);
        }
        Ok(None) => assert!(bytes.len() < ENOUGH_BYTES, "{} bytes and no end", bytes.len()),
        Err(error) => assert!(error.to_string().len() < 10_000, "a reason is short: {error}"),
    }
    assert!(!is_valid || matches!(result, Ok(Some(_))), "a valid client: {result:?}");
    check_said(&wire.out, &result);
});

/// What a client says of itself if the fuzzer has its way: names and values with the right lengths before them.
fn properties<'a>(mut input: &'a [u8], peer: &'a [u8]) -> Vec<(&'a [u8], &'a [u8])> {
    let mut properties = Vec::new();
    while let Some(([choice, length], rest)) = input.split_first_chunk() {
        let (value, rest) = rest.split_at(rest.len().min(usize::from(*length) * 2));
        let name: &[u8] = [&b"Socket-Type"[..], b"socket-TYPE", b"Identity", b"", value][usize::from(choice % 5)];
        properties.push((&name[..name.len().min(255)], if choice & 128 == 0 { value } else { peer }));
        input = rest;
    }
    properties
}

/// What a client sends that speaks NULL.
fn client(properties: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (name, value) in properties {
        data.push(name.len() as u8);
        data.extend(*name);
        data.extend((value.len() as u32).to_be_bytes());
        data.extend(*value);
    }
    let mut bytes = BytesMut::from(&greeting::ours(Mechanism::Null)[..]);
    put_frame(Kind::Command, &command::body("READY", &data), &mut bytes);
    bytes.to_vec()
}

/// As a connection does it: until the handshake is over.
fn play(
    socket_type: SocketType,
    pieces: impl IntoIterator<Item = BytesMut>,
) -> (Result<Option<Peer>, HandshakeError>, Wire) {
    let mut wire = Wire::default();
    let mut handshake = Handshake::begin(socket_type, None, &mut wire.out);
    for piece in pieces {
        wire.input.feed(piece);
        match handshake.advance(&mut wire, |_| true) {
            Ok(None) => wire.input.settle(),
            over => return (over, wire),
        }
    }
    (Ok(None), wire)
}

fn check_peer(peers: &[&str], bytes: &[u8], peer: &Peer) {
    assert!(bytes[0] == 0xff && bytes[9] & 1 == 1 && bytes[10] >= 3, "it has spoken ZMTP 3");
    assert_eq!(&bytes[12..32], b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(peer.client, None, "nobody has proved anything");
    assert!(peer.metadata.identity.len() <= IDENTITY_BYTES_MAX, "{peer:?}");
    assert!(peers.iter().any(|known| known.as_bytes() == &peer.metadata.socket_type[..]), "{peer:?}");
    for value in [&peer.metadata.socket_type, &peer.metadata.identity] {
        assert!(value.is_empty() || bytes.windows(value.len()).any(|part| part == &value[..]), "it has said {value:?}");
    }
}

/// The server's greeting, READY if the peer's greeting was right, and ERROR at the end at most.
fn check_said(said: &BytesMut, result: &Result<Option<Peer>, HandshakeError>) {
    assert!(said.len() <= SAID_BYTES_MAX, "{} bytes are said", said.len());
    assert_eq!(said[..GREETING_BYTES], greeting::ours(Mechanism::Null));
    let mut decoder = Decoder::default();
    decoder.feed(BytesMut::from(&said[GREETING_BYTES..]));
    let mut commands = Vec::new();
    while let Some(frame) = decoder.next_frame(usize::MAX).expect("the server speaks ZMTP") {
        assert_eq!(frame.kind, Kind::Command);
        commands.push(command::read(&frame.body).expect("the server's commands are well formed"));
    }
    assert!(decoder.peek().is_empty());
    match (commands.as_slice(), result) {
        ([], Ok(None) | Err(_)) | ([Command::Unknown], _) | ([Command::Unknown, Command::Error(_)], Err(_)) => {}
        other => panic!("{other:?}"),
    }
}
