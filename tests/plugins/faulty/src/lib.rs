//! Another plugin's store, on a machine that fails: what goes wrong with each group of changes is read from a file, which
//! a test writes while the host runs.
//!
//! The file holds one line, a word and perhaps a number of milliseconds:
//!
//! | word | what becomes of a group |
//! |---|---|
//! | `slow MS` | it waits before it is stored |
//! | `late MS` | it is stored, and the answer waits |
//! | `error` | nothing is stored: an I/O error |
//! | `full` | nothing is stored: the disk is full |
//! | `lost` | it is stored, and the host is told otherwise |
//! | `bare` | one without changes, which tells only where the store stands, is stored, and the host is told otherwise |
//! | `then` | it is stored if none without changes was stored before |
//! | `lie` | the host is told that it is stored, which is so only with the next: no store may do that |
//! | `forget` | it is stored without what is to be told of its first change: nor that |

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use registry_host::plugin::{OpenBackend, Plugin};
use registry_plugin_api::{
    Backend, Capabilities, Change, Cursor, Error, Group, History, Host, OptionSpec, Options, Outcome, Page, Result,
    export_backend,
};
use serde_json::{Map, json};

/// See the [module](self).
pub struct Faulty {
    options: Options,
    inner: Arc<OpenBackend>,
    /// What was said to be stored and is not yet.
    lies: Mutex<Vec<Group>>,
    /// A group without changes was stored since this was asked for.
    is_then: AtomicBool,
}

export_backend!(Faulty);

impl Backend for Faulty {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::text("library", None, "the plugin whose store it is"),
        OptionSpec::text("path", None, "that plugin's option of this name"),
        OptionSpec::text("control", None, "a file that says what goes wrong; nothing does while it is not there"),
    ];

    fn capabilities(_options: &Options) -> Capabilities {
        Capabilities::NONE.durable().history()
    }

    async fn open(options: Options, _host: Host) -> Result<Self> {
        let plugin = Plugin::load(options.text("library")).map_err(Error::invalid_option)?;
        let inner_options = Map::from_iter([("path".to_string(), json!(options.text("path")))]);
        let inner = Arc::new(plugin.open(inner_options).await?);
        Ok(Faulty { options, inner, lies: Mutex::default(), is_then: AtomicBool::new(false) })
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        self.inner.load(after).await
    }

    async fn commit(&self, mut group: Group) -> Result<Vec<Outcome>> {
        let text = std::fs::read_to_string(Path::new(self.options.text("control"))).unwrap_or_default();
        let mut words = text.split_whitespace();
        let word = words.next().unwrap_or_default();
        let time = Duration::from_millis(words.next().and_then(|ms| ms.parse().ok()).unwrap_or_default());
        self.confess().await?;
        let is_bare = group.changes.is_empty();
        self.is_then.fetch_and(word == "then", Ordering::Relaxed);
        match word {
            "then" if self.is_then.fetch_or(is_bare, Ordering::Relaxed) => {
                return Err(Error::unavailable("disk I/O error"));
            }
            "slow" => thread::sleep(time),
            "error" => return Err(Error::unavailable("disk I/O error")),
            "full" => return Err(Error::unavailable("the disk is full")),
            "lie" => {
                let outcomes = group.changes.iter().map(|_| Outcome::Done).collect();
                self.lies.lock().expect("no call panics with it").push(group);
                return Ok(outcomes);
            }
            "forget" => match group.changes.first_mut() {
                Some(Change::Put(put)) => put.event.clear(),
                Some(Change::Remove(remove)) => remove.event.clear(),
                _ => {}
            },
            _ => {}
        }
        let outcomes = self.inner.commit(group).await?;
        match word {
            "bare" if is_bare => return Err(Error::unavailable("disk I/O error")),
            "late" => thread::sleep(time),
            "lost" => return Err(Error::unavailable("disk I/O error")),
            _ => {}
        }
        Ok(outcomes)
    }

    async fn history(&self, after: Cursor) -> Result<History> {
        self.inner.history(after).await
    }

    async fn close(&self) -> Result<()> {
        self.confess().await?;
        self.inner.close().await
    }
}

impl Faulty {
    /// Stores what was said to be stored.
    async fn confess(&self) -> Result<()> {
        let lies = std::mem::take(&mut *self.lies.lock().expect("no call panics with it"));
        for group in lies {
            self.inner.commit(group).await?;
        }
        Ok(())
    }
}
