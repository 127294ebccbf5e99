//! The client commands against a registry that answers what each test tells it to: what they ask, what they print, and
//! how they exit. The real program runs with an empty environment.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stand_in::*;

#[path = "cli_offline/keeping.rs"]
mod keeping;
#[path = "cli_offline/reaching.rs"]
mod reaching;
#[path = "cli_offline/stand_in.rs"]
mod stand_in;
#[path = "cli_offline/watching.rs"]
mod watching;

#[test]
fn usage_shows_nothing_as_required_that_is_not() {
    let output = registry(&["register"]).env("REGISTRY_CONNECT", "127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("Usage: registry register [OPTIONS] <NAME> <HOST> <PORT>\n"), "{said}");
}

#[test]
fn refusals_are_exit_code_1_with_the_registrys_words() {
    let other = StandIn::saying(json!({ "success": false, "error": "Not today", "code": "forbidden" }));
    for arguments in [&["get", "x"][..], &["discover", "X"], &["renew", "x"], &["deregister", "x"], &["stop"]] {
        let output = other.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(text(&output.stderr), "registry: Not today\n");
        assert_eq!(text(&output.stdout), "");
    }
    let duplicate = StandIn::saying(json!({
        "success": false, "error": "duplicate_service_type", "message": "Service type 'T' is already\u{1b}[2J taken"
    }));
    let output = duplicate.run(&["register", "n", "h", "1", "--type", "T", "--singleton"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "registry: duplicate_service_type: Service type 'T' is already\\u{1b}[2J taken\n");
}

#[test]
fn what_is_not_there_is_told_by_its_name_and_with_the_place() {
    let reply = json!({ "success": false, "error": "Service not found", "code": "not_found" });
    let missing = StandIn::saying(reply.clone());
    let place = format!("at 127.0.0.1:{}\n", missing.req_port);
    for action in ["get", "renew", "deregister"] {
        let output = missing.run(&[action, "x"]);
        assert_eq!(output.status.code(), Some(1), "{action}");
        assert_eq!(text(&output.stderr), format!("registry: no service \"x\" {place}"));
        assert_eq!(text(&output.stdout), "");
    }
    let none = StandIn::saying(json!({ "success": false, "error": "No healthy ...", "code": "none_healthy" }));
    let told = text(&none.run(&["discover", "X"]).stderr);
    assert_eq!(told, format!("registry: no healthy service of type \"X\" at 127.0.0.1:{}\n", none.req_port));
    // Programs get the whole reply, and the same exit code.
    let output = missing.run(&["get", "x", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), reply);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["register", "n", "h", "0"][..],
        &["register", "n", "h", "65536"],
        &["register", "n", "h", "1", "--meta", "no equals sign"],
        &["register", "n", "h", "1", "--metadata", "room:=four"],
        &["register", "n", "h", "1", "--exec", "--"],
        &["register", "n", "h", "1", "--ttl", "-1"],
        &["list", "a", "--type", "b"],
        &["list", "--connect", "nowhere"],
        &["list", "--connect", "udp://h:1"],
        &["list", "--connect", "::1:5556"],
        &["list", "--timeout", "0"],
        &["list", "--timeout", "inf"],
        &["watch", "renew"],
        &["--connect", "h:1"],
        &["--connect", "h:1", "keygen"],
        &["--timeout", "0", "list"],
        &["nonsense"],
    ] {
        assert_eq!(registry(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn every_command_explains_itself_and_its_exit_codes() {
    for command in [
        "serve",
        "config check",
        "config show",
        "migrate",
        "list",
        "get",
        "discover",
        "register",
        "renew",
        "deregister",
        "watch",
        "wait",
        "types",
        "history",
        "update",
        "expiry",
        "health",
        "info",
        "stop",
    ] {
        let arguments: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let output = registry(&arguments).output().unwrap();
        assert!(output.status.success(), "{command}");
        let help = text(&output.stdout);
        assert!(help.contains("Exit codes:"), "{command}");
        // Nothing wraps what is written as a whole, so it has to fit into any terminal.
        let whole = help.lines().skip_while(|line| !["With --exec:", "Exit codes:"].contains(line));
        for line in whole {
            assert!(line.len() <= 80, "{command}: {line}");
        }
    }
}

#[test]
fn list_asks_for_the_type_and_prints_a_table() {
    let one = StandIn::saying(json!({ "success": true, "services": [camera()] }));
    let output = one.run(&["list", "Camera"]);
    assert_eq!(one.request(), json!({ "action": "list", "service_type": "Camera", "limit": 500 }));
    let printed = text(&output.stdout);
    let words = |line: usize| printed.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(0), "ID NAME TYPE HOST PORT HEALTH TTL HEARTBEAT");
    assert!(words(1).starts_with("camera-1 Camera Camera 10.0.0.7 7000 critical 30 s "), "{printed}");
    assert!(words(1).ends_with(" days ago"), "{printed}");
    one.run(&["list", "--type", "Camera"]);
    assert_eq!(one.request()["service_type"], "Camera");
    one.run(&["list"]);
    assert_eq!(one.request()["service_type"], Value::Null);
}

#[test]
fn list_of_nothing_is_no_failure() {
    let empty = StandIn::saying(json!({ "success": true, "services": [] }));
    let output = empty.run(&["list"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()));
    assert_eq!(text(&empty.run(&["list", "--json"]).stdout), "[]\n");
}

#[test]
fn json_is_what_the_registry_said() {
    let all = StandIn::start(0, |request, _| {
        let reply = match request["action"].as_str().unwrap() {
            "list" => json!({ "success": true, "services": [camera()] }),
            _ => json!({ "success": true, "service": camera() }),
        };
        reply.to_string()
    });
    let printed = |arguments: &[&str]| serde_json::from_slice::<Value>(&all.run(arguments).stdout).unwrap();
    assert_eq!(printed(&["list", "--json"]), json!([camera()]));
    assert_eq!(printed(&["get", "camera-1", "--json"]), camera());
    assert_eq!(printed(&["discover", "Camera", "--json"]), camera());
}

#[test]
fn get_shows_every_field_and_nothing_steers_the_terminal() {
    let mut service = camera();
    service["metadata"] = json!({ "room": "\u{1b}[31mred\u{9b}" });
    let one = StandIn::saying(json!({ "success": true, "service": service }));
    let output = one.run(&["get", "camera-1"]);
    assert_eq!(one.request(), json!({ "action": "get", "service_id": "camera-1" }));
    let printed = text(&output.stdout);
    for field in service.as_object().unwrap().keys() {
        assert!(printed.lines().any(|line| line.starts_with(&format!("{field} "))), "{field}: {printed}");
    }
    assert!(!printed.contains(|c: char| c.is_control() && c != '\n'), "{printed:?}");
    let json = text(&one.run(&["get", "camera-1", "--json"]).stdout);
    assert!(!json.contains(|c: char| c.is_control() && c != '\n'), "{json:?}");
}

#[test]
fn register_sends_what_it_is_told_and_prints_the_id() {
    let registry = StandIn::saying(json!({ "success": true, "service_id": "camera-1", "message": "ok" }));
    let output = registry.run(&["register", "Camera", "10.0.0.7", "7000"]);
    assert_eq!(text(&output.stdout), "camera-1\n");
    let plain = json!({ "name": "Camera", "host": "10.0.0.7", "port": 7000 });
    assert_eq!(registry.request(), json!({ "action": "register", "service_info": plain }));

    let arguments = "register Camera 10.0.0.7 7000 --type Camera --id camera-1 --tag a --tag b --metadata room=b=1 --meta floor:=4 --ttl 5 \
                     --singleton --json";
    let output = registry.run(&arguments.split_whitespace().collect::<Vec<_>>());
    let info = json!({ "name": "Camera", "host": "10.0.0.7", "port": 7000, "id": "camera-1", "type": "Camera",
                       "tags": ["a", "b"], "metadata": { "room": "b=1", "floor": 4 }, "singleton": true });
    assert_eq!(registry.request(), json!({ "action": "register", "service_info": info, "ttl": 5 }));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["service_id"], "camera-1");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let many: Vec<_> = (0..5000).map(|_| camera()).collect();
    let registry = StandIn::saying(json!({ "success": true, "services": many }));
    let mut child = registry.command(&["list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn health_info_and_stop_ask_for_what_they_are_called_after() {
    let registry = StandIn::saying(json!({ "success": true, "status": "ok", "timestamp": 5, "req_port": 1,
                                          "services": [{}, {}] }));
    assert_eq!(text(&registry.run(&["health"]).stdout), "ok\n");
    assert_eq!(registry.request()["action"], "health");
    let info = text(&registry.run(&["info"]).stdout);
    assert!(info.contains("req_port   1\n") && info.contains("services   2\n") && !info.contains("success"), "{info}");
    assert_eq!(registry.request()["action"], "info");
    assert!(registry.run(&["stop"]).status.success());
    assert_eq!(registry.request()["action"], "terminate");
}

#[test]
fn health_of_a_registry_whose_storage_fails_is_exit_code_1_with_the_reason() {
    let reply = json!({ "success": true, "status": "ok", "timestamp": 5, "backend":
                        { "plugin": "x", "state": "failing", "since": 0, "error": "the power is out" } });
    let failing = StandIn::saying(reply.clone());
    let output = failing.run(&["health"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    let expected = "degraded: storage failing since 1970-01-01T00:00:00Z (the power is out); registrations are refused";
    assert_eq!(text(&output.stderr), format!("registry: {expected}\n"));
    let output = failing.run(&["health", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), reply);
}

#[test]
fn health_of_a_registry_that_is_not_ready_is_exit_code_1_with_the_reasons() {
    let reply = json!({ "success": true, "status": "ok", "alive": true, "ready": false, "not_ready": ["a", "b"] });
    let output = StandIn::saying(reply).run(&["health"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), "registry: not ready: a, b\n"));
    let reply = json!({ "success": false, "code": "starting", "error": "The registry is starting",
                        "status": "starting", "alive": true, "ready": false });
    let output = StandIn::saying(reply.clone()).run(&["health", "--json"]);
    assert_eq!(
        (output.status.code(), text(&output.stderr).as_str()),
        (Some(1), "registry: not ready: The registry is starting\n")
    );
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), reply);
}

#[test]
fn a_list_follows_the_cursor_and_begins_again_if_the_registry_cannot_go_on() {
    let pages = StandIn::start(0, {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        move |request, _| {
            let of = |id: &str| json!([{ "id": id }]);
            let reply = match (asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed), request["cursor"].as_str()) {
                (0, None) => {
                    json!({ "success": true, "services": of("a"), "revision": 1, "epoch": "e", "cursor": "x" })
                }
                (1, Some("x")) => json!({ "success": false, "error": "list again", "code": "compacted" }),
                (2, None) => {
                    json!({ "success": true, "services": of("b"), "revision": 2, "epoch": "e", "cursor": "y" })
                }
                (3, Some("y")) => {
                    json!({ "success": true, "services": [], "revision": 2, "epoch": "e", "cursor": "z" })
                }
                (4, Some("z")) => json!({ "success": true, "services": of("c"), "revision": 2, "epoch": "e" }),
                other => json!({ "success": false, "error": format!("{other:?}") }),
            };
            reply.to_string()
        }
    });
    let output = pages.run(&["list", "--json"]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), json!([{ "id": "b" }, { "id": "c" }]));
}
