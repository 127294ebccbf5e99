//! Tokens: how clients prove who they are where they cannot have keys.
//!
//! A token is 32 random bytes, so that nobody can guess it, and a hash of it needs neither salt nor time to be safe. Only
//! the hash is kept: who reads the configuration cannot be anybody by it.

use std::fmt::{self, Write};
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::principal::Name;

/// How a token begins: so programs that look for secrets in files and logs can find it.
const BEGIN: &str = "registry-";
/// How a hash begins: which one it is.
const KIND: &str = "sha256:";

/// A token, as its holder has it.
pub struct Token(String);

impl Token {
    /// A new one.
    pub fn generate() -> Self {
        let bytes: [u8; 32] = rand::random();
        Token(format!("{BEGIN}{}", hexadecimal(&bytes)))
    }

    /// To be shown once.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is kept of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of a token, or of anything that somebody takes for one.
    pub fn of(token: &str) -> Self {
        Hash(Sha256::digest(token).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KIND)?;
        f.write_str(&hexadecimal(&self.0))
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected sha256: and 64 hexadecimal digits, as `registry token` prints them";
        let digits =
            text.strip_prefix(KIND).filter(|digits| digits.is_ascii() && digits.len() == 64).ok_or(EXPECTED)?;
        let mut hash = [0; 32];
        for (place, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).map_err(|_| EXPECTED)?;
        }
        Ok(Hash(hash))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The tokens that are known.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<(Name, Hash)>);

impl Tokens {
    /// These tokens.
    pub fn new(tokens: Vec<(Name, Hash)>) -> Self {
        Tokens(tokens)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the token with this hash, if it is known. How long this takes says nothing of how near it is to one
    /// that is.
    pub fn find(&self, presented: &Hash) -> Option<Name> {
        let mut found = u64::MAX;
        for (place, (_, hash)) in self.0.iter().enumerate() {
            let is_it: Choice = presented.0.ct_eq(&hash.0);
            found.conditional_assign(&(place as u64), is_it);
        }
        self.0.get(usize::try_from(found).ok()?).map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_hash_and_by_nothing_else() {
        let [one, two] = [Token::generate(), Token::generate()];
        assert!(one.as_str() != two.as_str() && one.as_str().len() == 73, "{}", one.as_str());
        let names = ["one", "two"].map(|name| Name::new(name).unwrap());
        let hashes = [&one, &two].map(|token| Hash::of(token.as_str()));
        let tokens = Tokens::new(names.into_iter().zip(hashes).collect());
        assert_eq!([&one, &two].map(|token| tokens.find(&Hash::of(token.as_str()))), names.map(Some));
        for other in ["", &one.as_str()[..72], &hashes[0].to_string()] {
            assert_eq!(tokens.find(&Hash::of(other)), None, "{other}");
        }
        assert!(Tokens::default().find(&Hash::of("")).is_none() && Tokens::default().is_empty());
    }

    #[test]
    fn a_hash_is_read_as_it_was_written() {
        let hash = Hash::of("abc");
        let written = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((hash.to_string().as_str(), written.parse()), (written, Ok(hash)));
        for odd in ["", "sha256:", &written[7..], &written[..70], &format!("{written}0"), &written.replace("ba", "ßa")]
        {
            assert!(odd.parse::<Hash>().is_err(), "{odd}");
        }
    }
}
