//! docs/http.md, taken at its word: its commands are run with curl, and what they print is compared.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::workspace;
use crate::{MEMORY, Stage};

const EPOCH: &str = "b5f0a3c2-7d1e-4f7b-9c57-0a54d7f2f9a1";

fn document() -> String {
    std::fs::read_to_string(workspace().join("docs/http.md")).expect("there is a document")
}

/// Each command of the blocks with a prompt, and what it is to print.
fn commands(document: &str) -> Vec<(String, String)> {
    let blocks = document.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut all = Vec::new();
    for block in blocks {
        for text in block.split("$ curl ").skip(1) {
            // A command goes on while a quote is open or a line ends in a backslash.
            let mut end = 0;
            for line in text.split_inclusive('\n') {
                end += line.len();
                if text[..end].matches('\'').count() % 2 == 0 && !line.trim_end().ends_with('\\') {
                    break;
                }
            }
            all.push((text[..end].to_string(), text[end..].to_string()));
        }
    }
    all
}

/// A value with nothing in it that differs from run to run.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match name.as_str() {
                "generation" if value.is_u64() => (name.clone(), json!("<generation>")),
                "epoch" if value.is_string() => (name.clone(), json!("<epoch>")),
                _ => (name.clone(), masked(value)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        other => other.clone(),
    }
}

#[test]
fn what_the_document_shows_happens() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "there is no curl: scripts/test-tools installs it");
        eprintln!("NOT RUN: there is no curl: scripts/test-tools installs it");
        return;
    }
    let stage = Stage::with(MEMORY);
    let epoch = stage.http().get("/v1/watch").json()["epoch"].as_str().unwrap().to_string();
    let commands = commands(&document());
    assert!(commands.len() > 5, "{commands:?}");
    for (command, expected) in commands {
        let here =
            command.replace("127.0.0.1:5559", &format!("127.0.0.1:{}", stage.host.http())).replace(EPOCH, &epoch);
        let output =
            Command::new("sh").arg("-c").arg(format!("curl --silent {here}")).output().expect("there is a shell");
        let printed = String::from_utf8(output.stdout).expect("it prints text").replace(&epoch, EPOCH);
        match serde_json::from_str::<Value>(&expected) {
            Ok(expected) => {
                let printed = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{command}: {printed}"));
                assert_eq!(masked(&printed).to_string(), masked(&expected).to_string(), "{command}");
            }
            // A stream, up to what differs.
            Err(_) => {
                let begin = expected.split("\"timestamp\"").next().unwrap_or_default();
                assert!(begin.contains("event: ") && printed.starts_with(begin), "{command}: {printed}");
            }
        }
    }
}

#[test]
fn the_tables_have_every_route_and_every_code() {
    let text = document();
    let stage = Stage::with(MEMORY);
    let document = stage.http().get("/openapi.json").json();
    let mut routes = 0;
    for (path, operations) in document["paths"].as_object().expect("there are paths") {
        for (method, operation) in operations.as_object().expect("a path has operations") {
            routes += 1;
            let row = format!("\n| `{} {path}` | ", method.to_uppercase());
            assert!(text.contains(&row), "{row}");
            for (status, response) in operation["responses"].as_object().expect("there are some") {
                // These stand for what comes before the protocol.
                if !["400", "403", "404", "409", "410", "422", "429", "503"].contains(&status.as_str()) {
                    continue;
                }
                let codes = response["description"].as_str().expect("they name their codes");
                let row = text.lines().find(|line| line.starts_with(&format!("| {status} | "))).expect("it has a row");
                codes
                    .split(", ")
                    .for_each(|code| assert!(row.contains(&format!("`{code}`")), "{status} {code}: {row}"));
            }
        }
    }
    assert_eq!(
        text.matches("\n| `GET /").count() + text.matches("\n| `P").count() + text.matches("\n| `D").count(),
        routes
    );
    for code in registry_host::protocol::reply::Code::ALL {
        assert!(text.contains(&format!("`{}`", code.as_str())), "{code:?}");
    }
}
