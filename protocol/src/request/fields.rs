//! The fields of a request, found in one pass over its JSON.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::page::Extent;
use crate::restore::RestoreFields;
use crate::watch::WatchFields;

/// The fields of a request that mean something, as JSON text that has not been looked into yet.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) action: Option<&'a RawValue>,
    pub(super) service_id: Option<&'a RawValue>,
    pub(super) service_type: Option<&'a RawValue>,
    pub(super) service_info: Option<&'a RawValue>,
    pub(super) ttl: Option<&'a RawValue>,
    pub(super) request_id: Option<&'a RawValue>,
    pub(super) generation: Option<&'a RawValue>,
    pub(super) services: Option<&'a RawValue>,
    pub(super) tags: Option<&'a RawValue>,
    pub(super) metadata: Option<&'a RawValue>,
    pub(super) version: Option<&'a RawValue>,
    pub(super) extent: Extent<'a>,
    pub(super) watch: WatchFields<'a>,
    pub(super) max_stale: Option<&'a RawValue>,
    pub(super) mass_expiry: Option<&'a RawValue>,
    pub(super) seconds: Option<&'a RawValue>,
    pub(super) reason: Option<&'a RawValue>,
    pub(super) dry_run: Option<&'a RawValue>,
    pub(super) file: Option<&'a RawValue>,
    pub(super) hold: Option<&'a RawValue>,
    pub(super) abandon: Option<&'a RawValue>,
    pub(super) restore: RestoreFields<'a>,
    pub(super) address: Option<&'a RawValue>,
    pub(super) principal: Option<&'a RawValue>,
}

pub(super) fn read_fields(body: &[u8]) -> serde_json::Result<Fields<'_>> {
    // The reader does not check what it skips. One check of the whole is cheaper than one for each string.
    let text = str::from_utf8(body).map_err(serde::de::Error::custom)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = json.deserialize_map(FieldsVisitor)?;
    json.end()?;
    Ok(fields)
}

/// Unlike a derived one, this visitor lets the last of equal keys win, as the JSON readers that clients know do.
struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields<'de>, M::Error> {
        let mut fields = Fields::default();
        while let Some(Key(key)) = map.next_key()? {
            let field = match &*key {
                "action" => &mut fields.action,
                "service_id" => &mut fields.service_id,
                "service_type" => &mut fields.service_type,
                "service_info" => &mut fields.service_info,
                "ttl" => &mut fields.ttl,
                "request_id" => &mut fields.request_id,
                "generation" => &mut fields.generation,
                "services" => &mut fields.services,
                "tags" => &mut fields.tags,
                "metadata" => &mut fields.metadata,
                "version" => &mut fields.version,
                "fields" => &mut fields.extent.fields,
                "limit" => &mut fields.extent.limit,
                "cursor" => &mut fields.extent.cursor,
                "wait" => &mut fields.extent.wait,
                "epoch" => &mut fields.watch.epoch,
                "after" => &mut fields.watch.after,
                "max_stale" => &mut fields.max_stale,
                "mass_expiry" => &mut fields.mass_expiry,
                "seconds" => &mut fields.seconds,
                "reason" => &mut fields.reason,
                "dry_run" => &mut fields.dry_run,
                "file" => &mut fields.file,
                "hold" => &mut fields.hold,
                "abandon" => &mut fields.abandon,
                "upload" => &mut fields.restore.upload,
                "part" => &mut fields.restore.part,
                "total" => &mut fields.restore.total,
                "replace" => &mut fields.restore.replace,
                "address" => &mut fields.address,
                "principal" => &mut fields.principal,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(fields)
    }
}

/// A key that is copied only if it has escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
