//! Keys in files, as CZMQ (`zcert`) and pyzmq (`zmq.auth`) write and read them:
//!
//! ```text
//! # A comment
//! metadata
//!     name = "camera"
//! curve
//!     public-key = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
//!     secret-key = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
//! ```
//!
//! By their convention `NAME.key` holds the public key only, and `NAME.key_secret` both.

use zeroize::Zeroizing;

use super::key::{KeyPair, PublicKey, SecretKey};

const PUBLIC_BANNER: &str = "\
# ZeroMQ CURVE public certificate
# Give it to those who are to know this key, in a way that nobody can change it on.
";
const SECRET_BANNER: &str = "\
# ZeroMQ CURVE **secret** certificate
# Give this file to nobody, and let nobody else read it.
";

/// A key and what is said about it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Who it is about.
    pub public: PublicKey,
    /// Only in a secret certificate.
    pub secret: Option<SecretKey>,
    /// Names and values, in the order of the file.
    pub metadata: Vec<(String, String)>,
}

/// Text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A line that is not understood. It is not repeated, since it may hold a secret.
    #[error("line {line}: expected {expected}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// There is no key.
    #[error("no public-key: expected a certificate as `registry keygen`, CZMQ and pyzmq write them")]
    NoPublicKey,
}

const KEY: &str = "a key: 40 characters of Z85 in quotes";
const SECTION: &str = "`metadata` or `curve`, or NAME = VALUE indented below them";

impl Certificate {
    /// The one certificate in the text.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn parse(text: &str) -> Result<Self, CertificateError> {
        let mut certificates = Self::parse_all(text)?;
        match certificates.len() {
            1 => Ok(certificates.remove(0)),
            _ => Err(CertificateError::Line { line: 1, expected: "one certificate in this file, not several" }),
        }
    }

    /// All certificates in the text, at least one. Each begins with its `metadata`, or with its `curve` if it has none.
    ///
    /// # Errors
    /// The first line that is not understood.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, CertificateError> {
        let mut done = Vec::new();
        let mut draft = Draft::default();
        let mut section = Section::None;
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let wrong = |expected| CertificateError::Line { line: index + 1, expected };
            let content = line.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            if !line.starts_with([' ', '\t']) {
                // What follows a section's name is a comment, if anything.
                section = match content.split_whitespace().next() {
                    Some("metadata") => Section::Metadata,
                    Some("curve") => Section::Curve,
                    _ => return Err(wrong(SECTION)),
                };
                if draft.public.is_some() {
                    done.push(std::mem::take(&mut draft).finish()?);
                }
                continue;
            }
            let (name, value) = content.split_once('=').ok_or(wrong(SECTION))?;
            let (name, value) = (name.trim(), unquoted(value.trim()));
            match (section, name) {
                (Section::None, _) => return Err(wrong(SECTION)),
                (Section::Metadata, _) => draft.metadata.push((name.to_string(), value.to_string())),
                (Section::Curve, "public-key") if draft.public.is_some() => {
                    return Err(wrong("one public-key below each `curve`"));
                }
                (Section::Curve, "public-key") => draft.public = Some(value.parse().map_err(|_| wrong(KEY))?),
                (Section::Curve, "secret-key") => draft.secret = Some(value.parse().map_err(|_| wrong(KEY))?),
                (Section::Curve, _) => return Err(wrong("public-key or secret-key")),
            }
        }
        done.push(draft.finish()?);
        Ok(done)
    }

    /// What the metadata says under that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Copy)]
enum Section {
    None,
    Metadata,
    Curve,
}

/// What is known of a certificate so far.
#[derive(Default)]
struct Draft {
    public: Option<PublicKey>,
    secret: Option<SecretKey>,
    metadata: Vec<(String, String)>,
}

impl Draft {
    fn finish(self) -> Result<Certificate, CertificateError> {
        let public = self.public.ok_or(CertificateError::NoPublicKey)?;
        Ok(Certificate { public, secret: self.secret, metadata: self.metadata })
    }
}

/// A value without its quotes, or without the comment behind it. CZMQ writes quotes, pyzmq only around keys.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some((inside, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inside;
        }
    }
    // A # can be part of a key; a comment has a space before it.
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end())
}

/// The public certificate of a pair. `name` says whose it is, and holds neither quotes nor line feeds.
pub fn public_text(keys: &KeyPair, name: &str) -> String {
    let public = keys.public();
    format!("{PUBLIC_BANNER}\nmetadata\n    name = \"{name}\"\ncurve\n    public-key = \"{public}\"\n")
}

/// The secret certificate of a pair, likewise.
pub fn secret_text(keys: &KeyPair, name: &str) -> Zeroizing<String> {
    let (public, secret) = (keys.public(), keys.secret().to_z85());
    let parts = [
        SECRET_BANNER,
        "\nmetadata\n    name = \"",
        name,
        "\"\ncurve\n    public-key = \"",
        &public.to_string(),
        "\"\n    secret-key = \"",
        &secret,
        "\"\n",
    ];
    // All of it at once: a string that grows leaves copies of secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| text.push_str(part));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
    const SECRET: &str = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";
    const OTHER: &str = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";

    /// As pyzmq 27.3 writes them, banner and all.
    fn pyzmq() -> String {
        format!(
            "#   ****  Generated on 2026-11-24 17:14:27.084351 by pyzmq  ****\n#   ZeroMQ CURVE **Secret** Certificate\n\
             #   DO NOT PROVIDE THIS FILE TO OTHER USERS nor change its permissions.\n\nmetadata\n    name = camera 7\n\
             curve\n    public-key = \"{PUBLIC}\"\n    secret-key = \"{SECRET}\"\n"
        )
    }

    fn line(text: &str) -> usize {
        match Certificate::parse_all(text).unwrap_err() {
            CertificateError::Line { line, .. } => line,
            error => panic!("{error}"),
        }
    }

    #[test]
    fn reads_what_pyzmq_writes() {
        let certificate = Certificate::parse(&pyzmq()).unwrap();
        assert_eq!(certificate.public.to_string(), PUBLIC);
        assert_eq!(*certificate.secret.as_ref().unwrap().to_z85(), SECRET);
        assert_eq!(certificate.get("name"), Some("camera 7"));
        assert_eq!(certificate.get("email"), None);
    }

    #[test]
    fn reads_what_czmq_writes() {
        let text = format!(
            "#   ****  Generated on 2015-02-16 01:31:43 by CZMQ  ****\n\nmetadata\n    email = \"foo@bar.org\"\n    \
             name = \"a # b\"\ncurve\n    public-key = \"{OTHER}\"\n"
        );
        let certificate = Certificate::parse(&text).unwrap();
        assert_eq!(certificate.public.to_string(), OTHER);
        assert!(certificate.secret.is_none());
        assert_eq!(certificate.get("name"), Some("a # b"));
    }

    #[test]
    fn is_not_particular_about_spaces_quotes_and_comments() {
        for text in [
            format!("curve\n\tpublic-key='{PUBLIC}'"),
            format!("curve\r\n    public-key  =  {PUBLIC}\r\n"),
            format!("\u{feff}curve # keys\n  public-key = {PUBLIC} # mine\n\n# done"),
            format!("curve\n    public-key = \"{PUBLIC}\" # mine"),
        ] {
            assert_eq!(Certificate::parse(&text).unwrap().public.to_string(), PUBLIC, "{text}");
        }
        // Z85 has the characters that begin a comment and a value.
        let odd = PublicKey::from_bytes([0xff; 32]).to_string().replace("%nSc0", "k#=$#");
        let text = format!("curve\n    public-key = {odd}\n");
        assert_eq!(Certificate::parse(&text).unwrap().public.to_string(), odd);
    }

    #[test]
    fn several_can_stand_in_one_file() {
        let one = |name: &str, key: &str| format!("metadata\n    name = {name}\ncurve\n    public-key = \"{key}\"\n");
        let text = format!("{}{}curve\n    public-key = \"{PUBLIC}\"\n", one("a", PUBLIC), one("b", OTHER));
        let all = Certificate::parse_all(&text).unwrap();
        let told: Vec<_> = all.iter().map(|one| (one.get("name"), one.public.to_string())).collect();
        let expected = [(Some("a"), PUBLIC), (Some("b"), OTHER), (None, PUBLIC)];
        assert_eq!(told, expected.map(|(name, key)| (name, key.to_string())));
        assert!(Certificate::parse(&text).is_err());
    }

    #[test]
    fn says_which_line_is_wrong_without_repeating_it() {
        assert_eq!(line("\n# x\nkeys\n"), 3);
        assert_eq!(line("  public-key = \"x\"\n"), 1);
        assert_eq!(line("curve\n    public-key\n"), 2);
        assert_eq!(line("curve\n    private-key = \"x\"\n"), 2);
        assert_eq!(line(&format!("curve\n    public-key = {PUBLIC}\n    public-key = {OTHER}\n")), 3);
        assert_eq!(line(&format!("curve\n    public-key = \"{PUBLIC}\"\n    secret-key = \"{}\"\n", &SECRET[1..])), 3);
        let error = Certificate::parse(&pyzmq().replace(SECRET, &SECRET[1..])).unwrap_err().to_string();
        assert!(!error.contains(&SECRET[1..]) && error.starts_with("line 9: "), "{error}");
        for text in ["", "curve\n", "metadata\n    name = x\n", &format!("curve\n    secret-key = {SECRET}\n")] {
            assert_eq!(Certificate::parse(text).unwrap_err(), CertificateError::NoPublicKey, "{text}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let keys = KeyPair::generate();
        let public = Certificate::parse(&public_text(&keys, "a b")).unwrap();
        assert_eq!((public.public, public.get("name")), (*keys.public(), Some("a b")));
        assert!(public.secret.is_none());
        let secret = Certificate::parse(&secret_text(&keys, "a b")).unwrap();
        assert_eq!((secret.public, secret.get("name")), (*keys.public(), Some("a b")));
        assert_eq!(secret.secret.unwrap().as_bytes(), keys.secret().as_bytes());
    }
}
