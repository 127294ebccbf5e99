//! Work is linear in what was sent: for each kind of it the core's instructions are counted at one size and at ten times
//! that. Counted, and not timed, so that a busy machine changes nothing.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The smaller size, and by how much the instructions may grow when the size grows tenfold.
const SIZE: usize = 300;
const FACTOR_MAX: f64 = 12.0;

#[test]
fn ten_times_as_much_takes_at_most_twelve_times_the_instructions() {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        let how = "valgrind counts them: scripts/test-tools installs it (Debian: apt install valgrind)";
        assert!(std::env::var_os("CI").is_none(), "{how}");
        eprintln!("NOT RUN: {how}");
        return;
    }
    build_steps();
    let listed = Command::new(steps()).output().expect("the example is built with the tests");
    let kinds = String::from_utf8(listed.stdout).expect("names are text");
    assert!(kinds.lines().count() > 10, "{kinds}");
    let mut too_many = Vec::new();
    for kind in kinds.lines() {
        // Both at once: there are two cores more often than one.
        let [small, large] = [SIZE, 10 * SIZE].map(|size| start(kind, size)).map(|child| {
            let output = child.wait_with_output().expect("valgrind ends");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{kind}: {said}");
            let collected =
                said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
            collected.and_then(|count| count.parse::<f64>().ok()).unwrap_or_else(|| panic!("{kind}: {said}"))
        });
        assert!(small > 1000.0, "{kind}: nothing was counted");
        let factor = large / small;
        println!("{kind:32} {small:12} {large:12}  {factor:5.1}");
        if factor > FACTOR_MAX {
            too_many.push(format!("{kind}: {factor:.1}"));
        }
    }
    assert!(too_many.is_empty(), "more than {FACTOR_MAX} times: {too_many:?}");
}

fn start(kind: &str, size: usize) -> std::process::Child {
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*steps*counted*"])
        .arg(steps())
        .args([kind, &size.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind starts")
}

/// Builds the example, which cargo does by itself only if all targets are tested.
fn build_steps() {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--package", "registry-host", "--example", "steps"]);
    if steps().components().any(|part| part.as_os_str() == "release") {
        build.arg("--release");
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts");
    assert!(built.success(), "the example cannot be built");
}

/// The example, which lies beside the tests.
fn steps() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(|deps| deps.parent()).expect("tests are in deps");
    target.join("examples/steps")
}
