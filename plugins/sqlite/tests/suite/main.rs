//! The SQLite backend, called as the host calls it: through the `Backend` trait, on files that are looked at from
//! outside as well.

mod common;
mod history;
mod lock;
mod process;
mod refused;
mod store;
mod takeover;
mod upgrade;
