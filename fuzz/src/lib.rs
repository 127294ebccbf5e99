//! What the fuzz targets share: how a peer's bytes are cut, and how something valid is spoilt.

use bytes::BytesMut;

pub mod forger;
pub mod json;

/// The pieces in which bytes arrive: their lengths are these, over and over, each one more than the number says.
pub fn pieces<'a>(bytes: &'a [u8], lengths: &'a [u8]) -> impl Iterator<Item = BytesMut> + 'a {
    let mut rest = bytes;
    lengths.iter().cycle().map_while(move |length| {
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*length) + 1));
        rest = after;
        (!piece.is_empty()).then(|| BytesMut::from(piece))
    })
}

/// Spoils something valid as the fuzzer wishes: each five bytes of `edits` are one edit, and what is left over is none.
pub fn edit(bytes: &mut Vec<u8>, edits: &[u8]) {
    for [kind, high, low, length, value] in edits.as_chunks::<5>().0 {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % (bytes.len() + 1);
        let end = (at + usize::from(*length)).min(bytes.len());
        match kind % 6 {
            0 => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte ^= value),
            1 => bytes[at..end].iter_mut().for_each(|byte| *byte = *value),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, std::iter::repeat_n(*value, usize::from(*length)))),
            4 => {
                // A part of itself, once more.
                let part = bytes[at..end].to_vec();
                let into = usize::from(*value) % (bytes.len() + 1);
                bytes.splice(into..into, part);
            }
            _ => bytes.truncate(at),
        }
    }
}
