//! Lists of revoked certificates: whose each is, and whether it does what operators think.
//!
//! A list that its authority has not signed would have all of that authority's certificates refused; one of another
//! authority would do nothing. Neither shows before somebody comes, so it is looked at when the list is read.

use tokio_rustls::rustls;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::TrustAnchor;

use super::x509::{BITS, Der, INTEGER, SEQUENCE, moment};
use crate::text::utc;

/// What is read in a list, given as DER.
#[derive(Debug)]
struct List<'a> {
    /// The name of the authority that has made it.
    issuer: &'a [u8],
    /// When the next one was to come, in seconds since the Unix epoch.
    next: Option<u64>,
    /// What is signed, by which algorithm, and how.
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> List<'a> {
    fn read(list: &'a [u8]) -> Option<Self> {
        let content = Der(list).expect(SEQUENCE)?;
        let mut parts = Der(content);
        let mut fields = Der(parts.expect(SEQUENCE)?).peekable();
        let signed = &content[..content.len() - parts.0.len()];
        let (algorithm, signature) = (parts.expect(SEQUENCE)?, bytes(parts.expect(BITS)?)?);
        fields.next_if(|(tag, _)| *tag == INTEGER);
        // Before the issuer stands the algorithm, and behind it the moment at which the list was made.
        let (issuer, next) = (fields.nth(1)?.1, fields.nth(1).and_then(moment));
        Some(List { issuer, next, signed, algorithm, signature })
    }

    fn is_signed_by(&self, authority: &TrustAnchor<'_>, known: &WebPkiSupportedAlgorithms) -> bool {
        let mut key = Der(&authority.subject_public_key_info);
        let key = key.expect(SEQUENCE).zip(key.expect(BITS).and_then(bytes));
        key.is_some_and(|(kind, key)| {
            let fits = |id: &[u8], of_key: &[u8]| id == self.algorithm && of_key == kind;
            let mut fitting = known.all.iter().filter(|one| fits(&one.signature_alg_id(), &one.public_key_alg_id()));
            fitting.any(|one| one.verify_signature(key, self.signed, self.signature).is_ok())
        })
    }
}

/// The bytes of a text of bits, of which there are none beside.
fn bytes(bits: &[u8]) -> Option<&[u8]> {
    bits.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bytes)| bytes)
}

/// What operators should know of a list, given as DER, at this moment (in seconds since the Unix epoch).
///
/// # Errors
/// Why it must not be used.
pub(super) fn looked_at(
    list: &[u8],
    authorities: &[TrustAnchor<'_>],
    known: &WebPkiSupportedAlgorithms,
    now: u64,
) -> Result<Vec<String>, String> {
    let list = List::read(list).ok_or("it cannot be read")?;
    let mut issuers = authorities.iter().filter(|authority| *authority.subject == *list.issuer).peekable();
    let stranger = issuers.peek().is_none().then(|| {
        "is of none of the authorities of http.client_ca_file: it counts for none of their certificates".to_string()
    });
    if stranger.is_none() && !issuers.any(|authority| list.is_signed_by(authority, known)) {
        return Err("the authority of http.client_ca_file that it names has not signed it".into());
    }
    let late = list.next.filter(|next| *next < now).map(|next| {
        format!("should have been followed by the next at {}: what was revoked since is not on it", utc(next as f64))
    });
    Ok(stranger.into_iter().chain(late).collect())
}
