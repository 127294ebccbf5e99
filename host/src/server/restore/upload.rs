//! A backup on its way in: one at a time, kept in memory as long as its client sends on, and no longer than all services of
//! the registry may be.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use registry_plugin_api::Record;

use crate::protocol::registration::cut;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::restore::Restored;
use crate::registry::Registry;
use crate::security::origin::Holder;

/// After so long without a part an upload is given up.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How much of an id is shown, in characters.
const ID_SHOWN_MAX: usize = 80;

/// A backup on its way in.
pub(crate) struct Upload {
    name: String,
    by: Holder,
    /// Which part comes next.
    next: u64,
    records: Vec<Record>,
    ids: HashSet<String>,
    /// How much memory the services will take, in bytes.
    bytes: usize,
    at: Instant,
}

impl Upload {
    /// Takes a part, whose services may take up to `bytes_max` of memory with those before. What is wrong with it ends the
    /// upload; so does another one by the same client.
    pub(super) fn take(
        current: &mut Option<Upload>,
        (name, by): (String, Holder),
        part: u64,
        services: Vec<Restored>,
        bytes_max: usize,
    ) -> Reply {
        Upload::drop_idle(current);
        if part == 0 {
            current.take_if(|upload| upload.name != name && upload.by == by);
        }
        match current {
            Some(upload) if upload.name == name => {}
            Some(upload) if part == 0 => {
                let seconds = IDLE_MAX.saturating_sub(upload.at.elapsed()).as_secs() + 1;
                let message = format!("another backup is being sent; it is given up after {seconds} s without a part");
                return Reply::failure(Code::Overloaded, "Too many requests").text("message", &message);
            }
            None if part == 0 => {
                let (records, ids, at) = (Vec::new(), HashSet::new(), Instant::now());
                *current = Some(Upload { name, by, next: 0, records, ids, bytes: 0, at });
            }
            _ => return unknown(),
        }
        let Some(upload) = current else { return unknown() };
        upload.at = Instant::now();
        let reply = |upload: &Upload| {
            let reply = Reply::success().text("upload", &upload.name).number("part", part);
            reply.number("services", upload.records.len() as u64)
        };
        if part + 1 == upload.next {
            // The client has not seen the reply, and sends it again.
            return reply(upload);
        }
        if part != upload.next {
            let error = format!("Invalid value for part: expected {}, got {part}", upload.next);
            return Reply::failure(Code::InvalidRequest, &error);
        }
        for (place, service) in services.into_iter().enumerate() {
            if let Err(refusal) = upload.add(service, bytes_max) {
                *current = None;
                return refusal.number("item", place as u64);
            }
        }
        upload.next += 1;
        reply(upload)
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

    /// Ends the upload that has this name and so many services, for a registry that has services itself, which it
    /// `replaces` or not. `Ok` takes nothing yet.
    pub(super) fn end(
        current: &mut Option<Upload>,
        name: &str,
        total: u64,
        there: usize,
        replaces: bool,
    ) -> Result<Upload, Reply> {
        Upload::drop_idle(current);
        let Some(upload) = current.as_ref().filter(|upload| upload.name == name) else { return Err(unknown()) };
        let count = upload.records.len();
        if count as u64 != total {
            let error = format!("Invalid value for total: expected {count}, as many as the parts have, got {total}");
            return Err(Reply::failure(Code::InvalidRequest, &error));
        }
        if there > 0 && !replaces {
            let present = crate::text::counted(there, "service is", "services are");
            let message = format!("{present} in the registry already; replace puts the backup in their place");
            return Err(Reply::failure(Code::InvalidRequest, super::FAILED).text("message", &message));
        }
        current.take().ok_or_else(unknown)
    }

    /// Gives up an upload that does not go on.
    pub(super) fn drop_idle(current: &mut Option<Upload>) {
        if current.take_if(|upload| upload.at.elapsed() > IDLE_MAX).is_some() {
            tracing::warn!(
                "a backup that was being sent is given up: nothing has come of it for {} s",
                IDLE_MAX.as_secs()
            );
        }
    }

    /// All records, as a store keeps them.
    pub(super) fn into_records(self) -> Vec<Record> {
        self.records
    }
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
    let message = "it was given up, or the registry was started again: begin with part 0";
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
    fn an_upload_takes_no_more_memory_than_all_services_may() {
        let current = &mut None;
        let bytes = Registry::<()>::memory_of(record(services(&["s"]).remove(0))).unwrap();
        assert_eq!(take(current, "a", Holder::Ipc, 0, &["s", "t"], 2 * bytes)["services"], 2);
        let refused = take(current, "a", Holder::Ipc, 1, &["u"], 2 * bytes);
        assert_eq!((&refused["code"], &refused["item"]), (&json!("overloaded"), &json!(0)));
        assert!(current.is_none(), "nothing of it is kept");
    }
}
