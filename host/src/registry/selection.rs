//! What a client wants to see: of which services, and what of them.

use crate::protocol::filter::Filter;
use crate::protocol::json::Shown;
use crate::protocol::page::Fields;
use crate::registry::service::Service;
use crate::registry::services::Services;

/// Which services, and what of them. Clients that want the same can be given the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    pub(super) filter: Filter,
    /// `None`: everything.
    pub(super) fields: Option<Fields>,
}

impl Selection {
    /// Whether it is everything of a type, or of all.
    pub(super) fn is_plain(&self) -> bool {
        self.filter.is_type_only() && self.fields.is_none()
    }

    /// How much memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.filter.bytes() + self.fields.as_ref().map_or(0, Fields::bytes)
    }

    /// The type with the fewest services of those that are asked for: all that are wanted are among them. `None` if no
    /// type is asked for.
    pub(super) fn narrowest(&self, services: &Services) -> Option<&str> {
        narrowest(&self.filter, services)
    }

    pub(super) fn wants(&self, service: &Service) -> bool {
        self.filter.matches(service.types(), service.document())
    }

    /// About how much is read to see whether a service is wanted, and to show what is wanted of it, in bytes.
    pub(super) fn work(&self, service: &Service) -> usize {
        if self.filter.is_type_only() && self.fields.is_none() { 0 } else { service.shown_bytes() }
    }

    /// What is shown of a service at a moment.
    pub(super) fn show<'a>(&'a self, service: &'a Service, uptime_ms: u64) -> Selected<'a> {
        Selected { fields: self.fields.as_ref(), service, uptime_ms }
    }
}

/// The same for a filter.
pub(super) fn narrowest<'a>(filter: &'a Filter, services: &Services) -> Option<&'a str> {
    let names = filter.service_type.iter().chain(&filter.tags);
    names.min_by_key(|name| services.extent(Some(name)).0).map(String::as_str)
}

/// What a client wants to see of a service.
pub(super) struct Selected<'a> {
    fields: Option<&'a Fields>,
    service: &'a Service,
    uptime_ms: u64,
}

impl Shown for Selected<'_> {
    fn show(&self, json: &mut String) {
        let seen = self.service.at(self.uptime_ms);
        match self.fields {
            Some(fields) => fields.show(&seen.to_json(), json),
            None => seen.show(json),
        }
    }
}
