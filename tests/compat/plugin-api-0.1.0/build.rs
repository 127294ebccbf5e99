//! Notes which compiler builds this crate, and so the plugin it ends up in: the host shows it to the operator.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var_os("RUSTC")
        .and_then(|rustc| Command::new(rustc).arg("--version").output().ok())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string())
        .unwrap_or_default();
    println!("cargo::rustc-env=REGISTRY_RUSTC_VERSION={version}");
}
