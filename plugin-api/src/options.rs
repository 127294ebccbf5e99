//! `[backend.options]`: what a backend can be told, declared so that the host can check it and show it.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// An option that a backend knows, declared in [`Backend::OPTIONS`](crate::Backend::OPTIONS).
///
/// ```
/// use registry_plugin_api::OptionSpec;
/// const OPTIONS: &[OptionSpec] = &[
///     OptionSpec::text("path", Some("services.db"), "the file that holds the services"),
///     OptionSpec::integer("page_size", Some(1000), "records to a page when everything is loaded"),
/// ];
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptionSpec {
    name: &'static str,
    default: OptionDefault,
    help: &'static str,
}

/// The value of an option that is not given; with `None` it has to be given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum OptionDefault {
    Text(Option<&'static str>),
    Integer(Option<i64>),
    Number(Option<f64>),
    Boolean(Option<bool>),
}

impl OptionSpec {
    /// An option that is a string. Without a default it must be given. `help` is a phrase for the manual.
    pub const fn text(name: &'static str, default: Option<&'static str>, help: &'static str) -> Self {
        OptionSpec { name, default: OptionDefault::Text(default), help }
    }

    /// An option that is a whole number.
    pub const fn integer(name: &'static str, default: Option<i64>, help: &'static str) -> Self {
        OptionSpec { name, default: OptionDefault::Integer(default), help }
    }

    /// An option that is a number.
    pub const fn number(name: &'static str, default: Option<f64>, help: &'static str) -> Self {
        OptionSpec { name, default: OptionDefault::Number(default), help }
    }

    /// An option that is `true` or `false`.
    pub const fn boolean(name: &'static str, default: Option<bool>, help: &'static str) -> Self {
        OptionSpec { name, default: OptionDefault::Boolean(default), help }
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
        }
    }

    /// The default as JSON; `None` if the option must be given.
    pub fn default_value(&self) -> Option<Value> {
        match self.default {
            OptionDefault::Text(default) => default.map(Value::from),
            OptionDefault::Integer(default) => default.map(Value::from),
            OptionDefault::Number(default) => default.map(Value::from),
            OptionDefault::Boolean(default) => default.map(Value::from),
        }
    }
}

/// The options of one backend, checked against what it declares: every declared option has a value of its type.
///
/// The getters panic if the name was not declared with that type: that is a slip in the plugin, and the glue turns
/// it into an error that says so.
#[derive(Clone, Debug, Default)]
pub struct Options {
    values: Map<String, Value>,
}

impl Options {
    /// Checks `given` (the `[backend.options]` table) against `specs`, and fills in the defaults.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption), naming the option and what was expected, for an
    /// option that is not declared, has another type, or is missing.
    pub fn check(specs: &[OptionSpec], given: Map<String, Value>) -> Result<Self> {
        if let Some(unknown) = given.keys().find(|key| specs.iter().all(|spec| spec.name != *key)) {
            let known: Vec<_> = specs.iter().map(|spec| spec.name).collect();
            return Err(Error::invalid_option(match known.as_slice() {
                [] => format!("unknown option {unknown:?}: this backend has no options"),
                _ => format!("unknown option {unknown:?}: this backend knows {}", known.join(", ")),
            }));
        }
        let mut values = given;
        for spec in specs {
            match values.get(spec.name) {
                Some(value) if spec.accepts(value) => {}
                Some(value) => {
                    let kind = spec.kind();
                    return Err(Error::invalid_option(format!("option {:?} is {value}, expected {kind}", spec.name)));
                }
                None => match spec.default_value() {
                    Some(default) => {
                        values.insert(spec.name.to_string(), default);
                    }
                    None => {
                        let (name, kind, help) = (spec.name, spec.kind(), spec.help);
                        return Err(Error::invalid_option(format!("option {name:?} is missing ({kind}: {help})")));
                    }
                },
            }
        }
        Ok(Options { values })
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
        }
    }
}
