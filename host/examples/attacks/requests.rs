//! What is asked.

use serde_json::{Value, json};

use crate::Result;
use crate::client::{Client, message};

/// How many requests one connection has outstanding while services are registered to attack with.
const OUTSTANDING: usize = 1000;
const CONNECTIONS: usize = 4;

/// A registration with these further fields of its service.
pub(crate) fn register(id: &str, service_type: &str, ttl: f64, fields: Value) -> Vec<u8> {
    let mut service = json!({"id": id, "name": "s", "host": "h", "port": 1, "type": service_type});
    if let (Value::Object(service), Value::Object(fields)) = (&mut service, fields) {
        service.extend(fields);
    }
    json!({"action": "register", "service_info": service, "ttl": ttl}).to_string().into_bytes()
}

/// Asks for all services.
pub(crate) const LIST: &[u8] = br#"{"action":"list"}"#;

/// Registers so many services of one type, over several connections. How many were taken, and what was said of the
/// first that was not.
pub(crate) fn register_many(port: u16, count: usize, ttl: f64, fields: &Value) -> Result<(usize, Option<String>)> {
    let begin = |part: usize| {
        let mut requests = (part..count)
            .step_by(CONNECTIONS)
            .map(|number| register(&format!("s{number:07}"), "t", ttl, fields.clone()));
        pipelined(port, &mut requests)
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..CONNECTIONS).map(|part| scope.spawn(move || begin(part))).collect();
        let mut sum = (0, None);
        for part in parts {
            let (taken, refused) = part.join().map_err(|_| "a client has panicked")??;
            sum = (sum.0 + taken, sum.1.or(refused));
        }
        Ok(sum)
    })
}

/// Sends requests over one connection, with a number of them outstanding. How many succeeded, and what was said of the
/// first that did not.
fn pipelined(port: u16, requests: &mut dyn Iterator<Item = Vec<u8>>) -> Result<(usize, Option<String>)> {
    let mut client = Client::connect(port)?;
    let (mut taken, mut refused, mut outstanding) = (0, None, 0);
    loop {
        // Half of them at a time: the other half is what the registry works on meanwhile.
        let bytes: Vec<u8> =
            requests.take(OUTSTANDING / 2).inspect(|_| outstanding += 1).flat_map(|r| message(&r)).collect();
        client.write(&bytes)?;
        let keep = if bytes.is_empty() { 0 } else { OUTSTANDING / 2 };
        while outstanding > keep {
            let reply = client.reply()?;
            outstanding -= 1;
            if reply.success {
                taken += 1;
            } else {
                refused.get_or_insert_with(|| reply.text().to_owned());
            }
        }
        if bytes.is_empty() {
            return Ok((taken, refused));
        }
    }
}

/// How many services there are.
pub(crate) fn services(client: &mut Client) -> Result<u64> {
    client.send(br#"{"action":"info"}"#)?;
    let info: Value = serde_json::from_slice(&client.receive()?)?;
    // A list in some versions, a number in others.
    let services = &info["services"];
    services.as_u64().or(services.as_array().map(|all| all.len() as u64)).ok_or_else(|| "`info` has no services".into())
}
