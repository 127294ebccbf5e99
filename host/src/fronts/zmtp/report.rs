//! What operators are told of clients that went too far: from where, what was done, and why.
//!
//! A line says it at once, and then every ten seconds at most. What is kept meanwhile is bounded, however many addresses
//! an attacker has.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The least time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);
/// How many addresses are told apart between two lines.
const ADDRESSES_MAX: usize = 1000;
/// How many of them a line names.
const NAMED_MAX: usize = 4;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Incident {
    /// A connection was not let in.
    Refused,
    /// A handshake came to nothing.
    Handshake,
    /// A request was not answered, since who asked did not prove who they are.
    Unproved,
    /// A client that had been let in was cut off.
    Dropped,
    /// A subscriber lost an event that waited for it.
    Missed,
}

impl Incident {
    /// The word by which operators count it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Incident::Refused => "refused",
            Incident::Handshake => "handshake_failed",
            Incident::Unproved => "request_refused",
            Incident::Dropped => "cut_off",
            Incident::Missed => "event_missed",
        }
    }

    fn shown(self, count: u64) -> &'static str {
        match (self, count) {
            (Incident::Refused, 1) => "connection refused",
            (Incident::Refused, _) => "connections refused",
            (Incident::Handshake, 1) => "handshake failed",
            (Incident::Handshake, _) => "handshakes failed",
            (Incident::Unproved, 1) => "request refused",
            (Incident::Unproved, _) => "requests refused",
            (Incident::Dropped, 1) => "connection cut off",
            (Incident::Dropped, _) => "connections cut off",
            (Incident::Missed, 1) => "event missed",
            (Incident::Missed, _) => "events missed",
        }
    }
}

/// What has happened since the last line.
#[derive(Debug, Default)]
pub struct Report {
    /// By address; no address is a Unix socket.
    news: HashMap<Option<IpAddr>, Tally>,
    /// At the addresses beyond those.
    beyond: Tally,
    told_at: Option<Instant>,
    all: Arc<Incidents>,
}

/// All that has happened, wherever clients were.
#[derive(Debug, Default)]
pub(crate) struct Incidents(Mutex<Tally>);

impl Incidents {
    /// How often what has happened, and why.
    pub(crate) fn all(&self) -> Vec<(Incident, &'static str, u64)> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).0.clone()
    }
}

/// How often what has happened. There are a few kinds and reasons, so the list is short.
#[derive(Debug, Default)]
struct Tally(Vec<(Incident, &'static str, u64)>);

impl Report {
    /// Nothing has happened yet; what does is counted here, too.
    pub(crate) fn counted_by(all: Arc<Incidents>) -> Self {
        Report { all, ..Report::default() }
    }

    /// Takes note of something. `reason` is one of a few.
    pub fn note(&mut self, address: Option<IpAddr>, incident: Incident, reason: &'static str, count: u64) {
        let is_known = self.news.len() < ADDRESSES_MAX || self.news.contains_key(&address);
        let tally = if is_known { self.news.entry(address).or_default() } else { &mut self.beyond };
        tally.add(incident, reason, count);
        self.all.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(incident, reason, count);
    }

    /// A line, if there is something new and it is time for it. The addresses with the most come first.
    pub fn line(&mut self, now: Instant) -> Option<String> {
        if self.news.is_empty() || self.told_at.is_some_and(|at| now.duration_since(at) < INTERVAL) {
            return None;
        }
        self.told_at = Some(now);
        let mut news: Vec<_> = self.news.drain().collect();
        news.sort_by_key(|(address, tally)| (std::cmp::Reverse(tally.count()), *address));
        let mut others = std::mem::take(&mut self.beyond);
        let more = if others.0.is_empty() { "" } else { "more than " };
        let unnamed = news.len().saturating_sub(NAMED_MAX);
        news.iter().skip(NAMED_MAX).for_each(|(_, tally)| others.add_all(tally));
        let mut parts: Vec<String> = news.iter().take(NAMED_MAX).map(|(address, tally)| at(*address, tally)).collect();
        match unnamed {
            0 => {}
            1 => parts.push(format!("1 other: {others}")),
            _ => parts.push(format!("{more}{unnamed} others: {others}")),
        }
        Some(parts.join("; "))
    }
}

fn at(address: Option<IpAddr>, tally: &Tally) -> String {
    match address {
        Some(address) => format!("{address}: {tally}"),
        None => format!("on a Unix socket: {tally}"),
    }
}

impl Tally {
    fn add(&mut self, incident: Incident, reason: &'static str, more: u64) {
        match self.0.iter_mut().find(|(known, why, _)| (*known, *why) == (incident, reason)) {
            Some((.., count)) => *count += more,
            None => self.0.push((incident, reason, more)),
        }
    }

    fn add_all(&mut self, other: &Tally) {
        other.0.iter().for_each(|(incident, reason, count)| self.add(*incident, reason, *count));
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|(.., count)| count).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (incident, reason, count)) in self.0.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}{count} {} ({reason})", incident.shown(*count))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4((0x0a00_0000 + number).into()))
    }

    #[test]
    fn a_line_says_who_what_and_why() {
        let mut report = Report::default();
        report.note(address(7), Incident::Handshake, "not ZeroMQ", 1);
        report.note(None, Incident::Missed, "reads too slowly", 30);
        report.note(address(7), Incident::Handshake, "not ZeroMQ", 1);
        report.note(address(7), Incident::Dropped, "silent", 1);
        let line = report.line(Instant::now()).unwrap();
        let expected = "on a Unix socket: 30 events missed (reads too slowly); \
                        10.0.0.7: 2 handshakes failed (not ZeroMQ), 1 connection cut off (silent)";
        assert_eq!(line, expected);
    }

    #[test]
    fn operators_are_told_at_once_and_then_now_and_then() {
        let (mut report, start) = (Report::default(), Instant::now());
        assert_eq!(report.line(start), None);
        report.note(address(1), Incident::Dropped, "silent", 1);
        assert_eq!(report.line(start).unwrap(), "10.0.0.1: 1 connection cut off (silent)");
        report.note(address(1), Incident::Dropped, "silent", 2);
        assert_eq!(report.line(start + INTERVAL / 2), None);
        assert_eq!(report.line(start + INTERVAL).unwrap(), "10.0.0.1: 2 connections cut off (silent)");
        assert_eq!(report.line(start + INTERVAL * 9), None);
    }

    #[test]
    fn many_addresses_are_summed_up() {
        let mut report = Report::default();
        for number in 0..5 {
            report.note(address(number), Incident::Refused, "too many", 10 - u64::from(number));
        }
        let line = report.line(Instant::now()).unwrap();
        assert!(line.starts_with("10.0.0.0: 10 connections refused (too many); 10.0.0.1: 9 "), "{line}");
        assert!(
            line.ends_with("10.0.0.3: 7 connections refused (too many); 1 other: 6 connections refused (too many)")
        );
        report = Report::default();
        for number in 0..3000 {
            report.note(address(number), Incident::Refused, "too many", 1);
        }
        assert_eq!(report.news.len(), ADDRESSES_MAX);
        let line = report.line(Instant::now()).unwrap();
        assert!(line.ends_with("; more than 996 others: 2996 connections refused (too many)"), "{line}");
        assert!(line.len() < 300, "{line}");
    }
}
