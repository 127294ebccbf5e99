//! Following changes over the real program: by REQ and DEALER, beside PUB, and over stops, kills and restarts.

mod harness;

use std::time::{Duration, Instant};

use harness::{Client, Host, eventually, register};
use serde_json::{Value, json};

const SQLITE: &str = "[server]\ncleanup_interval = 0.1\n";
const MEMORY: &str = "[backend]\nplugin = \"memory\"\n";

fn fresh() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn send(client: &mut Client, request: &Value) {
    client.send(&[b"REQ", request.to_string().as_bytes()]);
}

fn receive(client: &mut Client) -> Value {
    serde_json::from_slice(&client.receive()[1]).expect("a reply is JSON")
}

fn deregister(id: &str) -> Value {
    json!({"action": "deregister", "service_id": id})
}

/// A client that follows changes, and what it has been told.
struct Follower {
    epoch: String,
    revision: u64,
    changes: Vec<Value>,
}

impl Follower {
    fn from_now_on(client: &mut Client) -> Self {
        let reply = client.call(json!({"action": "watch"}));
        Follower { epoch: text(&reply["epoch"]), revision: reply["revision"].as_u64().unwrap(), changes: Vec::new() }
    }

    fn request(&self, more: Value) -> Value {
        let mut request = json!({"action": "watch", "epoch": self.epoch, "after": self.revision});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    }

    fn hear(&mut self, reply: &Value) {
        assert_eq!((&reply["success"], text(&reply["epoch"])), (&json!(true), self.epoch.clone()), "{reply}");
        self.revision = reply["revision"].as_u64().unwrap();
        self.changes.extend(reply["changes"].as_array().unwrap().iter().cloned());
    }

    /// Asks until nothing is left.
    fn catch_up(&mut self, client: &mut Client, more: &Value) {
        loop {
            let reply = client.call(self.request(more.clone()));
            self.hear(&reply);
            if reply["changes"].as_array().unwrap().is_empty() {
                return;
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_string()
}

#[test]
fn a_watcher_is_told_what_is_published_while_its_connection_is_used_for_more() {
    let directory = fresh();
    let host = Host::start(directory.path(), MEMORY);
    let mut events = host.subscriber();
    let (mut client, mut other) = (host.client(), host.client());
    let mut follower = Follower::from_now_on(&mut client);
    for service_type in [None, Some("web"), Some("mail")] {
        let more = json!({"wait": 60, "request_id": service_type, "service_type": service_type});
        send(&mut client, &follower.request(more));
    }
    assert_eq!(client.call(json!({"action": "health"}))["status"], "ok", "it may ask for other things meanwhile");
    other.call(register("x", "web", 60.0));
    let (_, published) = events.next();
    let mut replies = [receive(&mut client), receive(&mut client)];
    replies.sort_by_key(|reply| reply["request_id"].to_string());
    assert_eq!(replies[0]["request_id"], "web");
    for reply in &replies {
        assert_eq!(reply["changes"], json!([published]));
    }
    other.call(register("y", "mail", 60.0));
    let reply = receive(&mut client);
    assert_eq!((&reply["request_id"], &reply["changes"][0]["data"]["service_id"]), (&json!("mail"), &json!("y")));
    follower.hear(&replies[0]);
    follower.catch_up(&mut client, &json!({}));
    assert_eq!(follower.changes.len(), 2);
}

#[test]
fn watches_of_a_connection_leave_room_for_its_other_requests() {
    let directory = fresh();
    let host = Host::start(directory.path(), &format!("{MEMORY}[limits]\nrequests_waiting = 8\n"));
    let mut client = host.client();
    for _ in 0..6 {
        send(&mut client, &json!({"action": "watch", "wait": 60}));
    }
    for _ in 0..2 {
        let refusal = receive(&mut client);
        assert_eq!(refusal["code"], "overloaded", "{refusal}");
    }
    assert_eq!(client.call(json!({"action": "health"}))["status"], "ok");
    host.client().call(register("x", "web", 60.0));
    for _ in 0..4 {
        assert_eq!(receive(&mut client)["changes"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn watchers_that_leave_make_room_for_others() {
    let directory = fresh();
    let host = Host::start(directory.path(), &format!("{MEMORY}[limits]\nwaiting_watchers = 2\n"));
    let watch = json!({"action": "watch", "wait": 600});
    let mut leaving = [host.client(), host.client()];
    leaving.iter_mut().for_each(|client| send(client, &watch));
    leaving.iter_mut().for_each(|client| drop(client.call(json!({"action": "health"}))));
    let mut client = host.client();
    assert_eq!(client.call(watch.clone())["code"], "overloaded");
    drop(leaving);
    let deadline = Instant::now() + harness::PATIENCE;
    loop {
        send(&mut client, &watch);
        send(&mut client, &json!({"action": "health"}));
        let reply = receive(&mut client);
        if reply["status"] == "ok" {
            break;
        }
        assert_eq!((&reply["code"], &receive(&mut client)["status"]), (&json!("overloaded"), &json!("ok")));
        assert!(Instant::now() < deadline, "they wait for nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_host_that_stops_answers_its_watchers() {
    let directory = fresh();
    let host = Host::start(directory.path(), SQLITE);
    let mut clients: Vec<Client> = (0..20).map(|_| host.client()).collect();
    let follower = Follower::from_now_on(&mut clients[0]);
    clients.iter_mut().for_each(|client| send(client, &follower.request(json!({"wait": 600}))));
    clients.iter_mut().for_each(|client| drop(client.call(json!({"action": "health"}))));
    host.signal("TERM");
    for client in &mut clients {
        let reply = receive(client);
        assert_eq!((&reply["changes"], reply["revision"].as_u64()), (&json!([]), Some(follower.revision)));
    }
    assert!(host.wait().0.success());
}

#[test]
fn over_kills_and_restarts_each_change_is_told_once_and_in_the_same_words() {
    let directory = fresh();
    let mut host = Host::start(directory.path(), SQLITE);
    let mut first = Follower::from_now_on(&mut host.client());
    // One that is told everything at the end, one that watches a type, and one that is there all the time.
    let mut last = Follower { changes: Vec::new(), epoch: first.epoch.clone(), revision: first.revision };
    let mut web = Follower { changes: Vec::new(), epoch: first.epoch.clone(), revision: first.revision };
    let mut published = Vec::new();
    for round in 0..6 {
        let ports = host.ports();
        {
            let (mut client, mut events) = (host.client(), harness::Subscriber::connect(host.events));
            for number in 0..20 {
                let id = format!("s{}", number % 7);
                let service_type = if number % 3 == 0 { "web" } else { "mail" };
                client.call(register(&id, service_type, 60.0));
                if number % 5 == 0 {
                    client.call(deregister(&id));
                }
            }
            client.call(register("short", "web", 0.05));
            eventually(&mut client, json!({"action": "get", "service_id": "short"}), |reply| reply["success"] == false);
            first.catch_up(&mut client, &json!({}));
            if round % 2 == 0 {
                web.catch_up(&mut client, &json!({"service_type": "web", "limit": 3}));
            }
            while let Some((_, event)) = events.next_within(Duration::from_millis(100)) {
                published.push(event);
            }
            // Those under way when it dies are told by the next one, or never were.
            for number in 0..50 {
                send(&mut client, &register(&format!("open{round}-{number}"), "web", 60.0));
            }
        }
        if round % 3 == 2 {
            host.stop()
        } else {
            host.kill()
        }
        host = Host::start_on(directory.path(), SQLITE, ports);
    }
    let mut client = host.client();
    for (follower, more) in
        [(&mut first, json!({})), (&mut last, json!({"limit": 10})), (&mut web, json!({"service_type": "web"}))]
    {
        follower.catch_up(&mut client, &more);
    }
    assert_eq!(first.changes, last.changes, "before and after restarts they are told the same");
    let revisions: Vec<u64> = last.changes.iter().map(|change| change["revision"].as_u64().unwrap()).collect();
    assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
    assert!(revisions.len() > 6 * 20, "{} changes", revisions.len());
    // A subscription needs its time: what was published is a part.
    assert!(published.len() > 20 && published.iter().all(|event| last.changes.contains(event)));
    // What is told of a type is what there is of it.
    let list = |client: &mut Client, more: &Value| {
        let mut request = json!({"action": "list"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let services = client.call(request)["services"].as_array().unwrap().clone();
        services.iter().map(|service| text(&service["id"])).collect::<std::collections::BTreeSet<_>>()
    };
    for (follower, more) in [(&last, json!({})), (&web, json!({"service_type": "web"}))] {
        let mut cache = std::collections::BTreeSet::new();
        for change in &follower.changes {
            let id = text(&change["data"]["service_id"]);
            if change["type"] == "register" {
                cache.insert(id)
            } else {
                cache.remove(&id)
            };
        }
        assert_eq!(cache, list(&mut client, &more), "{more}");
    }
    host.stop();
}

#[test]
fn a_store_without_history_begins_anew_at_each_start() {
    let directory = fresh();
    let host = Host::start(directory.path(), MEMORY);
    let mut client = host.client();
    let follower = Follower::from_now_on(&mut client);
    host.stop();
    let host = Host::start(directory.path(), MEMORY);
    let reply = host.client().call(follower.request(json!({"wait": 60})));
    assert_eq!(reply["code"], "compacted", "{reply}");
    assert_ne!(text(&reply["epoch"]), follower.epoch);
}

/// How much memory a process has, in bytes.
fn resident(host: &Host) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("the host runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory is shown");
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number") * 1024
}

/// `cargo test --test follow ten_thousand -- --nocapture` says how much each takes.
#[test]
fn ten_thousand_watchers_that_wait_cost_some_hundred_bytes_each_and_are_woken_by_one_change() {
    const CONNECTIONS: usize = 100;
    const EACH: usize = 100;
    let directory = fresh();
    let host = Host::start_frugal(directory.path(), MEMORY);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| host.client()).collect();
    let ask = |clients: &mut [Client]| {
        for client in clients {
            for number in 0..EACH {
                send(client, &json!({"action": "watch", "wait": 600, "service_type": "web", "request_id": number}));
            }
        }
    };
    // Room that is used again afterwards is no watcher's.
    ask(&mut clients[..1]);
    clients.iter_mut().for_each(|client| drop(client.call(json!({"action": "health"}))));
    let before = resident(&host);
    ask(&mut clients[1..]);
    clients.iter_mut().for_each(|client| drop(client.call(json!({"action": "health"}))));
    let each = (resident(&host) - before) / ((CONNECTIONS - 1) * EACH);
    println!("{each} bytes for each watcher that waits");
    assert!(each < 1000, "{each} bytes each");
    let mut other = host.client();
    other.call(register("x", "mail", 60.0));
    other.call(register("y", "web", 60.0));
    let began = Instant::now();
    for client in &mut clients {
        for _ in 0..EACH {
            assert_eq!(receive(client)["changes"][0]["data"]["service_id"], "y");
        }
    }
    println!("all are told {} ms later", began.elapsed().as_millis());
}
