//! The loop with a front that tests write themselves, on the memory plugin.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use registry_plugin_api::{Position, Query, Record};
use serde_json::{Map, Value, json};

use super::*;
use crate::config::Config;
use crate::plugin::{Plugin, find};
use crate::protocol::event::{Event, Notice};
use crate::protocol::reply::Reply;
use crate::protocol::request::{Limits, Port, parse};
use crate::registry::{About, Following, Policy, Promises};
use crate::security::access::Access;
use crate::security::origin::Address;
use crate::security::principal::Principal;
use crate::store::Contents;

/// What a front sends and gets. A caller is the number of its request.
#[derive(Default)]
struct Stage {
    /// Requests that come one in a batch, in order.
    requests: VecDeque<Value>,
    /// What comes without end when there are no more of these.
    endless: Option<Value>,
    asked: usize,
    is_full: bool,
    replies: Vec<(usize, Value)>,
}

#[derive(Clone, Default)]
struct Fake(Rc<RefCell<Stage>>);

impl Front for Fake {
    type Message = Value;
    type Caller = usize;

    async fn receive(&mut self, batch: &mut Vec<Value>) {
        let next = {
            let stage = &mut *self.0.borrow_mut();
            stage.requests.pop_front().or_else(|| stage.endless.clone())
        };
        match next {
            Some(request) => batch.push(request),
            None => std::future::pending().await,
        }
    }

    fn read(&mut self, message: Value) -> Option<Asked<usize>> {
        let stage = &mut *self.0.borrow_mut();
        stage.asked += 1;
        let request = parse(message.to_string().as_bytes(), Port::Requests, &Limits::default()).request;
        Some(Asked { caller: stage.asked, principal: Principal::Nobody, address: Address::Unknown, request })
    }

    fn has_room(&self, _bytes: usize) -> bool {
        !self.0.borrow().is_full
    }

    fn is_gone(&self, _caller: &usize) -> bool {
        false
    }

    fn reply(&mut self, caller: usize, reply: Reply) {
        let reply = serde_json::from_str(&reply.finish(None).into_text()).unwrap();
        self.0.borrow_mut().replies.push((caller, reply));
    }

    fn set_limits(&mut self, _: &crate::config::Limits, _: &crate::config::Server) {}

    fn publish(&mut self, _event: Event) {}

    fn notify(&mut self, _notice: Notice) {}

    fn flush(&mut self) {}

    async fn close(self) {}
}

/// The rules of these tests.
fn policy() -> Policy {
    Policy {
        enforce_unique_service_types: false,
        allow_swap: false,
        allow_terminate: true,
        reply_timeout_ms: 10_000,
        cleanup_interval_ms: 10_000,
        call_timeout_ms: 10_000,
        pending_changes_max: 100,
        pending_bytes_max: 1 << 20,
        services_bytes_max: 1 << 20,
        access: Access::open(),
        following: Following::default(),
        mass_expiry_share: 0.0,
        mass_expiry_hold_ms: 30_000,
    }
}

/// A record as a store has it.
fn stored(number: usize) -> Record {
    let document = json!({"id": format!("s{number}"), "name": "n", "host": "h", "port": 1, "ttl": 60});
    let mut record = Record::new(format!("s{number}"), document.to_string());
    record.ttl_ms = 60_000;
    record
}

fn server(front: Fake) -> Server<Fake> {
    let directory = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let plugin = Plugin::load(find("memory", Some(&directory)).unwrap()).unwrap();
    let (store, contents) = Store::open(plugin, Map::new(), Duration::from_secs(5), None).unwrap();
    let registry = Registry::new(policy(), Promises::default(), About::default(), contents.position, rand::make_rng());
    Server::new(front, store, registry, Clock::start(), Guard::Null)
}

fn register(id: &str) -> Value {
    json!({"action": "register", "service_info": {"id": id, "name": "n", "host": "h", "port": 1}})
}

/// Runs a future as the host does.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

#[test]
fn messages_without_end_do_not_keep_the_store_waiting() {
    let front = Fake::default();
    front.0.borrow_mut().requests.push_back(register("a"));
    front.0.borrow_mut().endless = Some(json!({"action": "health"}));
    let stage = front.0.clone();
    let is_registered = async move {
        // The front never rests, so that this is asked in each turn.
        while !stage.borrow().replies.iter().any(|(caller, _)| *caller == 1) {
            tokio::task::yield_now().await;
        }
        "registered".to_string()
    };
    let server = server(front.clone());
    run(async {
        let served = tokio::time::timeout(Duration::from_secs(20), server.run(is_registered)).await;
        served.expect("the store's answer is taken").unwrap();
    });
    assert_eq!(front.0.borrow().replies.iter().find(|(caller, _)| *caller == 1).unwrap().1["success"], true);
}

#[test]
fn messages_and_answers_without_end_keep_nothing_else_waiting() {
    let front = Fake::default();
    front.0.borrow_mut().endless = Some(json!({"action": "health"}));
    let mut server = server(front);
    let Server { store: mut closed, .. } = self::server(Fake::default());
    closed.close();
    server.leaving.push(Leaving { store: closed, groups: 0 });
    run(async {
        for ticket in 0..10 {
            server.store.discover(ticket, Query::new("t", vec!["a".into(), "b".into()]));
        }
        // All of them are there.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut stop = pin!(std::future::pending());
        let (mut batch, mut first, mut turns) = (Vec::new(), 0, String::new());
        for _ in 0..3 {
            let woken = server.next(stop.as_mut(), first, &mut batch).await;
            first = woken.next_place();
            turns.push(match woken {
                Woken::Messages => 'm',
                Woken::Store(_) => 's',
                Woken::Left(_) => 'l',
                _ => '?',
            });
        }
        assert_eq!((turns.as_str(), first), ("msl", 0));
    });
}

#[test]
fn answers_without_end_do_not_keep_messages_waiting() {
    let front = Fake::default();
    front.0.borrow_mut().endless = Some(json!({"action": "health"}));
    let mut server = server(front);
    run(async {
        for ticket in 0..10 {
            server.store.discover(ticket, Query::new("t", vec!["a".into(), "b".into()]));
        }
        // All of them are there.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut stop = pin!(std::future::pending());
        let mut batch = Vec::new();
        let mut turns = String::new();
        for first in [1, 1, 0, 1, 0, 0, 1] {
            turns.push(match server.next(stop.as_mut(), first, &mut batch).await {
                Woken::Messages => 'm',
                Woken::Store(Answer::Chosen { .. }) => 's',
                _ => '?',
            });
        }
        assert_eq!(turns, "ssmsmms");
        assert_eq!(batch.len(), 3);
    });
}

#[test]
fn what_is_stored_is_taken_over_piece_by_piece_and_clients_are_answered_meanwhile() {
    let front = Fake::default();
    let Server { store, registry: _, .. } = server(front.clone());
    let position = Position::new("e", 7);
    let starting = Starting::new(Config::default(), policy(), Promises::default(), About::default(), Instant::now());
    let mut server = Server::start(front.clone(), store, starting, None, Default::default(), Guard::Null);
    let now = Now { uptime_ms: 10, unix_ms: 10 };
    assert!(!server.go_on_starting(now) && !server.is_loading(), "the store is not open");
    let records = (0..10_000).map(stored).collect();
    server.opened(Contents { position, records, ..Contents::default() });
    let mut turns = 0;
    while server.is_loading() {
        server.received(json!({"action": "list"}), now);
        assert_eq!(front.0.borrow_mut().replies.pop().unwrap().1["code"], "starting");
        assert!(server.pause().is_zero());
        turns += 1;
        assert_eq!(server.go_on_starting(now), !server.is_loading());
    }
    assert!(turns > 2, "{turns}");
    assert_eq!((server.registry.len(), server.registry.position()), (10_000, ("e", 7)));
    server.received(json!({"action": "get", "service_id": "s9999"}), now);
    assert_eq!(front.0.borrow_mut().replies.pop().unwrap().1["service"]["health"], "passing");
    assert!(!server.go_on_starting(now), "once");
}

#[test]
fn a_long_list_is_written_piece_by_piece_without_pauses_once_there_is_room() {
    let front = Fake::default();
    let mut server = server(front.clone());
    for number in 0..10_000 {
        server.registry.load(stored(number), Now::default()).unwrap();
    }
    let now = Now { uptime_ms: 10, unix_ms: 10 };
    front.0.borrow_mut().is_full = true;
    server.received(json!({"action": "list"}), now);
    for _ in 0..3 {
        server.dispatch(now);
        assert!(server.registry.has_lists() && server.pause() > Duration::from_millis(10), "there is no room");
    }
    front.0.borrow_mut().is_full = false;
    let mut turns = 0;
    while server.registry.has_lists() {
        server.dispatch(now);
        turns += 1;
        assert_eq!(server.pause().is_zero(), server.registry.has_lists());
    }
    assert!(turns > 4, "one piece in a turn, not {turns}");
    assert_eq!(front.0.borrow().replies[0].1["services"].as_array().unwrap().len(), 10_000);
}
