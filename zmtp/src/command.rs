//! The commands of ZMTP 3.1 and what stands in them ([RFC 37](https://rfc.zeromq.org/spec/37/), "Commands").

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{self, Kind};

/// The longest identity, in bytes.
pub const IDENTITY_BYTES_MAX: usize = 255;
/// The longest context that a PING may have, in bytes.
const CONTEXT_BYTES_MAX: usize = 16;
/// The longest reason that an ERROR can hold, in bytes.
const REASON_BYTES_MAX: usize = 255;

/// A command that a peer may send when both are ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// It wants events whose topic begins with this.
    Subscribe(Bytes),
    /// It does not want them any longer.
    Cancel(Bytes),
    /// It wants to hear something.
    Ping {
        /// How long the peer takes the connection to live without hearing more, in tenths of a second; 0 is for ever.
        ttl_tenths: u16,
        /// What the PONG has to hold.
        context: Bytes,
    },
    /// It has heard a PING.
    Pong,
    /// It gives up. For people.
    Error(String),
    /// One of those that a later version may have.
    Unknown,
}

/// A command that is cut short, or longer than it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed {0} command")]
pub struct CommandError(pub &'static str);

/// What a peer says of itself when it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `REQ`, `SUB` and the like.
    pub socket_type: Bytes,
    /// What it calls itself. Anybody can claim any.
    pub identity: Bytes,
}

/// Splits a command into its name and the rest.
///
/// # Errors
/// If the name is cut short.
pub fn split(body: &Bytes) -> Result<(&[u8], Bytes), CommandError> {
    let length = *body.first().ok_or(CommandError("nameless"))? as usize;
    let name = body.get(1..=length).ok_or(CommandError("nameless"))?;
    Ok((name, body.slice(1 + length..)))
}

/// Reads a command of a peer that is ready.
///
/// # Errors
/// If it is cut short.
pub fn read(body: &Bytes) -> Result<Command, CommandError> {
    let (name, data) = split(body)?;
    Ok(match name {
        b"SUBSCRIBE" => Command::Subscribe(data),
        b"CANCEL" => Command::Cancel(data),
        b"PING" => match *data {
            [high, low, ref context @ ..] if context.len() <= CONTEXT_BYTES_MAX => {
                Command::Ping { ttl_tenths: u16::from_be_bytes([high, low]), context: data.slice(2..) }
            }
            _ => return Err(CommandError("PING")),
        },
        b"PONG" => Command::Pong,
        b"ERROR" => match *data {
            [length, ref reason @ ..] if reason.len() >= usize::from(length) => {
                let reason = String::from_utf8_lossy(&reason[..usize::from(length)]);
                Command::Error(reason.escape_debug().to_string())
            }
            _ => return Err(CommandError("ERROR")),
        },
        _ => Command::Unknown,
    })
}

/// Reads what a peer says of itself. Properties that mean nothing here are passed over.
///
/// # Errors
/// If a property is cut short, or the identity too long.
pub fn read_metadata(mut data: Bytes) -> Result<Metadata, CommandError> {
    let mut metadata = Metadata::default();
    while !data.is_empty() {
        let (name, mut rest) = {
            let (name, rest) = split(&data).map_err(|_| CommandError("READY"))?;
            (Bytes::copy_from_slice(name), rest)
        };
        let Some((length, _)) = rest.split_first_chunk::<4>() else { return Err(CommandError("READY")) };
        let length = u32::from_be_bytes(*length) as usize;
        if rest.len() - 4 < length {
            return Err(CommandError("READY"));
        }
        data = rest.split_off(4 + length);
        let value = rest.slice(4..);
        // RFC 37: names are compared without regard to case.
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            metadata.socket_type = value;
        } else if name.eq_ignore_ascii_case(b"Identity") {
            if value.len() > IDENTITY_BYTES_MAX {
                return Err(CommandError("READY"));
            }
            // Kept for as long as the connection, unlike the buffer that it came in.
            metadata.identity = Bytes::copy_from_slice(&value);
        }
    }
    Ok(metadata)
}

/// What the server says of itself.
pub fn metadata(socket_type: &str) -> BytesMut {
    let mut out = BytesMut::new();
    for (name, value) in [("Socket-Type", socket_type), ("Identity", "")] {
        out.put_u8(name.len() as u8);
        out.put_slice(name.as_bytes());
        out.put_u32(value.len() as u32);
        out.put_slice(value.as_bytes());
    }
    out
}

/// The body of a command.
pub fn body(name: &str, data: &[u8]) -> BytesMut {
    let mut body = BytesMut::with_capacity(1 + name.len() + data.len());
    body.put_u8(name.len() as u8);
    body.put_slice(name.as_bytes());
    body.put_slice(data);
    body
}

/// Appends an ERROR, as a frame.
pub fn put_error(reason: &str, out: &mut BytesMut) {
    let reason = &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)];
    let data = [&[reason.len() as u8], reason].concat();
    codec::put_frame(Kind::Command, &body("ERROR", &data), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &'static [u8]) -> Result<Command, CommandError> {
        read(&Bytes::from_static(text))
    }

    #[test]
    fn commands_are_read() {
        assert_eq!(read_text(b"\x09SUBSCRIBEreg"), Ok(Command::Subscribe(Bytes::from_static(b"reg"))));
        assert_eq!(read_text(b"\x06CANCEL"), Ok(Command::Cancel(Bytes::new())));
        let context = Bytes::from_static(b"0123456789abcdef");
        assert_eq!(read_text(b"\x04PING\x01\x020123456789abcdef"), Ok(Command::Ping { ttl_tenths: 258, context }));
        assert_eq!(read_text(b"\x04PONGanything"), Ok(Command::Pong));
        assert_eq!(read_text(b"\x05ERROR\x02no"), Ok(Command::Error("no".into())));
        assert_eq!(read_text(b"\x05ERROR\x02\x1b\x07"), Ok(Command::Error("\\u{1b}\\u{7}".into())));
        assert_eq!(read_text(b"\x04JOINgroup"), Ok(Command::Unknown));
    }

    #[test]
    fn commands_cut_short_are_refused() {
        assert_eq!(read_text(b""), Err(CommandError("nameless")));
        assert_eq!(read_text(b"\x05PING"), Err(CommandError("nameless")));
        assert_eq!(read_text(b"\x04PING\x00"), Err(CommandError("PING")));
        assert_eq!(read_text(b"\x04PING\x00\x000123456789abcdefg"), Err(CommandError("PING")));
        assert_eq!(read_text(b"\x05ERROR\x03no"), Err(CommandError("ERROR")));
    }

    #[test]
    fn metadata_come_out_as_they_went_in() {
        let read = read_metadata(metadata("ROUTER").freeze()).unwrap();
        assert_eq!(read, Metadata { socket_type: Bytes::from_static(b"ROUTER"), identity: Bytes::new() });
        let other = b"\x01X\x00\x00\x00\x02\x00\x00\x0bsocket-TYPE\x00\x00\x00\x03REQ\x08Identity\x00\x00\x00\x01i";
        let read = read_metadata(Bytes::from_static(other)).unwrap();
        assert_eq!(read, Metadata { socket_type: Bytes::from_static(b"REQ"), identity: Bytes::from_static(b"i") });
    }

    #[test]
    fn metadata_that_break_off_are_refused_wherever_they_do() {
        let whole = metadata("ROUTER").freeze();
        let ends: Vec<usize> = (0..=whole.len()).filter(|end| read_metadata(whole.slice(..*end)).is_ok()).collect();
        assert_eq!(ends, [0, 1 + 11 + 4 + 6, whole.len()], "only between two properties");
        let huge = Bytes::from_static(b"\x01X\xff\xff\xff\xff");
        assert_eq!(read_metadata(huge), Err(CommandError("READY")));
    }

    #[test]
    fn an_identity_has_255_bytes_at_most() {
        let metadata = |length: usize| {
            let mut bytes = b"\x08Identity".to_vec();
            bytes.extend((length as u32).to_be_bytes());
            bytes.extend(vec![1; length]);
            read_metadata(bytes.into())
        };
        assert_eq!(metadata(255).unwrap().identity.len(), 255);
        assert_eq!(metadata(256), Err(CommandError("READY")));
    }

    #[test]
    fn an_error_holds_as_much_of_its_reason_as_fits() {
        let mut out = BytesMut::new();
        put_error(&"x".repeat(300), &mut out);
        let mut decoder = codec::Decoder::default();
        decoder.feed(out);
        let frame = decoder.next_frame(1000).unwrap().unwrap();
        assert_eq!(frame.kind, Kind::Command);
        assert_eq!(read(&frame.body), Ok(Command::Error("x".repeat(255))));
    }
}
