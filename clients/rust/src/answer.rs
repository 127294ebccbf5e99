//! Whether a reply is one of a registry that has done what it was asked for.

use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::error::{Code, Error, ProtocolProblem, Refusal};
use crate::link::Answer;

/// What the heartbeat port says of every request that is no heartbeat.
const WANTS_A_HEARTBEAT: &str = "Missing required field: service_id";
const RENEWED: [&str; 2] = ["Service renewed successfully", "Service not found or could not be renewed"];

/// The reply to `request`, if it says `success`.
pub(crate) fn understand(request: &Value, answer: &Answer) -> Result<Value, Error> {
    let endpoint = &answer.endpoint;
    let no_registry =
        |problem: String| Error::Protocol { endpoint: endpoint.clone(), problem: ProtocolProblem::NoRegistry(problem) };
    let mut reply: Value =
        serde_json::from_slice(&answer.body).map_err(|error| no_registry(format!("no JSON: {error}")))?;
    // Ours, and of no use to whoever asked.
    if let Value::Object(fields) = &mut reply {
        fields.shift_remove("request_id");
    }
    let text = |field: &str| reply.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    // Every request there is taken for a heartbeat.
    let is_taken_for_a_heartbeat = match text("message").or(text("error")) {
        Some(_) if request["action"] == "renew" => false,
        Some(text) if request.get("service_id").is_none() => text == WANTS_A_HEARTBEAT,
        Some(text) => RENEWED.contains(&text),
        None => false,
    };
    match reply.get("success").and_then(Value::as_bool) {
        Some(_) if is_taken_for_a_heartbeat => {
            Err(Error::Protocol { endpoint: endpoint.clone(), problem: ProtocolProblem::HeartbeatPort })
        }
        Some(true) => Ok(reply),
        Some(false) => Err(refused(reply, endpoint)),
        None => Err(no_registry("a reply without `success`".to_string())),
    }
}

/// What a registry refuses, as it says so in a reply or in a part of one.
pub(crate) fn refused(reply: Value, endpoint: &Endpoint) -> Error {
    let text = |field: &str| reply.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let refusal = Refusal {
        code: Code::from(text("code").unwrap_or_default()),
        error: text("error").unwrap_or("the registry refused, and did not say why").to_string(),
        message: text("message").map(String::from),
        field: text("field").map(String::from),
        endpoint: endpoint.clone(),
        reply,
    };
    Error::Refused(Box::new(refusal))
}

/// An answer that lacks what it has to have.
pub(crate) fn without(endpoint: &Endpoint, field: &str) -> Error {
    let problem = ProtocolProblem::NoRegistry(format!("a reply without `{field}`"));
    Error::Protocol { endpoint: endpoint.clone(), problem }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_number_of_a_request_is_not_part_of_what_the_registry_says() {
        let understood = |success: bool| {
            let body = json!({"success": success, "request_id": 7, "code": "stale"}).to_string().into();
            let answer = Answer { body, endpoint: "h:1".parse().unwrap(), attempts: 1 };
            understand(&json!({"action": "health"}), &answer)
        };
        let said = |success: bool| json!({"success": success, "code": "stale"});
        assert_eq!(understood(true).unwrap(), said(true));
        assert!(matches!(understood(false).unwrap_err(), Error::Refused(refusal) if refusal.reply == said(false)));
    }
}
