//! Requests: JSON in, a [`Request`] or a refusal that names what is wrong out.

mod action;
mod calm;
mod fields;
mod right;

use serde_json::value::RawValue;

use crate::clients::Clients;
use crate::drain::{Drain, Order};
use crate::filter::{Filter, FilterFields};
use crate::json;
use crate::lives::{self, Renewal, Update};
use crate::page::{Discover, Fields as ShownFields, ListCursor, Page, TypesCursor};
use crate::patch::Patch;
use crate::registration::{Registration, check_length, cut, invalid_value};
use crate::reply::{Code, Reply};
use crate::restore::{Restore, RestoreFields};
use crate::watch::{Watch, WatchFields};
pub use action::Action;
use fields::{Fields, read_fields};
pub use right::Right;

/// How much of an action that does not exist is shown, in characters.
const ACTION_SHOWN_MAX: usize = 80;
/// The longest name of a file, in bytes: Linux has none that is longer.
const FILE_BYTES_MAX: usize = 4096;
/// The longest name of an upload, in bytes.
const UPLOAD_BYTES_MAX: usize = 64;
/// The longest `request_id` as it is written, in bytes: it is kept until the reply leaves.
const REQUEST_ID_BYTES_MAX: usize = 1024;

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Add a service, or update the one with the same id.
    Register(Box<Registration>),
    /// Remove a service.
    Deregister {
        /// The service's id.
        service_id: String,
        /// Only if the service is of this generation.
        generation: Option<u64>,
    },
    /// A heartbeat: the service lives for another ttl.
    Renew {
        /// The service's id.
        service_id: String,
        /// Only if the service is of this generation.
        generation: Option<u64>,
    },
    /// One service.
    Get {
        /// The service's id.
        service_id: String,
    },
    /// All services, or all of a type.
    List {
        /// Which of them.
        filter: Filter,
        /// What is shown of them: everything, if nothing is said.
        fields: Option<ShownFields>,
        /// Which page of the list; `None` for the whole list.
        page: Option<Page<ListCursor>>,
    },
    /// Healthy services of a type.
    Discover(Box<Discover>),
    /// Is the registry there?
    Health,
    /// Its settings and services.
    Info,
    /// Stop the server.
    Terminate,
    /// Which types there are, and how many services of each.
    Types {
        /// Which page of them.
        page: Page<TypesCursor>,
    },
    /// The changes after a revision, or the next ones.
    Watch(Box<Watch>),
    /// Heartbeats of many services.
    RenewMany(Vec<Renewal>),
    /// Change a service's metadata.
    Update(Box<Update>),
    /// Have a service discovered by nobody, or again.
    Drain(Box<Drain>),
    /// What has happened to a service.
    History {
        /// The service's id.
        service_id: String,
        /// How many of the last entries; `None` means all.
        limit: Option<usize>,
    },
    /// End a mass expiry.
    Expiry(Expiry),
    /// Have the server read its configuration again, and take over what it can.
    Reload {
        /// Nothing is taken over: it is only said what would be.
        is_trial: bool,
    },
    /// Have the server move to another store.
    Swap(Box<Swap>),
    /// Have the services of a backup take the place of all that are there.
    Restore(Box<Restore>),
    /// Who is connected.
    Clients(Box<Clients>),
    /// A read, unless what the server knows may be older than this.
    Fresh {
        /// How old it may be, in milliseconds.
        max_stale_ms: u64,
        /// The read.
        read: Box<Request>,
    },
}

impl Request {
    /// The word by which it was asked for.
    pub fn action(&self) -> Action {
        match self {
            Request::Register(_) => Action::Register,
            Request::Deregister { .. } => Action::Deregister,
            Request::Renew { .. } | Request::RenewMany(_) => Action::Renew,
            Request::Get { .. } => Action::Get,
            Request::List { .. } => Action::List,
            Request::Discover(_) => Action::Discover,
            Request::Health => Action::Health,
            Request::Info => Action::Info,
            Request::Terminate => Action::Terminate,
            Request::Types { .. } => Action::Types,
            Request::Watch(_) => Action::Watch,
            Request::Update(_) => Action::Update,
            Request::Drain(drain) if drain.order.is_none() => Action::Undrain,
            Request::Drain(_) => Action::Drain,
            Request::History { .. } => Action::History,
            Request::Expiry(_) => Action::Expiry,
            Request::Reload { .. } => Action::Reload,
            Request::Swap(_) => Action::Swap,
            Request::Restore(_) => Action::Restore,
            Request::Clients(_) => Action::Clients,
            Request::Fresh { read, .. } => read.action(),
        }
    }

    /// Whether its answer may have to wait for something to happen, for as long as the client likes.
    pub fn may_wait(&self) -> bool {
        match self {
            Request::Watch(watch) => !watch.wait.is_zero(),
            Request::Discover(discover) => !discover.wait.is_zero(),
            Request::Fresh { read, .. } => read.may_wait(),
            _ => false,
        }
    }
}

/// A request, and what must come back with its reply.
#[derive(Debug)]
pub struct Parsed {
    /// The request, or the reply that refuses it.
    pub request: Result<Request, Reply>,
    /// The client's `request_id`, as JSON text.
    pub request_id: Option<Box<str>>,
}

/// Which port a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The request port.
    Requests,
    /// The heartbeat port, where every request is a renewal, whatever its `action` says.
    Heartbeats,
}

/// What a request may ask for at most, and where requests go.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How deep objects and arrays may be nested that are kept.
    pub json_depth: usize,
    /// The longest id of a service, in bytes.
    pub id_bytes: usize,
    /// The longest name of a service, in bytes.
    pub name_bytes: usize,
    /// The longest type of a service, in bytes; tags are types.
    pub type_bytes: usize,
    /// The most types of one service.
    pub types: usize,
    /// The longest record of a service that an update may make, in bytes.
    pub document_bytes: usize,
    /// The number of the request port, for clients that ask the heartbeat port by mistake.
    pub requests_port: Option<u16>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            json_depth: 64,
            id_bytes: 512,
            name_bytes: 256,
            type_bytes: 256,
            types: 256,
            document_bytes: 1 << 20,
            requests_port: None,
        }
    }
}

/// Reads a request.
pub fn parse(body: &[u8], port: Port, limits: &Limits) -> Parsed {
    let fields = match read_fields(body) {
        Ok(fields) => fields,
        Err(error) => {
            let refusal = Reply::failure(Code::InvalidJson, "Invalid JSON format").text("message", &error.to_string());
            return Parsed { request: Err(refusal), request_id: None };
        }
    };
    let request_id = match request_id(&fields) {
        Ok(request_id) => request_id,
        Err(refusal) => return Parsed { request: Err(refusal), request_id: None },
    };
    let request = match port {
        Port::Requests => fields.request(limits),
        Port::Heartbeats => fields.beat(limits),
    };
    Parsed { request, request_id }
}

impl Fields<'_> {
    fn request(&self, limits: &Limits) -> Result<Request, Reply> {
        let Some(action) = self.action.filter(|value| !is_empty(value)) else {
            return Err(missing("action"));
        };
        let text = json::text(action.get());
        let word = text.as_deref().unwrap_or(action.get());
        let known = Action::ALL.into_iter().find(|action| text.is_some() && action.as_str() == word);
        let Some(action) = known else {
            let error = format!("Unknown action: {}", cut(word, ACTION_SHOWN_MAX));
            return Err(Reply::failure(Code::UnknownAction, &error));
        };
        let request = self.requested(action, limits)?;
        match request.right() {
            Right::Read => calm::fresh(request, self.max_stale),
            _ => Ok(request),
        }
    }

    fn requested(&self, action: Action, limits: &Limits) -> Result<Request, Reply> {
        Ok(match action {
            Action::Register => Request::Register(Box::new(self.registration(limits)?)),
            Action::Deregister => {
                Request::Deregister { service_id: self.service_id(limits)?, generation: self.generation()? }
            }
            Action::Renew => self.renewal(limits)?.ok_or_else(|| missing("service_id"))?,
            Action::Get => Request::Get { service_id: self.service_id(limits)? },
            Action::List => {
                let (filter, fields) = (self.filter(limits)?, self.extent.fields()?);
                Request::List { filter, fields, page: self.extent.list_page()? }
            }
            Action::Discover => {
                let filter = self.filter(limits)?;
                if filter.service_type.is_none() {
                    return Err(missing("service_type"));
                }
                Request::Discover(Box::new(self.extent.discover(filter)?))
            }
            Action::Health => Request::Health,
            Action::Info => Request::Info,
            Action::Terminate => Request::Terminate,
            Action::Types => Request::Types { page: self.extent.types_page(limits.type_bytes)? },
            Action::Watch => {
                let fields = WatchFields { limit: self.extent.limit, wait: self.extent.wait, ..self.watch };
                Request::Watch(Box::new(Watch::read(fields, self.filter(limits)?)?))
            }
            Action::Update => Request::Update(Box::new(Update {
                service_id: self.service_id(limits)?,
                generation: self.generation()?,
                metadata: self.patch(limits)?,
            })),
            Action::History => {
                Request::History { service_id: self.service_id(limits)?, limit: lives::entries(self.extent.limit)? }
            }
            Action::Drain => self.drain(Some(Order::read(self.seconds, self.reason)?), limits)?,
            Action::Undrain => self.drain(None, limits)?,
            Action::Reload => Request::Reload { is_trial: calm::flag("dry_run", self.dry_run)? },
            Action::Swap => Request::Swap(Box::new(Swap {
                file: optional("file", self.file, FILE_BYTES_MAX)?.ok_or_else(|| missing("file"))?,
                hold: calm::hold(self.hold)?,
                is_abandoning: calm::flag("abandon", self.abandon)?,
            })),
            Action::Restore => {
                let RestoreFields { replace, .. } = self.restore;
                let replaces = calm::flag("replace", replace)?;
                let upload = optional("upload", self.restore.upload, UPLOAD_BYTES_MAX)?;
                let upload = upload.ok_or_else(|| missing("upload"))?;
                Request::Restore(Box::new(Restore::read(upload, self.restore, self.services, replaces, limits)?))
            }
            Action::Clients => {
                Request::Clients(Box::new(Clients::read(self.address, self.principal, self.extent.clients_page()?)?))
            }
            Action::Expiry => Request::Expiry(calm::expiry(self.mass_expiry)?),
        })
    }

    fn registration(&self, limits: &Limits) -> Result<Registration, Reply> {
        let service_info = self.service_info.ok_or_else(|| missing("service_info"))?;
        // The request itself is one level.
        let depth = 1 + json::depth(service_info.get());
        if depth > limits.json_depth {
            let problem = format!("nested {depth} deep, expected at most {}", limits.json_depth);
            let error = format!("Invalid value for service_info: {problem}");
            return Err(Reply::failure(Code::InvalidRequest, &error));
        }
        Registration::read(service_info, self.ttl, limits)
    }

    /// What is asked at the heartbeat port, whatever its `action` says.
    fn beat(&self, limits: &Limits) -> Result<Request, Reply> {
        match self.renewal(limits)? {
            Some(renewal) => Ok(renewal),
            None => {
                let requests_port = limits.requests_port.map_or("the request port".into(), |port| port.to_string());
                let message = format!("this is the heartbeat port; requests go to {requests_port}");
                Err(missing("service_id").text("message", &message))
            }
        }
    }

    /// A heartbeat of one service, or of many; `None` if it names none.
    fn renewal(&self, limits: &Limits) -> Result<Option<Request>, Reply> {
        if let Some(service_id) = optional("service_id", self.service_id, limits.id_bytes)? {
            return Ok(Some(Request::Renew { service_id, generation: self.generation()? }));
        }
        let services = self.services.filter(|services| !is_empty(services));
        services.map(|services| lives::renewals(services, limits).map(Request::RenewMany)).transpose()
    }

    fn generation(&self) -> Result<Option<u64>, Reply> {
        lives::generation("generation", self.generation)
    }

    fn drain(&self, order: Option<Order>, limits: &Limits) -> Result<Request, Reply> {
        let (service_id, generation) = (self.service_id(limits)?, self.generation()?);
        Ok(Request::Drain(Box::new(Drain { service_id, generation, order })))
    }

    fn patch(&self, limits: &Limits) -> Result<Patch, Reply> {
        let metadata = self.metadata.filter(|metadata| !is_empty(metadata)).ok_or_else(|| missing("metadata"))?;
        Patch::read(metadata, limits)
    }

    fn service_id(&self, limits: &Limits) -> Result<String, Reply> {
        optional("service_id", self.service_id, limits.id_bytes)?.ok_or_else(|| missing("service_id"))
    }

    fn filter(&self, limits: &Limits) -> Result<Filter, Reply> {
        let Fields { service_type, tags, metadata, version, .. } = *self;
        Filter::read(FilterFields { service_type, tags, metadata, version }, limits)
    }
}

/// The `request_id` as JSON text: a string or a number, which go back as they are.
fn request_id(fields: &Fields<'_>) -> Result<Option<Box<str>>, Reply> {
    match fields.request_id.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(json) if json.len() > REQUEST_ID_BYTES_MAX => {
            let expected = format!("at most {REQUEST_ID_BYTES_MAX} bytes");
            Err(invalid_value("request_id", &expected, &format!("{} bytes", json.len())))
        }
        Some(json) if json.starts_with(['"', '-']) || json.starts_with(|c: char| c.is_ascii_digit()) => {
            Ok(Some(json.into()))
        }
        Some(json) => Err(invalid_value("request_id", "a string or a number", json)),
    }
}

/// A text of limited length, since it may have to wait.
pub(crate) fn optional(
    field: &'static str,
    value: Option<&RawValue>,
    bytes_max: usize,
) -> Result<Option<String>, Reply> {
    let Some(value) = value.filter(|value| !is_empty(value)) else { return Ok(None) };
    let text = json::text(value.get()).ok_or_else(|| invalid_value(field, "a string", value.get()))?;
    check_length(field, &text, bytes_max)?;
    Ok(Some(text.into_owned()))
}

pub(crate) fn missing(field: &str) -> Reply {
    Reply::failure(Code::InvalidRequest, &format!("Missing required field: {field}"))
}

/// What the Python registry takes for a missing value: whatever is false in Python.
fn is_empty(value: &RawValue) -> bool {
    matches!(value.get(), "null" | "\"\"" | "false" | "0" | "[]" | "{}")
}

pub use calm::{Expiry, MAX_STALE_SECONDS_MAX, Swap};

#[cfg(test)]
mod tests;
