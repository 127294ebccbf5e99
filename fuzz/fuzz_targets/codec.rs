//! Frames come out of any bytes the same however these are cut, and so does the error that ends them; what is encoded
//! is decoded to what it was; commands and messages made of the frames keep their limits; and what the decoder holds
//! is bounded by what it was fed, whatever sizes were announced.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use registry_fuzz::pieces;
use registry_zmtp::assembly::Assembly;
use registry_zmtp::codec::{Decoder, Frame, FrameError, Kind, frame_bytes, put_frame};
use registry_zmtp::command::{self, Command, IDENTITY_BYTES_MAX};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The longest frames and messages that are accepted: none, a few bytes, more than a short frame, and without limit.
const LIMITS: [usize; 5] = [0, 10, 300, 70_000, usize::MAX];
const FRAMES_MAX: usize = 5;

fuzz_target!(|input: &[u8]| {
    let Some(([limit, lengths @ ..], bytes)) = input.split_first_chunk::<4>() else { return };
    let limit = LIMITS[usize::from(*limit) % LIMITS.len()];

    let mut frames = Vec::new();
    let whole = decode([BytesMut::from(bytes)], limit, |frame| frames.push(frame));
    let mut cut_frames = Vec::new();
    let cut = decode(pieces(bytes, lengths), limit, |frame| cut_frames.push(frame));
    assert_eq!((&cut, &cut_frames), (&whole, &frames), "in pieces of {lengths:?}");

    let encoded = encode(&frames);
    assert!(encoded.len() + whole.1.len() <= bytes.len(), "there is more in the frames than was fed");
    assert_comes_back(&frames, &encoded);
    let made = frames_of(bytes);
    assert_comes_back(&made, &encode(&made));

    read_commands(&frames);
    assemble(&frames, limit);
    drop((frames, cut_frames, cut, whole, encoded, made));

    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let (error, left) = decode(pieces(bytes, lengths), limit, drop);
    let held = MEMORY.peak_usage() - before;
    assert!(held <= 4 * bytes.len() + 4096, "{held} bytes are held for {} and {error:?}, {left:?}", bytes.len());
});

/// Hands out all frames. The error that ended them, and what was not used up.
fn decode(
    pieces: impl IntoIterator<Item = BytesMut>,
    limit: usize,
    mut each: impl FnMut(Frame),
) -> (Option<FrameError>, Vec<u8>) {
    let mut decoder = Decoder::default();
    let mut error = None;
    for piece in pieces {
        decoder.feed(piece);
        while error.is_none() {
            match decoder.next_frame(limit) {
                Ok(Some(frame)) => {
                    assert!(frame.body.len() <= limit);
                    each(frame);
                }
                Ok(None) => break,
                Err(found) => error = Some(found),
            }
        }
        if let Some(error) = error {
            assert_eq!(decoder.next_frame(limit), Err(error), "an error stays");
        }
        decoder.settle();
    }
    (error, decoder.peek().to_vec())
}

fn encode(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for frame in frames {
        let before = bytes.len();
        put_frame(frame.kind, &frame.body, &mut bytes);
        assert_eq!(bytes.len() - before, frame_bytes(frame.body.len()));
    }
    bytes
}

fn assert_comes_back(frames: &[Frame], encoded: &BytesMut) {
    let mut back = Vec::new();
    let end = decode([encoded.clone()], usize::MAX, |frame| back.push(frame));
    assert_eq!((end, back.as_slice()), ((None, Vec::new()), frames));
}

/// Frames of every kind whose lengths the fuzzer chooses: each three bytes are one.
fn frames_of(bytes: &[u8]) -> Vec<Frame> {
    let frame = |[kind, high, low]: &[u8; 3]| {
        let kind = [Kind::Message { more: false }, Kind::Message { more: true }, Kind::Command][usize::from(kind % 3)];
        // Often about as long as a short frame can be.
        let length = if *high < 128 { 250 + usize::from(low % 10) } else { usize::from(*low) << (high % 6) };
        Frame { kind, body: vec![*low; length].into() }
    };
    bytes.as_chunks::<3>().0.iter().take(16).map(frame).collect()
}

fn read_commands(frames: &[Frame]) {
    for frame in frames.iter().filter(|frame| frame.kind == Kind::Command) {
        match command::read(&frame.body) {
            Ok(Command::Ping { context, .. }) => assert!(context.len() <= 16),
            Ok(Command::Error(reason)) => assert!(!reason.contains(char::is_control), "{reason:?}"),
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if let Ok(metadata) = command::split(&frame.body).and_then(|(_, data)| command::read_metadata(data)) {
            assert!(metadata.identity.len() <= IDENTITY_BYTES_MAX);
        }
    }
}

/// The parts of messages come out together, in order, within the limits, and none is lost.
fn assemble(frames: &[Frame], limit: usize) {
    let mut assembly = Assembly::default();
    let mut expected: Vec<&Bytes> = Vec::new();
    for frame in frames {
        let Kind::Message { more } = frame.kind else { continue };
        expected.push(&frame.body);
        let is_within = expected.len() <= FRAMES_MAX && expected.iter().map(|part| part.len()).sum::<usize>() <= limit;
        let added = assembly.add(frame.body.clone(), more, FRAMES_MAX, limit);
        assert_eq!(added.is_ok(), is_within);
        match added {
            Ok(Some(parts)) => {
                assert!(!more);
                assert!(parts.iter().eq(expected.drain(..)));
            }
            Ok(None) => assert!(more),
            Err(_) => return,
        }
    }
}
