//! Keys, as text and from files as `registry keygen` writes them.

use std::path::Path;

use registry_zmtp::client::Keys;
use registry_zmtp::keys::certificate::Certificate;
use registry_zmtp::keys::key::{KeyPair, PublicKey, SecretKey};
use registry_zmtp::keys::key_file;

use crate::error::Error;

/// The keys for a registry that asks for some: one's own secret certificate (`camera.key_secret`), and the registry's
/// public key, as it is or as the name of its certificate (`registry.key`).
///
/// # Errors
/// One of them cannot be read, or is no key.
///
/// ```no_run
/// use registry_client::{Registry, keys};
///
/// let keys = keys::load("camera.key_secret", "registry.key")?;
/// let registry = Registry::builder().host("registry.example").keys(keys).connect()?;
/// # Ok::<(), registry_client::Error>(())
/// ```
pub fn load(own: impl AsRef<Path>, server: &str) -> Result<Keys, Error> {
    Ok(Keys {
        own: key_file(own.as_ref()).map_err(|error| Error::Invalid(error.to_string()))?,
        server: public(server)?,
    })
}

/// The keys for a registry that asks for some, as text of 40 characters each (Z85): one's own secret key, and the
/// registry's public one.
///
/// # Errors
/// One of them is no key.
pub fn from_text(secret: &str, server: &str) -> Result<Keys, Error> {
    let expected = |what: &str| Error::Invalid(format!("expected {what}, 40 characters"));
    let secret: SecretKey = secret.parse().map_err(|_| expected("your secret key"))?;
    let server = server.parse().map_err(|_| expected("the registry's public key"))?;
    Ok(Keys { own: KeyPair::from(secret), server })
}

/// A public key: as it is, or that of a certificate.
///
/// # Errors
/// It is neither.
pub fn public(text: &str) -> Result<PublicKey, Error> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let expected = "expected the registry's public key, 40 characters, or its certificate";
    let read = std::fs::read_to_string(text);
    let certificate = read.map_err(|error| Error::Invalid(format!("{text}: {error}; {expected}")))?;
    let certificate = Certificate::parse(&certificate);
    Ok(certificate.map_err(|error| Error::Invalid(format!("{text}: {error}")))?.public)
}
