//! Filters: which services a client wants to hear of. The same words in each request that takes one.
//!
//! A filter may have to wait, and is asked about many services: it is short, and looks into a service's document only
//! as far as it has to, in one pass.

use std::borrow::Cow;
use std::sync::Arc;

use semver::{Version, VersionReq};
use serde_json::value::RawValue;

use crate::json::{self, Member, equal};
use crate::page::present;
use crate::registration::{check_length, invalid_value};
use crate::reply::Reply;
use crate::request::{Limits, optional};

/// The most tags and the most keys of metadata in one filter. A word of bits holds which of the latter are found.
const TAGS_MAX: usize = 64;
const METADATA_MAX: usize = u64::BITS as usize;
/// The longest `metadata` as it is written, and the longest `version`, in bytes.
const METADATA_BYTES_MAX: usize = 16 * 1024;
const VERSION_BYTES_MAX: usize = 256;
/// What a text takes besides what it says, in bytes.
const TEXT_BYTES: usize = size_of::<String>();

/// Which services a client wants: those that all of this is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// One of its types.
    pub service_type: Option<String>,
    /// More of its types.
    pub tags: Vec<String>,
    /// Keys of its `metadata` and their values, in the order of the keys. Values are in the one form of
    /// `json::equal::canonical`.
    pub metadata: Vec<(String, String)>,
    /// What its version must be.
    pub version: Option<VersionReq>,
}

/// The fields of a request that make a filter.
#[derive(Clone, Copy, Default)]
pub(crate) struct FilterFields<'a> {
    pub(crate) service_type: Option<&'a RawValue>,
    pub(crate) tags: Option<&'a RawValue>,
    pub(crate) metadata: Option<&'a RawValue>,
    pub(crate) version: Option<&'a RawValue>,
}

impl Filter {
    /// The filter that a request's fields say.
    ///
    /// # Errors
    /// The reply that refuses it, naming the field and what it should be.
    pub(crate) fn read(fields: FilterFields<'_>, limits: &Limits) -> Result<Self, Reply> {
        Ok(Filter {
            service_type: optional("service_type", fields.service_type, limits.type_bytes)?,
            tags: read_tags(present(fields.tags), limits)?,
            metadata: read_metadata(present(fields.metadata), limits)?,
            version: read_version(present(fields.version))?,
        })
    }

    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let metadata = self.metadata.iter().map(|(key, value)| key.len() + value.len());
        let texts = self.service_type.iter().chain(&self.tags).map(String::len);
        size_of::<Self>() + metadata.chain(texts).map(|bytes| bytes + TEXT_BYTES).sum::<usize>()
    }

    /// Whether a service's types tell all, and one of them is enough: no filter at all, or one by type.
    pub fn is_type_only(&self) -> bool {
        self.tags.is_empty() && !self.needs_document()
    }

    /// Whether a service with these types and this document is wanted. The document is a JSON object, without space
    /// around it: it is looked into only if metadata or the version are asked for.
    pub fn matches(&self, types: &[Arc<str>], document: &str) -> bool {
        let has = |wanted: &String| types.iter().any(|name| **name == **wanted);
        self.service_type.iter().all(has) && self.tags.iter().all(has) && self.wants_document(document)
    }

    fn needs_document(&self) -> bool {
        !self.metadata.is_empty() || self.version.is_some()
    }

    fn wants_document(&self, document: &str) -> bool {
        if !self.needs_document() {
            return true;
        }
        let (mut metadata, mut version) = (None, None);
        for (key, value) in json::members(document) {
            match &*json::text(key).unwrap_or_default() {
                "metadata" => metadata = Some(value),
                "version" => version = Some(value).filter(|value| *value != "null"),
                _ => {}
            }
        }
        let metadata = metadata.filter(|metadata| metadata.starts_with('{')).unwrap_or("{}");
        // One bit for each key that is wanted. Of equal keys the last counts.
        let mut found = 0_u64;
        let mut metadata_version = None;
        for (key, value) in json::members(metadata) {
            let key = json::text(key).unwrap_or_default();
            if let Ok(place) = self.metadata.binary_search_by(|(wanted, _)| (**wanted).cmp(&*key)) {
                let is_equal = equal::is(&self.metadata[place].1, value);
                found = found & !(1 << place) | u64::from(is_equal) << place;
            }
            if key == "version" {
                metadata_version = Some(value);
            }
        }
        let has_version = |wanted: &VersionReq| {
            let version = version.or(metadata_version).and_then(json::text);
            let version = version.and_then(|version| Version::parse(&version).ok());
            version.is_some_and(|version| wanted.matches(&version))
        };
        found.count_ones() as usize == self.metadata.len() && self.version.as_ref().is_none_or(has_version)
    }
}

fn read_tags(json: Option<&str>, limits: &Limits) -> Result<Vec<String>, Reply> {
    let refuse = |json| invalid_value("tags", "a list of non-empty strings", json);
    let Some(json) = json else { return Ok(Vec::new()) };
    if !json.starts_with('[') {
        return Err(refuse(json));
    }
    if json::items(json).nth(TAGS_MAX).is_some() {
        return Err(invalid_value("tags", &format!("at most {TAGS_MAX} tags"), json));
    }
    let mut tags = Vec::new();
    for item in json::items(json) {
        let tag = json::text(item).filter(|tag| !tag.is_empty()).ok_or_else(|| refuse(json))?;
        check_length("tags", &tag, limits.type_bytes)?;
        tags.push(tag.into_owned());
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

fn read_metadata(json: Option<&str>, limits: &Limits) -> Result<Vec<(String, String)>, Reply> {
    let refuse = |expected: &str, got: &str| Err(invalid_value("metadata", expected, got));
    let Some(json) = json else { return Ok(Vec::new()) };
    if !json.starts_with('{') {
        return refuse("an object", json);
    }
    if json::members(json).nth(METADATA_MAX).is_some() {
        return refuse(&format!("at most {METADATA_MAX} keys"), json);
    }
    if json.len() > METADATA_BYTES_MAX {
        return refuse(&format!("at most {METADATA_BYTES_MAX} bytes"), &format!("{} bytes", json.len()));
    }
    // The request itself is one level.
    let depth = 1 + json::depth(json);
    if depth > limits.json_depth {
        return refuse(&format!("at most {} levels", limits.json_depth), &depth.to_string());
    }
    let read = |(literal, value)| Some(Member { key: json::text(literal)?, literal, value });
    let Some(mut members) = json::members(json).map(read).collect::<Option<Vec<_>>>() else {
        return refuse("no lone surrogate", json);
    };
    json::without_repetition(&mut members);
    let mut metadata = Vec::with_capacity(members.len());
    for Member { key, value, .. } in members {
        let Some(value) = equal::canonical(value) else { return refuse("no lone surrogate", value) };
        metadata.push((Cow::into_owned(key), value));
    }
    metadata.sort_unstable();
    Ok(metadata)
}

fn read_version(json: Option<&str>) -> Result<Option<VersionReq>, Reply> {
    const EXPECTED: &str = "a SemVer requirement, such as \"^1.2\" or \">=1.0, <3\"";
    let Some(json) = json else { return Ok(None) };
    let text = json::text(json).ok_or_else(|| invalid_value("version", EXPECTED, json))?;
    check_length("version", &text, VERSION_BYTES_MAX)?;
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = VersionReq::parse(&text);
    parsed.map(Some).map_err(|error| invalid_value("version", EXPECTED, json).text("message", &error.to_string()))
}

#[cfg(test)]
mod tests;
