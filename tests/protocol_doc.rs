//! docs/protocol.md, taken at its word: what it shows is run against the program from top to bottom, and compared with
//! what comes back. Values that differ from run to run are compared by their kind.

mod harness;

use harness::{Client, Host, Subscriber, workspace};
use registry_host::protocol::event::EventKind;
use registry_host::protocol::reply::Code;
use registry_host::protocol::request::Action;
use serde_json::{Value, json};

/// Something that the document shows, and in which line.
#[derive(Debug)]
struct Shown {
    line: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A code block: the words behind its fence, and its text.
    Block(String, String),
    /// A row of a table: the names of its columns, and its cells.
    Row(Vec<String>, Vec<String>),
}

fn document() -> String {
    std::fs::read_to_string(workspace().join("docs/protocol.md")).expect("there is a document")
}

fn shown(document: &str) -> Vec<Shown> {
    let mut all = Vec::new();
    let mut lines = document.lines().enumerate().map(|(number, text)| (number + 1, text)).peekable();
    let mut columns: Option<Vec<String>> = None;
    while let Some((line, text)) = lines.next() {
        if let Some(words) = text.strip_prefix("```") {
            let inside = lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```");
            let block = inside.collect::<Vec<_>>().join("\n");
            all.push(Shown { line, what: What::Block(words.to_string(), block) });
        }
        let Some(row) = text.strip_prefix("| ").and_then(|text| text.strip_suffix('|')) else {
            columns = columns.filter(|_| text.starts_with('|'));
            continue;
        };
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_string()).collect();
        match &columns {
            Some(columns) => all.push(Shown { line, what: What::Row(columns.clone(), cells) }),
            None => columns = Some(cells),
        }
    }
    all
}

/// The registry that the examples are a conversation with.
struct Conversation {
    _directory: tempfile::TempDir,
    host: Host,
    requests: Client,
    heartbeats: Client,
    events: Subscriber,
    /// The revision that the document calls 0, and the epoch that it counts in.
    revision: u64,
    epoch: String,
    reply: Option<Value>,
    /// The last cursor, as the document shows it and as it came.
    cursor: Option<(String, String)>,
}

impl Conversation {
    fn begin(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::start(directory.path(), config);
        let events = host.subscriber();
        let (mut requests, heartbeats) = (host.client(), host.heartbeat_client());
        let list = requests.call(json!({"action": "list"}));
        let revision = list["revision"].as_u64().expect("a list has a revision");
        let epoch = list["epoch"].as_str().expect("a list has an epoch").to_string();
        let (reply, cursor) = (None, None);
        Conversation { _directory: directory, host, requests, heartbeats, events, revision, epoch, reply, cursor }
    }

    /// One with twenty services that are not heard of any more.
    fn begin_with_fleet(config: &str) -> Self {
        let mut conversation = Conversation::begin(config);
        for number in 0..20 {
            let request = harness::register(&format!("s{number}"), "fleet", 1.0);
            conversation.requests.send(&[b"REQ", request.to_string().as_bytes()]);
        }
        (0..20).for_each(|_| drop(conversation.requests.receive()));
        conversation
    }

    fn see(&mut self, words: &str, block: &str) {
        match words {
            "json request" => {
                let block = self.of_this_run(block);
                let (shown, came) = self.cursor.clone().unwrap_or_default();
                let request = if shown.is_empty() { block } else { block.replace(&shown, &came) };
                self.reply = Some(ask(&mut self.requests, &request));
            }
            "json heartbeat" => self.reply = Some(ask(&mut self.heartbeats, block)),
            "json reply" => {
                let reply = self.reply.take().expect("a reply stands behind its request");
                if let (Some(shown), Some(came)) = (read(block)["cursor"].as_str(), reply["cursor"].as_str()) {
                    self.cursor = Some((shown.into(), came.into()));
                }
                self.compare(&read(block), &reply);
            }
            "json event" => {
                let expected = read(block);
                let mut next = self.events.next();
                // Not every event is shown.
                while next.1["type"] != expected["type"] {
                    next = self.events.next();
                }
                let (topic, event) = next;
                assert_eq!(event["type"], topic, "the topic is the type");
                self.compare(&expected, &event);
            }
            "json notice" => {
                let expected = read(block);
                let (mut topic, mut notice) = self.events.next();
                while topic != expected["type"] {
                    (topic, notice) = self.events.next();
                }
                self.compare(&expected, &notice);
            }
            other => panic!("what is a block of {other:?}?"),
        }
    }

    /// A request that goes on from a revision of the document, as it is in this run.
    fn of_this_run(&self, block: &str) -> String {
        let Ok(mut request) = serde_json::from_str::<Value>(block) else { return block.into() };
        let Some(after) = request["after"].as_u64() else { return block.into() };
        if request["epoch"] == EPOCH {
            request["epoch"] = self.epoch.as_str().into();
        }
        request["after"] = json!(after + self.revision);
        request.to_string()
    }

    fn frames(&mut self, request: &str, reply: &str, succeeds: bool) {
        let sent = frames(request, HEALTH);
        self.requests.send(&sent.iter().map(String::as_bytes).collect::<Vec<_>>());
        if reply == "none" {
            // The next reply is one to the next request.
            let next = self.requests.call(json!({"action": "health", "request_id": request}));
            assert_eq!(next["request_id"], request);
            return;
        }
        let mut came = self.requests.receive();
        let body: Value = serde_json::from_slice(&came.pop().expect("a reply has frames")).expect("a reply is JSON");
        assert_eq!(body["success"], succeeds, "{body}");
        let mut expected = frames(reply, "");
        expected.pop();
        assert_eq!(came, expected.iter().map(|frame| frame.as_bytes().to_vec()).collect::<Vec<_>>());
    }

    fn failure(&mut self, request: &str, error: &str, code: &str) {
        let reply = ask(&mut self.requests, request);
        assert_eq!((&reply["success"], &reply["error"], &reply["code"]), (&json!(false), &json!(error), &json!(code)));
    }

    /// Asserts that two values say the same, but for what differs from run to run.
    fn compare(&self, expected: &Value, found: &Value) {
        let mut expected = expected.clone();
        move_revisions(&mut expected, self.revision);
        let [expected, found] = [&expected, found].map(|value| self.masked(value));
        // As text, which shows the order of the fields too.
        assert_eq!(format!("{found:#}"), format!("{expected:#}"));
    }

    /// A value with nothing in it that differs from run to run.
    fn masked(&self, value: &Value) -> Value {
        match value {
            // Of those that are connected the one is shown that asks.
            Value::Object(fields) if fields.contains_key("clients") => {
                let mut asks = fields.clone();
                if let Some(Value::Array(clients)) = asks.remove("clients") {
                    let asking = clients.into_iter().filter(|client| client["last_action"] == "clients");
                    asks.insert("those that ask".into(), asking.collect());
                }
                self.masked(&asks.into())
            }
            Value::Object(fields) => {
                let masked = fields.iter().map(|(field, value)| {
                    let masked = match field.as_str() {
                        "timestamp" | "last_heartbeat" | "since" | "until" if value.is_u64() => json!("<seconds>"),
                        "req_port" | "pub_port" | "hb_port" | "http_port" if value.is_u64() => json!("<port>"),
                        "held_ms" if value.is_u64() => json!("<milliseconds>"),
                        "generation" if value.as_u64().is_some_and(|generation| generation > 7) => {
                            json!("<generation>")
                        }
                        "address" if value.is_string() => json!("<address>"),
                        "address" if value.is_string() => json!("<address>"),
                        "connection" | "connected_seconds" | "silent_seconds" | "requests" if value.is_number() => {
                            json!("<number>")
                        }
                        "epoch" if value.as_str().is_some_and(|epoch| !epoch.is_empty()) => json!("<epoch>"),
                        "version" if value.is_string() => json!("<version>"),
                        "cursor" if value.is_string() => json!("<cursor>"),
                        _ => self.masked(value),
                    };
                    (field.clone(), masked)
                });
                Value::Object(masked.collect())
            }
            Value::Array(items) => items.iter().map(|item| self.masked(item)).collect(),
            Value::String(text) => Value::String(without_uuids(&text.replace(&self.host.requests.to_string(), "5556"))),
            other => other.clone(),
        }
    }
}

/// The epoch as the document has it.
const EPOCH: &str = "b5f0a3c2-7d1e-4f7b-9c57-0a54d7f2f9a1";
const HEALTH: &str = r#"{"action":"health"}"#;

fn read(block: &str) -> Value {
    serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"))
}

fn ask(client: &mut Client, request: &str) -> Value {
    client.send(&[b"REQ", request.as_bytes()]);
    serde_json::from_slice(&client.receive()[1]).expect("a reply is JSON")
}

/// The frames that a cell shows, with a body in the place of `json`.
fn frames(cell: &str, body: &str) -> Vec<String> {
    let list = code(cell).replace("json", &json!(body).to_string());
    serde_json::from_str(&list).unwrap_or_else(|error| panic!("{error}: {list}"))
}

/// What stands between backticks.
fn code(cell: &str) -> &str {
    cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).unwrap_or_else(|| panic!("{cell} is no code"))
}

fn without_uuids(text: &str) -> String {
    const UUID_LENGTH: usize = 36;
    let is_uuid = |text: &str| {
        let dashes: Vec<usize> = text.match_indices('-').map(|(position, _)| position).collect();
        dashes == [8, 13, 18, 23] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
    };
    let mut masked = text.to_string();
    let starts = 0..text.len().saturating_sub(UUID_LENGTH - 1);
    for uuid in starts.filter_map(|start| text.get(start..start + UUID_LENGTH)).filter(|text| is_uuid(text)) {
        masked = masked.replace(uuid, "<uuid>");
    }
    masked
}

/// Counts revisions from where the conversation began.
fn move_revisions(value: &mut Value, by: u64) {
    for field in ["revision", "previous"] {
        if let Some(revision) = value[field].as_u64() {
            value[field] = json!(revision + by);
        }
    }
    let changes = value.get_mut("changes").and_then(Value::as_array_mut);
    changes.into_iter().flatten().for_each(|change| move_revisions(change, by));
}

#[test]
fn what_the_document_shows_is_what_happens() {
    let mut conversation = Conversation::begin("[backend]\nplugin = \"memory\"\n");
    let mut seen = 0;
    for Shown { line, what } in shown(&document()) {
        println!("docs/protocol.md:{line}: {what:?}");
        match what {
            What::Block(words, block) if words == "toml" => conversation = Conversation::begin(&block),
            What::Block(words, block) if words == "toml fleet" => {
                conversation = Conversation::begin_with_fleet(&block);
            }
            What::Block(words, block) => conversation.see(&words, &block),
            What::Row(columns, cells) => {
                let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
                match (&columns[..], &cells[..]) {
                    (_, [rule, ..]) if rule.starts_with("---") => continue,
                    (["request", "client", "reply"], [request, _, reply]) => conversation.frames(request, reply, true),
                    (["request", "reply"], [request, reply]) => conversation.frames(request, reply, false),
                    (["request", "`error`", "`code`"], [request, error, word]) => {
                        conversation.failure(code(request), code(error), code(word));
                    }
                    _ => continue,
                }
            }
        }
        seen += 1;
    }
    assert!(seen > 60, "only {seen} examples were found");
}

#[test]
fn every_action_code_and_event_is_in_the_document() {
    let document = document();
    let blocks = |kind: &str| -> Vec<Value> {
        let blocks = shown(&document).into_iter().filter_map(|shown| match shown.what {
            What::Block(words, block) if words == kind => Some(read(&block)),
            _ => None,
        });
        blocks.collect()
    };
    for action in Action::ALL.map(Action::as_str) {
        assert!(document.contains(&format!("\n### `{action}`\n")), "there is no chapter on {action}");
        assert!(blocks("json request").iter().any(|request| request["action"] == action), "no request shows {action}");
    }
    for word in Code::ALL.map(Code::as_str) {
        assert!(document.contains(&format!("\n| `{word}` | ")), "there is no line on {word}");
    }
    for kind in EventKind::ALL.map(EventKind::as_str) {
        assert!(document.contains(&format!("\n| `{kind}` | ")), "there is no line on {kind}");
        assert!(blocks("json event").iter().any(|event| event["type"] == kind), "no event shows {kind}");
    }
}

#[test]
fn the_limits_in_the_document_are_the_defaults() {
    let limits = serde_json::to_value(registry_host::config::Limits::default()).expect("limits are an object");
    let document = document();
    let mut seen = 0;
    let mut check = |key: &str, shown: &str| {
        seen += 1;
        assert_eq!(limits[key].to_string(), shown, "limits.{key}");
    };
    for rest in document.split("`limits.").skip(1) {
        let (key, rest) = rest.split_once('`').expect("code ends");
        // A number behind a key is its default.
        if let Some((number, _)) = rest.strip_prefix(" (").and_then(|rest| rest.split_once(')')) {
            check(key, number);
        }
    }
    for Shown { what, .. } in shown(&document) {
        let What::Row(columns, cells) = what else { continue };
        if columns[0] == "key of `[limits]`" && !cells[1].contains(' ') {
            check(code(&cells[0]), &cells[1]);
        }
    }
    assert!(seen > 6, "only {seen} limits were found");
}
