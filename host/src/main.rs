//! The program `registry`: everything is in the library, where tests can reach it.

fn main() -> std::process::ExitCode {
    registry_host::main()
}
