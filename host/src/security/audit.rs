//! Tells operators what clients were not allowed to do.

use std::collections::HashMap;

use super::principal::Principal;

/// There is at most one line for each key in this time, in milliseconds: a client that keeps trying must not fill the
/// log.
const INTERVAL_MS: u64 = 1000;

/// Lines for the log. Each client that was refused something has an entry; only authorized ones get that far.
#[derive(Debug, Default)]
pub struct Audit {
    clients: HashMap<Principal, Told>,
}

#[derive(Debug, Default)]
struct Told {
    at_ms: Option<u64>,
    /// How many refusals have had no line since then.
    since: u64,
}

impl Audit {
    /// The line to log, if it is time for one. `shown` names the client, and `uptime_ms` is on a clock that never goes
    /// back.
    pub fn line(
        &mut self,
        client: Principal,
        shown: impl FnOnce() -> String,
        what: &str,
        uptime_ms: u64,
    ) -> Option<String> {
        let told = self.clients.entry(client).or_default();
        if told.at_ms.is_some_and(|at_ms| uptime_ms.saturating_sub(at_ms) < INTERVAL_MS) {
            told.since += 1;
            return None;
        }
        let more = match std::mem::replace(told, Told { at_ms: Some(uptime_ms), since: 0 }).since {
            0 => String::new(),
            since => format!(" (and {since} times more was refused before)"),
        };
        Some(format!("{} is not allowed {what}{more}", shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::key::PublicKey;

    #[test]
    fn a_key_is_told_of_once_in_a_while() {
        let [one, other] = [1, 2].map(|byte| Principal::Key(PublicKey::from_bytes([byte; 32])));
        let mut audit = Audit::default();
        let mut line = |key, what, at_ms| audit.line(key, || "the client \"a\"".to_string(), what, at_ms);
        assert_eq!(line(one, "to read", 5).as_deref(), Some("the client \"a\" is not allowed to read"));
        assert_eq!(line(one, "to read", 900), None);
        assert_eq!(line(one, "to write", 1004), None);
        assert!(line(other, "to read", 900).is_some(), "another key");
        let told = line(one, "to stop", 1005).expect("it is time");
        assert!(told.ends_with("to stop (and 2 times more was refused before)"), "{told}");
        let told = line(one, "to stop", 9000).expect("it is time");
        assert!(told.ends_with("to stop"), "{told}");
    }
}
