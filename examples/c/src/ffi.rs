//! `registry_backend.h` in Rust: the same structures, and a safe way to call the functions. All `unsafe` is here.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, NonNull};
use std::{mem, slice};

use registry_plugin_api::{Change, Error, ErrorKind, Group, Outcome, Position, Record, Result};

/// The version of the header that this file is a copy of.
const VERSION: u32 = 2;

const PUT: u32 = 1;
const REMOVE: u32 = 2;
const RENEW: u32 = 3;
/// A kind of change that a later version of plugin-api brings: no store knows it.
const UNKNOWN: u32 = 0;

#[repr(C)]
#[derive(Clone, Copy)]
struct Text {
    data: *const u8,
    length: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawRecord {
    id: Text,
    document: Text,
    types: *const Text,
    types_count: usize,
    ttl_ms: u64,
    last_heartbeat_ms: u64,
    revision: u64,
}

#[repr(C)]
struct RawChange {
    kind: u32,
    record: RawRecord,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawOutcome {
    code: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawPosition {
    epoch: Text,
    revision: u64,
}

#[repr(C)]
struct RawError {
    message: [c_char; 512],
}

/// The store's own: never looked into.
#[repr(C)]
struct RawStore {
    _private: [u8; 0],
}

/// The table of functions, as version 2 has it.
#[repr(C)]
struct Table {
    size: usize,
    version: u32,
    open: unsafe extern "C" fn(*const c_char, *mut *mut RawStore, *mut RawError) -> c_int,
    position: unsafe extern "C" fn(*mut RawStore, *mut RawPosition),
    load: unsafe extern "C" fn(*mut RawStore, Text, *mut RawRecord, usize, *mut usize, *mut RawError) -> c_int,
    commit: unsafe extern "C" fn(
        *mut RawStore,
        RawPosition,
        *const RawChange,
        usize,
        *mut RawOutcome,
        *mut RawError,
    ) -> c_int,
    close: unsafe extern "C" fn(*mut RawStore),
}

unsafe extern "C" {
    fn registry_backend_table() -> *const Table;
}

/// A store that is open.
pub(crate) struct Store {
    table: &'static Table,
    store: NonNull<RawStore>,
}

// SAFETY: the header asks for calls that do not overlap, from whatever thread; `&mut self` everywhere sees to it.
unsafe impl Send for Store {}

impl Store {
    pub(crate) fn open(path: &str) -> Result<Self> {
        let table = table()?;
        let c_path = CString::new(path)
            .map_err(|_| Error::invalid_option(format!("option \"path\" is {path:?}, expected no 0 in it")))?;
        let (mut store, mut error) = (ptr::null_mut(), RawError::none());
        // SAFETY: all pointers are valid for the call, and the path ends in 0.
        let code = unsafe { (table.open)(c_path.as_ptr(), &mut store, &mut error) };
        error.check(code)?;
        let store = NonNull::new(store).ok_or_else(|| Error::internal("the store opened nothing"))?;
        Ok(Store { table, store })
    }

    /// The position that came with the last commit.
    pub(crate) fn position(&mut self) -> Result<Option<Position>> {
        let mut position = RawPosition { epoch: Text::new(""), revision: 0 };
        // SAFETY: the store is open, and the pointer is valid for the call.
        unsafe { (self.table.position)(self.store.as_ptr(), &mut position) };
        // SAFETY: the store keeps the text until its next call, which is not before this borrow ends.
        let epoch = unsafe { position.epoch.to_string() }?;
        Ok((!epoch.is_empty()).then(|| Position::new(epoch, position.revision)))
    }

    /// At most `capacity` records behind `after`: fewer if there are no more.
    pub(crate) fn load(&mut self, after: &str, capacity: usize) -> Result<Vec<Record>> {
        let mut records = vec![RawRecord::of(""); capacity];
        let (mut count, mut error) = (0, RawError::none());
        let after = Text::new(after);
        // SAFETY: the store is open, `records` has room for `capacity`, and the pointers are valid for the call.
        let code = unsafe {
            (self.table.load)(self.store.as_ptr(), after, records.as_mut_ptr(), capacity, &mut count, &mut error)
        };
        error.check(code)?;
        // SAFETY: the store keeps what the records point to until its next call.
        records.iter().take(count).map(|record| unsafe { record.to_record() }).collect()
    }

    pub(crate) fn commit(&mut self, group: &Group) -> Result<Vec<Outcome>> {
        let changes = &group.changes;
        let position = RawPosition { epoch: Text::new(&group.position.epoch), revision: group.position.revision };
        let types: Vec<Vec<Text>> = changes.iter().map(types_of).collect();
        let raw: Vec<RawChange> =
            changes.iter().zip(&types).map(|(change, types)| RawChange::of(change, types)).collect();
        let mut outcomes = vec![RawOutcome { code: 0 }; raw.len()];
        let mut error = RawError::none();
        // SAFETY: the store is open, there are as many outcomes as changes, and all that is pointed to outlives the
        // call: `group` and `types` own it.
        let code = unsafe {
            let (changes, count, outcomes) = (raw.as_ptr(), raw.len(), outcomes.as_mut_ptr());
            (self.table.commit)(self.store.as_ptr(), position, changes, count, outcomes, &mut error)
        };
        error.check(code)?;
        outcomes.into_iter().map(RawOutcome::to_outcome).collect()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody can call it afterwards.
        unsafe { (self.table.close)(self.store.as_ptr()) };
    }
}

/// The table, if it is one that this file knows.
fn table() -> Result<&'static Table> {
    // SAFETY: the header promises a table that is always there.
    let table = unsafe { registry_backend_table() };
    // SAFETY: size and version are first in every version of the table; only these two are read before they are known.
    let (size, version) = unsafe { ((*table).size, (*table).version) };
    if version < VERSION || size < mem::size_of::<Table>() {
        return Err(Error::internal(format!(
            "the C store has version {version} of registry_backend.h, {size} bytes, expected at least version {VERSION}"
        )));
    }
    // SAFETY: it has all that is in `Table`.
    Ok(unsafe { &*table })
}

fn types_of(change: &Change) -> Vec<Text> {
    match change {
        Change::Put(put) => put.record.types.iter().map(|name| Text::new(name)).collect(),
        _ => Vec::new(),
    }
}

impl Text {
    fn new(text: &str) -> Self {
        Text { data: text.as_ptr(), length: text.len() }
    }

    /// # Safety
    /// It points to text that the store still keeps.
    unsafe fn to_string(self) -> Result<String> {
        if self.length == 0 {
            return Ok(String::new());
        }
        // SAFETY: as the caller says.
        let bytes = unsafe { slice::from_raw_parts(self.data, self.length) };
        String::from_utf8(bytes.to_vec()).map_err(|_| Error::corrupt("the store holds text that is not UTF-8"))
    }
}

impl RawRecord {
    fn of(id: &str) -> Self {
        RawRecord {
            id: Text::new(id),
            document: Text::new(""),
            types: ptr::null(),
            types_count: 0,
            ttl_ms: 0,
            last_heartbeat_ms: 0,
            revision: 0,
        }
    }

    /// # Safety
    /// It points to what the store still keeps.
    unsafe fn to_record(self) -> Result<Record> {
        // SAFETY: as the caller says.
        let mut record = unsafe { Record::new(self.id.to_string()?, self.document.to_string()?) };
        let types = match self.types_count {
            0 => &[],
            // SAFETY: as the caller says.
            count => unsafe { slice::from_raw_parts(self.types, count) },
        };
        // SAFETY: as the caller says.
        record.types = types.iter().map(|name| unsafe { name.to_string() }).collect::<Result<_>>()?;
        record.ttl_ms = self.ttl_ms;
        record.last_heartbeat_ms = self.last_heartbeat_ms;
        record.revision = self.revision;
        Ok(record)
    }
}

impl RawChange {
    fn of(change: &Change, types: &[Text]) -> Self {
        let mut record = RawRecord::of(change.id());
        let kind = match change {
            Change::Put(put) => {
                let put = &put.record;
                record.document = Text::new(&put.document);
                (record.types, record.types_count) = (types.as_ptr(), types.len());
                (record.ttl_ms, record.last_heartbeat_ms) = (put.ttl_ms, put.last_heartbeat_ms);
                record.revision = put.revision;
                PUT
            }
            Change::Remove(remove) => {
                record.revision = remove.revision;
                REMOVE
            }
            Change::Renew(renew) => {
                record.last_heartbeat_ms = renew.last_heartbeat_ms;
                RENEW
            }
            _ => UNKNOWN,
        };
        RawChange { kind, record }
    }
}

impl RawOutcome {
    fn to_outcome(self) -> Result<Outcome> {
        match self.code {
            1 => Ok(Outcome::Done),
            2 => Ok(Outcome::Missing),
            3 => {
                let refusal = "the service is too large for the store";
                Ok(Outcome::Refused(Error::new(ErrorKind::Unsupported, refusal)))
            }
            4 => Ok(Outcome::unknown()),
            code => Err(Error::internal(format!("the C store gave outcome {code}, expected 1, 2, 3 or 4"))),
        }
    }
}

impl RawError {
    fn none() -> Self {
        RawError { message: [0; 512] }
    }

    /// Whether a function that returned `code` has failed.
    fn check(&self, code: c_int) -> Result<()> {
        let kind = match code {
            0 => return Ok(()),
            1 => ErrorKind::Unavailable,
            2 => ErrorKind::InvalidOption,
            3 => ErrorKind::Corrupt,
            _ => ErrorKind::Internal,
        };
        let bytes = self.message.map(|character| character.cast_unsigned());
        let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy).unwrap_or_default();
        Err(Error::new(kind, text))
    }
}
