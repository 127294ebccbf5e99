//! Mass expiry: many services that run out together are more likely cut off than dead.
//!
//! If a clean-up would remove more than a set share of all services, they are held instead: critical, discovered
//! nowhere, and back with their next heartbeat. No more of them than that share are removed while the hold lasts, those
//! first that have been silent for longest; what is left at its end goes as usual. It ends by itself when enough are
//! back, and an operator can end it either way.
//!
//! If no service at all has been heard of for a while, though heartbeats were due, the host looks at itself first: nobody is
//! judged, and when one is heard of again that time is given to everybody on top. What shows that is a heartbeat that succeeds, or a
//! registration that its client may make. What others ask is no sign of life: an operator beside the host reaches it also
//! when it is cut off, and so does a stranger who beats for nobody.

use serde_json::json;

use crate::protocol::event::Notice;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::Expiry;
use crate::registry::Registry;
use crate::registry::changes::silence::Silence;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::services::Grant;
use crate::registry::slots::Slot;

/// Fewer than this are no mass, whatever share they are.
const MASS_MIN: usize = 10;
/// In how many steps services are removed while a mass expiry lasts.
const STEPS: u64 = 30;
/// How many services are given time at once.
const GRANTED_MAX: usize = 4096;
/// For how long a clean-up is put off at a time, in milliseconds.
const PUT_OFF_MS: u64 = 100;
/// The topic of the event.
const TOPIC: &str = "mass_expiry";

/// What is known of services that have run out together, and who is given time.
#[derive(Default)]
pub(in crate::registry) struct Mass {
    under_way: Option<UnderWay>,
    /// Up to which place critical services are to be kept.
    keeping: Option<u64>,
    /// From which slot on services are to be given time.
    granting: Option<(Slot, Grant)>,
    /// What is to be told, with the log's line.
    news: Vec<(Notice, String)>,
    silence: Silence,
    /// How many mass expiries have begun.
    begun: u64,
}

/// A mass expiry that is under way.
struct UnderWay {
    since: Now,
    /// How many had run out at most, those among them that were removed.
    most: usize,
    removed: usize,
}

/// Why a mass expiry is over.
#[derive(Clone, Copy)]
enum End {
    Returned,
    HoldOver,
    Asked(Expiry),
    Restored,
}

impl Mass {
    /// Whether services are being given time.
    pub(in crate::registry) fn is_granting(&self) -> bool {
        self.keeping.is_some() || self.granting.is_some()
    }

    /// How many mass expiries have begun, and whether one is under way.
    pub(in crate::registry) fn begun(&self) -> (u64, bool) {
        (self.begun, self.under_way.is_some())
    }

    /// A service has expired.
    pub(in crate::registry) fn note_removal(&mut self) {
        if let Some(mass) = &mut self.under_way {
            mass.removed += 1;
        }
    }
}

impl<C> Registry<C> {
    /// Up to which place critical services are to be removed by a clean-up now.
    pub(in crate::registry) fn judge_mass(&mut self, now: Now) -> Option<u64> {
        let (last, critical) = (self.services.last_critical(), self.services.critical_len());
        let Some(mass) = &mut self.changes.mass.under_way else {
            // Those that are being removed have been judged, however long the store takes for it.
            if let Some(last) = self.changes.upkeep.sweeping_to() {
                return Some(last);
            }
            if !self.is_mass(critical, self.services.len()) {
                return last;
            }
            if self.changes.is_expiring() {
                // Some of these are gone already.
                self.cleanup_at_ms = now.uptime_ms + PUT_OFF_MS;
                return None;
            }
            self.changes.mass.under_way = Some(UnderWay { since: now, most: critical, removed: 0 });
            self.changes.mass.begun += 1;
            self.tell_begin(critical, now);
            self.step_up(now.uptime_ms, now);
            return None;
        };
        mass.most = mass.most.max(critical + mass.removed);
        let (since_ms, removed) = (mass.since.uptime_ms, mass.removed);
        // Removed ones are not back: what is removed at the capped rate must not end it.
        if !self.is_mass(critical + removed, self.services.len() + removed) {
            self.end_mass(End::Returned, now);
            return last;
        }
        let (passed_ms, hold_ms) = (now.uptime_ms - since_ms, self.policy.mass_expiry_hold_ms);
        if passed_ms >= hold_ms {
            self.end_mass(End::HoldOver, now);
            return last;
        }
        self.step_up(since_ms, now);
        let share = self.policy.mass_expiry_share * (self.services.len() + removed) as f64;
        let allowed = share * passed_ms as f64 / hold_ms as f64;
        self.services.critical_place((allowed as usize).saturating_sub(removed))
    }

    fn is_mass(&self, critical: usize, all: usize) -> bool {
        let share = self.policy.mass_expiry_share;
        share > 0.0 && critical >= MASS_MIN && critical as f64 > share * all as f64
    }

    /// Has the next clean-up come sooner, while a mass expiry lasts.
    fn step_up(&mut self, since_ms: u64, now: Now) {
        let hold_ms = self.policy.mass_expiry_hold_ms;
        let step_ms = now.uptime_ms + (hold_ms / STEPS).max(1);
        self.cleanup_at_ms = self.cleanup_at_ms.min(step_ms).min(since_ms + hold_ms);
    }

    /// Ends a mass expiry as an operator wants it.
    pub(in crate::registry) fn end_by(&mut self, way: Expiry, now: Now, out: &mut Output<C>) -> Reply {
        let is_silent = self.changes.mass.silence.puts_off(self.policy.mass_expiry_hold_ms);
        if self.changes.mass.under_way.is_none() && !is_silent {
            return Reply::failure(Code::NotFound, "No mass expiry is under way");
        }
        let (last, critical) = (self.services.last_critical(), self.services.critical_len());
        self.end_mass(End::Asked(way), now);
        self.cleanup_at_ms = now.uptime_ms + self.policy.cleanup_interval_ms;
        match way {
            Expiry::Remove => self.changes.upkeep.sweep_to(last),
            Expiry::Keep => {
                self.changes.upkeep.sweep_to(None);
                self.changes.mass.keeping = last;
                self.go_on_granting(now);
            }
        }
        self.tell_news(out);
        Reply::success().text("mass_expiry", way.as_str()).number("critical", critical as u64)
    }

    /// All services are about to be others: nothing is expected of those any more.
    pub(in crate::registry) fn end_mass_of_all(&mut self, now: Now) {
        self.end_mass(End::Restored, now);
        (self.changes.mass.keeping, self.changes.mass.granting) = (None, None);
    }

    fn tell_begin(&mut self, critical: usize, now: Now) {
        let (all, hold) = (self.services.len(), self.policy.mass_expiry_hold_ms as f64 / 1000.0);
        let line = format!(
            "mass expiry: {critical} of {all} services have run out together; they are critical, and held for up to \
             {hold} s: `registry expiry remove` or `registry expiry keep` ends it"
        );
        let event = json!({
            "type": TOPIC,
            "timestamp": now.unix_seconds(),
            "state": "begun",
            "critical": critical,
            "services": all,
        });
        self.changes.mass.news.push((Notice { topic: TOPIC, json: event.to_string() }, line));
    }

    fn end_mass(&mut self, end: End, now: Now) {
        let Some(UnderWay { since, most, removed }) = self.changes.mass.under_way.take() else { return };
        let (critical, all) = (self.services.critical_len(), self.services.len());
        let returned = most.saturating_sub(critical + removed);
        let (reason, why) = match end {
            End::Returned => ("returned", "enough are back"),
            End::HoldOver => ("hold_over", "its time is over, and the rest is removed"),
            End::Restored => ("restored", "a backup has taken their place"),
            End::Asked(Expiry::Remove) => ("remove", "an operator has the rest removed"),
            End::Asked(Expiry::Keep) => ("keep", "an operator keeps the rest for another ttl"),
        };
        let seconds = (now.uptime_ms - since.uptime_ms) as f64 / 1000.0;
        let line = format!(
            "the mass expiry is over after {seconds:.1} s, {why}: {returned} came back, {removed} were removed, \
             {critical} of {all} services are still critical"
        );
        let event = json!({
            "type": TOPIC,
            "timestamp": now.unix_seconds(),
            "state": "ended",
            "reason": reason,
            "critical": critical,
            "services": all,
            "removed": removed,
            "returned": returned,
        });
        self.changes.mass.news.push((Notice { topic: TOPIC, json: event.to_string() }, line));
    }

    /// Whether no service is heard of, though heartbeats are due.
    pub(in crate::registry) fn is_silent(&self) -> bool {
        self.changes.mass.silence.lasts(self.policy.mass_expiry_hold_ms).is_some()
    }

    /// How long services are held at most that run out together, in milliseconds.
    pub fn mass_expiry_hold_ms(&self) -> u64 {
        self.policy.mass_expiry_hold_ms
    }

    /// Hands out what is to be told.
    pub(in crate::registry) fn tell_news(&mut self, out: &mut Output<C>) {
        out.notices.append(&mut self.changes.mass.news);
    }

    /// What `health` says of a mass expiry that is under way, or of a silence.
    pub(in crate::registry) fn with_mass_expiry(&self, reply: Reply, now: Now) -> Reply {
        let silent_ms = self.changes.mass.silence.lasts(self.policy.mass_expiry_hold_ms);
        let reply = match silent_ms {
            Some(ms) => reply.json("silence", &json!({"since": now.unix_ms.saturating_sub(ms) / 1000})),
            None => reply,
        };
        let Some(UnderWay { since, removed, .. }) = &self.changes.mass.under_way else { return reply };
        let critical = self.services.critical_len();
        let shown = json!({"since": since.unix_seconds(), "critical": critical, "removed": removed});
        reply.json("mass_expiry", &shown)
    }

    /// Time passes. Clean-ups that are due wait while no service is heard of.
    pub(in crate::registry) fn pass_silence(&mut self, now: Now, out: &mut Output<C>) {
        // Of fewer nothing is expected.
        let counts = self.policy.mass_expiry_share > 0.0;
        let ttl_ms = self.services.short_ttl_ms(MASS_MIN).filter(|_| counts);
        self.changes.mass.silence.pass(ttl_ms, now.uptime_ms);
        if self.changes.mass.silence.puts_off(self.policy.mass_expiry_hold_ms) {
            self.cleanup_at_ms = self.cleanup_at_ms.max(now.uptime_ms + PUT_OFF_MS);
        }
        out.silent_ms = self.changes.mass.silence.news(self.policy.mass_expiry_hold_ms).or(out.silent_ms);
    }

    /// A service is heard of. If that ends a silence, everybody gets its time on top: no more than a mass expiry may last,
    /// from one of its heartbeats to the next, so that one that is gone does go.
    pub(in crate::registry) fn end_silence(&mut self, now: Now, out: &mut Output<C>) {
        self.pass_silence(now, out);
        let Some(since_ms) = self.changes.mass.silence.end() else { return };
        let (more_ms, most_ms) = (now.uptime_ms - since_ms, self.policy.mass_expiry_hold_ms);
        out.forgiven.push(more_ms);
        self.changes.mass.granting = Some((Slot::MIN, Grant { since_ms, more_ms, most_ms }));
        self.go_on_granting(now);
    }

    /// Gives time to some more of those that are to get it.
    pub(in crate::registry) fn go_on_granting(&mut self, now: Now) {
        let mut back = Vec::new();
        if let Some((next, grant)) = self.changes.mass.granting.take() {
            let next = self.services.grant(next, GRANTED_MAX, grant, now.uptime_ms, &mut back);
            self.changes.mass.granting = next.map(|next| (next, grant));
        }
        if let Some(last) = self.changes.mass.keeping.take() {
            let has_more = self.services.keep(last, GRANTED_MAX, now.uptime_ms, &mut back);
            self.changes.mass.keeping = has_more.then_some(last);
        }
        back.iter().for_each(|id| self.has_come(id));
    }
}
