//! TLS: the registry's own certificate, and those of clients.
//!
//! Clients may show a certificate, and need not: who has none may have a token. Nothing of a connection is kept for the
//! next one (no sessions to resume), so whoever connects is looked at anew, by what holds then.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use super::clients::Clients;
use super::principal::Name;
use super::{KeyFileError, revoked, secret_file, x509};
use crate::config;
use crate::text::{counted, utc};

/// Much longer than any chain, and long enough for long lists of revoked certificates.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How many bytes of a file's hash are shown: enough to tell two files apart.
const SHOWN_BYTES: usize = 6;
/// What is spoken over TLS.
const ALPN: &[u8] = b"http/1.1";

/// What TLS is spoken with.
#[derive(Debug)]
pub struct Tls {
    server: Arc<ServerConfig>,
    clients: Option<Arc<Clients>>,
    /// What there is in each file, by its key: another text if it is another file.
    files: Vec<(&'static str, String)>,
    /// When the registry's own certificate runs out, in seconds since the Unix epoch.
    holds_until: Option<u64>,
    /// What operators should look at, though all of it can be used.
    warnings: Vec<String>,
}

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It is not there, or not to be read.
    #[error("{key}: cannot read {}: {error}", path.display())]
    Unreadable {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// There is something else in it.
    #[error("{key}: {}: {problem}", path.display())]
    Unusable {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// The private key is not one, or others can read it.
    #[error("http.key_file: {0}")]
    Key(#[from] KeyFileError),
    /// The library that speaks TLS refuses.
    #[error("TLS cannot be spoken: {0}")]
    Library(#[from] rustls::Error),
}

impl Tls {
    /// Reads the files that are configured; `None` if there are none. Takes as long as the disk does.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(http: &config::Http) -> Result<Option<Arc<Self>>, TlsError> {
        // `load` of the configuration has refused one without the other.
        let (Some(certificate), Some(key)) = (&http.certificate_file, &http.key_file) else { return Ok(None) };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut files = Vec::new();
        let own = Pem::read("http.certificate_file", certificate)?;
        let chain: Vec<CertificateDer<'static>> = own.all("certificate")?;
        let holds_until = chain.first().and_then(|certificate| x509::holds_until(certificate));
        let until = holds_until.map(|until| format!("until {}, ", utc(until as f64))).unwrap_or_default();
        files.push((own.key, format!("{until}{}", own.shown())));
        let now = UnixTime::now().as_secs();
        let mut warnings: Vec<String> = holds_until.and_then(|until| warning(until, now)).into_iter().collect();
        let clients = match &http.client_ca_file {
            Some(authorities) => {
                let lists = http.client_crl_file.as_deref().map(|path| Pem::read("http.client_crl_file", path));
                let (authorities, lists) = (Pem::read("http.client_ca_file", authorities)?, lists.transpose()?);
                let of_lists = lists.as_ref().map(|lists| (lists.key, lists.shown()));
                files.extend([(authorities.key, authorities.shown())].into_iter().chain(of_lists));
                let (clients, of_lists) = clients_of(&authorities, lists.as_ref(), &provider, now)?;
                warnings.extend(of_lists);
                Some(Arc::new(clients))
            }
            None => None,
        };
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(chain, private_key(key)?).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                unusable("http.key_file", key, "it is not the key of the first certificate of http.certificate_file")
            }
            rustls::Error::InvalidCertificate(problem) => own.unusable(format!("its first certificate: {problem}")),
            other => unusable("http.key_file", key, other.to_string()),
        })?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Some(Arc::new(Tls { server: Arc::new(server), clients, files, holds_until, warnings })))
    }

    /// By what connections are accepted.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// Whether a client's certificate is to be trusted now: it comes first, and then what leads to an authority.
    pub(crate) fn trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        self.clients.as_ref().is_some_and(|clients| clients.trusts(chain))
    }

    /// The name of who has a certificate that is trusted, if it has one that can be used.
    pub(crate) fn name_of(&self, chain: &[CertificateDer<'_>]) -> Option<Name> {
        self.clients.as_ref().and_then(|clients| clients.name_of(chain))
    }

    /// When the registry's own certificate runs out, in seconds since the Unix epoch, as far as it can be read.
    pub fn holds_until(&self) -> Option<u64> {
        self.holds_until
    }

    /// What operators should look at, though all of it can be used.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Why this should not take the place of what is in use, though it can be used, if there is a reason.
    pub(crate) fn is_worse_than(&self, in_use: &Tls) -> Option<String> {
        let now = UnixTime::now().as_secs();
        let (until, in_use_until) = (self.holds_until?, in_use.holds_until?);
        (until < now && now <= in_use_until).then(|| {
            format!(
                "http.certificate_file: the certificate ran out at {}: expected one that holds, as that in use does \
                 until {}",
                utc(until as f64),
                utc(in_use_until as f64)
            )
        })
    }

    /// What there is in each file, by the key that names it: another text if the file is another one.
    pub fn files(&self) -> &[(&'static str, String)] {
        &self.files
    }
}

/// Trusts certificates of these authorities, but for those on the lists; and what is to be said of the lists.
fn clients_of(
    authorities: &Pem<'_>,
    lists: Option<&Pem<'_>>,
    provider: &Arc<CryptoProvider>,
    now: u64,
) -> Result<(Clients, Vec<String>), TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in authorities.all::<CertificateDer<'static>>("certificate")?.into_iter().enumerate() {
        let added = roots.add(certificate);
        added.map_err(|error| authorities.unusable(format!("certificate {}: {error}", index + 1)))?;
    }
    let are_limited = roots.roots.iter().any(|authority| authority.name_constraints.is_some());
    let lists_of = |lists: &Pem<'_>| lists.all::<CertificateRevocationListDer<'static>>("X509 CRL");
    let all = lists.map(lists_of).transpose()?.unwrap_or_default();
    let mut warnings = Vec::new();
    let known = &provider.signature_verification_algorithms;
    for (index, list) in all.iter().enumerate() {
        let (file, number) = (lists.unwrap_or(authorities), index + 1);
        let said = revoked::looked_at(list, &roots.roots, known, now);
        let said = said.map_err(|problem| file.unusable(format!("list {number}: {problem}")))?;
        warnings.extend(said.into_iter().map(|said| format!("{}: list {number} {said}", file.key)));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    // Not every authority has a list.
    let builder = builder.with_crls(all).allow_unknown_revocation_status().allow_unauthenticated();
    let judge = builder.build().map_err(|error| lists.unwrap_or(authorities).unusable(error.to_string()))?;
    Ok((Clients::new(judge, are_limited), warnings))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const EXPECTED: &str = "expected a private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted";
    let key = "http.key_file";
    let text = secret_file(path).map_err(|error| match error {
        KeyFileError::NoFile(_) => unusable(key, path, EXPECTED),
        other => other.into(),
    })?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => unusable(key, path, format!("there is none in it: {EXPECTED}")),
        other => unusable(key, path, format!("{other}: {EXPECTED}")),
    })
}

/// A file that has been read.
struct Pem<'a> {
    key: &'static str,
    path: &'a Path,
    bytes: Vec<u8>,
}

impl<'a> Pem<'a> {
    fn read(key: &'static str, path: &'a Path) -> Result<Self, TlsError> {
        let unreadable = |error| TlsError::Unreadable { key, path: path.to_path_buf(), error };
        // First, because opening a pipe would wait.
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
            return Err(unusable(key, path, format!("expected a file of at most {FILE_BYTES_MAX} bytes")));
        }
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)).map_err(unreadable)?;
        Ok(Pem { key, path, bytes })
    }

    /// All of one kind that are in it, one at least.
    fn all<T: PemObject>(&self, kind: &str) -> Result<Vec<T>, TlsError> {
        let expected = format!("expected PEM, with -----BEGIN {}-----", kind.to_uppercase());
        let read: Result<Vec<T>, _> = T::pem_slice_iter(&self.bytes).collect();
        let all = read.map_err(|error| self.unusable(format!("{error}: {expected}")))?;
        if all.is_empty() { Err(self.unusable(format!("there is none in it: {expected}"))) } else { Ok(all) }
    }

    fn unusable(&self, problem: String) -> TlsError {
        unusable(self.key, self.path, problem)
    }

    /// Tells it from another one.
    fn shown(&self) -> String {
        let hash = Sha256::digest(&self.bytes);
        hash[..SHOWN_BYTES].iter().fold(String::from("sha256:"), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

fn unusable(key: &'static str, path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Unusable { key, path: path.to_path_buf(), problem: problem.into() }
}

/// For the log: how long a certificate still holds, if that is worth a warning.
fn warning(holds_until: u64, unix_seconds: u64) -> Option<String> {
    const SOON_DAYS: u64 = 14;
    let until = utc(holds_until as f64);
    match holds_until.checked_sub(unix_seconds).map(|left| left / 86_400) {
        None => Some(format!("http.certificate_file: the certificate ran out at {until}: clients will refuse it")),
        Some(days) if days < SOON_DAYS => Some(format!(
            "http.certificate_file: the certificate runs out in {}, at {until}",
            counted(days as usize, "day", "days")
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_near_is_warned_of() {
        let now = 1_795_651_200;
        let said = |until| warning(until, now).unwrap_or_default();
        assert!(said(now - 1).contains("ran out at 2026-11-25T23:59:59Z"), "{}", said(now - 1));
        assert!(said(now + 86_400).contains("runs out in 1 day, at 2026-11-27T00:00:00Z"), "{}", said(now + 86_400));
        assert!(said(now + 13 * 86_400).contains("13 days") && warning(now + 14 * 86_400, now).is_none());
    }
}
