//! A history: everything that was asked, answered and announced, in the order in which it was seen.
//!
//! It is all that the checker knows. Nothing in here depends on the simulation, so that a history recorded of a real
//! run can be judged by the same rules.

use std::collections::BTreeSet;

use serde_json::Value;

/// How much a host keeps of the recent changes, in bytes.
pub(crate) const HISTORY_BYTES: usize = 1 << 26;

/// What was agreed on before anything happened.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// How long a change may wait for the store.
    pub(crate) reply_timeout_ms: u64,
    /// How often critical services are removed.
    pub(crate) sweep_ms: u64,
    /// How many changes may wait for the store, and how many clients for long lists; one client has half of the places.
    pub(crate) waiting_max: usize,
    /// Whether service types are unique unless a service says otherwise.
    pub(crate) enforce_unique: bool,
    /// Whether clients are told apart by their keys.
    pub(crate) has_keys: bool,
    /// Keys that may do everything.
    pub(crate) admins: BTreeSet<String>,
    /// What the clocks of whoever recorded the history may be apart, and how long a turn of a host may take.
    pub(crate) slack_ms: u64,
    /// Whether the history shows what the store has answered.
    pub(crate) sees_store: bool,
    /// How far apart a reply and its event may be seen, if they come by different ways: so much of what a host has said
    /// in the end may be lost when it is killed, too.
    pub(crate) apart_ms: u64,
    /// How many changes can be followed.
    pub(crate) history_changes: usize,
    /// Above which share of all services those that run out together are held, and for how long.
    pub(crate) mass_expiry_share: f64,
    pub(crate) mass_expiry_hold_ms: u64,
}

/// What a service wants to be alone with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It goes by the server's rule.
    Plain,
    /// `singleton`.
    Singleton,
    /// `allow_duplicate_service_type`.
    AllowDuplicate,
}

/// A registration that a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) id: Option<String>,
    pub(crate) service_type: String,
    /// A second type, as a tag.
    pub(crate) tag: Option<String>,
    pub(crate) claim: Claim,
    pub(crate) ttl_ms: u64,
    /// How many bytes more it says of itself.
    pub(crate) bulk: usize,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Register(Registration),
    Deregister {
        id: String,
        generation: Option<u64>,
    },
    Renew {
        id: String,
        generation: Option<u64>,
    },
    Get {
        id: String,
    },
    List {
        service_type: Option<String>,
    },
    Discover {
        service_type: String,
    },
    /// Changes its metadata: what, goes by the number of the call.
    Update {
        id: String,
        generation: Option<u64>,
    },
    /// Takes it out of discovery, for so long or until somebody ends that.
    Drain {
        id: String,
        generation: Option<u64>,
        for_ms: Option<u64>,
    },
    Undrain {
        id: String,
        generation: Option<u64>,
    },
    /// From epoch and revision on, or from now on.
    Watch {
        after: Option<(String, u64)>,
        service_type: Option<String>,
        limit: usize,
        wait_ms: u64,
    },
    /// The end of a mass expiry: for good, or for another ttl.
    EndMassExpiry {
        keep: bool,
    },
}

impl Ask {
    /// Whether it changes what is stored.
    pub(crate) fn is_change(&self) -> bool {
        matches!(self, Ask::Register(_) | Ask::Deregister { .. }) || self.is_amendment()
    }

    /// Whether it asks for another document of a service that stays what it is.
    pub(crate) fn is_amendment(&self) -> bool {
        matches!(self, Ask::Update { .. } | Ask::Drain { .. } | Ask::Undrain { .. })
    }

    /// The service that it is about, if it names one.
    pub(crate) fn id(&self) -> Option<&str> {
        match self {
            Ask::Register(registration) => registration.id.as_deref(),
            Ask::Deregister { id, .. } | Ask::Renew { id, .. } | Ask::Update { id, .. } | Ask::Get { id } => Some(id),
            Ask::Drain { id, .. } | Ask::Undrain { id, .. } => Some(id),
            Ask::List { .. } | Ask::Discover { .. } | Ask::Watch { .. } | Ask::EndMassExpiry { .. } => None,
        }
    }

    /// The generation that it names, if it does.
    pub(crate) fn generation(&self) -> Option<u64> {
        match self {
            Ask::Deregister { generation, .. }
            | Ask::Renew { generation, .. }
            | Ask::Update { generation, .. }
            | Ask::Drain { generation, .. }
            | Ask::Undrain { generation, .. } => *generation,
            _ => None,
        }
    }

    /// The same with another generation, if it names one.
    pub(crate) fn with_generation(mut self, named: Option<u64>) -> Self {
        if let Ask::Deregister { generation, .. }
        | Ask::Renew { generation, .. }
        | Ask::Update { generation, .. }
        | Ask::Drain { generation, .. }
        | Ask::Undrain { generation, .. } = &mut self
        {
            *generation = generation.and(named);
        }
        self
    }
}

/// What a record says of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// The call that asked for it: that is its reason.
    pub(crate) call: Option<usize>,
    /// In seconds since 1970.
    pub(crate) since: u64,
    pub(crate) until: Option<u64>,
}

impl Drain {
    fn read(mark: &Value) -> Option<Drain> {
        let call = mark["reason"].as_str().and_then(|reason| reason.parse().ok());
        Some(Drain { call, since: mark["since"].as_u64()?, until: mark["until"].as_u64() })
    }
}

/// A service as it was shown or stored.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) id: String,
    /// The call that registered it: every registration has the number of its call among its own fields.
    pub(crate) call: Option<usize>,
    pub(crate) generation: Option<u64>,
    /// The call that updated it last.
    pub(crate) updated: Option<usize>,
    pub(crate) drain: Option<Drain>,
    pub(crate) ttl_ms: u64,
    pub(crate) types: Vec<String>,
    pub(crate) owner: Option<String>,
    /// All fields that do not move with heartbeats.
    pub(crate) fixed: Value,
    /// In seconds since 1970, where it is shown.
    pub(crate) last_heartbeat: Option<u64>,
    /// Where it is shown.
    pub(crate) passing: Option<bool>,
}

impl Service {
    /// Reads a record. What is wrong with it is a reason for a verdict.
    pub(crate) fn read(mut record: Value) -> Result<Service, String> {
        let Some(fields) = record.as_object_mut() else { return Err(format!("{record} is no service")) };
        let last_heartbeat = fields.shift_remove("last_heartbeat").and_then(|value| value.as_u64());
        let health = fields.shift_remove("health");
        let text = |field: &str| record[field].as_str().map(String::from);
        let id = text("id").ok_or_else(|| format!("a service without id: {record}"))?;
        let ttl = record["ttl"].as_f64().ok_or_else(|| format!("a service without ttl: {record}"))?;
        let tags = record["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let types: BTreeSet<&str> = tags.chain(record["metadata"]["type"].as_str()).collect();
        Ok(Service {
            id,
            call: record["call"].as_u64().map(|call| call as usize),
            generation: record["generation"].as_u64(),
            updated: record["metadata"]["updated"].as_u64().map(|call| call as usize),
            drain: match &record["drain"] {
                Value::Null => None,
                mark => Some(Drain::read(mark).ok_or_else(|| format!("a drain that says nothing: {mark}"))?),
            },
            ttl_ms: (ttl * 1000.0).round() as u64,
            types: types.into_iter().map(String::from).collect(),
            owner: text("owner_key"),
            last_heartbeat,
            passing: health.and_then(|health| health.as_str().map(|health| health == "passing")),
            fixed: record,
        })
    }

    pub(crate) fn is_of(&self, service_type: &str) -> bool {
        self.types.iter().any(|own| own == service_type)
    }
}

/// What a subscriber was told.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) service: Service,
    pub(crate) revision: u64,
    /// The revision of the event before, where events say so.
    pub(crate) previous: Option<u64>,
    pub(crate) epoch: String,
    /// In seconds since 1970.
    pub(crate) timestamp: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Registered,
    Deregistered,
    Expired,
}

impl Event {
    pub(crate) fn read(mut event: Value) -> Result<Event, String> {
        let kind = match event["type"].as_str() {
            Some("register") => Kind::Registered,
            Some("deregister") => Kind::Deregistered,
            Some("expire") => Kind::Expired,
            _ => return Err(format!("an event of no known kind: {event}")),
        };
        let service = Service::read(event["data"]["service_info"].take())?;
        if event["data"]["service_id"].as_str() != Some(&service.id) {
            return Err(format!("an event names one service and shows another: {event}"));
        }
        let Some(revision) = event["revision"].as_u64() else { return Err(format!("no revision: {event}")) };
        let Some(epoch) = event["epoch"].as_str().map(String::from) else { return Err(format!("no epoch: {event}")) };
        let (previous, timestamp) = (event["previous"].as_u64(), event["timestamp"].as_u64());
        Ok(Event { kind, service, revision, previous, epoch, timestamp })
    }
}

/// What became of a group of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All is done.
    Clean,
    /// Some was missing.
    Mixed,
    /// Some was refused.
    Refused,
    /// Nobody knows what was done.
    Failed,
}

/// How a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// At once, with everything that it had not yet said.
    Killed,
    /// In good order: all that it had taken is stored.
    Stopped,
    /// In good order, but the store failed meanwhile.
    StoppedInTrouble,
}

/// What a host would find in a store: the epoch if one goes on, the revision and the services.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) epoch: Option<String>,
    pub(crate) revision: u64,
    pub(crate) contents: Vec<Result<Service, String>>,
}

/// Something that was seen.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A client has sent a request.
    Asked { call: usize, client: usize, host: usize, key: Option<String>, ask: Ask },
    /// A client has received a reply.
    Answered { call: usize, host: usize, reply: Value },
    /// A client waits no longer for the answer.
    GaveUp { call: usize },
    /// Subscribers were told something.
    Announced { host: usize, event: Result<Event, String> },
    /// A host has begun to serve, with this in the store. `history` are the changes that the store keeps, by their
    /// revisions, if it keeps them.
    Started {
        host: usize,
        epoch: String,
        revision: u64,
        contents: Vec<Result<Service, String>>,
        history: Option<Vec<(u64, Value)>>,
        /// Every change with a greater revision can be followed.
        complete_after: u64,
    },
    /// An operator has named a store, and a host was not started on it: it says that it is not in charge.
    Refused { host: usize, store: usize },
    /// A host has moved: this store is in charge.
    Moved { host: usize, store: usize },
    /// A host has ended while it was moving. `stores`: those on which another one could be started now.
    Left { host: usize, stores: Vec<Found> },
    /// A host has opened its store: its clock begins.
    Serving { host: usize },
    /// A host takes no more requests: it is about to stop.
    Stopping { host: usize },
    /// A host has ended.
    Ended { host: usize, how: How },
    /// A host has found out that it was held up for so long until now. `left_out_ms` of it do not count.
    HeldUp { host: usize, ms: u64, left_out_ms: u64 },
    /// The store has answered a group that it has had since `sent_at_ms`.
    Committed { host: usize, sent_at_ms: u64, end: End, text: String },
    /// The store was made to fail, or to be slow, from then until now.
    Trouble { host: usize, since_ms: u64, text: String },
    /// A host has no rest, though there is nothing for it to do.
    Busy { host: usize },
    /// The wall clock was set.
    WallJumped { by_ms: i64 },
    /// The store has lost a record by itself.
    Lost { id: String },
    /// What was stored has been replaced by something else.
    Replaced,
    /// Subscribers were told something that is no change.
    Noticed { host: usize, notice: Value },
    /// A host has given everybody the time on top in which nothing reached it: so long, until now, on its own clock.
    Forgave { host: usize, ms: u64 },
    /// Of interest to readers only.
    Note(String),
}

/// Something that was seen, and when.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// On a clock that never stands still and never jumps, the same for everybody.
    pub(crate) at_ms: u64,
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) rules: Rules,
    /// The wall clock at the beginning, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    pub(crate) entries: Vec<Entry>,
}

impl History {
    pub(crate) fn push(&mut self, at_ms: u64, what: What) {
        self.entries.push(Entry { at_ms, what });
    }
}
