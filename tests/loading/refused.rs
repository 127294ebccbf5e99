//! Files that are no plugin for this host. Each is refused in one line, and none harms the process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use registry_host::plugin::{LoadError, Plugin};
use tempfile::TempDir;

use crate::plugin_file;

/// Loading fails with one line that names the file and has all the words.
fn assert_refused(file: &Path, words: &[&str]) -> LoadError {
    let error = Plugin::load(file).err().unwrap_or_else(|| panic!("{} was loaded", file.display()));
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(error.path(), file);
    for word in words.iter().copied().chain([file.to_str().unwrap()]) {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    error
}

fn written(directory: &TempDir, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let file = directory.path().join(name);
    fs::write(&file, contents).unwrap();
    file
}

/// A library of this source code, by the compiler alone.
fn compiled(directory: &TempDir, source: &str) -> PathBuf {
    let source = written(directory, "source.rs", source);
    let file = directory.path().join("compiled.so");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built =
        Command::new(rustc).args(["--edition=2024", "--crate-type=cdylib", "-o"]).arg(&file).arg(source).status();
    assert!(built.unwrap().success());
    file
}

#[test]
fn a_missing_file() {
    let directory = tempfile::tempdir().unwrap();
    let error = assert_refused(&directory.path().join("none.so"), &["no plugin file", "build"]);
    assert!(matches!(error, LoadError::Missing { .. }));
}

#[test]
fn a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let error = assert_refused(directory.path(), &["is a directory"]);
    assert!(matches!(error, LoadError::NotAFile { .. }));
}

#[cfg(unix)]
#[test]
fn a_device() {
    assert_refused(Path::new("/dev/zero"), &["is a device"]);
}

#[test]
fn an_empty_file() {
    let directory = tempfile::tempdir().unwrap();
    assert_refused(&written(&directory, "empty.so", ""), &["not a shared library", "empty"]);
}

#[test]
fn text() {
    let directory = tempfile::tempdir().unwrap();
    for text in ["x", "not a library\n", &"a long text\n".repeat(1000)] {
        let error = assert_refused(&written(&directory, "text.so", text), &["not a shared library"]);
        assert!(matches!(error, LoadError::NotALibrary { .. }));
    }
}

/// The dynamic loader would kill the process on some of these.
#[cfg(target_os = "linux")]
#[test]
fn a_library_that_is_cut_off_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(plugin_file("memory")).unwrap();
    let length = whole.len();
    let starts = [4, 16, 63, 64, 100, 1000, 4096, 10_000];
    let parts = (1..16).map(|part| length / 16 * part);
    for cut in starts.into_iter().chain(parts).chain([length - 65, length - 1]) {
        let error = assert_refused(&written(&directory, "cut.so", &whole[..cut]), &["cut off", &cut.to_string()]);
        assert!(matches!(error, LoadError::Truncated { .. }), "{cut}");
    }
    let copy = written(&directory, "whole.so", &whole);
    assert_eq!(Plugin::load(copy).unwrap().info().name, "memory");
}

/// Without a table of sections, which stands at the end, only the segments tell how long the file has to be.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn a_stripped_library_that_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let mut library = fs::read(plugin_file("memory")).unwrap();
    library[40..48].fill(0);
    library[60..64].fill(0);
    let whole = written(&directory, "whole.so", &library);
    assert_eq!(Plugin::load(whole).unwrap().info().name, "memory");
    let cut = written(&directory, "cut.so", &library[..10_000]);
    assert!(matches!(assert_refused(&cut, &["cut off"]), LoadError::Truncated { .. }));
}

#[cfg(target_os = "linux")]
#[test]
fn a_library_for_another_machine() {
    let directory = tempfile::tempdir().unwrap();
    let mut library = fs::read(plugin_file("memory")).unwrap();
    // The machine's code: 2 is SPARC.
    library[18..20].copy_from_slice(&[2, 0]);
    assert_refused(&written(&directory, "sparc.so", &library), &["another kind of machine", "build"]);
    // The class: 1 is 32 bits.
    library[4] = 1;
    assert_refused(&written(&directory, "short.so", &library), &["another kind of machine"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_executable() {
    let error = assert_refused(&std::env::current_exe().unwrap(), &[]);
    assert!(matches!(error, LoadError::Unloadable { .. } | LoadError::NotALibrary { .. }), "{error}");
}

/// The C library's mathematics: in use already, so it is where this process has it.
#[cfg(target_os = "linux")]
#[test]
fn a_library_of_the_system() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut libraries = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| format!("/{path}"));
    let library = libraries.find(|path| path.contains("libc.so") || path.contains("libm.so"));
    let library = library.expect("the C library is a shared library");
    let error = assert_refused(Path::new(&library), &["not a registry plugin", "export_backend!"]);
    assert!(matches!(error, LoadError::NotAPlugin { .. }));
}

#[test]
fn a_library_of_somebody_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = compiled(&directory, "#[unsafe(no_mangle)] pub extern \"C\" fn hello() {}");
    assert_refused(&file, &["not a registry plugin"]);
}

#[test]
fn a_library_with_something_else_under_the_symbol() {
    let directory = tempfile::tempdir().unwrap();
    let source = "#[unsafe(no_mangle)] pub static registry_storage_plugin: [u64; 100] = [7; 100];";
    let error = assert_refused(&compiled(&directory, source), &["cannot read", "rebuild"]);
    assert!(matches!(error, LoadError::OtherVersion { .. }));
}

#[cfg(target_os = "linux")]
#[test]
fn a_library_that_lacks_a_symbol() {
    let directory = tempfile::tempdir().unwrap();
    let source = "unsafe extern \"C\" { fn nobody_has_this(); } \
                  #[unsafe(no_mangle)] pub extern \"C\" fn call() { unsafe { nobody_has_this() } }";
    let error = assert_refused(&compiled(&directory, source), &["cannot be loaded: undefined symbol: nobody_has_this"]);
    assert!(matches!(error, LoadError::Unloadable { .. }));
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let mut file = written(&directory, "secret.so", "");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&file).is_ok() {
        // The superuser may read everything, except for what nobody may.
        file = PathBuf::from("/proc/sys/vm/compact_memory");
    }
    let error = assert_refused(&file, &["cannot read", "Permission denied"]);
    assert!(matches!(error, LoadError::Unreadable { .. }));
}

#[test]
fn a_plugin_whose_panics_would_abort() {
    let error = assert_refused(&plugin_file("aborts"), &["panic = \"abort\"", "rebuild it with panic = \"unwind\""]);
    assert!(matches!(error, LoadError::Aborts { .. }));
}
