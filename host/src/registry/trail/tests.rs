//! What is kept of what happened, and what goes.

use std::net::SocketAddr;

use super::*;
use crate::security::key::PublicKey;
use crate::security::origin::Address;
use crate::security::principal::Principal;

fn at(seconds: u64) -> Now {
    Now { uptime_ms: seconds * 1000, unix_ms: (1_700_000_000 + seconds) * 1000 }
}

fn refused(existing: Option<&str>) -> What {
    let existing = existing.map(Arc::from);
    What::Refused(Refused { action: "register", code: Code::DuplicateServiceType, message: "it is taken", existing })
}

fn from(address: &str) -> Option<Origin> {
    let address = Address::Tcp(address.parse::<SocketAddr>().unwrap());
    Some(Origin { principal: Principal::Nobody, address })
}

fn shown(trail: &Trail, id: &str) -> Vec<String> {
    let show = |entry: &&Entry| {
        let mut json = String::new();
        entry.show(&mut json);
        json
    };
    trail.of(id, None).iter().map(show).collect()
}

#[test]
fn entries_say_what_when_and_by_whom() {
    let mut trail = Trail::default();
    let key = Principal::Key(PublicKey::from_bytes([1; 32]));
    trail.note("a", What::Registered, from("10.0.0.7:5123"), at(1));
    trail.note("a", refused(Some("j")), Some(key.into()), at(2));
    trail.note("a", What::Expired(Some(31)), None, at(3));
    trail.note("a", What::Deregistered, Some(Origin { principal: key, address: Address::Ipc }), at(4));
    trail.note("b", What::Updated, Some(Origin::default()), at(4));
    let text = PublicKey::from_bytes([1; 32]).to_string();
    let text = serde_json::Value::from(text).to_string();
    assert_eq!(
        shown(&trail, "a"),
        [
            r#"{"timestamp":1700000001,"what":"registered","by":{"address":"10.0.0.7:5123"}}"#.to_string(),
            format!(
                "{{\"timestamp\":1700000002,\"what\":\"refused\",\"action\":\"register\",\
                 \"code\":\"duplicate_service_type\",\"message\":\"it is taken\",\"existing_service_id\":\"j\",\
                 \"by\":{{\"key\":{text}}}}}"
            ),
            r#"{"timestamp":1700000003,"what":"expired","seconds":31}"#.to_string(),
            format!(
                "{{\"timestamp\":1700000004,\"what\":\"deregistered\",\"by\":{{\"address\":\"ipc\",\"key\":{text}}}}}"
            ),
        ]
    );
    assert_eq!(shown(&trail, "b"), [r#"{"timestamp":1700000004,"what":"updated"}"#]);
    assert_eq!(trail.of("a", Some(1)).len(), 1);
    assert_eq!(trail.of("a", Some(1))[0].what, What::Deregistered, "the last");
    assert!(trail.of("c", None).is_empty());
}

#[test]
fn the_same_refusal_is_counted() {
    let mut trail = Trail::default();
    for (second, by) in [(1, "10.0.0.7:1"), (2, "10.0.0.8:1"), (3, "10.0.0.7:2"), (9, "10.0.0.7:3")] {
        trail.note("a", refused(None), from(by), at(second));
    }
    let shown = shown(&trail, "a");
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown[0].ends_with(r#""count":3,"last":1700000009,"by":{"address":"10.0.0.7:3"}}"#), "{shown:?}");
    assert!(shown[1].ends_with(r#""message":"it is taken","by":{"address":"10.0.0.8:1"}}"#), "{shown:?}");
}

#[test]
fn refusals_drive_out_refusals_and_nothing_else() {
    let mut trail = Trail::default();
    trail.note("a", What::Registered, None, at(0));
    for number in 0..1000 {
        trail.note("a", refused(Some(&number.to_string())), None, at(1));
    }
    assert_eq!(trail.of("a", None).len(), 1 + OF_ONE_MAX.1);
    for number in 0..200_000 {
        trail.note(&format!("s{number}"), refused(None), None, at(2));
    }
    assert!(trail.refusals.bytes <= BYTES_DEFAULT / REFUSALS_PART);
    assert_eq!(shown(&trail, "a"), [r#"{"timestamp":1700000000,"what":"registered"}"#]);
    assert!(trail.of("s0", None).is_empty() && !trail.of("s199999", None).is_empty());
}

#[test]
fn whatever_happens_it_takes_no_more_than_it_may() {
    let mut trail = Trail::default();
    trail.set_bytes(40_000);
    for number in 0..10_000_usize {
        let id = format!("s{}", number % 7 * number % 90);
        let what = [What::Registered, What::Replaced, What::Expired(None), refused(None)][number % 4].clone();
        trail.note(&id, what, None, at(number as u64));
        for ring in [&trail.changes, &trail.refusals] {
            assert!(ring.bytes <= ring.bytes_max && ring.by_id.values().all(|places| places.len() <= ring.of_one_max));
            let ids: usize = ring.by_id.keys().map(|id| SERVICE_BYTES + id.len()).sum();
            assert_eq!(ring.bytes, ids + ring.entries.values().map(Entry::bytes).sum::<usize>());
            assert_eq!(ring.entries.len(), ring.by_id.values().map(VecDeque::len).sum::<usize>());
        }
    }
    trail.set_bytes(0);
    assert_eq!((trail.changes.bytes, trail.refusals.bytes), (0, 0));
    trail.note("a", What::Registered, None, at(0));
    assert!(trail.of("a", None).is_empty());
}
