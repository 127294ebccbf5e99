//! `[backend.options]`: what a backend can be told, declared so that the host can check it and show it.

use std::fmt;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// An option that a backend knows, declared in [`Backend::OPTIONS`](crate::Backend::OPTIONS).
///
/// ```
/// use registry_plugin_api::OptionSpec;
/// const OPTIONS: &[OptionSpec] = &[
///     OptionSpec::text("path", Some("services.db"), "the file that holds the services"),
///     OptionSpec::integer("page_size", Some(1000), "records to a page when everything is loaded"),
///     OptionSpec::text("password", None, "the password for the database").secret(),
/// ];
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptionSpec {
    name: &'static str,
    default: OptionDefault,
    help: &'static str,
    secret: bool,
}

/// The value of an option that is not given; with `None` it has to be given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum OptionDefault {
    Text(Option<&'static str>),
    Integer(Option<i64>),
    Number(Option<f64>),
    Boolean(Option<bool>),
    /// Of a type that only a newer plugin-api knows, which came to the host with a plugin: the word for the type and
    /// the default as JSON text. The plugin itself checks the value.
    Other(&'static str, Option<&'static str>),
}

impl OptionSpec {
    /// An option that is a string. Without a default it must be given. `help` is a phrase for the manual.
    pub const fn text(name: &'static str, default: Option<&'static str>, help: &'static str) -> Self {
        OptionSpec { name, default: OptionDefault::Text(default), help, secret: false }
    }

    /// An option that is a whole number.
    pub const fn integer(name: &'static str, default: Option<i64>, help: &'static str) -> Self {
        OptionSpec { name, default: OptionDefault::Integer(default), help, secret: false }
    }

    /// An option that is a number.
    pub const fn number(name: &'static str, default: Option<f64>, help: &'static str) -> Self {
        OptionSpec { name, default: OptionDefault::Number(default), help, secret: false }
    }

    /// An option that is `true` or `false`.
    pub const fn boolean(name: &'static str, default: Option<bool>, help: &'static str) -> Self {
        OptionSpec { name, default: OptionDefault::Boolean(default), help, secret: false }
    }

    /// The same option, whose value nobody is to see: the host shows it as `(secret)`. For passwords, and for URLs that
    /// hold one. The plugin must not put it into a message either.
    pub const fn secret(self) -> Self {
        OptionSpec { secret: true, ..self }
    }

    /// Whether its value is not to be shown.
    pub const fn is_secret(&self) -> bool {
        self.secret
    }

    /// The key in `[backend.options]`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it is for: a phrase.
    pub const fn help(&self) -> &'static str {
        self.help
    }

    /// The word for its type: `text`, `integer`, `number` or `boolean`.
    pub const fn kind(&self) -> &'static str {
        match self.default {
            OptionDefault::Text(_) => "text",
            OptionDefault::Integer(_) => "integer",
            OptionDefault::Number(_) => "number",
            OptionDefault::Boolean(_) => "boolean",
            OptionDefault::Other(kind, _) => kind,
        }
    }

    /// The default as JSON; `None` if the option must be given.
    pub fn default_value(&self) -> Option<Value> {
        match self.default {
            OptionDefault::Text(default) => default.map(Value::from),
            OptionDefault::Integer(default) => default.map(Value::from),
            OptionDefault::Number(default) => default.map(Value::from),
            OptionDefault::Boolean(default) => default.map(Value::from),
            OptionDefault::Other(_, default) => default.and_then(|text| serde_json::from_str(text).ok()),
        }
    }

    /// An option as a plugin has declared it to the host: the word for its type, and the default as JSON text. The
    /// texts are leaked, once for each plugin that is loaded.
    pub(crate) fn declared(name: &str, kind: &str, default: Option<&str>, help: &str) -> Self {
        let leak = |text: &str| -> &'static str { String::leak(text.to_string()) };
        let value: Option<Value> = default.and_then(|text| serde_json::from_str(text).ok());
        let default = match kind {
            "text" => OptionDefault::Text(value.as_ref().and_then(Value::as_str).map(leak)),
            "integer" => OptionDefault::Integer(value.as_ref().and_then(Value::as_i64)),
            "number" => OptionDefault::Number(value.as_ref().and_then(Value::as_f64)),
            "boolean" => OptionDefault::Boolean(value.as_ref().and_then(Value::as_bool)),
            _ => OptionDefault::Other(leak(kind), default.map(leak)),
        };
        OptionSpec { name: leak(name), default, help: leak(help), secret: false }
    }
}

/// The options of one backend, checked against what it declares: every declared option has a value of its type.
///
/// The getters panic if the name was not declared with that type: that is a slip in the plugin, and the glue turns
/// it into an error that says so.
#[derive(Clone, Default)]
pub struct Options {
    values: Map<String, Value>,
    secret: Vec<&'static str>,
}

/// Without what is secret.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in &self.values {
            if self.secret.contains(&name.as_str()) {
                map.entry(name, &format_args!("{SECRET}"));
            } else {
                map.entry(name, value);
            }
        }
        map.finish()
    }
}

/// What is shown instead of a secret value.
pub const SECRET: &str = "(secret)";

impl Options {
    /// Checks `given` (the `[backend.options]` table) against `specs`, and fills in the defaults. A plugin's own tests
    /// make options with it, for which they need `serde_json`.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption), naming the option and what was expected, for an
    /// option that is not declared, has another type, or is missing.
    pub fn check(specs: &[OptionSpec], given: Map<String, Value>) -> Result<Self> {
        Options::complete(specs, given, |spec| {
            let (name, kind, help) = (spec.name, spec.kind(), spec.help);
            Err(Error::invalid_option(format!("option {name:?} is missing ({kind}: {help})")))
        })
    }

    /// As [`check`](Self::check), but what is missing is empty.
    pub(crate) fn assume(specs: &[OptionSpec], given: Map<String, Value>) -> Result<Self> {
        Options::complete(specs, given, |spec| {
            Ok(match spec.default {
                OptionDefault::Text(_) => Value::from(""),
                OptionDefault::Integer(_) => Value::from(0),
                OptionDefault::Number(_) => Value::from(0.0),
                OptionDefault::Boolean(_) => Value::from(false),
                OptionDefault::Other(..) => Value::Null,
            })
        })
    }

    fn complete(
        specs: &[OptionSpec],
        given: Map<String, Value>,
        missing: impl Fn(&OptionSpec) -> Result<Value>,
    ) -> Result<Self> {
        if let Some(unknown) = given.keys().find(|key| specs.iter().all(|spec| spec.name != *key)) {
            return Err(Error::invalid_option(unknown_option(specs, unknown)));
        }
        let mut values = given;
        for spec in specs {
            match values.get(spec.name) {
                Some(value) if spec.accepts(value) => {}
                Some(value) => {
                    let (name, kind) = (spec.name, spec.kind());
                    let shown = if spec.secret { SECRET.to_string() } else { value.to_string() };
                    return Err(Error::invalid_option(format!("option {name:?} is {shown}, expected {kind}")));
                }
                None => {
                    let value = spec.default_value().map_or_else(|| missing(spec), Ok)?;
                    values.insert(spec.name.to_string(), value);
                }
            }
        }
        let secret = specs.iter().filter(|spec| spec.secret).map(|spec| spec.name).collect();
        Ok(Options { values, secret })
    }

    /// The value of a text option.
    pub fn text(&self, name: &str) -> &str {
        self.get(name, "text", Value::as_str)
    }

    /// The value of an integer option.
    pub fn integer(&self, name: &str) -> i64 {
        self.get(name, "integer", Value::as_i64)
    }

    /// The value of a number option.
    pub fn number(&self, name: &str) -> f64 {
        self.get(name, "number", Value::as_f64)
    }

    /// The value of a boolean option.
    pub fn boolean(&self, name: &str) -> bool {
        self.get(name, "boolean", Value::as_bool)
    }

    fn get<'a, T>(&'a self, name: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> T {
        match self.values.get(name).and_then(read) {
            Some(value) => value,
            None => panic!("the backend asks for the {kind} option {name:?}, which it does not declare as such"),
        }
    }
}

impl OptionSpec {
    fn accepts(&self, value: &Value) -> bool {
        match self.default {
            OptionDefault::Text(_) => value.is_string(),
            OptionDefault::Integer(_) => value.as_i64().is_some(),
            OptionDefault::Number(_) => value.as_f64().is_some(),
            OptionDefault::Boolean(_) => value.is_boolean(),
            OptionDefault::Other(..) => true,
        }
    }
}

fn unknown_option(specs: &[OptionSpec], unknown: &str) -> String {
    let known: Vec<_> = specs.iter().map(|spec| spec.name).collect();
    if known.is_empty() {
        return format!("unknown option {unknown:?}: this backend has no options");
    }
    let nearest = known.iter().map(|name| (edits(name, unknown), name)).min();
    let hint = match nearest {
        Some((distance, name)) if distance <= unknown.chars().count().div_ceil(3) => {
            format!(" (did you mean {name:?}?)")
        }
        _ => String::new(),
    };
    format!("unknown option {unknown:?}{hint}: this backend knows {}", known.join(", "))
}

/// How many letters have to be put in, taken out or replaced to make one word of the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SPECS: &[OptionSpec] = &[
        OptionSpec::text("path", None, "the file"),
        OptionSpec::integer("page_size", Some(1000), "records to a page"),
        OptionSpec::number("ratio", Some(0.5), "a ratio"),
        OptionSpec::boolean("fast", Some(false), "whether to hurry"),
    ];

    fn check(given: Value) -> Result<Options> {
        Options::check(SPECS, given.as_object().unwrap().clone())
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let options = check(json!({"path": "x"})).unwrap();
        assert_eq!((options.text("path"), options.integer("page_size")), ("x", 1000));
        assert_eq!((options.number("ratio"), options.boolean("fast")), (0.5, false));
    }

    #[test]
    fn what_is_given_counts() {
        let options = check(json!({"path": "x", "page_size": 5, "ratio": 2, "fast": true})).unwrap();
        assert_eq!((options.integer("page_size"), options.number("ratio"), options.boolean("fast")), (5, 2.0, true));
    }

    #[test]
    fn a_wrong_option_is_named_with_what_was_expected() {
        for (given, expected) in [
            (json!({}), "option \"path\" is missing (text: the file)"),
            (json!({"path": 1}), "option \"path\" is 1, expected text"),
            (json!({"path": "x", "page_size": 1.5}), "option \"page_size\" is 1.5, expected integer"),
            (json!({"path": "x", "ratio": "1"}), "option \"ratio\" is \"1\", expected number"),
            (json!({"path": "x", "fast": 1}), "option \"fast\" is 1, expected boolean"),
        ] {
            assert_eq!(check(given).unwrap_err().message(), expected);
        }
    }

    #[test]
    fn an_unknown_option_is_named_with_the_nearest_known_one() {
        let known = "this backend knows path, page_size, ratio, fast";
        for (given, hint) in [
            ("pathh", " (did you mean \"path\"?)"),
            ("Path", " (did you mean \"path\"?)"),
            ("pagesize", " (did you mean \"page_size\"?)"),
            ("page-size", " (did you mean \"page_size\"?)"),
            ("timeout", ""),
            ("x", ""),
        ] {
            let error = check(json!({given: 1})).unwrap_err();
            assert_eq!(error.message(), format!("unknown option {given:?}{hint}: {known}"));
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let specs =
            [OptionSpec::text("password", None, "a password").secret(), OptionSpec::text("user", None, "a user")];
        let check = |given: Value| Options::check(&specs, given.as_object().unwrap().clone());
        let options = check(json!({"password": "hunter2", "user": "mona"})).unwrap();
        assert_eq!(format!("{options:?}"), r#"{"password": (secret), "user": String("mona")}"#);
        assert_eq!(options.text("password"), "hunter2");
        let error = check(json!({"password": 2, "user": "mona"})).unwrap_err();
        assert_eq!(error.message(), "option \"password\" is (secret), expected text");
    }

    #[test]
    fn what_must_be_given_is_assumed_to_be_empty() {
        let options = Options::assume(SPECS, Map::new()).unwrap();
        assert_eq!((options.text("path"), options.integer("page_size")), ("", 1000));
        assert!(Options::assume(SPECS, json!({"pathh": 1}).as_object().unwrap().clone()).is_err());
    }

    #[test]
    fn edits_are_counted() {
        for (from, to, count) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("ü", "u", 1)]
        {
            assert_eq!((edits(from, to), edits(to, from)), (count, count), "{from} {to}");
        }
    }
}
