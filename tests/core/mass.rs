//! Many services that run out together are held.

use std::collections::HashSet;

use registry_host::security::access::{Grant, Right};

use super::*;

#[path = "silence.rs"]
mod silence;

/// So many services with a ttl of 30 s in a core that holds more than a fifth of them for 30 s. What time alone brings
/// comes every tenth of a second, as in a host.
fn fleet(services: usize) -> World {
    fleet_held_for(services, 30_000)
}

fn fleet_held_for(services: usize, mass_expiry_hold_ms: u64) -> World {
    let mut world = World::with(Policy { mass_expiry_share: 0.2, mass_expiry_hold_ms, ..policy() });
    for number in 0..services {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    world
}

impl World {
    /// Time in which somebody is heard of who is not among them: so it is not the host that is cut off.
    fn live(&mut self, ms: u64) {
        for _ in 0..ms / 1000 {
            self.hear_of_somebody();
            self.live_in_silence(1000);
        }
        self.hear_of_somebody();
        self.live_in_silence(ms % 1000);
    }

    /// A registration that the store refuses: nothing comes of it but that somebody was heard of.
    fn hear_of_somebody(&mut self) {
        self.ask("somebody", register("somebody", "other"));
        while let Some(changes) = self.next_group() {
            let is_refused = |change: &Change| matches!(change, Change::Put(put) if put.record.id == "somebody");
            let outcome = |change| if is_refused(change) { Outcome::Refused(failed()) } else { Outcome::Done };
            self.outcome(Ok(changes.iter().map(outcome).collect()));
        }
        assert_eq!(self.reply("somebody").expect("an answer")["code"], "backend_refused");
    }

    fn live_in_silence(&mut self, ms: u64) {
        let until_ms = self.now.uptime_ms + ms;
        while self.now.uptime_ms < until_ms {
            self.pass(100.min(until_ms - self.now.uptime_ms));
            if self.registry.is_cleanup_due(self.now) {
                self.registry.clean_up(self.now);
            }
            self.store();
        }
    }

    /// Time in which these beat every ten seconds.
    fn live_with(&mut self, ms: u64, beating: std::ops::Range<usize>) {
        for _ in 0..ms / 10_000 {
            beating.clone().for_each(|number| drop(self.call(renew(&format!("s{number}")))));
            self.live(10_000);
        }
        self.live(ms % 10_000);
    }

    fn notices(&mut self) -> Vec<Value> {
        let read = |notice: String| serde_json::from_str::<Value>(&notice).expect("a notice is JSON");
        self.out.notices.drain(..).map(|(notice, _)| read(notice.json)).collect()
    }

    /// What `health` says of a mass expiry: how many are critical, and how many were removed.
    fn held(&mut self) -> Option<(u64, u64)> {
        let reply = self.call(json!({"action": "health"}));
        let held = reply["mass_expiry"].as_object()?;
        Some((held["critical"].as_u64().unwrap(), held["removed"].as_u64().unwrap()))
    }
}

fn end(way: &str) -> Value {
    json!({"action": "expiry", "mass_expiry": way})
}

#[test]
fn who_runs_out_with_many_others_is_held() {
    let mut world = fleet(100);
    world.live(40_000);
    assert_eq!((world.registry.len(), world.held()), (100, Some((100, 0))));
    assert_eq!(world.discover("web"), None, "they are critical");
    let begun = json!({"type": "mass_expiry", "timestamp": world.now.unix_ms / 1000, "state": "begun", "critical": 100,
        "services": 100});
    assert_eq!(world.notices(), [begun]);
    world.live(15_000);
    assert_eq!(world.held(), Some((90, 10)), "half of the share in half of the time");
    assert!(world.take_events().iter().all(|(kind, ..)| kind == "expire"));
    world.live(14_900);
    assert!(world.registry.len() > 79, "the share is the most until it is over: {}", world.registry.len());
    world.live(100);
    assert_eq!((world.registry.len(), world.held()), (0, None));
    let ended = &world.notices()[0];
    let removed = ended["removed"].as_u64().unwrap();
    assert_eq!(
        (&ended["state"], &ended["reason"], &ended["returned"]),
        (&json!("ended"), &json!("hold_over"), &json!(0))
    );
    assert!((18..=20).contains(&removed) && ended["critical"] == 100 - removed, "{ended}");
    world.pass(0);
    assert_eq!(world.registry.wake_at_ms(), world.now.uptime_ms + 10_000, "sweeps come as before");
}

#[test]
fn those_go_first_that_were_silent_for_longest() {
    let mut world = fleet(100);
    world.live_with(20_000, 50..100);
    world.live(20_000);
    assert_eq!(world.held(), Some((50, 0)));
    world.live(15_000);
    let gone = world.take_events();
    assert!(!gone.is_empty() && gone.iter().all(|(_, id, _)| id[1..].parse::<usize>().unwrap() < 50), "{gone:?}");
}

#[test]
fn few_or_a_small_share_go_as_ever() {
    for (services, dead, is_mass) in
        [(9, 9, false), (10, 10, true), (40, 10, true), (50, 10, false), (100, 20, false), (100, 21, true)]
    {
        let mut world = fleet(services);
        world.live_with(40_000, dead..services);
        assert_eq!(world.held().is_some(), is_mass, "{dead} of {services}");
        assert_eq!(world.registry.len(), if is_mass { services } else { services - dead });
    }
}

#[test]
fn none_are_held_if_the_share_is_none() {
    let mut world = World::new();
    for number in 0..100 {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    world.live(40_000);
    assert!(world.registry.is_empty());
    world.call(renew("s1"));
    assert!(world.out.forgiven.is_empty());
}

#[test]
fn a_slow_leak_is_no_mass() {
    let mut world = fleet(100);
    // A fifth of what is left, at most, runs out between two sweeps.
    let mut left = 100;
    for _ in 0..6 {
        world.live_with(10_000, 0..left);
        left -= left / 5;
    }
    world.live_with(30_000, 0..left);
    assert_eq!((world.registry.len(), world.notices()), (left, vec![]));
}

#[test]
fn it_ends_by_itself_when_enough_are_back() {
    let mut world = fleet(100);
    world.live_with(40_000, 60..100);
    assert_eq!(world.held(), Some((60, 0)));
    world.notices();
    (0..35).for_each(|number| drop(world.call(renew(&format!("s{number}")))));
    world.live_with(5000, 60..100);
    assert!(world.held().is_some(), "25 are missing still");
    assert!(world.discover("web").is_some());
    (35..45).for_each(|number| drop(world.call(renew(&format!("s{number}")))));
    world.live(1100);
    assert_eq!(world.held(), None);
    let ended = &world.notices()[0];
    assert_eq!((&ended["reason"], ended["removed"].as_u64().unwrap() < 5), (&json!("returned"), true), "{ended}");
    assert_eq!(
        ended["returned"].as_u64().unwrap() + ended["critical"].as_u64().unwrap() + ended["removed"].as_u64().unwrap(),
        60
    );
    assert!((80..90).contains(&world.registry.len()), "the rest are few enough to go: {}", world.registry.len());
}

#[test]
fn what_is_removed_slowly_does_not_end_it() {
    let mut world = fleet(100);
    world.live_with(40_000, 25..100);
    for _ in 0..4 {
        world.live_with(5000, 25..100);
        let (critical, removed) = world.held().expect("it goes on though less than a fifth is critical");
        assert_eq!(critical + removed, 25);
    }
    world.live_with(10_000, 25..100);
    assert_eq!((world.registry.len(), world.held()), (75, None));
}

#[test]
fn services_that_run_out_meanwhile_are_held_too() {
    let mut world = fleet(100);
    world.live_with(40_000, 50..100);
    world.live(29_000);
    assert!(world.held().unwrap().0 > 75, "{:?}", world.held());
    world.live(1000);
    assert!(world.registry.is_empty(), "and nobody for longer than that");
}

#[test]
fn an_operator_has_them_removed_at_once() {
    let mut world = fleet(100);
    assert_eq!(world.call(end("remove"))["code"], "not_found");
    world.live(41_000);
    let reply = world.call(end("remove"));
    assert_eq!(reply, json!({"success": true, "mass_expiry": "remove", "critical": 100}));
    world.store();
    assert!(world.registry.is_empty());
    let reasons: Vec<Value> = world.notices().into_iter().map(|notice| notice["reason"].clone()).collect();
    assert_eq!(reasons, [Value::Null, json!("remove")]);
}

#[test]
fn an_operator_keeps_them_for_another_ttl() {
    let mut world = fleet(100);
    world.live(41_000);
    let before = world.call(json!({"action": "get", "service_id": "s1"}));
    assert_eq!(world.call(end("keep"))["critical"], 100);
    assert!(world.discover("web").is_some());
    let after = world.call(json!({"action": "get", "service_id": "s1"}));
    assert_eq!(after["service"]["last_heartbeat"], before["service"]["last_heartbeat"], "it was not heard of");
    world.live(30_000);
    assert_eq!((world.registry.len(), world.health("s1").as_deref()), (100, Some("passing")));
    world.live(10_000);
    assert!(world.held().is_some(), "who does not come back runs out again");
}

#[test]
fn who_is_kept_while_the_store_removes_it_stays() {
    let mut world = fleet(100);
    world.live(41_000);
    world.pass(2000);
    world.registry.clean_up(world.now);
    let removal = world.group();
    assert!(!removal.is_empty());
    world.ask("operator", end("keep"));
    world.accept(&removal);
    let restored = world.store();
    assert_eq!(restored.len(), removal.len(), "they are stored again: {restored:?}");
    assert_eq!(world.registry.len(), 100);
}

#[test]
fn very_many_are_kept_a_number_at_a_time() {
    let mut world = fleet(10_000);
    world.live(40_000);
    world.ask("operator", end("keep"));
    let passing = |world: &mut World| {
        (0..10_000).filter(|n| world.health(&format!("s{n}")).as_deref() == Some("passing")).count()
    };
    assert_eq!(passing(&mut world), 4096);
    assert_eq!(world.registry.wake_at_ms(), 0);
    world.now.uptime_ms += 10_001;
    assert!(!world.registry.is_cleanup_due(world.now), "nobody is judged before all are kept");
    for _ in 0..2 {
        world.registry.tick(world.now, &mut world.out);
    }
    assert_eq!((passing(&mut world), world.registry.is_cleanup_due(world.now)), (10_000, true));
}

#[test]
fn who_is_held_makes_way_for_a_singleton() {
    let mut world = fleet(100);
    world.registry.load(stored("alone", "mail"), world.now).unwrap();
    world.live(41_000);
    assert_eq!(world.call(singleton("new", "mail"))["success"], true);
    assert_eq!((world.health("alone"), world.discover("mail").as_deref()), (None, Some("new")));
    assert!(world.held().is_some());
}

#[test]
fn only_admins_end_it() {
    let admin = PublicKey::from_bytes([3; 32]);
    let grant = |clients, allow: &[Right]| Grant {
        clients,
        allow: allow.iter().copied().collect(),
        types: Vec::new(),
        names: Vec::new(),
    };
    let everybody = grant(None, &[Right::Read, Right::Register]);
    let rules = vec![everybody, grant(Some(HashSet::from([admin])), &[Right::Admin])];
    let mut world = World::with(Policy { access: Access::by_rules(rules), ..policy() });
    let other = Principal::Key(PublicKey::from_bytes([2; 32]));
    let refusal = world.call_with(other, end("remove"));
    assert_eq!(
        (&refusal["code"], &refusal["message"]),
        (&json!("forbidden"), &json!("this key is not allowed to end a mass expiry"))
    );
    assert_eq!(world.call_with(Principal::Key(admin), end("remove"))["code"], "not_found");
}

#[test]
fn what_is_being_removed_begins_no_mass_expiry_however_slow_the_store_is() {
    let mut world = fleet(3000);
    world.pass(30_001);
    world.registry.clean_up(world.now);
    assert!(world.held().is_some());
    world.call(json!({"action": "expiry", "mass_expiry": "remove"}));
    world.notices();
    // One group at a time, and a clean-up is due before the next.
    let mut groups = 0;
    while !world.registry.is_empty() {
        let group = world.group();
        world.pass(10_000);
        world.registry.clean_up(world.now);
        world.accept(&group);
        groups += 1;
    }
    assert!(groups > 2 && world.notices().is_empty() && world.held().is_none(), "{groups}");
}

#[test]
fn who_waits_is_answered_by_whoever_is_kept() {
    let mut world = fleet(20);
    world.pass(30_001);
    world.registry.clean_up(world.now);
    world.ask("waits", json!({"action": "discover", "service_type": "web", "wait": 60}));
    assert_eq!(world.reply("waits"), None, "they are held");
    world.call(json!({"action": "expiry", "mass_expiry": "keep"}));
    world.pass(0);
    assert_eq!(world.reply("waits").unwrap()["success"], true);
    // It is still known how long nothing was heard of them.
    world.live(60_000);
    world.call(json!({"action": "expiry", "mass_expiry": "remove"}));
    world.store();
    let history = world.call(json!({"action": "history", "service_id": "s0"}));
    let gone = history["history"].as_array().unwrap().last().unwrap();
    assert_eq!(gone["what"], "expired");
    assert!(gone["seconds"].as_u64().unwrap() >= 60, "{gone}");
}

#[test]
fn who_is_back_is_told_from_who_was_removed_and_who_ran_out_later() {
    let mut world = fleet(100);
    world.live_with(30_000, 50..100);
    world.live_with(20_000, 70..100);
    world.live_with(5000, 70..100);
    (70..100).for_each(|number| drop(world.call(renew(&format!("s{number}")))));
    world.live(0);
    assert_eq!(world.held(), Some((60, 10)), "twenty more have run out meanwhile");
    world.notices();
    let back = (0..70).filter(|number| world.call(renew(&format!("s{number}")))["success"] == true).take(50);
    assert_eq!(back.count(), 50);
    world.live(2000);
    assert_eq!(world.held(), None, "a fifth of all that there were is no mass");
    let ended = &world.notices()[0];
    let shown = ["reason", "critical", "removed", "returned", "services"].map(|field| ended[field].clone());
    assert_eq!(shown, [json!("returned"), json!(10), json!(10), json!(50), json!(90)]);
}

#[test]
fn while_many_are_held_clean_ups_come_in_steps_and_at_the_end() {
    let mut world = fleet_held_for(100, 30_010);
    world.live(40_000);
    let since_ms = world.now.uptime_ms;
    assert_eq!(world.held(), Some((100, 0)));
    // It is looked once more whether somebody waits for the store.
    world.pass(400);
    assert_eq!(world.registry.wake_at_ms(), since_ms + 1000);
    world.pass(600);
    world.live(29_000);
    assert!(world.held().is_some());
    assert_eq!(world.registry.wake_at_ms(), since_ms + 30_010);
}

#[test]
fn whether_many_are_a_mass_is_judged_when_the_store_has_removed_those_before() {
    let mut world = fleet(100);
    world.live_with(30_000, 10..100);
    world.pass(10_000);
    world.registry.clean_up(world.now);
    let removals = world.group();
    assert_eq!(removals.len(), 10);
    assert_eq!(world.call(renew("s10"))["success"], true);
    world.pass(11_000);
    world.registry.clean_up(world.now);
    assert!(!world.registry.is_cleanup_due(world.now) && world.held().is_none());
    world.pass(100);
    assert!(world.registry.is_cleanup_due(world.now));
    world.accept(&removals);
    world.registry.clean_up(world.now);
    assert_eq!(world.held(), Some((89, 0)));
}

#[test]
fn operators_are_told_in_seconds_and_what_they_ask_for_is_no_clean_up_of_its_own() {
    let mut world = fleet(100);
    let lines = |world: &mut World| world.out.notices.drain(..).map(|(_, line)| line).collect::<Vec<_>>();
    world.live(40_000);
    let begun = lines(&mut world);
    assert!(begun.len() == 1 && begun[0].contains("100 of 100 services") && begun[0].contains("for up to 30 s:"));
    assert_eq!(world.registry.mass_expiry_hold_ms(), 30_000);
    world.live(2500);
    world.call(end("keep"));
    assert!(!world.registry.is_cleanup_due(world.now));
    let ended = lines(&mut world);
    assert!(ended.len() == 1 && ended[0].contains("is over after 2.5 s, an operator keeps the rest"), "{ended:?}");
}
