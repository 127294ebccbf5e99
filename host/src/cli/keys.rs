//! The keys that client commands use with a registry that asks for some.

use registry_client::Keys;

use super::arguments::Connection;
use super::output::Failure;
use crate::security::key_file;

/// The keys that the command line names, if any.
///
/// # Errors
/// Why they cannot be used.
pub(super) fn read(connection: &Connection) -> Result<Option<Keys>, Failure> {
    let (Some(own), Some(server)) = (&connection.key, &connection.server_key) else { return Ok(None) };
    let own = key_file(own).map_err(|error| Failure::Failed(format!("--key: {error}")))?;
    let server = registry_client::keys::public(server);
    let server = server.map_err(|why| Failure::Failed(format!("--server-key: {why}")))?;
    Ok(Some(Keys { own, server }))
}
