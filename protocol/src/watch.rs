//! `watch`: which changes a client wants to be told, and from where on.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::filter::Filter;
use crate::json;
use crate::page::{WAIT_SECONDS_MAX, present};
use crate::registration::invalid_value;
use crate::reply::{Code, Reply};

/// The most changes in one reply, which is also how many there are if nothing else is said.
pub const CHANGES_MAX: usize = 1000;

/// What a client wants to follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// The history that it knows of.
    pub epoch: Option<String>,
    /// The revision up to which it knows everything; `None` for all that happens from now on.
    pub after: Option<u64>,
    /// Of which services.
    pub filter: Filter,
    /// How many changes it takes at a time.
    pub limit: usize,
    /// How long it waits if there are none.
    pub wait: Duration,
}

/// The fields of a request that only `watch` has.
#[derive(Clone, Copy, Default)]
pub(crate) struct WatchFields<'a> {
    pub(crate) epoch: Option<&'a RawValue>,
    pub(crate) after: Option<&'a RawValue>,
    pub(crate) limit: Option<&'a RawValue>,
    pub(crate) wait: Option<&'a RawValue>,
}

impl Watch {
    /// What a request's fields say.
    ///
    /// # Errors
    /// The reply that refuses it, naming the field and what it should be.
    pub(crate) fn read(fields: WatchFields<'_>, filter: Filter) -> Result<Self, Reply> {
        let [epoch, after, limit, wait] = [fields.epoch, fields.after, fields.limit, fields.wait].map(present);
        let text = |json| json::text(json).filter(|text| !text.is_empty());
        let read_epoch = |json| text(json).ok_or_else(|| invalid_value("epoch", "a non-empty string", json));
        let epoch = epoch.map(read_epoch).transpose()?.map(|epoch| epoch.into_owned());
        let read_after = |json| whole(json).ok_or_else(|| invalid_value("after", "a revision: a whole number", json));
        let after = after.map(read_after).transpose()?;
        if after.is_some() && epoch.is_none() {
            let error = "Missing required field: epoch";
            let message = "a revision says nothing without the epoch that it counts in";
            return Err(Reply::failure(Code::InvalidRequest, error).text("message", message).text("field", "epoch"));
        }
        let read_limit = |json| match whole(json).and_then(|limit| usize::try_from(limit).ok()) {
            Some(limit @ 1..=CHANGES_MAX) => Ok(limit),
            _ => Err(invalid_value("limit", &format!("a whole number from 1 to {CHANGES_MAX}"), json)),
        };
        let limit = limit.map(read_limit).transpose()?.unwrap_or(CHANGES_MAX);
        let read_wait = |json| match serde_json::from_str::<f64>(json) {
            Ok(seconds) if (0.0..=WAIT_SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(invalid_value("wait", &format!("a number of seconds from 0 to {WAIT_SECONDS_MAX}"), json)),
        };
        let wait = wait.map(read_wait).transpose()?.unwrap_or_default();
        Ok(Watch { epoch, after, filter, limit, wait })
    }
}

fn whole(json: &str) -> Option<u64> {
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Limits, Port, Request, parse};

    fn read(more: &str) -> Result<Watch, String> {
        let body = format!("{{\"action\":\"watch\"{more}}}");
        match parse(body.as_bytes(), Port::Requests, &Limits::default()).request {
            Ok(Request::Watch(watch)) => Ok(*watch),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.finish(None).into_text()),
        }
    }

    #[test]
    fn what_is_not_said_is_everything_from_now_on_without_waiting() {
        let (epoch, after, filter, wait) = (None, None, Filter::default(), Duration::ZERO);
        let plain = Watch { epoch, after, filter, limit: 1000, wait };
        assert_eq!(read(""), Ok(plain.clone()));
        assert_eq!(read(",\"epoch\":null,\"after\":null,\"limit\":null,\"wait\":null"), Ok(plain.clone()));
        let all = read(",\"epoch\":\"e\",\"after\":0,\"limit\":7,\"wait\":0.25,\"service_type\":\"web\"").unwrap();
        let filter = Filter { service_type: Some("web".into()), ..Filter::default() };
        let (epoch, wait) = (Some("e".into()), Duration::from_millis(250));
        assert_eq!(all, Watch { epoch, after: Some(0), filter, limit: 7, wait });
        assert_eq!(read(",\"epoch\":\"e\"").unwrap(), Watch { epoch: Some("e".into()), ..plain });
        let last = format!(",\"epoch\":\"e\",\"after\":{},\"limit\":1000,\"wait\":600", u64::MAX);
        assert_eq!(read(&last).unwrap().after, Some(u64::MAX));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        for (more, field) in [
            (",\"after\":7", "epoch"),
            (",\"epoch\":\"e\",\"after\":-1", "after"),
            (",\"epoch\":\"e\",\"after\":1.5", "after"),
            (",\"epoch\":\"e\",\"after\":\"1\"", "after"),
            (",\"epoch\":7", "epoch"),
            (",\"epoch\":\"\"", "epoch"),
            (",\"limit\":0", "limit"),
            (",\"limit\":1001", "limit"),
            (",\"limit\":[1]", "limit"),
            (",\"wait\":-1", "wait"),
            (",\"wait\":600.5", "wait"),
            (",\"wait\":1e999", "wait"),
            (",\"wait\":\"1\"", "wait"),
            (",\"tags\":7", "tags"),
        ] {
            let error = read(more).unwrap_err();
            assert!(error.contains(&format!("\"field\":\"{field}\"")), "{more}: {error}");
            assert!(error.contains("\"code\":\"invalid_request\""), "{more}: {error}");
        }
    }
}
