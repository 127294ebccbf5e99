//! How much each client may have, and how often it may ask: the operator's quotas.
//!
//! Whether there is a place for one more service is judged where ownership is: against the services plus what the group
//! changes before it, and once more when it lands. A service that registers again needs no place, be its client over
//! its quota since that was lowered: nobody loses what it has by it.
//!
//! Heartbeats are never refused for being too many: a client that is refused one takes its service for lost and
//! registers again, so a fleet behind one address would end each other's services. What they cost is bounded by how many
//! services a client may have, and by `limits.requests_per_second`, which lets them wait.

use std::collections::HashMap;
use std::sync::Arc;

use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::Request;
use crate::registry::Registry;
use crate::registry::changes::REGISTER_FAILED;
use crate::registry::moment::Now;
use crate::security::origin::{Holder, Origin};
use crate::security::quota::{Quota, Quotas, Rate};

/// Of how many clients it is known at most that they have asked not long ago.
const BUCKETS_MAX: usize = 65_536;
/// There is at most one line for each quota in this time, in milliseconds.
const INTERVAL_MS: u64 = 1000;

/// What is known of clients and their quotas, besides their services.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// How often who may ask.
    quotas: Arc<Quotas>,
    buckets: HashMap<Holder, Bucket>,
    refused: HashMap<Arc<str>, Refused>,
    news: Vec<Exceeded>,
}

/// How often one client may ask now.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    left: f64,
    at_ms: u64,
}

/// What was refused by a quota.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    /// Services, and requests.
    counts: [u64; 2],
    told_at_ms: Option<u64>,
    /// How many refusals have had no line.
    untold: u64,
}

/// A client was refused something that is more than it may have, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Who, and from where.
    pub origin: Origin,
    /// The name of the quota.
    pub quota: Arc<str>,
    /// What it allows: "100 services".
    pub allows: String,
    /// How often it has refused something since the last line.
    pub before: u64,
}

impl Bucket {
    fn full(rate: Rate, now_ms: u64) -> Self {
        Bucket { rate, left: rate.burst, at_ms: now_ms }
    }

    fn fill(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        self.left = (self.left + passed_ms as f64 / 1000.0 * self.rate.per_second).min(self.rate.burst);
        self.at_ms = now_ms.max(self.at_ms);
    }

    /// Takes one, or says in how many milliseconds there will be one.
    fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        self.fill(now_ms);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(((1.0 - self.left) / self.rate.per_second * 1000.0).ceil() as u64)
    }

    fn is_full(&self, now_ms: u64) -> bool {
        let mut bucket = *self;
        bucket.fill(now_ms);
        bucket.left >= bucket.rate.burst
    }
}

impl Bounds {
    /// The quotas.
    pub(super) fn quotas(&self) -> &Arc<Quotas> {
        &self.quotas
    }

    /// Takes a request of this client, or says which quota is in the way, and for how many milliseconds.
    fn ask(&mut self, holder: Holder, now_ms: u64) -> Result<(), (Arc<Quota>, u64)> {
        let Some(quota) = self.quotas.of_requests(&holder) else { return Ok(()) };
        let Some(rate) = quota.requests else { return Ok(()) };
        if self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&holder) {
            // One that is full is as good as none.
            self.buckets.retain(|_, bucket| !bucket.is_full(now_ms));
            if self.buckets.len() > BUCKETS_MAX / 4 * 3 {
                // Whoever has so many addresses needs no patience with any of them.
                self.buckets.clear();
            }
        }
        let bucket = self.buckets.entry(holder).or_insert_with(|| Bucket::full(rate, now_ms));
        bucket.take(now_ms).map_err(|wait_ms| (quota.clone(), wait_ms))
    }

    /// Something was refused by a quota: a request, or a service.
    fn note(&mut self, name: &Arc<str>, allows: String, is_request: bool, origin: Origin, now: Now) {
        let Some(refused) = self.refused.get_mut(name) else { return };
        refused.counts[usize::from(is_request)] += 1;
        if refused.told_at_ms.is_some_and(|at_ms| now.uptime_ms.saturating_sub(at_ms) < INTERVAL_MS) {
            refused.untold += 1;
            return;
        }
        refused.told_at_ms = Some(now.uptime_ms);
        let before = std::mem::take(&mut refused.untold);
        self.news.push(Exceeded { origin, quota: name.clone(), allows, before });
    }
}

impl<C> Registry<C> {
    /// Sets how much each client may have from now on. Whoever has more keeps it.
    pub fn set_quotas(&mut self, quotas: Quotas) {
        let quotas = Arc::new(quotas);
        let before = std::mem::take(&mut self.bounds.refused);
        let kept = |name: Arc<str>| {
            let refused = before.get(&name).copied().unwrap_or_default();
            (name, refused)
        };
        self.bounds.refused = quotas.names().into_iter().map(kept).collect();
        self.bounds.buckets.clear();
        self.bounds.quotas = quotas.clone();
        self.services.set_quotas(quotas);
    }

    /// Whether a client may ask this now, as far as it depends on how often it has asked; `None` stands for what cannot
    /// be read. To be called once for each request that comes from a client.
    ///
    /// # Errors
    /// The reply that refuses it.
    pub fn admit(&mut self, origin: Origin, request: Option<&Request>, now: Now) -> Result<(), Reply> {
        // Who looks after the host, and who only says that a service lives, is never told that it asks too often.
        let is_free = matches!(request, Some(Request::Health | Request::Renew { .. } | Request::RenewMany(_)));
        if is_free || self.is_starting {
            return Ok(());
        }
        let Err((quota, wait_ms)) = self.bounds.ask(origin.holder(), now.uptime_ms) else { return Ok(()) };
        let rate = quota.requests.map_or(0.0, |rate| rate.per_second);
        let allows = format!("{rate} requests a second");
        let message = format!("the quota {:?} allows {} {allows}", &*quota.name, subject(&origin));
        self.bounds.note(&quota.name, allows, true, origin, now);
        let refusal = Reply::failure(Code::TooManyRequests, "Too many requests").text("message", &message);
        let limit = serde_json::Number::from_f64(rate).map_or_else(Default::default, serde_json::Value::Number);
        Err(refusal.text("quota", &quota.name).json("limit", &limit).retry_after(wait_ms))
    }

    /// Takes what was refused since the last time, for operators.
    pub fn take_exceeded(&mut self) -> Vec<Exceeded> {
        std::mem::take(&mut self.bounds.news)
    }

    /// A registration was refused by this quota.
    pub(super) fn note_over_quota(&mut self, quota: &Quota, origin: Origin, now: Now) {
        self.bounds.note(&quota.name, allowed(quota), false, origin, now);
    }

    /// How many services and how many requests each quota has refused, by its name.
    pub(super) fn refused_by_quota(&self) -> Vec<(Arc<str>, [u64; 2])> {
        let all = self.bounds.refused.iter();
        let mut all: Vec<_> = all.map(|(name, refused)| (name.clone(), refused.counts)).collect();
        all.sort_unstable();
        all
    }

    /// How many services a client has registered. All that count as one client have them together.
    pub fn services_of(&self, holder: &Holder) -> usize {
        self.services.of_holder(holder)
    }
}

/// The reply to whoever has as many services as it may.
pub(super) fn over_quota(quota: &Quota, origin: &Origin, has: usize) -> Reply {
    let (allows, subject) = (allowed(quota), subject(origin));
    let message = format!("the quota {:?} allows {subject} {allows} at once, and it has {has}", &*quota.name);
    let limit = quota.services.unwrap_or_default() as u64;
    Reply::failure(Code::QuotaExceeded, REGISTER_FAILED)
        .text("message", &message)
        .text("quota", &quota.name)
        .number("limit", limit)
}

fn allowed(quota: &Quota) -> String {
    let count = quota.services.unwrap_or_default();
    let of_types = if quota.types.is_empty() { "" } else { " of these types" };
    format!("{count} service{}{of_types}", if count == 1 { "" } else { "s" })
}

/// Who is bounded, as it knows itself.
fn subject(origin: &Origin) -> &'static str {
    match origin.holder() {
        Holder::Network(_) | Holder::Unknown => "this address",
        Holder::Ipc => "the Unix sockets of this machine",
        _ => origin.principal.proof(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_up_to_its_burst() {
        let mut bucket = Bucket::full(Rate { per_second: 2.0, burst: 3.0 }, 1000);
        assert_eq!([(); 4].map(|()| bucket.take(1000)), [Ok(()), Ok(()), Ok(()), Err(500)]);
        assert_eq!((bucket.take(1400), bucket.take(1500), bucket.take(1500)), (Err(100), Ok(()), Err(500)));
        assert_eq!(bucket.take(1200), Err(500), "a clock that is behind fills nothing");
        assert!(!bucket.is_full(2999) && bucket.is_full(3000));
        assert_eq!([(); 4].map(|()| bucket.take(1_000_000)), [Ok(()), Ok(()), Ok(()), Err(500)]);
    }

    #[test]
    fn no_more_clients_are_known_than_there_is_room_for() {
        use crate::security::quota::Whose;
        let quota = |per_second| Quota {
            name: "q".into(),
            clients: vec![Whose::Everybody],
            services: None,
            types: Vec::new(),
            requests: Some(Rate { per_second, burst: 1.0 }),
        };
        let at = |number: usize| Holder::Network(std::net::Ipv4Addr::from_bits(number as u32).into());
        let half = BUCKETS_MAX / 2;
        for (per_second, left) in [(1000.0, half + 1), (0.001, 1)] {
            let quotas = Arc::new(Quotas::new(vec![quota(per_second)]));
            let mut bounds = Bounds { quotas, ..Bounds::default() };
            assert!((0..half).all(|number| bounds.ask(at(number), 0).is_ok()));
            assert!((half..BUCKETS_MAX).all(|number| bounds.ask(at(number), 10).is_ok()));
            assert!(bounds.ask(at(half), 10).is_err() && bounds.buckets.len() == BUCKETS_MAX);
            assert!(bounds.ask(at(BUCKETS_MAX), 10).is_ok());
            assert_eq!(bounds.buckets.len(), left, "{per_second}");
        }
    }
}
