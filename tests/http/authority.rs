//! An authority that makes certificates, and clients that have them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::{Events, Http};
use crate::harness::Host;

/// Serial numbers of all certificates.
static SERIAL: AtomicU64 = AtomicU64::new(1000);

/// An authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// What leads from it to one that vouches for it, itself first; empty if nobody does.
    above: Vec<CertificateDer<'static>>,
}

/// A certificate and its key.
pub(crate) struct Held {
    certificate: Certificate,
    key: KeyPair,
    serial: u64,
    /// What leads to an authority that others know.
    between: Vec<CertificateDer<'static>>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Authority::limited(name, &[])
    }

    /// One that may give no DNS names but these and those below them; any name at all if there are none.
    pub(crate) fn limited(name: &str, hosts: &[&str]) -> Self {
        let key = KeyPair::generate().expect("there are keys");
        let issuer = CertifiedIssuer::self_signed(authority(name, hosts), key).expect("it can sign");
        Authority { issuer, above: Vec::new() }
    }

    /// The same, but this one vouches for it.
    pub(crate) fn below(&self, name: &str, hosts: &[&str]) -> Self {
        let key = KeyPair::generate().expect("there are keys");
        let issuer = CertifiedIssuer::signed_by(authority(name, hosts), key, &self.issuer).expect("it can sign");
        let above = std::iter::once(issuer.der().clone()).chain(self.above.clone()).collect();
        Authority { issuer, above }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Held {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(serial.into());
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("there are keys");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can sign");
        Held { certificate, key, serial, between: self.above.clone() }
    }

    /// A certificate for the registry.
    pub(crate) fn server(&self) -> Held {
        let mut params = CertificateParams::new(vec!["localhost".to_string()]).expect("it is a name");
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.not_after = date_time_ymd(2100, 1, 1);
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The same, but it has run out.
    pub(crate) fn expired_server(&self) -> Held {
        let mut params = CertificateParams::new(vec!["localhost".to_string()]).expect("it is a name");
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client with these alternative names.
    pub(crate) fn client(&self, names: &[SanType]) -> Held {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "common");
        params.subject_alt_names = names.to_vec();
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// So many authorities that all have the same name and vouch for none, behind a certificate that each of them may have
    /// made.
    pub(crate) fn crowd(count: usize) -> Held {
        let all: Vec<Authority> = (0..count).map(|_| Authority::new("crowd")).collect();
        let between = all.iter().map(|authority| authority.issuer.der().clone()).collect();
        Held { between, ..Authority::new("crowd").named("crowd.lab") }
    }

    /// One for a client with this DNS name.
    pub(crate) fn named(&self, name: &str) -> Held {
        self.client(&[dns(name)])
    }

    /// One that has run out.
    pub(crate) fn expired(&self, name: &str) -> Held {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![dns(name)];
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A list on which these certificates are.
    pub(crate) fn revoking(&self, revoked: &[&Held]) -> String {
        self.revoking_until(2099, revoked)
    }

    /// The same, and the next one is to come in this year.
    pub(crate) fn revoking_until(&self, year: i32, revoked: &[&Held]) -> String {
        let revoked = revoked.iter().map(|held| RevokedCertParams {
            serial_number: held.serial.into(),
            revocation_time: date_time_ymd(2023, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2023, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("it can sign").pem().expect("it is text")
    }

    /// How a client connects that trusts this authority, and shows a certificate if it has one.
    pub(crate) fn trusted_by(&self, held: Option<&Held>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("it is an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("there are some");
        let builder = builder.with_root_certificates(roots);
        Arc::new(match held {
            None => builder.with_no_client_auth(),
            Some(Held { certificate, key, between, .. }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is a key");
                let chain = std::iter::once(certificate.der().clone()).chain(between.clone()).collect();
                builder.with_client_auth_cert(chain, key).expect("they belong together")
            }
        })
    }

    /// A connection to a host that has a certificate of this authority, from who has this certificate.
    pub(crate) fn connect(&self, host: &Host, held: Option<&Held>) -> Http {
        Http::connect_tls(host.http(), self.trusted_by(held))
    }

    /// The same, for a stream of changes.
    pub(crate) fn events(&self, host: &Host, held: Option<&Held>, headers: &[(&str, &str)]) -> Events {
        Events::over(self.connect(host, held), "/v1/watch", headers)
    }
}

impl Held {
    /// Writes the certificate and its key, which nobody else may read, to `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, directory: &Path, name: &str) {
        write(directory, &format!("{name}.pem"), &self.certificate.pem());
        let key = write(directory, &format!("{name}.key"), &self.key.serialize_pem());
        std::fs::set_permissions(key, Permissions::from_mode(0o600)).expect("it is ours");
    }
}

/// What an authority has that may give no DNS names but these, or any.
fn authority(name: &str, hosts: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let permitted_subtrees: Vec<_> = hosts.iter().map(|host| GeneralSubtree::DnsName(host.to_string())).collect();
    let constraints = NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() };
    params.name_constraints = (!hosts.is_empty()).then_some(constraints);
    params
}

/// Writes a file.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("there is room");
    path
}

/// A name as hosts have it.
pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("it is a name"))
}
