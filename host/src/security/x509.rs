//! What is read in a certificate of TLS: whose it is, and until when it holds.
//!
//! Whether it is to be trusted is decided elsewhere ([`tls`](super::tls)), before anybody goes by its name. Here are the
//! few fields that this does not tell, read from the certificate's DER.

use super::principal::Name;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BITS: u8 = 0x03;
pub(super) const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const IA5: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Fields that may be left out have tags of their own: the version, and the extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// Among the alternative names: of hosts, and URIs.
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];

/// The name of who has this certificate, given as DER: the first DNS name (in lower case) of its subjectAltName, else the
/// first URI there, else the one CN of its subject. `None` if there is no such name, or it is not [one](Name::new): then
/// none of the others counts.
pub fn name_of(certificate: &[u8]) -> Option<Name> {
    let fields = Fields::read(certificate)?;
    let alternatives = fields.alternatives();
    if first(&alternatives, DNS_NAME).is_some() {
        return host_among(&alternatives);
    }
    Name::new(str::from_utf8(first(&alternatives, URI).or_else(|| common_name(fields.subject))?).ok()?)
}

/// The same, but only if it is a DNS name.
pub fn host_of(certificate: &[u8]) -> Option<Name> {
    host_among(&Fields::read(certificate)?.alternatives())
}

/// Whether this certificate of an authority, given as DER, says which names it may give.
pub fn limits_names(certificate: &[u8]) -> bool {
    Fields::read(certificate).is_some_and(|fields| fields.extension(NAME_CONSTRAINTS).is_some())
}

/// The first of the alternative names with this tag.
fn first<'a>(alternatives: &[(u8, &'a [u8])], tag: u8) -> Option<&'a [u8]> {
    alternatives.iter().find(|(kind, _)| *kind == tag).map(|(_, text)| *text)
}

fn host_among(alternatives: &[(u8, &[u8])]) -> Option<Name> {
    Name::new(&str::from_utf8(first(alternatives, DNS_NAME)?).ok()?.to_ascii_lowercase())
}

/// The moment after which a certificate, given as DER, holds no more, in seconds since the Unix epoch.
pub fn holds_until(certificate: &[u8]) -> Option<u64> {
    moment(Der(Fields::read(certificate)?.validity).nth(1)?)
}

/// A moment, in seconds since the Unix epoch.
pub(super) fn moment((tag, time): (u8, &[u8])) -> Option<u64> {
    let text = str::from_utf8(time).ok().filter(|text| text.is_ascii())?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => text.split_at_checked(4).and_then(|(year, rest)| Some((year.parse().ok()?, rest)))?,
        _ => return None,
    };
    let digits = rest.parse::<u64>().ok().filter(|_| rest.len() == 10)?;
    let part = |place: u32| digits / 100_u64.pow(place) % 100;
    let [month, day, hour, minute, second] = [4, 3, 2, 1, 0].map(part);
    let days = days_before(year, month, day).filter(|_| hour < 24 && minute < 60 && second < 61)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// How many days lie between the Unix epoch and this one.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = leap_days(year) > leap_days(year.checked_sub(1)?);
    let before_month = BEFORE_MONTH.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    let leap_day = u64::from(is_leap && month > 2);
    let days = 365 * year + leap_days(year - 1) + before_month + leap_day + day.checked_sub(1)?;
    days.checked_sub(365 * 1970 + leap_days(1969))
}

/// The parts of a certificate.
struct Fields<'a> {
    validity: &'a [u8],
    subject: &'a [u8],
    extensions: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(certificate: &'a [u8]) -> Option<Self> {
        let mut signed = Der(Der(certificate).expect(SEQUENCE)?);
        let mut fields = Der(signed.expect(SEQUENCE)?).peekable();
        fields.next_if(|(tag, _)| *tag == VERSION);
        // Serial number, algorithm, issuer.
        let (validity, subject) = (fields.nth(3)?.1, fields.next()?.1);
        let extensions = fields.find(|(tag, _)| *tag == EXTENSIONS).map(|(_, content)| content);
        Some(Fields { validity, subject, extensions })
    }

    /// The content of an extension.
    fn extension(&self, wanted: &[u8]) -> Option<&'a [u8]> {
        let list = Der(self.extensions?).expect(SEQUENCE)?;
        Der(list).find_map(|(_, extension)| {
            let mut parts = Der(extension);
            parts.expect(OID).filter(|id| *id == wanted)?;
            parts.find(|(tag, _)| *tag == OCTETS).map(|(_, content)| content)
        })
    }

    /// The alternative names, each with its tag.
    fn alternatives(&self) -> Vec<(u8, &'a [u8])> {
        let names = self.extension(SUBJECT_ALT_NAME).and_then(|content| Der(content).expect(SEQUENCE));
        names.map(|names| Der(names).collect()).unwrap_or_default()
    }
}

/// The CN of a subject, if it has exactly one.
fn common_name(subject: &[u8]) -> Option<&[u8]> {
    let attributes = Der(subject).filter(|(tag, _)| *tag == SET).flat_map(|(_, set)| Der(set));
    let mut names = attributes.filter_map(|(_, attribute)| {
        let mut parts = Der(attribute);
        parts.expect(OID).filter(|id| *id == COMMON_NAME)?;
        parts.next()
    });
    let (tag, name) = names.next()?;
    ([UTF8, PRINTABLE, IA5].contains(&tag) && names.next().is_none()).then_some(name)
}

/// Values of DER, one behind the other: the tag and the content of each.
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next value, if it has this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

impl<'a> Iterator for Der<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [tag, length, rest @ ..] = std::mem::take(&mut self.0) else { return None };
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            // That many bytes of length follow.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn made(set: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        set(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn name(common: &[&str], alternatives: Vec<SanType>) -> Option<String> {
        let certificate = made(|params| {
            common.iter().for_each(|name| params.distinguished_name.push(DnType::CommonName, *name));
            params.subject_alt_names = alternatives;
        });
        name_of(&certificate).map(|name| name.to_string())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(name: &str) -> SanType {
        SanType::URI(name.try_into().unwrap())
    }

    #[test]
    fn a_name_is_the_first_of_hosts_else_of_uris_else_the_common_one() {
        let address = || SanType::IpAddress([127, 0, 0, 1].into());
        for (common, alternatives, expected) in [
            (&["cn"][..], vec![], Some("cn")),
            (&["Käm 1"], vec![address()], Some("Käm 1")),
            (&["cn"], vec![uri("spiffe://lab/a"), dns("A.lab"), dns("b.lab")], Some("a.lab")),
            (&["cn"], vec![uri("spiffe://lab/A"), uri("spiffe://lab/b")], Some("spiffe://lab/A")),
            (&[], vec![address()], None),
            (&[" cn"], vec![], None),
            (&["cn"], vec![dns(&"x".repeat(129)), dns("b.lab")], None),
            (&["cn"], vec![dns(&"x".repeat(128))], Some(&*"x".repeat(128))),
        ] {
            assert_eq!(name(common, alternatives.clone()).as_deref(), expected, "{common:?} {alternatives:?}");
        }
    }

    #[test]
    fn who_is_held_to_hosts_has_no_other_name() {
        use rcgen::{BasicConstraints, GeneralSubtree, IsCa, NameConstraints};
        let host = |alternatives: Vec<SanType>| {
            let certificate = made(|params| {
                params.distinguished_name.push(DnType::CommonName, "cn");
                params.subject_alt_names = alternatives;
            });
            host_of(&certificate).map(|name| name.to_string())
        };
        assert_eq!(host(vec![uri("spiffe://lab/a"), dns("A.lab")]).as_deref(), Some("a.lab"));
        assert_eq!((host(vec![uri("spiffe://lab/a")]), host(vec![])), (None, None));
        let limits = |permitted_subtrees| {
            limits_names(&made(|params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                let excluded_subtrees = vec![];
                params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
            }))
        };
        assert!(limits(vec![GeneralSubtree::DnsName("lab".into())]) && !limits(vec![]));
    }

    #[test]
    fn several_common_names_are_none() {
        let attribute = |name: &[u8]| [&[0x31, 12, 0x30, 10, 0x06, 3, 0x55, 4, 3, UTF8, 3][..], name].concat();
        assert_eq!(common_name(&attribute(b"one")), Some(&b"one"[..]));
        assert_eq!(common_name(&[attribute(b"one"), attribute(b"two")].concat()), None);
    }

    #[test]
    fn the_end_is_read_in_both_spellings() {
        let until = |year, month, day| holds_until(&made(|params| params.not_after = date_time_ymd(year, month, day)));
        for (year, month, day, seconds) in [
            (1970, 1, 1, 0),
            (2000, 2, 29, 951_782_400),
            (2026, 11, 26, 1_795_651_200),
            (2049, 12, 31, 2_524_521_600),
            (2100, 3, 1, 4_107_542_400),
            (4096, 1, 1, 67_090_118_400),
        ] {
            assert_eq!(until(year, month, day), Some(seconds), "{year}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_name_and_no_end() {
        let good = made(|params| params.subject_alt_names = vec![dns("a.lab")]);
        for length in 0..good.len() {
            assert_eq!((name_of(&good[..length]), holds_until(&good[..length])), (None, None), "{length}");
        }
        // Nothing panics, whatever is said.
        for place in 0..good.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut bad = good.clone();
                bad[place] = value;
                let _ = (name_of(&bad), holds_until(&bad));
            }
        }
    }
}
