//! A backend that misbehaves on request, to see what the host makes of it.
//!
//! What `open` and `close` do is asked for by options. Every other call looks for `chaos:<misdeed>` in what it is
//! given: a record's id or document, the cursor, the service type. Where nothing is asked for it answers something
//! that can be recognised.

use std::time::Duration;

use registry_plugin_api::{
    Backend, Capabilities, Change, Cursor, Error, ErrorKind, Event, Group, History, Host, OptionSpec, Options, Outcome,
    Page, Position, Query, Record, Result, export_backend,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task;

/// See the [module](self).
pub struct Chaos {
    host: Host,
    options: Options,
    _bomb: Option<Bomb>,
}

export_backend!(Chaos);

/// Panics when dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb was dropped");
    }
}

impl Backend for Chaos {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::text("open", Some("calm"), "calm, panic, panic_later, error"),
        OptionSpec::text("close", Some("calm"), "calm, panic, error"),
        OptionSpec::boolean("bomb", Some(false), "whether dropping the backend panics"),
        OptionSpec::integer("count", Some(-7), "shown by chaos:options"),
        OptionSpec::number("ratio", Some(0.5), "shown by chaos:options"),
        OptionSpec::text("capabilities", Some("all"), "all, none, panic"),
        OptionSpec::text("password", Some("hunter2"), "told to nobody").secret(),
    ];

    fn capabilities(options: &Options) -> Capabilities {
        match options.text("capabilities") {
            "none" => Capabilities::NONE,
            "panic" => panic!("capabilities panicked"),
            _ => Capabilities::NONE.durable().balances().history(),
        }
    }

    async fn open(options: Options, host: Host) -> Result<Self> {
        match options.text("open") {
            "panic" => panic!("open panicked"),
            "panic_later" => {
                task::yield_now().await;
                panic!("open panicked later");
            }
            "error" => return Err(Error::unavailable("open failed")),
            _ => {}
        }
        let bomb = options.boolean("bomb").then(|| Bomb);
        Ok(Chaos { host, options, _bomb: bomb })
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        match misdeed(after.as_str()) {
            Some("panic") => panic!("load panicked"),
            Some("stuck") => return Ok(Page::new(None).with_next(after)),
            _ => {}
        }
        let mut record = Record::new(format!("after {}", after.as_str()), "{\"chaos\":true}");
        record.types = vec!["one".to_string(), "two".to_string()];
        record.ttl_ms = 1;
        record.last_heartbeat_ms = 2;
        record.revision = 3;
        let position = Position::new("chaos", 42);
        Ok(Page::new(Some(position)).with_records(vec![record]).with_next(Cursor::after("next")))
    }

    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for change in &group.changes {
            match asked(change) {
                Some("too_few") => {}
                Some("too_many") => outcomes.extend([Outcome::Missing, Outcome::Missing]),
                Some("missing") => outcomes.push(Outcome::Missing),
                Some("group") => outcomes.push(Outcome::Refused(Error::corrupt(format!("{group:?}")))),
                Some("echo") => outcomes.push(Outcome::Refused(Error::corrupt(format!("{change:?}")))),
                Some("options") => outcomes.push(Outcome::Refused(Error::internal(self.shown_options()))),
                Some(word) => {
                    self.misbehave(word).await?;
                    outcomes.push(Outcome::Done);
                }
                None => outcomes.push(Outcome::Done),
            }
        }
        Ok(outcomes)
    }

    async fn history(&self, after: Cursor) -> Result<History> {
        match misdeed(after.as_str()) {
            Some("panic") => panic!("history panicked"),
            Some("stuck") => return Ok(History::new(0).with_next(after)),
            _ => {}
        }
        let events = vec![Event::new(8, format!("after {}", after.as_str())), Event::new(11, "eleven")];
        Ok(History::new(7).with_events(events).with_next(Cursor::after("11")))
    }

    async fn discover(&self, query: Query) -> Result<Option<String>> {
        match misdeed(&query.service_type) {
            Some("panic") => panic!("discover panicked"),
            Some("stranger") => Ok(Some("stranger".to_string())),
            Some("none") => Ok(None),
            _ => Ok(query.candidates.last().cloned()),
        }
    }

    async fn close(&self) -> Result<()> {
        match self.options.text("close") {
            "panic" => panic!("close panicked"),
            "error" => Err(Error::unavailable("close failed")),
            _ => Ok(()),
        }
    }
}

/// The word after `chaos:`.
fn misdeed(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("chaos:")?;
    let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end])
}

fn asked(change: &Change) -> Option<&str> {
    let document = match change {
        Change::Put(put) => put.record.document.as_str(),
        _ => "",
    };
    misdeed(document).or_else(|| misdeed(change.id()))
}

impl Chaos {
    fn shown_options(&self) -> String {
        format!(
            "count {} ratio {} host {}",
            self.options.integer("count"),
            self.options.number("ratio"),
            self.host.version()
        )
    }

    async fn misbehave(&self, misdeed: &str) -> Result<()> {
        let moment = Duration::from_millis(1);
        match misdeed {
            "panic" => panic!("commit panicked\nin two lines"),
            "panic_after_await" => {
                self.host.sleep(moment).await;
                panic!("commit panicked later");
            }
            "panic_in_task" => task::spawn(async { panic!("a task panicked") }).await.map_err(Error::internal)?,
            "panic_with_bomb" => std::panic::panic_any(Bomb),
            "panic_in_future_drop" => {
                let _bomb = Bomb;
                std::future::pending::<()>().await;
            }
            "wrong_option" => drop(self.options.text("undeclared")),
            "error" => return Err(Error::unavailable("commit failed\n  in two lines")),
            "hang" => std::future::pending().await,
            "log" => log_at_all_levels(),
            "host_sleep" => self.host.sleep(moment).await,
            "tokio_sleep" => tokio::time::sleep(moment).await,
            "tokio_spawn" => task::spawn(tokio::time::sleep(moment)).await.map_err(Error::internal)?,
            "tokio_blocking" => task::spawn_blocking(|| ()).await.map_err(Error::internal)?,
            "tokio_tcp" => connect().await.map_err(Error::internal)?,
            other => return Err(Error::new(ErrorKind::Unsupported, format!("no misdeed {other:?}"))),
        }
        Ok(())
    }
}

fn log_at_all_levels() {
    tracing::error!(code = 1, "at error");
    tracing::warn!(name = "a b", "at warn");
    tracing::info!("at info");
    tracing::debug!("at debug");
    tracing::trace!("at trace");
    tracing::warn!(target: "registry_chaos::inner", "from inside");
    let _entered = tracing::info_span!("a span").entered();
    tracing::info!("in a span");
}

async fn connect() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let accepting = task::spawn(async move { listener.accept().await });
    TcpStream::connect(address).await?;
    accepting.await??;
    Ok(())
}
