//! Services as a table: aligned, and as narrow as the terminal, as far as possible.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::output::printable;

const GAP: &str = "  ";
/// Names are not shortened below this, in a table with ids and in one where ids have lines of their own.
const CELL_WIDTH_MIN: usize = 8;
const CELL_WIDTH_MIN_BELOW_IDS: usize = 6;

/// The columns, and whether their cells are shortened where the terminal is narrow. An id that is cut is no id.
const COLUMNS: [(&str, bool); 8] = [
    ("ID", false),
    ("NAME", true),
    ("TYPE", true),
    ("HOST", true),
    ("PORT", false),
    ("HEALTH", false),
    ("TTL", false),
    ("HEARTBEAT", false),
];

/// A column of the table: its place among [`COLUMNS`], and how wide it is here.
type Column = (usize, usize);

/// One line for the head and one for each service. Where `width`, the terminal's, is too narrow for that, names are
/// shortened, and if that is not enough, ids get lines of their own. Nothing is left out. `None` if the width does not
/// matter.
pub(super) fn services(services: &[Value], now_seconds: f64, width: Option<usize>) -> String {
    let head: Vec<String> = COLUMNS.iter().map(|(name, _)| name.to_string()).collect();
    let rows = std::iter::once(head).chain(services.iter().map(|service| row(service, now_seconds)));
    let rows: Vec<Vec<String>> = rows.collect();
    let natural = |column: usize| (column, rows.iter().map(|row| row[column].width()).max().unwrap_or(0));
    let mut columns: Vec<Column> = (0..COLUMNS.len()).map(natural).collect();
    let width = width.unwrap_or(usize::MAX);
    shrink(&mut columns, width, CELL_WIDTH_MIN);
    if total(&columns) <= width {
        return joined(rows.iter().map(|row| aligned(row, &columns)));
    }
    let mut below: Vec<Column> = (1..COLUMNS.len()).map(natural).collect();
    shrink(&mut below, width.saturating_sub(GAP.len()), CELL_WIDTH_MIN_BELOW_IDS);
    joined(rows.iter().map(|row| format!("{}\n{GAP}{}", row[0], aligned(row, &below))))
}

/// One line for the head and one for each service: its id, and these fields.
pub(super) fn fields(services: &[Value], fields: &[String]) -> String {
    let fields: Vec<&str> = fields.iter().map(String::as_str).filter(|field| *field != "id").collect();
    let names = || std::iter::once("id").chain(fields.iter().copied());
    let head = names().map(|name| printable(&name.to_uppercase())).collect();
    let rows = services.iter().map(|service| names().map(|name| cell(service.get(name))).collect());
    plain(std::iter::once(head).chain(rows).collect())
}

/// Rows of cells, aligned, with nothing shortened.
pub(super) fn plain(rows: Vec<Vec<String>>) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widest = |column: usize| (column, rows.iter().map(|row| row[column].width()).max().unwrap_or(0));
    let columns: Vec<Column> = (0..columns).map(widest).collect();
    joined(rows.iter().map(|row| aligned(row, &columns)))
}

fn joined(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

fn row(service: &Value, now_seconds: f64) -> Vec<String> {
    let beat = service.get("last_heartbeat").and_then(Value::as_f64);
    let mut cells: Vec<String> =
        ["id", "name", "type", "host", "port", "health", "ttl"].iter().map(|field| cell(service.get(*field))).collect();
    if service.get("drain").is_some_and(Value::is_object) {
        cells[5] = if cells[5] == "passing" { "drained".to_string() } else { format!("{}, drained", cells[5]) };
    }
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

/// How long ago something was, in the largest unit that says enough. To a clock that is behind it lies in the future,
/// which counts as now.
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

/// Makes the columns fit into `width` by shortening the widest names, as far as they may be.
fn shrink(columns: &mut [Column], width: usize, cell_width_min: usize) {
    while total(columns) > width {
        let shortened = columns.iter_mut().filter(|(column, width)| COLUMNS[*column].1 && *width > cell_width_min);
        let Some((_, widest)) = shortened.max_by_key(|(_, width)| *width) else { return };
        *widest -= 1;
    }
}

fn total(columns: &[Column]) -> usize {
    let gaps = GAP.len() * columns.len().saturating_sub(1);
    columns.iter().map(|(_, width)| width).sum::<usize>() + gaps
}

fn aligned(row: &[String], columns: &[Column]) -> String {
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
    fn a_narrow_terminal_cuts_names_and_keeps_everything_else() {
        let table = services(&two(), 1000.0, Some(70));
        assert!(table.lines().all(|line| line.width() <= 70), "{table}");
        assert!(table.contains("Kamera v…") && table.contains("HEARTBEAT") && table.contains("camera-1"), "{table}");
        assert_eq!(table.lines().count(), 3, "{table}");
    }

    #[test]
    fn long_ids_get_lines_of_their_own_before_anything_is_left_out() {
        let mut long = two();
        let id = "camera-0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f";
        long[0]["id"] = json!(id);
        let table = services(&long, 1000.0, Some(60));
        let lines: Vec<_> = table.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (6, "ID", id), "{table}");
        assert!(lines.iter().all(|line| line.width() <= 60), "{table}");
        for (name, _) in &COLUMNS[1..] {
            assert!(lines[1].contains(name), "{name}: {table}");
        }
        assert!(lines[3].contains("7000") && lines[3].ends_with("30 s  3 s ago"), "{table}");
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
