//! Messages from frames: the parts of one are kept until the last has come, within limits.

use bytes::Bytes;

use crate::transport::Frames;

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
        self.bytes = 0;
        Ok(Some(std::mem::take(&mut self.parts)))
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
