//! Which services a command is about.

use clap::Args;
use registry_client::Filter;
use serde_json::Value;

/// What services have to be like.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which services")]
pub(super) struct Selection {
    /// Only services with this tag; may be repeated, and then they have all of them
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only services that say this of themselves: a text (room=4), or JSON (room:=4); may be repeated
    #[arg(long, value_name = "KEY=VALUE|KEY:=JSON", value_parser = key_and_json)]
    pub metadata: Vec<(String, Value)>,
    /// Only services with a version that meets this, such as ^1.2
    #[arg(long = "version", value_name = "REQUIREMENT")]
    pub version: Option<String>,
}

impl Selection {
    /// All of this, and of that type.
    pub(super) fn filter(&self, service_type: Option<&str>) -> Filter {
        let mut filter = service_type.map_or_else(Filter::all, Filter::of_type);
        for tag in &self.tags {
            filter = filter.tag(tag);
        }
        for (key, value) in &self.metadata {
            filter = filter.metadata(key, value.clone());
        }
        match &self.version {
            Some(version) => filter.version(version),
            None => filter,
        }
    }
}

/// `key=text` or `key:=json`.
pub(super) fn key_and_json(text: &str) -> Result<(String, Value), String> {
    const EXPECTED: &str = "expected KEY=VALUE, or KEY:=JSON";
    let (key, value) = text.split_once('=').ok_or(EXPECTED)?;
    let (key, value) = match key.strip_suffix(':') {
        Some(key) => (key, serde_json::from_str(value).map_err(|error| format!("{EXPECTED}: {value:?}: {error}"))?),
        None => (key, Value::from(value)),
    };
    if key.is_empty() { Err(EXPECTED.to_string()) } else { Ok((key.to_string(), value)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_texts_unless_they_are_said_to_be_json() {
        assert_eq!(key_and_json("room=4"), Ok(("room".into(), json!("4"))));
        assert_eq!(key_and_json("room:=4"), Ok(("room".into(), json!(4))));
        assert_eq!(key_and_json("room:=null"), Ok(("room".into(), Value::Null)));
        assert_eq!(key_and_json("a=b:=c"), Ok(("a".into(), json!("b:=c"))));
        for wrong in ["room", "=4", ":=4", "room:=four"] {
            assert!(key_and_json(wrong).is_err(), "{wrong}");
        }
    }
}
