//! A backup on its way in: one at a time, kept in memory as long as its client sends on, and no longer than all services of
//! the registry may be.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use registry_plugin_api::Record;

use crate::protocol::registration::{cut, invalid_value};
use crate::protocol::reply::{Code, Reply};
use crate::protocol::restore::Restored;
use crate::registry::Registry;
use crate::security::origin::Holder;

/// After so long without a part an upload is given up.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// And after so long in all, so that nobody can keep all others from sending one.
const ALL_MAX: Duration = Duration::from_secs(600);
/// How much of an id is shown, in characters.
const ID_SHOWN_MAX: usize = 80;

/// A backup on its way in.
pub(crate) struct Upload {
    name: String,
    by: Holder,
    /// Which part comes next, and what the one before looked like.
    next: u64,
    last: u64,
    records: Vec<Record>,
    ids: HashSet<String>,
    /// How much memory the services will take, in bytes.
    bytes: usize,
    began: Instant,
    /// When the last part came.
    at: Instant,
}

impl Upload {
    /// Takes a part, whose services may take up to `bytes_max` of memory with those before. What is wrong with it ends the
    /// upload; so does another one by the same client, of whatever name.
    pub(super) fn take(
        current: &mut Option<Upload>,
        (name, by): (String, Holder),
        part: u64,
        services: Vec<Restored>,
        bytes_max: usize,
    ) -> Reply {
        Upload::drop_overdue(current);
        let looks = looks(&services);
        if part == 0 {
            current.take_if(|upload| upload.by == by && !(upload.name == name && upload.has_taken(part, looks)));
        }
        match current {
            Some(upload) if upload.is(&name, by) => {}
            Some(upload) if part == 0 => {
                let seconds = IDLE_MAX.saturating_sub(upload.at.elapsed()).as_secs() + 1;
                let message = format!("another backup is being sent; it is given up after {seconds} s without a part");
                return Reply::failure(Code::Overloaded, "Too many requests").text("message", &message);
            }
            None if part == 0 => {
                let (records, ids, began) = (Vec::new(), HashSet::new(), Instant::now());
                *current = Some(Upload { name, by, next: 0, last: 0, records, ids, bytes: 0, began, at: began });
            }
            _ => return unknown(),
        }
        let Some(upload) = current else { return unknown() };
        upload.at = Instant::now();
        let reply = |upload: &Upload| {
            let reply = Reply::success().text("upload", &upload.name).number("part", part);
            reply.number("services", upload.records.len() as u64)
        };
        if upload.has_taken(part, looks) {
            // The client has not seen the reply, and sends it again.
            return reply(upload);
        }
        if part != upload.next {
            return invalid_value("part", &upload.next.to_string(), &part.to_string());
        }
        for (place, service) in services.into_iter().enumerate() {
            if let Err(refusal) = upload.add(service, bytes_max) {
                *current = None;
                return refusal.number("item", place as u64);
            }
        }
        (upload.next, upload.last) = (part + 1, looks);
        reply(upload)
    }

    fn is(&self, name: &str, by: Holder) -> bool {
        self.name == name && self.by == by
    }

    /// Whether this part, which looks so, is the one that was taken last.
    fn has_taken(&self, part: u64, looks: u64) -> bool {
        part + 1 == self.next && looks == self.last
    }

    fn add(&mut self, service: Restored, bytes_max: usize) -> Result<(), Reply> {
        let record = record(service);
        let shown = cut(&record.id, ID_SHOWN_MAX).into_owned();
        let wrong = |problem: &str| {
            Reply::failure(Code::InvalidRequest, &format!("Invalid value for services: {shown:?} {problem}"))
        };
        if !self.ids.insert(record.id.clone()) {
            return Err(wrong("is there already"));
        }
        self.bytes +=
            Registry::<()>::memory_of(record.clone()).map_err(|problem| wrong(&format!("is none: {problem}")))?;
        if self.bytes > bytes_max {
            let message = "the services of the backup take more memory than limits.services_bytes allows";
            return Err(Reply::failure(Code::Overloaded, super::FAILED).text("message", message));
        }
        self.records.push(record);
        Ok(())
    }

    /// Ends the upload by this client that has this name and so many services, for a registry that has services itself, which it
    /// `replaces` or not. `Ok` takes nothing yet.
    pub(super) fn end(
        current: &mut Option<Upload>,
        (name, by): (&str, Holder),
        total: u64,
        there: usize,
        replaces: bool,
    ) -> Result<Upload, Reply> {
        Upload::drop_overdue(current);
        let Some(upload) = current.as_ref().filter(|upload| upload.is(name, by)) else { return Err(unknown()) };
        let count = upload.records.len();
        if count as u64 != total {
            let expected = format!("{count}, as many as the parts have");
            return Err(invalid_value("total", &expected, &total.to_string()));
        }
        if there > 0 && !replaces {
            let present = crate::text::counted(there, "service is", "services are");
            let message = format!("{present} in the registry already; replace puts the backup in their place");
            return Err(Reply::failure(Code::InvalidRequest, super::FAILED).text("message", &message));
        }
        current.take().ok_or_else(unknown)
    }

    /// Gives up an upload that does not go on, or does not end.
    pub(super) fn drop_overdue(current: &mut Option<Upload>) {
        let is_overdue = |upload: &mut Upload| upload.at.elapsed() > IDLE_MAX || upload.began.elapsed() > ALL_MAX;
        if current.take_if(is_overdue).is_some() {
            tracing::warn!(
                "a backup that was being sent is given up: nothing has come of it for {} s, or it has no end after {} s",
                IDLE_MAX.as_secs(),
                ALL_MAX.as_secs()
            );
        }
    }

    /// All records, as a store keeps them.
    pub(super) fn into_records(self) -> Vec<Record> {
        self.records
    }
}

/// What tells a part that is sent again from another one.
fn looks(services: &[Restored]) -> u64 {
    let mut hasher = DefaultHasher::new();
    services.iter().for_each(|service| service.document.hash(&mut hasher));
    hasher.finish()
}

/// A service of a backup, as a store keeps it.
pub(crate) fn record(Restored { registration, last_heartbeat, document }: Restored) -> Record {
    let mut record = Record::new(registration.id.unwrap_or_default(), document);
    record.types = registration.types;
    record.ttl_ms = registration.ttl_ms;
    record.last_heartbeat_ms = last_heartbeat.saturating_mul(1000);
    record
}

fn unknown() -> Reply {
    let message = "it was given up, another one was begun, or the registry was started again: begin with part 0";
    Reply::failure(Code::NotFound, "There is no such upload").text("message", message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::request::Limits;

    fn services(ids: &[&str]) -> Vec<Restored> {
        let service = |id: &&str| json!({"id": id, "name": "n", "host": "h", "port": 1}).to_string();
        ids.iter().map(|id| Restored::read(&service(id), &Limits::default()).unwrap()).collect()
    }

    /// What `by` is told who sends a part of the upload `name`.
    fn take(current: &mut Option<Upload>, name: &str, by: Holder, part: u64, ids: &[&str], bytes_max: usize) -> Value {
        let reply = Upload::take(current, (name.into(), by), part, services(ids), bytes_max);
        serde_json::from_str(&reply.finish(None).into_text()).unwrap()
    }

    #[test]
    fn others_wait_until_an_upload_is_given_up_and_its_own_client_may_begin_anew() {
        let (one, other, max) = (Holder::Ipc, Holder::Unknown, usize::MAX);
        let current = &mut None;
        assert_eq!(take(current, "a", one, 0, &["s", "t"], max)["services"], 2);
        assert_eq!(take(current, "b", other, 0, &["u"], max)["code"], "overloaded");
        assert_eq!(take(current, "a", one, 1, &["u"], max)["services"], 3);
        current.as_mut().unwrap().at = Instant::now().checked_sub(IDLE_MAX + Duration::from_secs(1)).unwrap();
        assert_eq!(take(current, "b", other, 0, &["u"], max)["services"], 1);
        assert_eq!(take(current, "a", one, 2, &["v"], max)["code"], "not_found", "it is given up");
        assert_eq!(take(current, "c", other, 0, &[], max)["services"], 0);
        assert_eq!(take(current, "b", other, 1, &[], max)["code"], "not_found");
    }

    #[test]
    fn an_upload_is_its_clients_own_and_begins_anew_with_another_first_part() {
        let (one, other, max) = (Holder::Ipc, Holder::Unknown, usize::MAX);
        let current = &mut None;
        assert_eq!(take(current, "u", one, 0, &["a", "b"], max)["services"], 2);
        assert_eq!(take(current, "u", other, 0, &["x"], max)["code"], "overloaded", "of the same name");
        assert_eq!(take(current, "u", other, 1, &["x"], max)["code"], "not_found");
        assert!(Upload::end(current, ("u", other), 2, 0, false).is_err());
        assert_eq!(take(current, "u", one, 0, &["a", "b"], max)["services"], 2, "sent again");
        assert_eq!(take(current, "u", one, 0, &["a"], max)["services"], 1, "begun anew");
        assert_eq!(take(current, "u", one, 1, &["b"], max)["services"], 2);
        assert_eq!(take(current, "u", one, 1, &["c"], max)["code"], "invalid_request", "it is another");
        assert_eq!(take(current, "u", one, 0, &["a"], max)["services"], 1);
        assert_eq!(Upload::end(current, ("u", one), 1, 0, false).ok().unwrap().into_records()[0].id, "a");
    }

    #[test]
    fn an_upload_without_end_is_given_up() {
        let current = &mut None;
        let max = usize::MAX;
        assert_eq!(take(current, "u", Holder::Ipc, 0, &[], max)["services"], 0);
        current.as_mut().unwrap().began = Instant::now().checked_sub(ALL_MAX + Duration::from_secs(1)).unwrap();
        assert_eq!(take(current, "u", Holder::Ipc, 1, &[], max)["code"], "not_found");
        assert_eq!(take(current, "v", Holder::Unknown, 0, &[], max)["services"], 0);
    }

    #[test]
    fn an_upload_takes_no_more_memory_than_all_services_may() {
        let current = &mut None;
        let bytes = Registry::<()>::memory_of(record(services(&["s"]).remove(0))).unwrap();
        assert_eq!(take(current, "a", Holder::Ipc, 0, &["s", "t"], 2 * bytes)["services"], 2);
        let refused = take(current, "a", Holder::Ipc, 1, &["u"], 2 * bytes);
        assert_eq!((&refused["code"], &refused["item"]), (&json!("overloaded"), &json!(0)));
        assert!(current.is_none(), "nothing of it is kept");
    }
}
