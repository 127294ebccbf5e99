//! The order on the command line: options of a command may stand before it.

use std::ffi::OsString;

/// The options of client commands that take a value, and the one that takes none.
const CONNECTION: [&str; 4] = ["--connect", "--key", "--server-key", "--timeout"];
const JSON: &str = "--json";
/// The options of the program itself that take a value.
const OWN: [&str; 4] = ["-c", "--config", "-s", "--set"];

/// The same command line, with the options of client commands behind the command if they stood before it. Whether the
/// command has them is looked at there.
pub(super) fn behind_the_command(given: Vec<OsString>) -> Vec<OsString> {
    let mut given = given.into_iter();
    let (mut first, mut moved): (Vec<OsString>, Vec<OsString>) = (given.next().into_iter().collect(), Vec::new());
    while let Some(argument) = given.next() {
        let text = argument.to_string_lossy().into_owned();
        if !text.starts_with('-') {
            first.push(argument);
            break;
        }
        let name = text.split_once('=').map_or(text.as_str(), |(name, _)| name);
        let is_moved = name == JSON || CONNECTION.contains(&name);
        let has_value = name == text && [&CONNECTION[..], &OWN[..]].concat().contains(&name);
        let part = if is_moved { &mut moved } else { &mut first };
        part.push(argument);
        if has_value {
            part.extend(given.next());
        }
    }
    first.into_iter().chain(moved).chain(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_before_the_command_count_as_behind_it() {
        let moved = |given: &str| {
            let moved = behind_the_command(given.split(' ').map(OsString::from).collect());
            moved.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(moved("registry --connect h:1 list a"), "registry list --connect h:1 a");
        assert_eq!(
            moved("registry --json --timeout=3 -c f --key k get x"),
            "registry -c f get --json --timeout=3 --key k x"
        );
        assert_eq!(moved("registry register n h 1 --exec --json"), "registry register n h 1 --exec --json");
        for same in ["registry", "registry -s a=b serve", "registry --help list", "registry config --json"] {
            assert_eq!(moved(same), same);
        }
        assert_eq!(moved("registry --connect h:1"), "registry --connect h:1", "no command has it");
    }
}
