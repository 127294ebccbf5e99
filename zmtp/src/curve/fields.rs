//! Taking commands apart.

use super::HandshakeError;

/// What is left of a command to read. All lengths are checked; nothing here panics.
pub(super) struct Fields<'a> {
    command: &'static str,
    length: usize,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of a command that has to be of this name.
    pub(super) fn of(command: &'static str, body: &'a [u8]) -> Result<Self, HandshakeError> {
        match name_and_rest(body) {
            Some((name, rest)) if name == command.as_bytes() => Ok(Fields { command, length: body.len(), rest }),
            _ => Err(HandshakeError::Unexpected(command)),
        }
    }

    /// The fields of what was sealed in a command, which has no name of its own.
    pub(super) fn bare(command: &'static str, text: &'a [u8]) -> Self {
        Fields { command, length: text.len(), rest: text }
    }

    /// The next field, of as many bytes as the caller wants.
    pub(super) fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], HandshakeError> {
        let (field, rest) = self.rest.split_first_chunk().ok_or_else(|| self.wrong_length())?;
        self.rest = rest;
        Ok(field)
    }

    /// All that is left, at least `least` bytes.
    pub(super) fn rest(self, least: usize) -> Result<&'a [u8], HandshakeError> {
        if self.rest.len() < least { Err(self.wrong_length()) } else { Ok(self.rest) }
    }

    /// All that is left, exactly as many bytes as the caller wants.
    pub(super) fn last<const N: usize>(self) -> Result<&'a [u8; N], HandshakeError> {
        self.rest.try_into().map_err(|_| self.wrong_length())
    }

    fn wrong_length(&self) -> HandshakeError {
        HandshakeError::Length { command: self.command, length: self.length }
    }
}

/// A command begins with its name, and that with its length.
pub(super) fn name_and_rest(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// The beginning of a command, with room for what follows.
pub(super) fn command(name: &'static str, room: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(1 + name.len() + room);
    body.push(name.len() as u8);
    body.extend_from_slice(name.as_bytes());
    body
}
