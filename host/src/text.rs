//! Text for people: what clients and plugins say is quoted and cut before it gets into a line of the log.

/// How much of a client's text a line of the log shows, in characters.
const QUOTED_MAX: usize = 64;
/// How much of a message a line of the log shows, in characters.
const LINE_MAX: usize = 400;

/// A number of things.
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A client's text in quotes, its beginning if it is long. Line feeds and control characters are escaped: nobody can
/// write a line of their own.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A message that may hold anything, as one line of bearable length.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_MAX));
    for (position, character) in text.chars().enumerate() {
        if position == LINE_MAX {
            line.push_str("...");
            break;
        }
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_text_is_quoted_and_cut() {
        assert_eq!(quoted("camera 1"), "\"camera 1\"");
        assert_eq!(quoted("a\nb\u{1b}[2J\"\u{202e}"), "\"a\\nb\\u{1b}[2J\\\"\\u{202e}\"");
        assert_eq!(quoted(&"ä".repeat(64)), format!("\"{}\"", "ä".repeat(64)));
        assert_eq!(quoted(&"ä".repeat(64 + 1)), format!("\"{}\"...", "ä".repeat(64)));
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(one_line("it's \"full\": 10 %"), "it's \"full\": 10 %");
        assert_eq!(one_line("a\r\nb"), "a\\r\\nb");
        assert_eq!(one_line(&"x".repeat(400 + 1)), format!("{}...", "x".repeat(400)));
    }
}
