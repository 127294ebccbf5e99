//! What a plugin logs, as the host writes it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::EnvFilter;

use crate::{chaos, commit};

/// Everything that is logged on this thread while the guard lives, as the host would write it.
pub(crate) struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(crate) fn with_filter(filter: &str) -> Log {
        let text = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&text);
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_ansi(false)
            .without_time()
            .with_writer(move || Writer(Arc::clone(&writer)))
            .finish();
        Log { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_string()).collect()
    }
}

#[tokio::test]
async fn logs_arrive_with_level_target_and_fields() {
    let backend = chaos().await;
    let log = Log::with_filter("trace");
    commit(&backend, "log").await.unwrap();
    let expected = [
        "ERROR registry_chaos: at error code=1",
        "WARN registry_chaos: at warn name=a b",
        "INFO registry_chaos: at info",
        "DEBUG registry_chaos: at debug",
        "TRACE registry_chaos: at trace",
        "WARN registry_chaos::inner: from inside",
        "INFO registry_chaos: in a span",
    ];
    let lines = log.lines();
    let ours: Vec<_> = lines.iter().filter(|line| line.contains("registry_chaos")).collect();
    assert_eq!(ours, expected);
}

#[tokio::test]
async fn logs_obey_the_filter_of_the_host() {
    let backend = chaos().await;
    for (filter, expected) in [
        ("warn,registry_chaos=error", "at error"),
        ("off,registry_chaos::inner=warn", "from inside"),
        ("error,registry_chaos=off", ""),
    ] {
        let log = Log::with_filter(filter);
        commit(&backend, "log").await.unwrap();
        let lines = log.lines();
        assert_eq!(lines.len(), usize::from(!expected.is_empty()), "{filter}: {lines:?}");
        assert!(lines.iter().all(|line| line.contains(expected)), "{filter}: {lines:?}");
    }
    let log = Log::with_filter("info");
    commit(&backend, "log").await.unwrap();
    assert_eq!(log.lines().len(), 5, "{:?}", log.lines());
}
