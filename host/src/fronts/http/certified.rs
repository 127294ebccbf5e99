//! A client that has shown a certificate, and whether that is still to be trusted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::security::principal::Name;
use crate::security::x509;

use super::live::Live;

/// For so long what was found holds, unless something else is configured: by then a certificate may have run out.
const FOUND_MAX: Duration = Duration::from_secs(60);

/// What a client has shown when it connected.
#[derive(Debug)]
pub(super) struct Certified {
    /// Its certificate, and those that lead to an authority.
    chain: Vec<CertificateDer<'static>>,
    name: Option<Name>,
    found: Mutex<Found>,
}

/// What was found when it was looked at last.
#[derive(Debug)]
struct Found {
    is_trusted: bool,
    /// What held then.
    version: u64,
    at: Instant,
}

impl Certified {
    /// A chain that has been found to be trusted just now.
    pub(super) fn new(chain: &[CertificateDer<'_>], version: u64) -> Self {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let name = chain.first().and_then(|certificate| x509::name_of(certificate));
        Certified { chain, name, found: Mutex::new(Found { is_trusted: true, version, at: Instant::now() }) }
    }

    /// Its name, if it is still to be trusted.
    ///
    /// # Errors
    /// What is to be said of it.
    pub(super) fn name(&self, live: &Live) -> Result<Name, &'static str> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.version != live.version || found.at.elapsed() > FOUND_MAX {
            let is_trusted = live.tls.as_ref().is_some_and(|tls| tls.trusts(&self.chain));
            *found = Found { is_trusted, version: live.version, at: Instant::now() };
        }
        if !found.is_trusted {
            return Err("this certificate is not trusted any more");
        }
        self.name.ok_or("this certificate has no name that can be used, see docs/http.md")
    }
}
