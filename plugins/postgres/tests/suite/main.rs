//! The backend with a real server, which `scripts/stores run -- cargo test -p registry_postgres` starts; what any backend
//! has to do is tried by `scripts/try-stores`.

mod common;
mod faults;
#[path = "../../../../tests/stores/proxy.rs"]
mod proxy;
mod store;
