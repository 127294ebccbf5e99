//! Z85: keys as text that can stand in files and on command lines (ZeroMQ RFC 32).

use zeroize::Zeroizing;

const ALPHABET: &[u8; 85] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// Four bytes for each five characters. `bytes` is a multiple of four long; what is left over is not encoded.
pub(super) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    // All of it at once: a string that grows leaves copies of secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() / 4 * 5));
    for group in bytes.as_chunks::<4>().0 {
        let number = u32::from_be_bytes(*group);
        for divisor in [85 * 85 * 85 * 85, 85 * 85 * 85, 85 * 85, 85, 1] {
            text.push(char::from(ALPHABET[(number / divisor % 85) as usize]));
        }
    }
    text
}

/// The 32 bytes of a key; `None` if these are not 40 characters of Z85.
pub(super) fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let (groups, rest) = text.as_bytes().as_chunks::<5>();
    let mut key = Zeroizing::new([0; 32]);
    if groups.len() != 8 || !rest.is_empty() {
        return None;
    }
    for (group, bytes) in groups.iter().zip(key.as_chunks_mut::<4>().0) {
        let mut number = 0_u32;
        for character in group {
            let digit = ALPHABET.iter().position(|known| known == character)?;
            number = number.checked_mul(85)?.checked_add(u32::try_from(digit).ok()?)?;
        }
        *bytes = number.to_be_bytes();
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_the_specification_does() {
        let bytes = [0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b];
        assert_eq!(*encode(&bytes), "HelloWorld");
        assert_eq!(*encode(&[0xff; 4]), "%nSc0");
    }

    #[test]
    fn decodes_what_it_encodes() {
        for seed in 0..=255_u8 {
            let key: [u8; 32] = std::array::from_fn(|index| seed.wrapping_mul(31).wrapping_add((index * 89) as u8));
            let text = encode(&key);
            assert_eq!(text.len(), 40);
            assert_eq!(*decode(&text).unwrap(), key);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let good = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
        assert!(decode(good).is_some());
        for length in 0..good.len() {
            assert!(decode(&good[..length]).is_none(), "{length} characters");
        }
        assert!(decode(&format!("{good}0")).is_none());
        assert!(decode(&format!("{good}00000")).is_none());
        for bad in ['"', '\'', ' ', '\\', ',', ';', '_', '~', '|', '`', '\0', '\u{7f}'] {
            assert!(decode(&good.replace('Y', &bad.to_string())).is_none(), "{bad:?}");
        }
        // As many bytes, but other characters.
        assert!(decode(&good.replace("Yn", "ä")).is_none());
        // Five characters may stand for more than four bytes hold.
        assert!(decode(&good.replace("Yne@$", "%nSc0")).is_some());
        assert!(decode(&good.replace("Yne@$", "%nSc1")).is_none());
        assert!(decode(&good.replace("Yne@$", "#####")).is_none());
    }
}
