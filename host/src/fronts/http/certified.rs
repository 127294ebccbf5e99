//! A client that has shown a certificate, and whether that is still to be trusted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::security::principal::Name;
use crate::security::tls::Tls;

use super::live::Live;

/// For so long what was found holds, unless something else is configured: by then a certificate may have run out.
const FOUND_MAX: Duration = Duration::from_secs(60);
const NAMELESS: &str = "this certificate has no name that can be used, see docs/http.md";

/// What a client has shown when it connected.
#[derive(Debug)]
pub(super) struct Certified {
    /// Its certificate, and those that lead to an authority.
    chain: Vec<CertificateDer<'static>>,
    found: Mutex<Found>,
}

/// What was found when it was looked at last.
#[derive(Debug)]
struct Found {
    /// Its name, if it is to be trusted; else what is to be said of it.
    name: Result<Name, &'static str>,
    /// What held then.
    version: u64,
    at: Instant,
}

impl Found {
    fn new(name: Result<Name, &'static str>, version: u64) -> Self {
        Found { name, version, at: Instant::now() }
    }
}

impl Certified {
    /// A chain that this has found to be trusted just now, where that version held.
    pub(super) fn new(chain: &[CertificateDer<'_>], tls: &Tls, version: u64) -> Self {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let found = Found::new(tls.name_of(&chain).ok_or(NAMELESS), version);
        Certified { chain, found: Mutex::new(found) }
    }

    /// Its name, if it is still to be trusted.
    ///
    /// # Errors
    /// What is to be said of it.
    pub(super) fn name(&self, live: &Live) -> Result<Name, &'static str> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.version != live.version || found.at.elapsed() > FOUND_MAX {
            let tls = live.tls.as_ref().filter(|tls| tls.trusts(&self.chain));
            let name = match tls {
                Some(tls) => tls.name_of(&self.chain).ok_or(NAMELESS),
                None => Err("this certificate is not trusted any more"),
            };
            *found = Found::new(name, live.version);
        }
        found.name
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

    use super::super::live::Basis;
    use super::*;
    use crate::config::Config;

    fn certificate(authority: &CertifiedIssuer<'_, KeyPair>, year: i32) -> CertificateDer<'static> {
        let (mut params, key) = (CertificateParams::new(vec!["a.lab".into()]).unwrap(), KeyPair::generate().unwrap());
        params.not_after = date_time_ymd(year, 1, 1);
        params.signed_by(&key, authority).unwrap().der().clone()
    }

    #[test]
    fn what_has_run_out_since_it_was_shown_is_found_when_it_is_looked_at_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let [own, key] = ["own.pem", "own.key"].map(|name| directory.path().join(name));
        let self_signed =
            CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&own, self_signed.pem()).unwrap();
        std::fs::write(&key, self_signed.key().serialize_pem()).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let authorities = directory.path().join("ca.pem");
        std::fs::write(&authorities, authority.pem()).unwrap();
        let mut config = Config::default();
        (config.http.certificate_file, config.http.key_file) = (Some(own), Some(key));
        config.http.client_ca_file = Some(authorities);
        let tls = Tls::load(&config.http).unwrap().unwrap();
        let live = |version| Live::of(&config, Some(tls.clone()), version, &Basis { req_port: 0, has_keys: false });
        for (year, outlives) in [(2090, true), (2020, false)] {
            let shown = Certified::new(&[certificate(&authority, year)], &tls, 7);
            assert_eq!(shown.name(&live(7)).map(|name| name.to_string()), Ok("a.lab".into()), "as it was found");
            let Some(earlier) = Instant::now().checked_sub(FOUND_MAX * 2) else { continue };
            shown.found.lock().unwrap().at = earlier;
            assert_eq!(shown.name(&live(7)).is_ok(), outlives, "{year}, later");
            let shown = Certified::new(&[certificate(&authority, year)], &tls, 7);
            assert_eq!(shown.name(&live(8)).is_ok(), outlives, "{year}, after a reload");
        }
    }
}
