//! A durable store in one file: a log of JSON lines, to which each group of changes appends one line.
//!
//! The first line names the format, and the position of the store when the log began. Each other line is a group:
//! the position after it, and its changes, `{"put": {..}}`, `{"remove": id}`, `{"renew": id, "last_heartbeat_ms": n}`.
//! Only what had an effect is written, so that reading the log is making the changes again.
//!
//! A line has been synced before the next one begins, so a crash can only tear the last line, and that one has not
//! been acknowledged: it is dropped. Any other line that cannot be read is damage, and refused. When the store is
//! opened, and when the log has become long, it is replaced by the shortest one with the same contents.
//!
//! `registry plugin new` begins a plugin with this file.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::ops::Bound::{Excluded, Unbounded};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry_plugin_api::{
    Backend, Capabilities, Change, Cursor, Error, Group, Host, OptionSpec, Options, Outcome, Page, Position, Record,
    Result, export_backend,
};
use serde_json::{Value, json};

/// What the first line of a file of ours says. Change the number with the format.
const FORMAT: &str = concat!(env!("CARGO_PKG_NAME"), " 2");

/// How many records [`JsonLines::load`] returns at a time.
const PAGE_RECORDS: usize = 1000;

/// A log that is longer than this, and more than four times as long as it was when it was last replaced, is replaced.
const LOG_BYTES: u64 = 16 << 20;

/// The backend: an open log, and what it says.
pub struct JsonLines {
    path: PathBuf,
    log: Mutex<Log>,
    /// Keeps a second host out for as long as it is open. Beside the log, because the log is replaced.
    _lock: File,
}

struct Log {
    file: File,
    /// Where the last line ends that counts. Whatever is behind it is the rest of a line that could not be written.
    end: u64,
    /// How long the log was when it was last replaced.
    begun: u64,
    contents: Contents,
}

#[derive(Default)]
struct Contents {
    /// How far the host has counted; `None` in a new store.
    position: Option<Position>,
    /// By id, in an order that a [`Cursor`] can go on in.
    records: BTreeMap<String, Record>,
}

// The one symbol that the host looks for.
export_backend!(JsonLines);

impl Backend for JsonLines {
    /// What can be set in `[backend.options]`. The host refuses all else.
    const OPTIONS: &'static [OptionSpec] = &[OptionSpec::text(
        "path",
        Some("service_registry.jsonl"),
        "the log file, relative to the directory the host runs in",
    )];

    /// What the host and `registry plugin check` go by. Claim what is true, and no more.
    fn capabilities(_options: &Options) -> Capabilities {
        Capabilities::NONE.durable()
    }

    /// Called once. A file that is not ours, or is damaged, must be refused and left as it is.
    async fn open(options: Options, _host: Host) -> Result<Self> {
        let path = PathBuf::from(options.text("path"));
        if path.file_name().is_none() {
            return Err(Error::invalid_option(format!("option \"path\" is {path:?}, expected a file")));
        }
        // By whatever way it is named, a file is to be locked by one name.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let lock = lock(&path)?;
        let contents = match fs::read(&path) {
            Ok(bytes) => Contents::read(&bytes).map_err(|reason| {
                let path = path.display();
                Error::corrupt(format!("{path} {reason}: name another file, or move this one away to begin anew"))
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Contents::default(),
            Err(error) => return Err(failed("read", &path, error)),
        };
        let (file, end) = contents.replace(&path).map_err(|error| failed("write", &path, error))?;
        let log = Mutex::new(Log { file, end, begun: end, contents });
        Ok(JsonLines { path, log, _lock: lock })
    }

    /// Everything, page by page. The host asks when it starts, and then answers all reads itself.
    async fn load(&self, after: Cursor) -> Result<Page> {
        let log = self.log();
        let start = if after.is_start() { Unbounded } else { Excluded(after.as_str()) };
        let mut rest = log.contents.records.range::<str, _>((start, Unbounded)).map(|(_, record)| record);
        let records: Vec<Record> = rest.by_ref().take(PAGE_RECORDS).cloned().collect();
        let next = records.last().filter(|_| rest.next().is_some()).map(|last| Cursor::after(&last.id));
        let page = Page::new(log.contents.position.clone()).with_records(records);
        Ok(match next {
            Some(next) => page.with_next(next),
            None => page,
        })
    }

    /// Makes a group of changes, and keeps the position that comes with it. What is `Done` when this returns has to
    /// survive a power cut: the host tells its clients so.
    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        let unwritten = |error| failed("write", &self.path, error);
        let mut log = self.log();
        log.shorten(&self.path).map_err(unwritten)?;
        let mut made = Made::default();
        let outcomes = group.changes.into_iter().map(|change| log.contents.apply(change, &mut made)).collect();
        let Position { epoch, revision, .. } = &group.position;
        let line = json!({"epoch": epoch, "revision": revision, "changes": std::mem::take(&mut made.lines)});
        if let Err(error) = log.append(&line) {
            log.contents.go_back(made);
            return Err(unwritten(error));
        }
        log.contents.position = Some(group.position);
        Ok(outcomes)
    }
}

impl JsonLines {
    /// Nothing panics between a change in memory and its line in the file but for want of memory, which aborts.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has been made in memory, and is not in the file yet.
#[derive(Default)]
struct Made {
    /// What the file is to say.
    lines: Vec<Value>,
    /// What was there before each change.
    undo: Vec<(String, Option<Record>)>,
}

impl Log {
    /// Replaces a log that has become long. If that fails nothing may be appended, because the old log may have lost
    /// its name already; the next commit tries again.
    fn shorten(&mut self, path: &Path) -> io::Result<()> {
        if self.end >= LOG_BYTES.max(self.begun.saturating_mul(4)) {
            (self.file, self.end) = self.contents.replace(path)?;
            self.begun = self.end;
        }
        Ok(())
    }

    /// Appends a line. When this returns, it is on the disk; if it fails, it does not count.
    fn append(&mut self, line: &Value) -> io::Result<()> {
        // What a failed attempt has left would stand before the line, or behind it.
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(self.end))?;
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.end += line.len() as u64;
        Ok(())
    }
}

impl Contents {
    /// Makes a change, notes what the file is to say of it, and how to undo it.
    fn apply(&mut self, change: Change, made: &mut Made) -> Outcome {
        match change {
            Change::Put(put) => {
                made.lines.push(put_line(&put.record));
                let id = put.record.id.clone();
                made.undo.push((id.clone(), self.records.insert(id, put.record)));
            }
            Change::Remove(remove) => {
                let Some(removed) = self.records.remove(&remove.id) else { return Outcome::Missing };
                made.lines.push(json!({"remove": remove.id}));
                made.undo.push((remove.id, Some(removed)));
            }
            Change::Renew(renew) => {
                let Some(record) = self.records.get_mut(&renew.id) else { return Outcome::Missing };
                made.lines.push(json!({"renew": renew.id, "last_heartbeat_ms": renew.last_heartbeat_ms}));
                made.undo.push((renew.id, Some(record.clone())));
                record.last_heartbeat_ms = renew.last_heartbeat_ms;
            }
            // A kind of change that a later version of plugin-api brings.
            _ => return Outcome::unknown(),
        }
        Outcome::Done
    }

    /// Makes a group undone, the last change first.
    fn go_back(&mut self, made: Made) {
        for (id, record) in made.undo.into_iter().rev() {
            match record {
                Some(record) => self.records.insert(id, record),
                None => self.records.remove(&id),
            };
        }
    }

    /// Writes the shortest log of the contents and has it take the old one's place, on the disk.
    fn replace(&self, path: &Path) -> io::Result<(File, u64)> {
        let new = beside(path, ".new");
        let file = self.write(&new).and_then(|file| fs::rename(&new, path).map(|()| file));
        let file = file.inspect_err(|_| drop(fs::remove_file(&new)))?;
        // The new name is in the directory, which has to reach the disk as well.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        let end = file.metadata()?.len();
        Ok((file, end))
    }

    fn write(&self, new: &Path) -> io::Result<File> {
        let mut out = BufWriter::new(File::create(new)?);
        let Position { epoch, revision, .. } = self.position.clone().unwrap_or_default();
        writeln!(out, "{}", json!({"format": FORMAT, "epoch": epoch, "revision": revision}))?;
        for record in self.records.values() {
            writeln!(out, "{}", json!({"epoch": epoch, "revision": revision, "changes": [put_line(record)]}))?;
        }
        let file = out.into_inner()?;
        file.sync_all()?;
        Ok(file)
    }

    /// What a log says, or what is wrong with it.
    fn read(bytes: &[u8]) -> std::result::Result<Self, String> {
        let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        // After a power cut a file may also have its length and not all of its bytes: the others are 0.
        let torn = |line: &[u8]| !line.ends_with(b"\n") || line.contains(&0);
        if lines.len() > 1 && lines.pop_if(|line| torn(line)).is_some() {
            tracing::info!("the last line of the log is not whole, and was never acknowledged: it is dropped");
        }
        let mut lines = lines.into_iter();
        let head: Value = lines.next().and_then(|line| serde_json::from_slice(line).ok()).unwrap_or_default();
        if head["format"] != FORMAT {
            return Err(format!("is not a file of {FORMAT}"));
        }
        let mut contents = Contents::default();
        contents.repeat(&head).ok_or("is damaged (line 1)")?;
        for (index, line) in lines.enumerate() {
            let group: Option<Value> = serde_json::from_slice(line).ok();
            group
                .and_then(|group| contents.repeat(&group))
                .ok_or_else(|| format!("is damaged (line {})", index + 2))?;
        }
        Ok(contents)
    }

    /// Makes a group that the log tells of; `None` if it cannot have been made.
    fn repeat(&mut self, group: &Value) -> Option<()> {
        let (epoch, revision) = (group["epoch"].as_str()?, group["revision"].as_u64()?);
        // A new store has none.
        self.position = (!epoch.is_empty()).then(|| Position::new(epoch, revision));
        for change in group["changes"].as_array().into_iter().flatten() {
            if let Some(fields) = change.get("put") {
                let record = record(fields)?;
                self.records.insert(record.id.clone(), record);
            } else if let Some(id) = change.get("remove") {
                self.records.remove(id.as_str()?)?;
            } else {
                self.records.get_mut(change["renew"].as_str()?)?.last_heartbeat_ms =
                    change["last_heartbeat_ms"].as_u64()?;
            }
        }
        Some(())
    }
}

fn put_line(record: &Record) -> Value {
    json!({"put": {
        "id": record.id,
        "document": record.document,
        "types": record.types,
        "ttl_ms": record.ttl_ms,
        "last_heartbeat_ms": record.last_heartbeat_ms,
        "revision": record.revision,
    }})
}

fn record(fields: &Value) -> Option<Record> {
    let text = |value: &Value| value.as_str().map(String::from);
    let mut record = Record::new(text(&fields["id"])?, text(&fields["document"])?);
    record.types = fields["types"].as_array()?.iter().map(text).collect::<Option<_>>()?;
    record.ttl_ms = fields["ttl_ms"].as_u64()?;
    record.last_heartbeat_ms = fields["last_heartbeat_ms"].as_u64()?;
    record.revision = fields["revision"].as_u64()?;
    Some(record)
}

fn lock(path: &Path) -> Result<File> {
    let name = beside(path, ".lock");
    let file = File::create(&name).map_err(|error| failed("create", &name, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let path = path.display();
            Err(Error::unavailable(format!("{path} is in use by another host: stop that one first")))
        }
        Err(TryLockError::Error(error)) => Err(failed("lock", &name, error)),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed(action: &str, path: &Path, error: io::Error) -> Error {
    Error::unavailable(format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use registry_plugin_api::{Put, Remove, Renew};

    use super::*;

    async fn open(path: &Path) -> Result<JsonLines> {
        let given = [("path".to_string(), json!(path))];
        let options = Options::check(JsonLines::OPTIONS, given.into_iter().collect())?;
        JsonLines::open(options, Host::for_tests()).await
    }

    /// A group of one change, after which the store is at that revision.
    fn put(id: &str, revision: u64) -> Group {
        let mut record = Record::new(id, format!(r#"{{"id":"{id}"}}"#));
        record.types = vec!["web".to_string()];
        (record.ttl_ms, record.revision) = (30_000, revision);
        Group::new(Position::new("epoch", revision), vec![Put::new(record).into()])
    }

    #[tokio::test]
    async fn what_was_committed_is_there_when_the_store_is_opened_again() -> Result<()> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services");
        let store = open(&path).await?;
        assert_eq!(store.load(Cursor::start()).await?.position, None);
        store.commit(put("a", 1)).await?;
        store.commit(put("b", 2)).await?;
        let changes = vec![Renew::new("b", 7).into(), Remove::new("a", 3).into(), Remove::new("a", 4).into()];
        let outcomes = store.commit(Group::new(Position::new("epoch", 4), changes)).await?;
        assert_eq!(outcomes, [Outcome::Done, Outcome::Done, Outcome::Missing]);
        let before = store.load(Cursor::start()).await?;
        assert_eq!((before.records.len(), before.records[0].last_heartbeat_ms), (1, 7));
        assert_eq!(before.position, Some(Position::new("epoch", 4)));
        drop(store);
        assert_eq!(open(&path).await?.load(Cursor::start()).await?, before);
        Ok(())
    }

    #[tokio::test]
    async fn a_file_of_somebody_else_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("letter.txt");
        for text in ["", "Dear Ada,\n"] {
            fs::write(&path, text).unwrap();
            let error = open(&path).await.err().unwrap();
            assert!(error.message().contains("letter.txt is not a file of"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[tokio::test]
    async fn a_torn_last_line_is_dropped_and_any_other_damage_is_refused() -> Result<()> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services");
        let store = open(&path).await?;
        store.commit(put("a", 1)).await?;
        store.commit(put("b", 2)).await?;
        drop(store);
        let whole = fs::read_to_string(&path).unwrap();
        for torn in [whole[..whole.len() - 5].to_string(), format!("{}\0\0\0\n", &whole[..whole.len() - 5])] {
            fs::write(&path, torn).unwrap();
            let page = open(&path).await?.load(Cursor::start()).await?;
            assert_eq!((page.records.len(), page.position), (1, Some(Position::new("epoch", 1))));
        }
        let damaged = whole.replacen("put", "cut", 1);
        fs::write(&path, &damaged).unwrap();
        let error = open(&path).await.err().unwrap();
        assert!(error.message().contains("is damaged (line 2)"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        Ok(())
    }

    #[tokio::test]
    async fn a_second_host_is_kept_out() -> Result<()> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services");
        let _first = open(&path).await?;
        let error = open(&path).await.err().unwrap();
        assert!(error.message().contains("in use by another host"), "{error}");
        Ok(())
    }
}
