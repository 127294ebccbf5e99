//! A service that others find, and that finds others: run it a few times, with names of your own.
//!
//! usage: fleet HOST:PORT NAME PORT

use std::time::Duration;

use registry_client::{Error, Registry, Service, ServiceInfo};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [registry, name, port] = &arguments[..] else {
        return Err(Error::Invalid("usage: fleet HOST:PORT NAME PORT".to_string()));
    };
    let port = port.parse().map_err(|_| Error::Invalid(format!("{port} is no port")))?;
    let me = ServiceInfo::new(name, port).service_type("fleet").ttl(Duration::from_secs(3));
    let service = Service::start(registry, me).await?;
    println!("{} is there", service.registration().id());
    let others = follow(service.registry().clone());
    service.run_until(others).await
}

/// Tells who else comes and goes, until a signal ends the program.
async fn follow(registry: Registry) {
    let mut fleet = loop {
        match registry.watch_existing("fleet").await {
            Ok(fleet) => break fleet,
            Err(error) if error.may_pass() => eprintln!("{error}; trying again"),
            Err(error) => return eprintln!("{error}"),
        }
    };
    while let Some(Ok(change)) = fleet.next().await {
        let what = if change.is_there() { "is there" } else { "is gone" };
        println!("{} {what}", change.record);
    }
}
