//! Where a command looks for a registry, and what it says of what it finds there.

use super::*;

#[test]
fn nobody_there_is_exit_code_3_within_the_timeout() {
    let (_held, port) = refusing_port();
    let begin = Instant::now();
    let output =
        registry(&["health", "--timeout", "0.2", "--connect", &format!("tcp://127.0.0.1:{port}")]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(begin.elapsed() < PATIENCE);
    let said = text(&output.stderr);
    assert!(said.starts_with(&format!("registry: connection refused by 127.0.0.1:{port}: nothing listens")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn another_port_of_the_registry_is_told_by_what_it_answers() {
    let events = with_events(0, "a", 1);
    events.run(&["info"]);
    events.request();
    let port = events.pub_port;
    let output = registry(&["health", "--connect", &format!("127.0.0.1:{port}")]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stderr);
    assert!(said.starts_with(&format!("registry: 127.0.0.1:{port} is no request port (it sends events)")), "{said}");

    let heartbeats = StandIn::start(0, |request, _| {
        let reply = match request.get("service_id") {
            Some(_) => json!({ "success": true, "message": "Service renewed successfully" }),
            None => {
                json!({ "success": false, "error": "Missing required field: service_id", "code": "invalid_request" })
            }
        };
        reply.to_string()
    });
    for arguments in [&["health"][..], &["list"], &["register", "n", "h", "1"], &["get", "x"], &["deregister", "x"]] {
        let output = heartbeats.run(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(text(&output.stderr).contains("is the heartbeat port"), "{arguments:?}: {}", text(&output.stderr));
    }
    assert!(heartbeats.run(&["renew", "x"]).status.success());
}

#[test]
fn without_being_told_a_command_looks_where_the_configuration_says_that_the_registry_serves() {
    let there = StandIn::saying(json!({ "success": true, "status": "ok" }));
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let health = |arguments: &[&str]| {
        let mut command = registry(&["health", "--timeout", "20"]);
        command.args(arguments).current_dir(directory.path());
        command
    };
    let port = there.req_port;
    file("registry.toml", &format!("[server]\nreq_port = {port}\nbind = \"0.0.0.0\"\ntrusted_network = true\n"));
    assert_eq!(text(&health(&[]).output().unwrap().stdout), "ok\n");
    file("registry.toml", "[server]\nreq_port = 1\n");
    file("other.toml", &format!("[server]\nreq_port = {port}\n"));
    assert_eq!(text(&health(&["--config", "other.toml"]).output().unwrap().stdout), "ok\n");
    let by_variable = health(&[]).env("REGISTRY_SERVER__REQ_PORT", port.to_string()).output().unwrap();
    assert_eq!(text(&by_variable.stdout), "ok\n");
    // What is said on the command line needs no configuration, and is not to fail of one.
    file("registry.toml", "no toml at all");
    assert!(health(&["--connect", &format!("127.0.0.1:{port}")]).output().unwrap().status.success());
    let output = health(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("registry.toml, line 1: "), "{}", text(&output.stderr));
    let output = health(&["--config", "other.toml", "--set", "server.req_port=0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("server.req_port is 0 (--set)"), "{}", text(&output.stderr));
}

#[test]
fn somebody_who_says_nothing_is_exit_code_3_and_found_by_the_environment() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let output = registry(&["list", "--timeout", "0.2"]).env("REGISTRY_CONNECT", &endpoint).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains(&endpoint));
    // It did come here.
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_ok());
}

#[test]
fn an_answer_that_is_none_of_a_registry_is_exit_code_3() {
    for answer in ["hello", "{}", "[]", ""] {
        let other = StandIn::start(0, |_, _| answer.to_string());
        let output = other.run(&["health"]);
        assert_eq!(output.status.code(), Some(3), "{answer:?}");
        assert!(text(&output.stderr).contains("does not answer as a registry does"), "{}", text(&output.stderr));
    }
}

#[test]
fn options_may_stand_before_the_command() {
    let one = StandIn::saying(json!({ "success": true, "services": [camera()] }));
    let place = format!("127.0.0.1:{}", one.req_port);
    let command = |arguments: &[&str]| registry(arguments).env("REGISTRY_CONNECT", "127.0.0.1:1").output().unwrap();
    for before in [
        &["--timeout", "20", "--connect", &place, "--json", "list", "Camera"][..],
        &["--json", "--timeout=20", "list", "--connect", &place, "Camera"],
    ] {
        let output = command(before);
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), json!([camera()]), "{before:?}");
    }
}
