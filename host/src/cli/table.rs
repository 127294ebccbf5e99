//! Services as a table for people: aligned, and as narrow as the terminal if that can be done.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::output::printable;

const GAP: &str = "  ";
/// Names are not shortened below this.
const CELL_WIDTH_MIN: usize = 8;

/// How a column gives way when the terminal is narrow.
#[derive(Clone, Copy, PartialEq)]
enum Yields {
    /// Never: an id that is cut is no id.
    Never,
    /// Its cells are shortened.
    Shortened,
    /// It is left out, after all that can be shortened has been.
    LeftOut,
}

const COLUMNS: [(&str, Yields); 8] = [
    ("ID", Yields::Never),
    ("NAME", Yields::Shortened),
    ("TYPE", Yields::Shortened),
    ("HOST", Yields::Shortened),
    ("PORT", Yields::Never),
    ("HEALTH", Yields::Never),
    ("TTL", Yields::LeftOut),
    ("LAST HEARTBEAT", Yields::LeftOut),
];

/// One line for the head and one for each service. `width` is the terminal's, `None` if it does not matter.
pub(super) fn services(services: &[Value], now_seconds: f64, width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = services.iter().map(|service| row(service, now_seconds)).collect();
    let natural = |column: usize| {
        let cells = rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
        cells.max(COLUMNS[column].0.width())
    };
    let mut columns: Vec<(usize, usize)> = (0..COLUMNS.len()).map(|column| (column, natural(column))).collect();
    if let Some(width) = width {
        shrink(&mut columns, width);
    }
    let head = COLUMNS.iter().map(|(name, _)| name.to_string()).collect();
    let lines = std::iter::once(&head).chain(&rows).map(|row| aligned(row, &columns));
    lines.collect::<Vec<_>>().join("\n")
}

fn row(service: &Value, now_seconds: f64) -> Vec<String> {
    let beat = service.get("last_heartbeat").and_then(Value::as_f64);
    let mut cells: Vec<String> =
        ["id", "name", "type", "host", "port", "health", "ttl"].iter().map(|field| cell(service.get(*field))).collect();
    if let Some(ttl) = cells.last_mut().filter(|ttl| *ttl != "-") {
        ttl.push_str(" s");
    }
    cells.push(beat.map_or("-".to_string(), |beat| age(now_seconds - beat)));
    cells
}

/// A value in one line.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_string(),
        Some(Value::String(text)) if text.is_empty() => "-".to_string(),
        Some(Value::String(text)) => printable(text),
        Some(other) => printable(&other.to_string()),
    }
}

/// How long ago something was, in the largest unit that says enough. A clock that is behind sees the future: that is
/// now.
pub(super) fn age(seconds: f64) -> String {
    match seconds.max(0.0) as u64 {
        seconds @ 0..=119 => format!("{seconds} s ago"),
        seconds @ 120..=7199 => format!("{} min ago", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// Wall time in seconds since 1970.
pub(super) fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Makes the columns (index and width) fit into `width`: first the widest names are shortened, then columns are left
/// out from the right. What is left is as narrow as it gets.
fn shrink(columns: &mut Vec<(usize, usize)>, width: usize) {
    let total = |columns: &[(usize, usize)]| {
        columns.iter().map(|(_, width)| width + GAP.len()).sum::<usize>().saturating_sub(GAP.len())
    };
    while total(columns) > width {
        let shortened = columns.iter_mut().filter(|(column, _)| COLUMNS[*column].1 == Yields::Shortened);
        if let Some((_, widest)) =
            shortened.filter(|(_, width)| *width > CELL_WIDTH_MIN).max_by_key(|(_, width)| *width)
        {
            *widest -= 1;
        } else if let Some(last) = columns.iter().rposition(|(column, _)| COLUMNS[*column].1 == Yields::LeftOut) {
            columns.remove(last);
        } else {
            return;
        }
    }
}

fn aligned(row: &[String], columns: &[(usize, usize)]) -> String {
    let cells = columns.iter().map(|&(column, width)| {
        let text = shortened(&row[column], width);
        let padding = " ".repeat(width.saturating_sub(text.width()));
        text + &padding
    });
    cells.collect::<Vec<_>>().join(GAP).trim_end().to_string()
}

fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_string();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    out + "…"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn two() -> Vec<Value> {
        vec![
            json!({"id": "camera-1", "name": "Kamera vorn am Eingang", "type": "Camera", "host": "10.0.0.7",
                   "port": 7000, "health": "passing", "ttl": 30, "last_heartbeat": 997}),
            json!({"id": "カメラ", "name": "カメラ", "type": null, "host": "h", "port": 1, "health": "critical"}),
        ]
    }

    #[test]
    fn columns_stay_aligned_beside_wide_characters() {
        let table = services(&two(), 1000.0, None);
        let at = |line: &str, word: &str| line[..line.find(word).unwrap()].width();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(at(lines[0], "HEALTH"), at(lines[1], "passing"));
        assert_eq!(at(lines[0], "HEALTH"), at(lines[2], "critical"));
        assert!(lines[1].ends_with("30 s  3 s ago"), "{table}");
    }

    #[test]
    fn narrow_terminal_cuts_names_then_leaves_columns_out_but_keeps_ids_whole() {
        let table = services(&two(), 1000.0, Some(76));
        assert!(table.lines().all(|line| line.width() <= 76), "{table}");
        assert!(table.contains("…") && table.contains("LAST HEARTBEAT"), "{table}");
        let table = services(&two(), 1000.0, Some(10));
        assert!(table.contains("camera-1") && !table.contains("TTL"), "{table}");
        assert!(table.contains("Kamera …"), "names stay long enough to be told apart: {table}");
    }

    #[test]
    fn a_service_cannot_draw_outside_its_cell() {
        let service = json!({"id": "a\nb", "name": "\x1b[31m", "host": "h", "port": 1});
        let table = services(&[service], 0.0, None);
        assert_eq!(table.lines().count(), 2);
        assert!(!table.contains('\x1b'));
    }

    #[test]
    fn age_is_told_in_the_unit_that_says_enough() {
        let ages = [-5.0, 3.2, 119.0, 120.0, 7200.0, 200_000.0].map(age);
        assert_eq!(ages, ["0 s ago", "3 s ago", "119 s ago", "2 min ago", "2 h ago", "2 days ago"]);
    }
}
