//! Which certificates of clients are to be trusted, and whose each is.

use std::sync::Arc;

use tokio_rustls::rustls;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::principal::Name;
use super::x509;

/// The most certificates between a client's and an authority's. Who is looked for a way through hundreds that all have
/// the same name keeps everybody waiting who connects: the ways are more than anybody can try. Nobody needs more than two.
const BETWEEN_MAX: usize = 4;

/// Trusts what leads to one of the authorities.
#[derive(Debug)]
pub(super) struct Clients {
    /// Judges signatures, times, uses and lists of revoked ones.
    judge: Arc<dyn ClientCertVerifier>,
    /// Whether one of the authorities may give some names only.
    are_limited: bool,
}

impl Clients {
    /// Trusts what `judge` trusts. `are_limited` says that one of its authorities may give some names only.
    pub(super) fn new(judge: Arc<dyn ClientCertVerifier>, are_limited: bool) -> Self {
        Clients { judge, are_limited }
    }

    /// Whether a certificate is to be trusted now: it comes first, and then what leads to an authority.
    pub(super) fn trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let [certificate, between @ ..] = chain else { return false };
        self.verify_client_cert(certificate, between, UnixTime::now()).is_ok()
    }

    /// The name of who has a certificate that is trusted. Where an authority may give some names only, hosts' names are
    /// the only ones that count: nothing holds it to them in others, so a URI or a common name could be anybody's.
    pub(super) fn name_of(&self, chain: &[CertificateDer<'_>]) -> Option<Name> {
        let [certificate, between @ ..] = chain else { return None };
        let are_limited = self.are_limited || between.iter().any(|authority| x509::limits_names(authority));
        if are_limited { x509::host_of(certificate) } else { x509::name_of(certificate) }
    }
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.judge.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.judge.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.judge.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if between.len() > BETWEEN_MAX {
            return Err(CertificateError::UnknownIssuer.into());
        }
        self.judge.verify_client_cert(certificate, between, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}
