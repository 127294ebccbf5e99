//! Which services are meant.

use serde_json::{Map, Value, json};

/// Which services are meant: all of what is asked for has to hold. The same in `list`, `discover`, `watch` and the cache.
///
/// ```
/// use registry_client::Filter;
///
/// let cameras = Filter::of_type("camera").tag("north").metadata("room", 4).version("^1.2");
/// let all = Filter::all();
/// let by_type: Filter = "camera".into();
/// assert_eq!(by_type, Filter::of_type("camera"));
/// # let _ = (cameras, all);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Filter {
    service_type: Option<String>,
    tags: Vec<String>,
    metadata: Map<String, Value>,
    version: Option<String>,
    fields: Vec<String>,
}

impl Filter {
    /// All services.
    pub fn all() -> Self {
        Filter::default()
    }

    /// Those that are found by this type; case matters.
    pub fn of_type(service_type: impl Into<String>) -> Self {
        Filter { service_type: Some(service_type.into()), ..Filter::default() }
    }

    /// Only those with this tag. With several, they have to have all.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Only those that say this of themselves. Numbers are equal by value.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Only those with a version that meets this requirement, such as `^1.2` or `>=2, <4`: see
    /// [SemVer](https://docs.rs/semver/latest/semver/struct.VersionReq.html).
    pub fn version(mut self, requirement: impl Into<String>) -> Self {
        self.version = Some(requirement.into());
        self
    }

    /// Records with this field only, and their ids. With several calls, several fields. A watch and a cache have whole
    /// records all the same.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.fields.push(field.into());
        self
    }

    /// As the fields of a request.
    pub(crate) fn request(&self) -> Value {
        let mut request = json!({});
        if let Some(service_type) = &self.service_type {
            request["service_type"] = json!(service_type);
        }
        if !self.tags.is_empty() {
            request["tags"] = json!(self.tags);
        }
        if !self.metadata.is_empty() {
            request["metadata"] = self.metadata.clone().into();
        }
        if let Some(version) = &self.version {
            request["version"] = json!(version);
        }
        if !self.fields.is_empty() {
            request["fields"] = json!(self.fields);
        }
        request
    }

    /// The same for a watch, which has whole records only.
    pub(crate) fn without_fields(mut self) -> Self {
        self.fields.clear();
        self
    }
}

impl From<&str> for Filter {
    fn from(service_type: &str) -> Self {
        Filter::of_type(service_type)
    }
}

impl From<String> for Filter {
    fn from(service_type: String) -> Self {
        Filter::of_type(service_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_asked_for_in_the_words_of_the_wire() {
        assert_eq!(Filter::all().request(), json!({}));
        let filter = Filter::of_type("a").tag("b").metadata("c", 1).version("^1").field("host");
        let mut expected = json!({"service_type": "a", "tags": ["b"], "metadata": {"c": 1}, "version": "^1",
                                  "fields": ["host"]});
        assert_eq!(filter.request(), expected);
        expected.as_object_mut().unwrap().remove("fields");
        assert_eq!(filter.without_fields().request(), expected);
    }
}
