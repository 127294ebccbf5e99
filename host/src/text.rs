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

/// Seconds since 1970 as `2026-11-23T22:54:23Z`.
pub(crate) fn utc(seconds: f64) -> String {
    const DAY: i64 = 86_400;
    // Beyond this, dates have more than four digits.
    let seconds = seconds.clamp(0.0, 253_402_300_799.0) as i64;
    let (days, second) = (seconds / DAY, seconds % DAY);
    // Years are counted from March here, so that the leap day is the last one; eras are 400 years of 146097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, wrapped) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + wrapped;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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

    #[test]
    fn time_is_shown_in_utc() {
        assert_eq!(utc(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400.5), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_474_463.0), "2026-11-23T22:54:23Z");
    }
}
