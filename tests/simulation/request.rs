//! What clients ask for, as it is sent: in the simulation, and to the real program.

use serde_json::{Value, json};

use crate::checker::patch;
use crate::history::{Ask, Claim, Registration};

/// A request as it is sent.
pub(crate) fn body(ask: &Ask, call: usize) -> Value {
    match ask {
        Ask::Register(registration) => {
            let Registration { id, service_type, tag, claim, ttl_ms, bulk } = registration;
            let mut info = json!({"id": id, "name": "N", "host": "h", "port": 1, "type": service_type, "call": call});
            if let Some(tag) = tag {
                info["tags"] = json!([tag]);
            }
            if *bulk > 0 {
                info["bulk"] = "x".repeat(*bulk).into();
            }
            match claim {
                Claim::Plain => {}
                Claim::Singleton => info["singleton"] = true.into(),
                Claim::AllowDuplicate => info["allow_duplicate_service_type"] = true.into(),
            }
            json!({"action": "register", "service_info": info, "ttl": *ttl_ms as f64 / 1000.0})
        }
        Ask::Deregister { id, generation } => {
            json!({"action": "deregister", "service_id": id, "generation": generation})
        }
        Ask::Renew { id, generation } => json!({"action": "renew", "service_id": id, "generation": generation}),
        Ask::Update { id, generation } => {
            json!({"action": "update", "service_id": id, "generation": generation, "metadata": patch(call)})
        }
        Ask::Drain { id, generation, for_ms } => {
            let seconds = for_ms.map(|for_ms| for_ms as f64 / 1000.0);
            json!({"action": "drain", "service_id": id, "generation": generation, "seconds": seconds,
                "reason": call.to_string()})
        }
        Ask::Undrain { id, generation } => json!({"action": "undrain", "service_id": id, "generation": generation}),
        Ask::Get { id } => json!({"action": "get", "service_id": id}),
        Ask::List { service_type } => json!({"action": "list", "service_type": service_type}),
        Ask::Discover { service_type } => json!({"action": "discover", "service_type": service_type}),
        Ask::Watch { after, service_type, limit, wait_ms } => {
            let (epoch, after) = after.as_ref().map(|(epoch, after)| (epoch, after)).unzip();
            json!({"action": "watch", "epoch": epoch, "after": after, "service_type": service_type, "limit": limit,
                "wait": *wait_ms as f64 / 1000.0})
        }
        Ask::EndMassExpiry { keep } => {
            json!({"action": "expiry", "mass_expiry": if *keep { "keep" } else { "remove" }})
        }
    }
}
