//! A store that is written in C, as a plugin.
//!
//! `registry_backend.h` says what such a store is: a table of plain C functions, with its size and version first.
//! This crate makes a plugin of it; `store.c` is one that keeps a durable log. README.md says why it is cut this way.

mod ffi;

use std::sync::{Mutex, MutexGuard, PoisonError};

use registry_plugin_api::{
    Backend, Capabilities, Cursor, Group, Host, OptionSpec, Options, Outcome, Page, Result, export_backend,
};

use ffi::Store;

const PAGE_RECORDS: usize = 1000;

/// The backend: whatever store the table of functions belongs to.
pub struct InC {
    store: Mutex<Store>,
}

export_backend!(InC);

impl Backend for InC {
    const OPTIONS: &'static [OptionSpec] = &[OptionSpec::text(
        "path",
        Some("service_registry.log"),
        "the log file, relative to the directory the host runs in",
    )];

    fn capabilities(_options: &Options) -> Capabilities {
        Capabilities::NONE.durable()
    }

    async fn open(options: Options, _host: Host) -> Result<Self> {
        let store = Store::open(options.text("path"))?;
        Ok(InC { store: Mutex::new(store) })
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        let mut store = self.store();
        let position = store.position()?;
        let records = store.load(after.as_str(), PAGE_RECORDS)?;
        let next = records.last().filter(|_| records.len() == PAGE_RECORDS).map(|last| Cursor::after(&last.id));
        let page = Page::new(position).with_records(records);
        Ok(match next {
            Some(next) => page.with_next(next),
            None => page,
        })
    }

    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        self.store().commit(&group)
    }
}

impl InC {
    /// C does not panic, so that no call is left halfway.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
