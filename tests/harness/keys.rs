//! Key pairs for a host and for clients with different rights.

use std::path::Path;

use super::registry;

/// Makes certificates in a directory: `registry.key` and `NAME.key`, each with its `.key_secret`, for clients of these
/// names: `camera` and `stage` may read and register, `admin` everything, `mute` only register; `stranger` may not even
/// connect. Gives the part of `registry.toml` that says so, with sockets in the directory `ipc` besides.
pub fn make(directory: &Path) -> String {
    for name in ["clients", "ipc"] {
        std::fs::create_dir(directory.join(name)).expect("the directory can be written");
    }
    for name in ["registry", "camera", "stage", "admin", "mute", "stranger"] {
        let made = registry(directory).args(["keygen", "--out", &format!("{name}.key")]).output();
        assert!(made.expect("the program can be started").status.success(), "keygen for {name}");
    }
    let authorize = |name: &str| {
        let copied = directory.join(format!("clients/{name}.key"));
        std::fs::copy(directory.join(format!("{name}.key")), &copied).expect("keygen has written it");
        let text = std::fs::read_to_string(copied).expect("it has just been written");
        text.split('"').rev().nth(1).expect("the key is the last thing in quotes").to_string()
    };
    let [camera, stage, admin, mute] = ["camera", "stage", "admin", "mute"].map(authorize);
    format!(
        "[server]\nallow_terminate = true\nipc_dir = \"ipc\"\n\
         [security]\nmechanism = \"curve\"\nkey_file = \"registry.key_secret\"\nauthorized_clients = \"clients\"\n\
         [[security.rules]]\nclients = [{camera:?}, {stage:?}]\nallow = [\"read\", \"register\"]\n\
         [[security.rules]]\nclients = [{admin:?}]\nallow = [\"admin\"]\n\
         [[security.rules]]\nclients = [{mute:?}]\nallow = [\"register\"]\n"
    )
}
