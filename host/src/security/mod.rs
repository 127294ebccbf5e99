//! Keys: who the registry is, and who may talk to it.

pub mod key;
mod z85;
