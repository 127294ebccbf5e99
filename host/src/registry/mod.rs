//! The core: it owns all live services and answers for them.
//!
//! A request and the time go in; replies, events and changes for the store come out. There is no socket, no clock and
//! no file here, so every rule is tested without waiting, and every storage backend gives users the same rules.
//!
//! Reads and heartbeats are answered at once, from memory. A change goes to the store in a group with others, and takes
//! effect when the store has said yes: only then is it visible, answered and announced.
//!
//! | room | what is in it |
//! |---|---|
//! | `reads` | `get`, `list`, `info`, `health` |
//! | `lives`, `past`, `trail` | `renew`, and what is known of a service's life and end |
//! | `lists`, `snapshot`, `journal` | long lists, written a piece at a time |
//! | `selection`, `pages` | which services a client wants, and what of them; a part at a time |
//! | `discovery`, `search`, `waiting` | who is found by type: now, after a while, or when it comes |
//! | `put_off` | reads that take long |
//! | `quotas` | how much each client may have, and how often it may ask |
//! | `changes/` | `register`, `deregister`, `update`, expiries: the life of a change |
//! | `changes/mass` | what becomes of services that run out together |
//! | `follow/` | `watch`: the recent changes, and who waits for the next |
//! | `certainty` | what is answered while nothing is sure: starting, stale, not ready |
//! | `copying` | all services, to another store |
//! | `restoring` | all services, from a backup |
//! | `figures` | all of it in numbers, for operators |
//! | `service`, `services`, `slots` | one service, all of them, sets of them |
//! | `shares`, `turns`, `orders` | who has how much of what all share, and whose turn it is |
//! | `moment`, `policy`, `output` | what goes in and what comes out |

mod certainty;
mod changes;
mod copying;
mod discovery;
mod figures;
mod follow;
mod journal;
mod lists;
mod lives;
mod moment;
mod orders;
mod output;
mod pages;
mod past;
mod policy;
mod put_off;
mod quotas;
mod reads;
mod restoring;
mod search;
mod selection;
mod service;
mod services;
mod shares;
mod slots;
mod snapshot;
mod trail;
mod turns;
mod waiting;

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use registry_plugin_api::{Position, Record};

use crate::protocol::event::EventKind;
use crate::protocol::registration::cut;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::{Request, Right};
use crate::security::origin::Origin;
use crate::security::principal::Principal;
pub use changes::{Amendment, NOT_DRAINED};
use changes::{Changes, GENERATION_GAP_MAX};
use copying::Copying;
use figures::Census;
pub use figures::{ByType, Figures};
use follow::{Follow, Told};
use lists::{Form, Lists};
pub use moment::Now;
pub use output::{Forbidden, Output, Unreadable};
use past::Past;
pub use policy::{About, Following, Policy, Promises};
use put_off::PutOff;
use quotas::Bounds;
pub use quotas::Exceeded;
use reads::StorageFailure;
use search::Searches;
use selection::Selection;
pub use service::Service;
pub use services::Counts;
use services::Services;
use trail::Trail;
pub use trail::{Cause, Deed};
use waiting::Waiting;

/// How much of what was forbidden is shown, in characters.
const FORBIDDEN_SHOWN_MAX: usize = 200;
/// How many steps are taken for services whose time may be up in a tick, and with each request.
const ADVANCE_MAX: (usize, usize) = (4096, 16);

/// The core.
pub struct Registry<C> {
    policy: Policy,
    promises: Promises,
    about: About,
    services: Services,
    changes: Changes<C>,
    lists: Lists<C>,
    searches: Searches<C>,
    put_off: PutOff<C>,
    bounds: Bounds,
    waiting: Waiting<C>,
    /// How far the copy to another store is, if one is being made.
    copying: Option<Copying>,
    follow: Follow<C>,
    census: Census,
    /// The name of the history that `revision` counts in.
    epoch: String,
    /// A number of this run of the host, by which it knows cursors that it has given.
    run: u64,
    /// The revision of the last change that took effect.
    revision: u64,
    /// Makes ids, and chooses among services.
    rng: StdRng,
    cleanup_at_ms: u64,
    /// How many choices the store is asked to make and has not made yet.
    queries: usize,
    /// Services whose time is up wait to be made critical.
    is_behind: bool,
    /// Why the last group of changes could not be stored, if it could not.
    storage_failure: Option<StorageFailure>,
    /// How many files with clients' keys cannot be used.
    bad_key_files: usize,
    /// What was deregistered not long ago.
    past: Past,
    /// What has happened to each service.
    trail: Trail,
    /// There are no services yet.
    is_starting: bool,
    /// For how long the store has been failing or stalled, if it is.
    stale_ms: Option<u64>,
}

impl<C> Registry<C> {
    /// A core without services, at this position in a store's history.
    pub fn new(policy: Policy, promises: Promises, about: About, position: Position, mut rng: StdRng) -> Self {
        let run = rng.random();
        Registry {
            cleanup_at_ms: policy.cleanup_interval_ms,
            promises,
            about,
            services: Services::default(),
            changes: Changes::after(position.revision, rng.random_range(0..GENERATION_GAP_MAX)),
            lists: Lists::default(),
            searches: Searches::default(),
            put_off: PutOff::default(),
            bounds: Bounds::default(),
            waiting: Waiting::default(),
            copying: None,
            follow: Follow::after(position.revision, policy.following),
            census: Census::default(),
            epoch: position.epoch,
            run,
            revision: position.revision,
            rng,
            queries: 0,
            is_behind: false,
            storage_failure: None,
            bad_key_files: 0,
            past: Past::default(),
            trail: Trail::default(),
            is_starting: false,
            stale_ms: None,
            policy,
        }
    }

    /// Takes over a service from the store. It has one full ttl from now on.
    ///
    /// # Errors
    /// The record cannot be a service.
    pub fn load(&mut self, record: Record, now: Now) -> Result<(), Unreadable> {
        let id = record.id.clone();
        let service = Service::from_record(record, now).map_err(|reason| Unreadable { id, reason })?;
        self.changes.generation = self.changes.generation.max(service.generation());
        self.services.put(service, now.uptime_ms);
        Ok(())
    }

    /// How many services there are.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// How long all of them are together, in bytes.
    pub fn bytes(&self) -> usize {
        self.services.bytes()
    }

    /// Whether there are no services.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The core's state in the store's history: epoch and revision.
    pub fn position(&self) -> (&str, u64) {
        (&self.epoch, self.revision)
    }

    /// Sets the rules anew. What is kept and what waits stays, up to the new bounds.
    pub fn set_policy(&mut self, policy: Policy) {
        self.cleanup_at_ms = self.cleanup_at_ms.saturating_sub(self.policy.cleanup_interval_ms);
        self.cleanup_at_ms += policy.cleanup_interval_ms;
        self.follow.set_max(policy.following);
        self.policy = policy;
    }

    /// Sets how long a call of the store may take before it counts as stalled.
    pub fn set_call_timeout_ms(&mut self, call_timeout_ms: u64) {
        self.policy.call_timeout_ms = call_timeout_ms;
    }

    /// Sets what `info` says of the server.
    pub fn set_about(&mut self, about: About) {
        self.about = about;
    }

    /// Sets how many files with clients' keys cannot be used, which `health` tells.
    pub fn set_bad_key_files(&mut self, count: usize) {
        self.bad_key_files = count;
    }

    /// Answers a request, now or when the store has spoken.
    pub fn request(&mut self, caller: C, origin: impl Into<Origin>, request: Request, now: Now, out: &mut Output<C>) {
        let origin = origin.into();
        let principal = origin.principal;
        if self.is_starting {
            return out.replies.push((caller, Self::not_started(&request)));
        }
        self.is_behind = self.services.advance(now.uptime_ms, ADVANCE_MAX.1);
        self.look_at_storage(now);
        if let Err(refusal) = self.authorise(principal, &request, out) {
            self.note_unauthorised(&request, origin, now);
            return out.replies.push((caller, refusal));
        }
        if let Some(operation) = request.operation() {
            self.trail.operated(operation, origin, now);
        }
        self.answer_in_turn(caller, origin, request, now, out);
    }

    /// Answers a request that may be asked. If it is a read, the host may have been unsure of its answer for so long.
    fn answer_to(
        &mut self,
        caller: C,
        origin: Origin,
        request: Request,
        max_stale_ms: u64,
        now: Now,
        out: &mut Output<C>,
    ) {
        let principal = origin.principal;
        let reply = match request {
            Request::Register(registration) => {
                self.end_silence(now, out);
                return self.register(caller, origin, registration, now, out);
            }
            Request::Deregister { service_id, generation } => {
                return self.deregister(caller, origin, (&service_id, generation), now, out);
            }
            Request::Update(update) => return self.update(caller, origin, update, now, out),
            Request::Drain(drain) => return self.drain(caller, origin, drain, now, out),
            Request::List { filter, fields, page: None } => {
                return self.list(caller, origin, Form::List, Selection { filter, fields }, now, out);
            }
            Request::List { filter, fields, page: Some(page) } => {
                self.list_page(&Selection { filter, fields }, page, now)
            }
            Request::Types { page } => self.types(page),
            Request::Info => {
                let to_admin = self.policy.access.is_admin(&principal);
                return self.list(caller, origin, Form::Info { to_admin }, Selection::default(), now, out);
            }
            Request::Discover(asked) => return self.discover(caller, *asked, (origin, max_stale_ms), now, out),
            Request::Watch(watch) => return self.watch(caller, *watch, (origin, max_stale_ms), now, out),
            Request::Renew { service_id, generation } => self.renew(origin, &service_id, generation, now, out),
            Request::RenewMany(renewals) => self.renew_many(origin, renewals, now, out),
            Request::History { service_id, limit } => self.history(&service_id, limit),
            Request::Get { service_id } => self.get(&service_id, now),
            Request::Health => {
                let reply = self.health(self.policy.access.is_admin(&principal), now);
                self.with_mass_expiry(self.with_readiness(reply, now), now)
            }
            Request::Terminate if self.policy.allow_terminate => {
                out.terminate = true;
                Reply::success().text("status", "terminating").number("timestamp", now.unix_seconds())
            }
            Request::Terminate => {
                let error = "terminate is not allowed: the server's allow_terminate is off";
                Reply::failure(Code::Forbidden, error)
            }
            Request::Reload { is_trial } => return out.reloads.push((caller, is_trial)),
            Request::Restore(restore) => return out.restores.push((caller, origin, *restore)),
            Request::Clients(asked) => match self.roll_call(&asked) {
                Some(refusal) => refusal,
                None => return out.roll_calls.push((caller, asked)),
            },
            Request::Swap(swap) if self.policy.allow_swap || principal != Principal::Nobody => {
                return out.swaps.push((caller, *swap));
            }
            Request::Swap(_) => {
                let error = "swap is not allowed: the server's allow_swap is off";
                let message = "change [backend] in the registry's own configuration, and have it reloaded";
                Reply::failure(Code::Forbidden, error).text("message", message)
            }
            Request::Expiry(way) => self.end_by(way, now, out),
            Request::Fresh { read, .. } => return self.answer_in_turn(caller, origin, *read, now, out),
        };
        out.replies.push((caller, reply));
    }

    /// Whether somebody may ask this at all. Whose a service is, and so who may change it, is seen when it is changed.
    fn authorise(&self, principal: Principal, request: &Request, out: &mut Output<C>) -> Result<(), Reply> {
        let access = &self.policy.access;
        let what = match request.right() {
            Right::None | Right::Change(_) | Right::RenewEach(_) => return Ok(()),
            Right::Read if access.may_read(&principal) => return Ok(()),
            Right::Read => "to read".to_string(),
            Right::Operate(_) if access.is_admin(&principal) => return Ok(()),
            Right::Operate(what) => what.to_string(),
            Right::Register(service) if access.may_register(&principal, &service.name, &service.types) => return Ok(()),
            Right::Register(service) if service.types.is_empty() => {
                format!("to register the service {:?}, which has no type", service.name)
            }
            Right::Register(service) => {
                format!("to register the service {:?} of type {:?}", service.name, service.types)
            }
        };
        Err(self.forbid(principal, &what, out))
    }

    /// What time alone brings: services past their ttl become critical, and whoever waits for the store too long is
    /// told so. To be called at [`wake_at_ms`](Self::wake_at_ms), or more often.
    pub fn tick(&mut self, now: Now, out: &mut Output<C>) {
        self.pass_silence(now, out);
        self.is_behind = self.services.advance(now.uptime_ms, ADVANCE_MAX.0);
        self.services.go_on_counting();
        self.look_at_storage(now);
        self.go_on_granting(now);
        self.give_up_waiting(now, out);
        self.go_on_answering(now, out);
        self.tell_waiting(now, out);
        self.go_on_searching(now, out);
        self.tell_watchers(now, out);
    }

    /// Whether it is time for [`clean_up`](Self::clean_up).
    pub fn is_cleanup_due(&self, now: Now) -> bool {
        // Only when all are known that have run out.
        now.uptime_ms >= self.cleanup_at_ms && !self.is_behind && !self.changes.mass.is_granting()
    }

    /// Has all critical services removed that are still critical when their turn has come. Heartbeats that have arrived
    /// are to be handed in first.
    pub fn clean_up(&mut self, now: Now) {
        self.cleanup_at_ms = now.uptime_ms + self.policy.cleanup_interval_ms;
        let last = self.judge_mass(now);
        self.changes.upkeep.sweep_to(last);
    }

    /// When [`tick`](Self::tick), [`clean_up`](Self::clean_up) or [`next_group`](Self::next_group) has something to
    /// do next, on the clock that deadlines go by.
    pub fn wake_at_ms(&self) -> u64 {
        let is_busy =
            self.is_behind || self.is_searching() || self.lists.is_making() || self.changes.mass.is_granting();
        if is_busy || self.has_put_off() || self.changes.is_ready() {
            return 0;
        }
        let others = [self.changes.wake_at_ms(), self.waiting.wake_at_ms(), self.watchers_wake_at_ms()];
        others.into_iter().flatten().fold(self.cleanup_at_ms, u64::min)
    }

    /// Whether there is a piece of work that [`tick`](Self::tick) or [`continue_lists`](Self::continue_lists) can do at
    /// once.
    pub fn is_busy(&self) -> bool {
        let is_behind = self.has_put_off() || self.services.is_counting();
        is_behind || self.is_making_list() || self.is_searching() || self.has_news()
    }

    /// Whether a search is under way, which [`tick`](Self::tick) goes on with: the sooner the better.
    pub fn is_searching(&self) -> bool {
        !self.searches.is_idle()
    }

    /// Makes the heartbeats due that gather: the host is about to stop.
    pub fn hurry(&mut self) {
        self.changes.upkeep.hurry();
    }

    /// Whether nothing waits for the store.
    pub fn is_idle(&self) -> bool {
        self.changes.is_idle()
    }

    /// The reply to somebody who is not allowed to do what they want, which operators are told of.
    fn forbid(&self, principal: Principal, what: &str, out: &mut Output<C>) -> Reply {
        let what = &*cut(what, FORBIDDEN_SHOWN_MAX);
        out.forbidden.push(Forbidden { principal, what: what.to_string() });
        Reply::failure(Code::Forbidden, "Not allowed")
            .text("message", &format!("{} is not allowed {what}", principal.proof()))
    }

    fn reply_deadline_ms(&self, now: Now) -> u64 {
        now.uptime_ms + self.policy.reply_timeout_ms
    }

    /// A new service's id: its name, lower case, spaces to dashes, and a random UUID.
    fn new_id(&mut self, name: &str) -> Arc<str> {
        let uuid = uuid::Builder::from_random_bytes(self.rng.random()).into_uuid();
        format!("{}-{uuid}", name.to_lowercase().replace(' ', "-")).into()
    }

    /// Announces a change that takes effect now.
    fn announce(&mut self, kind: EventKind, service: &Service, revision: u64, told: Told, out: &mut Output<C>) {
        if kind == EventKind::Expire {
            self.changes.mass.note_removal();
        }
        self.revision = revision;
        if let Some(copying) = &mut self.copying {
            copying.note(service.id());
        }
        let event = self.note_change(kind, service, revision, told);
        out.events.push((event, None));
    }
}
