//! Messages from frames: the parts of one are kept until the last has come, within limits.

use bytes::Bytes;

use crate::Frames;

/// A message that is larger than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// Too many parts.
    #[error("a message of more than {0} frames")]
    Frames(usize),
    /// Too long parts.
    #[error("a message of more than {0} bytes")]
    Bytes(usize),
}

/// The parts of the message that a peer is sending.
#[derive(Debug, Default)]
pub struct Assembly {
    parts: Frames,
    /// How many of the parts hold memory of their own.
    settled: usize,
    bytes: usize,
}

impl Assembly {
    /// Adds a part. The whole message, if it was the last.
    ///
    /// # Errors
    /// If the message gets too large by it.
    pub fn add(
        &mut self,
        body: Bytes,
        more: bool,
        frames_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Frames>, TooLarge> {
        self.bytes += body.len();
        if self.bytes > bytes_max {
            return Err(TooLarge::Bytes(bytes_max));
        }
        if self.parts.len() == frames_max {
            return Err(TooLarge::Frames(frames_max));
        }
        self.parts.push(body);
        if more {
            return Ok(None);
        }
        (self.bytes, self.settled) = (0, 0);
        Ok(Some(std::mem::take(&mut self.parts)))
    }

    /// Lets go of the buffers that the parts came in: called when the rest of the message has yet to come. Else a few
    /// bytes could keep a large buffer for as long as a peer likes.
    pub fn settle(&mut self) {
        for part in &mut self.parts[self.settled..] {
            *part = Bytes::copy_from_slice(part);
        }
        self.settled = self.parts.len();
    }

    /// How many bytes are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(length: usize) -> Bytes {
        vec![b'x'; length].into()
    }

    #[test]
    fn a_message_is_whole_with_its_last_part() {
        let mut assembly = Assembly::default();
        for _ in 0..2 {
            assert_eq!(assembly.add(part(0), true, 3, 10), Ok(None));
            assert_eq!(assembly.add(part(4), true, 3, 10), Ok(None));
            let whole = assembly.add(part(6), false, 3, 10).unwrap().expect("it is whole");
            assert_eq!(whole.iter().map(Bytes::len).collect::<Vec<_>>(), [0, 4, 6]);
        }
    }

    #[test]
    fn a_part_does_not_keep_the_buffer_that_it_came_in() {
        let mut buffer = bytes::BytesMut::zeroed(1 << 16);
        let mut assembly = Assembly::default();
        assert_eq!(assembly.add(buffer.split_to(1).freeze(), true, 9, 99), Ok(None));
        assembly.settle();
        assert_eq!(assembly.add(buffer.split_to(2).freeze(), true, 9, 99), Ok(None));
        assembly.settle();
        buffer.clear();
        assert!(buffer.try_reclaim(1 << 16), "nobody else holds it");
        assert_eq!(assembly.bytes(), 3);
        let whole = assembly.add(part(1), false, 9, 99).unwrap().expect("it is whole");
        assert_eq!(whole.iter().map(Bytes::len).collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(assembly.bytes(), 0);
    }

    #[test]
    fn all_parts_together_have_to_fit() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.add(part(6), true, 3, 10), Ok(None));
        assert_eq!(assembly.add(part(5), false, 3, 10), Err(TooLarge::Bytes(10)));
        let mut assembly = Assembly::default();
        assert_eq!(assembly.add(part(0), true, 2, 10), Ok(None));
        assert_eq!(assembly.add(part(0), true, 2, 10), Ok(None));
        assert_eq!(assembly.add(part(0), false, 2, 10), Err(TooLarge::Frames(2)));
    }
}
