//! The keys that client commands use with a registry that asks for some.

use std::path::Path;

use super::arguments::Connection;
use super::output::Failure;
use crate::security::certificate::Certificate;
use crate::security::key::PublicKey;
use crate::security::key_file;
use registry_zmtp::client::Keys;

/// The keys that the command line names, if any.
///
/// # Errors
/// Why they cannot be used.
pub(super) fn read(connection: &Connection) -> Result<Option<Keys>, Failure> {
    let (Some(own), Some(server)) = (&connection.key, &connection.server_key) else { return Ok(None) };
    let own = key_file(own).map_err(|error| Failure::Failed(format!("--key: {error}")))?;
    let server = public_key(server).map_err(|why| Failure::Failed(format!("--server-key: {why}")))?;
    Ok(Some(Keys { own, server }))
}

/// The key itself, or that of a certificate.
fn public_key(text: &str) -> Result<PublicKey, String> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let file = Path::new(text);
    let read = std::fs::read_to_string(file);
    let expected = "expected the registry's public key, 40 characters, or its certificate";
    let certificate = read.map_err(|error| format!("{text}: {error}; {expected}"))?;
    let certificate = Certificate::parse(&certificate).map_err(|error| format!("{text}: {error}"))?;
    Ok(certificate.public)
}
