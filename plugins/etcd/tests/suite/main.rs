//! The backend with a real member, which `scripts/stores run -- cargo test` starts; what any backend has
//! to do is tried by `scripts/try-stores`.

mod common;
mod faults;
mod store;
#[path = "../../../../tests/stores/mod.rs"]
mod stores;
