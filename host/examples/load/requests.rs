//! What the clients ask.

use serde::Deserialize;
use serde_json::json;

use crate::Result;

/// A service's type. All are equally long, and so are the replies: a server that only echoes can send as much.
pub(crate) fn service_type(number: usize) -> String {
    format!("load-type-{number:06}")
}

/// The id of the service with that type.
pub(crate) fn service_id(number: usize) -> String {
    format!("load-{number:06}")
}

/// Registers a service for an hour.
pub(crate) fn register(id: &str, service_type: &str) -> Vec<u8> {
    let service_info = json!({
        "id": id, "name": "Load Service", "host": "127.0.0.1", "port": 7000, "type": service_type,
        "tags": [service_type, "load"], "metadata": {"site": "bench", "version": "1.2.3"},
    });
    json!({"action": "register", "service_info": service_info, "ttl": 3600}).to_string().into_bytes()
}

/// Asks for a service.
pub(crate) fn discover(service_type: &str) -> Vec<u8> {
    json!({"action": "discover", "service_type": service_type}).to_string().into_bytes()
}

/// A heartbeat.
pub(crate) fn renew(id: &str) -> Vec<u8> {
    json!({"action": "renew", "service_id": id}).to_string().into_bytes()
}

/// Checks that a reply is a success.
///
/// # Errors
/// If it is not: with what it says.
pub(crate) fn check(reply: &[u8]) -> Result<()> {
    /// What every reply has.
    #[derive(Deserialize)]
    struct Reply {
        success: bool,
    }
    // Reading all of it would cost more than some servers take for writing it.
    if reply.starts_with(b"{\"success\":true") || reply.starts_with(b"{\"success\": true") {
        return Ok(());
    }
    match serde_json::from_slice(reply) {
        Ok(Reply { success: true }) => Ok(()),
        _ => Err(format!("a request was answered {}", String::from_utf8_lossy(reply)).into()),
    }
}
