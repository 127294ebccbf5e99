//! The loop with a front that tests write themselves, on the memory plugin.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use registry_plugin_api::{Position, Query, Record};
use serde_json::{Map, Value, json};

use super::swap::{Terms, To};
use super::*;
use crate::config::Config;
use crate::fronts::roll::Roll;
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
    /// How many of them have not been sent yet.
    unsent: usize,
    /// How many had not when the server began to wait, if it does.
    unsent_meanwhile: Option<usize>,
}

impl Stage {
    fn begin_waiting(&mut self) {
        self.unsent_meanwhile = Some(self.unsent);
    }
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
            None => {
                self.0.borrow_mut().begin_waiting();
                std::future::pending().await
            }
        }
    }

    fn read(&mut self, message: Value) -> Option<Asked<usize>> {
        let stage = &mut *self.0.borrow_mut();
        stage.asked += 1;
        let request = parse(message.to_string().as_bytes(), Port::Requests, &Limits::default()).request;
        let (principal, address) = (Principal::Nobody, Address::Unknown);
        Some(Asked { caller: stage.asked, principal, address, is_first: true, request })
    }

    fn has_room(&self, _bytes: usize) -> bool {
        !self.0.borrow().is_full
    }

    fn is_gone(&self, _caller: &usize) -> bool {
        false
    }

    fn reply(&mut self, caller: usize, reply: Reply) {
        let reply = serde_json::from_str(&reply.finish(None).into_text()).unwrap();
        let stage = &mut *self.0.borrow_mut();
        stage.replies.push((caller, reply));
        stage.unsent += 1;
    }

    fn set_limits(&mut self, _: &crate::config::Limits, _: &crate::config::Server) {}

    fn publish(&mut self, _event: Event) {}

    fn notify(&mut self, _notice: Notice) {}

    fn call_roll(&self, _: &mut Roll<'_>) {}

    fn flush(&mut self) {
        self.0.borrow_mut().unsent = 0;
    }

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
fn whatever_is_answered_in_a_turn_is_sent_before_the_server_waits() {
    let part = json!({"action": "restore", "upload": "u", "part": 0, "services": []});
    for request in [part, json!({"action": "clients"}), json!({"action": "health"})] {
        let front = Fake::default();
        front.0.borrow_mut().requests.push_back(request.clone());
        let stage = front.0.clone();
        let is_waiting = async move {
            while stage.borrow().unsent_meanwhile.is_none() {
                tokio::task::yield_now().await;
            }
            "it waits".to_string()
        };
        run(server(front.clone()).run(is_waiting)).unwrap();
        let stage = front.0.borrow();
        assert_eq!((stage.replies.len(), stage.unsent_meanwhile), (1, Some(0)), "{request}: {:?}", stage.replies);
    }
}

#[test]
fn whatever_comes_without_end_keeps_nobody_waiting() {
    let front = Fake::default();
    front.0.borrow_mut().endless = Some(json!({"action": "health"}));
    let mut server = server(front);
    run(async {
        for ticket in 0..10 {
            server.store.discover(ticket, Query::new("t", vec!["a".into(), "b".into()]));
        }
        let nowhere = || To::File("/nowhere/registry.toml".into());
        server.begin_swap(nowhere(), Terms::new(None, false), Vec::new());
        server.go_on_swapping();
        // All of them are there.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut stop = pin!(std::future::pending());
        let mut batch = Vec::new();
        let mut turns = String::new();
        let mut turn = Turn::Messages;
        for _ in 0..6 {
            let woken = server.next(stop.as_mut(), turn, &mut batch).await;
            turn = woken.next_turn(turn);
            turns.push(match woken {
                Woken::Messages => 'm',
                Woken::Store(Answer::Chosen { .. }) => 's',
                Woken::Swap(_) => {
                    // It fails, over and over.
                    server.swap = None;
                    server.begin_swap(nowhere(), Terms::new(None, false), Vec::new());
                    server.go_on_swapping();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    'o'
                }
                _ => '?',
            });
        }
        assert_eq!(turns, "msomso");
        assert_eq!(batch.len(), 2);
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
fn what_cannot_be_read_is_gone_so_that_a_new_epoch_begins() {
    let begin = |broken: Option<Record>| {
        let front = Fake::default();
        let Server { store, registry: _, .. } = server(front.clone());
        let starting =
            Starting::new(Config::default(), policy(), Promises::default(), About::default(), Instant::now());
        let mut server = Server::start(front, store, starting, None, Default::default(), Guard::Null);
        let records = (0..3).map(stored).chain(broken).collect();
        server.opened(Contents { position: Position::new("e", 7), records, ..Contents::default() });
        while !server.go_on_starting(Now::default()) {}
        let (epoch, revision) = server.registry.position();
        (server.registry.len(), epoch == "e", revision)
    };
    assert_eq!(begin(None), (3, true, 7));
    assert_eq!(begin(Some(Record::new("broken", "{}"))), (3, false, 7));
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
