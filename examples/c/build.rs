//! Compiles the C part.

const SOURCES: [&str; 3] = ["store.c", "records.c", "log.c"];
const HEADERS: [&str; 3] = ["registry_backend.h", "records.h", "log.h"];

fn main() {
    for file in SOURCES.iter().chain(&HEADERS) {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut build = cc::Build::new();
    build.files(SOURCES).std("c11").warnings(true).extra_warnings(true).warnings_into_errors(true);
    build.flags(["-Wconversion", "-Wshadow", "-Wvla"]);
    build.compile("registry_c_store");
}
