//! The same with encrypted connections: a long message is one box there, and no box is kept for who does not read.

use std::time::{Duration, Instant};

use registry_zmtp::client::{Address, Client, Keys};
use registry_zmtp::keys::{key, key_file};
use serde_json::{Value, json};

use crate::harness::{Host, PATIENCE, keys};
use crate::stage::{alone, amount, registration, reset_peak, status};

async fn connect(port: u16, socket_type: &str, keys: &Keys) -> Client {
    Client::connect(&Address::Tcp("127.0.0.1".into(), port), socket_type, Some(keys)).await.expect("the key is known")
}

async fn call(client: &mut Client, request: &Value) -> Value {
    client.send(&[b"", request.to_string().as_bytes()]).await.expect("it is not cut off because of others");
    let reply = tokio::time::timeout(PATIENCE, client.receive()).await.expect("it is answered");
    let reply = reply.expect("it is not cut off because of others");
    serde_json::from_slice(&reply[1]).expect("a reply is JSON")
}

/// Clients that leave lists of 4 MB unread and subscribers that leave events of 0.9 MB unread need no more than half more
/// than the limit, others are served meanwhile, and what is read is what was sent.
#[test]
fn what_nobody_reads_encrypted() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let config = keys::make(directory.path()) + "[backend]\nplugin = \"memory\"\n[limits]\nbuffered_bytes = 16777216\n";
    // Without optimisation encrypting takes so long that little has to do.
    let (long, loud) = (amount(850_000, 50_000), amount(900_000, 50_000));
    let host = Host::start(directory.path(), &config);
    let pair = |name: &str| -> key::KeyPair {
        key_file(&directory.path().join(format!("{name}.key_secret"))).expect("keygen has written it")
    };
    let keys = Keys { own: pair("camera"), server: *pair("registry").public() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is a runtime");
    runtime.block_on(async {
        let mut honest = connect(host.requests, "REQ", &keys).await;
        let mut hearing = connect(host.events, "SUB", &keys).await;
        hearing.send(&[b"\x01reg"]).await.expect("it stays");
        for number in 0..5 {
            let reply = call(&mut honest, &registration(&format!("long-{number}"), long)).await;
            assert_eq!(reply["success"], true, "{reply}");
            let event = hearing.receive().await.expect("it stays");
            assert_eq!(&event[0][..], b"register");
            let event: Value = serde_json::from_slice(&event[1]).expect("an event is JSON");
            assert_eq!(event["data"]["service_id"], format!("long-{number}"));
        }
        drop(hearing);
        let list = json!({"action": "list"});
        let expected = call(&mut honest, &list).await;
        assert_eq!(expected["services"].as_array().map(Vec::len), Some(5));
        let base_kb = reset_peak(host.pid());

        let mut stuck = Vec::new();
        for number in 0..amount(60, 15) {
            let mut client = connect(
                if number % 3 == 2 { host.events } else { host.requests },
                ["REQ", "REQ", "SUB"][number % 3],
                &keys,
            )
            .await;
            if number % 3 == 2 {
                client.send(&[b"\x01"]).await.expect("it stays");
            }
            for _ in 0..if number % 3 == 2 { 0 } else { 5 } {
                client.send(&[b"", list.to_string().as_bytes()]).await.expect("it stays");
            }
            stuck.push(client);
        }
        let (start, mut slowest) = (Instant::now(), Duration::ZERO);
        while start.elapsed() < Duration::from_secs(amount(5, 2) as u64) {
            let reply = call(&mut honest, &registration("loud", loud)).await;
            assert_eq!(reply["success"], true, "{reply}");
            let asked = Instant::now();
            assert_eq!(call(&mut honest, &json!({"action": "health"})).await["success"], true);
            slowest = slowest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let peak_kb = status(host.pid(), "VmHWM:").saturating_sub(base_kb);
        println!("encrypted: peak +{peak_kb} KiB, slowest health {slowest:?}");
        assert!(peak_kb <= 16 * 1024 * 3 / 2, "{peak_kb} KiB");
        drop(stuck);
        let reply = call(&mut honest, &list).await;
        assert_eq!(reply["services"].as_array().map(Vec::len), Some(6));
    });
}
