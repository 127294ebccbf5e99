//! The text that Prometheus reads, version 0.0.4.

use std::fmt::{Display, Write};

use super::cells::Histogram;

/// The type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The samples of one family, as they are written.
pub(super) struct Samples<'t> {
    text: &'t mut String,
    name: &'static str,
    labels: &'static [&'static str],
}

impl<'t> Samples<'t> {
    /// Begins a family.
    pub(super) fn begin(
        text: &'t mut String,
        (name, kind, help): (&'static str, &str, &str),
        labels: &'static [&'static str],
    ) -> Self {
        // Nothing that is written to text fails.
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", escaped(help, false));
        Samples { text, name, labels }
    }

    /// A sample, with a value for each of the family's labels.
    pub(super) fn one(&mut self, values: &[&str], value: impl Display) {
        self.write("", values, None, &value);
    }

    /// All samples of a histogram.
    pub(super) fn all(&mut self, values: &[&str], histogram: &Histogram) {
        let (upper, count, sum) = histogram.shown();
        for (bound, count) in upper {
            self.write("_bucket", values, Some(&bound.to_string()), &count);
        }
        self.write("_bucket", values, Some("+Inf"), &count);
        self.write("_sum", values, None, &sum);
        self.write("_count", values, None, &count);
    }

    fn write(&mut self, suffix: &str, values: &[&str], bound: Option<&str>, value: &dyn Display) {
        let Samples { text, name, labels } = self;
        let _ = write!(text, "{name}{suffix}");
        let pairs = labels.iter().copied().zip(values.iter().copied()).chain(bound.map(|bound| ("le", bound)));
        let mut before = "{";
        for (label, value) in pairs {
            let _ = write!(text, "{before}{label}=\"{}\"", escaped(value, true));
            before = ",";
        }
        let _ = writeln!(text, "{} {value}", if before == "{" { "" } else { "}" });
    }
}

/// A help text, or what a label is.
fn escaped(text: &str, is_label: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if is_label => escaped.push_str("\\\""),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_histograms_have_a_bucket_without_bound() {
        let mut text = String::new();
        Samples::begin(&mut text, ("a", "gauge", "what \"it\"\nis"), &["x", "y"]).one(&["q\"\\\n", "z"], 1.5);
        Samples::begin(&mut text, ("b", "counter", "b"), &[]).one(&[], 7);
        let histogram = Histogram::new(&[1000], 1e3);
        histogram.note(500, 2);
        Samples::begin(&mut text, ("c", "histogram", "c"), &["k"]).all(&["v"], &histogram);
        let expected = [
            "# HELP a what \"it\"\\nis",
            "# TYPE a gauge",
            "a{x=\"q\\\"\\\\\\n\",y=\"z\"} 1.5",
            "# HELP b b",
            "# TYPE b counter",
            "b 7",
            "# HELP c c",
            "# TYPE c histogram",
            "c_bucket{k=\"v\",le=\"1\"} 2",
            "c_bucket{k=\"v\",le=\"+Inf\"} 2",
            "c_sum{k=\"v\"} 1",
            "c_count{k=\"v\"} 2",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
