//! The client library against the real program: hosts that are killed, hang, answer late and forget.

mod harness;

#[path = "client/calls.rs"]
mod calls;
#[path = "client/commands.rs"]
mod commands;
#[path = "client/keeping.rs"]
mod keeping;
#[path = "client/proxy.rs"]
mod proxy;
#[path = "client/trouble.rs"]
mod trouble;
#[path = "client/watching.rs"]
mod watching;

use std::path::Path;
use std::time::Duration;

use harness::{Host, PATIENCE};
use registry_client::{Code, Error, Registry, ServiceInfo};
use tokio::time::Instant;

const MEMORY: &str = "[backend]\nplugin = \"memory\"\n";
const SQLITE: &str = "[backend]\nplugin = \"sqlite\"\noptions.path = \"services.db\"\n";
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Does what blocks, beside the tasks of the client.
async fn blocking<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(task).await.unwrap()
}

/// Starts a host on these ports, where a host was before.
async fn start_again(directory: &Path, config: &'static str, ports: [u16; 3]) -> Host {
    let directory = directory.to_path_buf();
    blocking(move || Host::start_on(&directory, config, ports)).await
}

fn client_of(port: u16) -> Registry {
    Registry::connect(&format!("127.0.0.1:{port}")).unwrap()
}

/// A client that does not wait as long as others.
fn hasty_client_of(port: u16, timeout: Duration) -> Registry {
    let builder = Registry::builder().host(format!("127.0.0.1:{port}")).timeout(timeout).connect_timeout(timeout);
    builder.backoff(10 * MILLISECOND, 200 * MILLISECOND).connect().unwrap()
}

fn camera(id: &str) -> ServiceInfo {
    ServiceInfo::new("Camera", 7000).host("10.0.0.7").id(id).service_type("camera")
}

/// Waits until it is so.
async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(20 * MILLISECOND).await;
    }
}

async fn is_there(registry: &Registry, id: &str) -> bool {
    match registry.get(id).await {
        Ok(_) => true,
        Err(error) if error.code() == Some(&Code::NotFound) => false,
        Err(Error::Unreachable { .. } | Error::TimedOut { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}
