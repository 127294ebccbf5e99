//! How much of an answer a client wants: a page at a time, some fields of each record, so many services.
//!
//! A page's cursor says where the next one begins. It holds all that has to be known for that, so that nothing is kept
//! for a client that has asked for a page and may never ask for the next.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::clients::ClientsCursor;
use crate::filter::Filter;
use crate::json;
use crate::registration::{check_length, invalid_value};
use crate::reply::Reply;

/// The most entries of a page.
pub const PAGE_LIMIT_MAX: usize = 10_000;
/// The most services that are discovered at once.
pub const DISCOVER_LIMIT_MAX: usize = 1000;
/// The longest that a client can wait, in seconds.
pub const WAIT_SECONDS_MAX: f64 = 600.0;
/// The most fields that can be named, and the longest name, in bytes.
const FIELDS_MAX: usize = 64;
const FIELD_BYTES_MAX: usize = 256;
/// The longest cursor but for the name of a type in it, in bytes.
const CURSOR_BYTES_MAX: usize = 80;
/// The field that every record is known by.
const ID: &str = "id";

/// The fields of a request that say how much.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extent<'a> {
    pub(crate) fields: Option<&'a RawValue>,
    pub(crate) limit: Option<&'a RawValue>,
    pub(crate) cursor: Option<&'a RawValue>,
    pub(crate) wait: Option<&'a RawValue>,
}

/// What `discover` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discover {
    /// Which services: of a type, at least.
    pub filter: Filter,
    /// What is shown of them.
    pub fields: Option<Fields>,
    /// How many at most; `None` means one, which is not in a list.
    pub limit: Option<usize>,
    /// How long to wait if there is none.
    pub wait: Duration,
}

/// A part of a list, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// How many entries at most.
    pub limit: usize,
    /// What the page before has said; `None` for the first page.
    pub cursor: Option<T>,
}

/// Where a page of services begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListCursor {
    /// Which run of the host has given it.
    pub run: u64,
    /// Stands for the filter of the first page.
    pub filter: u64,
    /// The revision of the first page.
    pub revision: u64,
    /// The first place that has not been looked at.
    pub next: usize,
}

/// Where a page of types begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypesCursor {
    /// Which run of the host has given it.
    pub run: u64,
    /// The revision of the first page.
    pub revision: u64,
    /// The last type that has been told.
    pub after: String,
}

impl<'a> Extent<'a> {
    pub(crate) fn fields(&self) -> Result<Option<Fields>, Reply> {
        present(self.fields).map(Fields::read).transpose()
    }

    /// The page of a list that is asked for; `None` for the whole list.
    pub(crate) fn list_page(&self) -> Result<Option<Page<ListCursor>>, Reply> {
        let cursor = self.cursor(0, ListCursor::read)?;
        let limit = self.limit(PAGE_LIMIT_MAX)?;
        let is_page = cursor.is_some() || limit.is_some();
        Ok(is_page.then(|| Page { limit: limit.unwrap_or(PAGE_LIMIT_MAX), cursor }))
    }

    pub(crate) fn types_page(&self, type_bytes: usize) -> Result<Page<TypesCursor>, Reply> {
        let cursor = self.cursor(type_bytes, TypesCursor::read)?;
        Ok(Page { limit: self.limit(PAGE_LIMIT_MAX)?.unwrap_or(PAGE_LIMIT_MAX), cursor })
    }

    pub(crate) fn clients_page(&self) -> Result<Page<ClientsCursor>, Reply> {
        let cursor = self.cursor(0, ClientsCursor::read)?;
        Ok(Page { limit: self.limit(PAGE_LIMIT_MAX)?.unwrap_or(PAGE_LIMIT_MAX), cursor })
    }

    pub(crate) fn discover(&self, filter: Filter) -> Result<Discover, Reply> {
        let (fields, limit) = (self.fields()?, self.limit(DISCOVER_LIMIT_MAX)?);
        Ok(Discover { filter, fields, limit, wait: self.wait()? })
    }

    fn limit(&self, most: usize) -> Result<Option<usize>, Reply> {
        let Some(json) = present(self.limit) else { return Ok(None) };
        match json.parse() {
            Ok(limit) if (1..=most).contains(&limit) => Ok(Some(limit)),
            _ => Err(invalid_value("limit", &format!("a whole number from 1 to {most}"), json)),
        }
    }

    fn wait(&self) -> Result<Duration, Reply> {
        let Some(json) = present(self.wait) else { return Ok(Duration::ZERO) };
        match json.parse() {
            Ok(seconds) if (0.0..=WAIT_SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(invalid_value("wait", &format!("a number of seconds from 0 to {WAIT_SECONDS_MAX}"), json)),
        }
    }

    fn cursor<T>(&self, more_bytes: usize, read: fn(&str) -> Option<T>) -> Result<Option<T>, Reply> {
        let Some(json) = present(self.cursor) else { return Ok(None) };
        let text = json::text(json).filter(|text| text.len() <= CURSOR_BYTES_MAX + more_bytes);
        let cursor = text.and_then(|text| read(&text));
        cursor.map(Some).ok_or_else(|| invalid_value("cursor", "the cursor of the page before", json))
    }
}

impl ListCursor {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| u64::from_str_radix(part, 16).ok());
        let mut number = || parts.next().flatten();
        let (run, filter, revision) = (number()?, number()?, number()?);
        let next = usize::try_from(number()?).ok()?;
        parts.next().is_none().then_some(ListCursor { run, filter, revision, next })
    }
}

impl fmt::Display for ListCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListCursor { run, filter, revision, next } = self;
        write!(f, "{run:x}.{filter:x}.{revision:x}.{next:x}")
    }
}

impl TypesCursor {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (run, revision) = (number()?, number()?);
        Some(TypesCursor { run, revision, after: parts.next()?.into() })
    }
}

impl fmt::Display for TypesCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TypesCursor { run, revision, after } = self;
        write!(f, "{run:x}.{revision:x}.{after}")
    }
}

/// The fields of a record that a client wants to see. It always sees the id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fields {
    names: Vec<String>,
}

impl Fields {
    /// How much memory they take, in bytes.
    pub fn bytes(&self) -> usize {
        self.names.iter().map(|name| size_of::<String>() + name.len()).sum()
    }

    fn read(json: &str) -> Result<Self, Reply> {
        let refuse = || invalid_value("fields", "a list of field names", json);
        if !json.starts_with('[') {
            return Err(refuse());
        }
        if json::items(json).nth(FIELDS_MAX).is_some() {
            return Err(invalid_value("fields", &format!("at most {FIELDS_MAX} names"), json));
        }
        let name = |item| json::text(item).map(Cow::into_owned).ok_or_else(refuse);
        let mut names = json::items(json).map(name).collect::<Result<Vec<_>, _>>()?;
        names.iter().try_for_each(|name| check_length("fields", name, FIELD_BYTES_MAX))?;
        names.sort_unstable();
        names.dedup();
        Ok(Fields { names })
    }

    /// Appends what is wanted of a record, in its order: a JSON object.
    pub fn show(&self, record: &str, json: &mut String) {
        let is_wanted = |key: &str| {
            let key = json::text(key).unwrap_or_default();
            key == ID || self.names.binary_search_by(|name| (**name).cmp(&*key)).is_ok()
        };
        json.push('{');
        for (place, (key, value)) in json::members(record).filter(|(key, _)| is_wanted(key)).enumerate() {
            if place > 0 {
                json.push(',');
            }
            json.push_str(key);
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
    }
}

/// A value that is there: `null` stands for none.
pub(crate) fn present(value: Option<&RawValue>) -> Option<&str> {
    value.map(RawValue::get).filter(|json| *json != "null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Limits, Port, Request, parse};

    fn read(action: &str, fields: &str) -> Result<Request, String> {
        let body = format!("{{\"action\":\"{action}\",\"service_type\":\"web\"{fields}}}");
        let limits = Limits { type_bytes: 20, ..Limits::default() };
        parse(body.as_bytes(), Port::Requests, &limits).request.map_err(|refusal| {
            let reply: serde_json::Value = serde_json::from_str(&refusal.finish(None).into_text()).unwrap();
            let error = reply["error"].as_str().unwrap();
            assert!(reply["code"] == "invalid_request" && error.contains(reply["field"].as_str().unwrap()), "{reply}");
            error.to_string()
        })
    }

    #[test]
    fn a_page_is_asked_for_by_its_limit_or_its_cursor() {
        let cursor = ListCursor { run: u64::MAX, filter: 7, revision: 0x1234, next: 99 };
        let page = |fields: &str| match read("list", fields) {
            Ok(Request::List { page, .. }) => page,
            other => panic!("{other:?}"),
        };
        assert_eq!((page(""), page(r#","limit":null,"cursor":null"#)), (None, None));
        assert_eq!(page(r#","limit":1"#), Some(Page { limit: 1, cursor: None }));
        let second = page(&format!(r#","limit":10000,"cursor":"{cursor}""#));
        assert_eq!(second, Some(Page { limit: 10_000, cursor: Some(cursor) }));
        assert_eq!(page(&format!(r#","cursor":"{cursor}""#)), second);
        let types = |fields: &str| match read("types", fields) {
            Ok(Request::Types { page }) => page,
            other => panic!("{other:?}"),
        };
        let cursor = TypesCursor { run: 1, revision: 2, after: "a.b c".into() };
        assert_eq!(types(""), Page { limit: 10_000, cursor: None });
        assert_eq!(types(r#","limit":3,"cursor":"1.2.a.b c""#), Page { limit: 3, cursor: Some(cursor.clone()) });
        assert_eq!(TypesCursor::read(&cursor.to_string()), Some(cursor));
        let longest = "x".repeat(CURSOR_BYTES_MAX + 20 - "1.2.".len());
        assert!(types(&format!(r#","cursor":"1.2.{longest}""#)).cursor.is_some_and(|cursor| cursor.after == longest));
    }

    #[test]
    fn discover_says_how_many_and_how_long() {
        let asked = |fields: &str| match read("discover", fields) {
            Ok(Request::Discover(asked)) => (asked.limit, asked.wait.as_millis()),
            other => panic!("{other:?}"),
        };
        assert_eq!(asked(""), (None, 0));
        assert_eq!(asked(r#","limit":1000,"wait":600"#), (Some(1000), 600_000));
        assert_eq!(asked(r#","limit":1,"wait":0.25"#), (Some(1), 250));
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused_by_name() {
        let names = |count| (0..count).map(|i| format!("\"f{i}\"")).collect::<Vec<_>>().join(",");
        assert!(read("list", &format!(r#","fields":[{}]"#, names(64))).is_ok());
        for (action, fields, expected) in [
            ("list", r#","limit":0"#.to_string(), "limit: expected a whole number from 1 to 10000, got 0"),
            ("list", r#","limit":10001"#.into(), "limit: expected a whole number from 1 to 10000, got 10001"),
            ("list", r#","limit":1.0"#.into(), "limit: expected a whole number from 1 to 10000, got 1.0"),
            ("list", r#","limit":"7""#.into(), "limit: expected a whole number from 1 to 10000, got \"7\""),
            ("types", r#","limit":-1"#.into(), "limit: expected a whole number from 1 to 10000, got -1"),
            ("discover", r#","limit":1001"#.into(), "limit: expected a whole number from 1 to 1000, got 1001"),
            ("discover", r#","wait":601"#.into(), "wait: expected a number of seconds from 0 to 600, got 601"),
            ("discover", r#","wait":-1"#.into(), "wait: expected a number of seconds from 0 to 600, got -1"),
            ("discover", r#","wait":1e999"#.into(), "wait: expected a number of seconds from 0 to 600, got 1e999"),
            ("discover", r#","wait":"1""#.into(), "wait: expected a number of seconds from 0 to 600, got \"1\""),
            ("list", r#","cursor":"""#.into(), "cursor: expected the cursor of the page before, got \"\""),
            ("list", r#","cursor":7"#.into(), "cursor: expected the cursor of the page before, got 7"),
            ("list", r#","cursor":"1.2.3""#.into(), "cursor: expected the cursor of the page before"),
            ("list", r#","cursor":"1.2.3.4.5""#.into(), "cursor: expected the cursor of the page before"),
            ("list", r#","cursor":"1.2.3.x""#.into(), "cursor: expected the cursor of the page before"),
            ("types", r#","cursor":"1.2""#.into(), "cursor: expected the cursor of the page before"),
            ("types", format!(r#","cursor":"1.2.{}""#, "x".repeat(97)), "cursor: expected the cursor of the page"),
            ("list", r#","fields":"id""#.into(), "fields: expected a list of field names, got \"id\""),
            ("list", r#","fields":["id",7]"#.into(), "fields: expected a list of field names, got [\"id\",7]"),
            ("discover", format!(r#","fields":[{}]"#, names(65)), "fields: expected at most 64 names"),
            ("list", format!(r#","fields":["{}"]"#, "x".repeat(257)), "fields: expected at most 256 bytes, got 257"),
        ] {
            let refused = read(action, &fields).expect_err(&fields);
            assert!(refused.starts_with(&format!("Invalid value for {expected}")), "{refused}");
        }
    }

    #[test]
    fn fields_take_memory_by_their_number_and_length() {
        let bytes = |fields: &str| Fields::read(fields).unwrap().bytes();
        assert_eq!(bytes("[]"), 0);
        assert_eq!(bytes(r#"["a"]"#), size_of::<String>() + 1);
        assert_eq!(bytes(r#"["abc","de"]"#), 2 * size_of::<String>() + 5);
    }

    #[test]
    fn of_a_record_those_fields_are_shown_that_are_wanted_and_the_id() {
        let record = r#"{"id":"a","name":"N","metadata":{"name":1},"n\u0061me2":[1],"health":"passing"}"#;
        for (fields, expected) in [
            ("[]", r#"{"id":"a"}"#),
            (r#"["id"]"#, r#"{"id":"a"}"#),
            (r#"["health","name2","nothing","name"]"#, r#"{"id":"a","name":"N","n\u0061me2":[1],"health":"passing"}"#),
            (r#"["metad\u0061ta"]"#, r#"{"id":"a","metadata":{"name":1}}"#),
        ] {
            let mut json = String::new();
            Fields::read(fields).unwrap().show(record, &mut json);
            assert_eq!(json, expected, "{fields}");
        }
        let mut json = String::new();
        Fields::read("[]").unwrap().show("{}", &mut json);
        assert_eq!(json, "{}", "it is JSON whatever the record is");
    }
}
