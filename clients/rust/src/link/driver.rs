//! The task that has the connection.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_zmtp::client::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::{Answer, Ask, Backoff, Command, Connectivity, KeptTtls};
use crate::endpoint::Endpoint;
use crate::error::{ConnectionError, ConnectionProblem, Error};
use crate::settings::Settings;

/// How often it is looked at whether the host is still there, at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many requests that nobody waits for any more may be unanswered: more, and the registry might read no others.
const ABANDONED_MAX: usize = 48;
/// How long a goodbye may take to leave.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// The number of requests whose replies nobody waits for.
const NOBODYS: u64 = 0;

/// A request under way.
struct Waiting {
    ask: Ask,
    attempts: u32,
    /// When it was sent over the connection that there is, if it was.
    sent: Option<Instant>,
}

pub(super) struct Driver {
    settings: Arc<Settings>,
    commands: mpsc::Receiver<Command>,
    connectivity: watch::Sender<Connectivity>,
    closed: watch::Receiver<bool>,
    kept: Arc<KeptTtls>,
    waiting: BTreeMap<u64, Waiting>,
    last_number: u64,
    /// The host that is tried first.
    first: usize,
    client: Option<Client>,
}

/// Why a connection has ended.
enum End {
    Lost(ConnectionProblem),
    /// Nobody wants one any more.
    Over,
}

impl Driver {
    pub(super) fn new(
        settings: Arc<Settings>,
        commands: mpsc::Receiver<Command>,
        connectivity: watch::Sender<Connectivity>,
        closed: watch::Receiver<bool>,
        kept: Arc<KeptTtls>,
    ) -> Self {
        let waiting = BTreeMap::new();
        Driver { settings, commands, connectivity, closed, kept, waiting, last_number: NOBODYS, first: 0, client: None }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.backoff);
        let mut is_known_to_be_away = false;
        while let Some(found) = self.find_host().await {
            match found {
                Ok((client, host)) => {
                    let endpoint = self.settings.hosts[host].clone();
                    info!("connected to the registry at {endpoint}");
                    is_known_to_be_away = false;
                    let local_address = client.local_address().map(|address| address.ip().to_canonical());
                    self.client = Some(client);
                    self.show(Connectivity::Connected { endpoint: endpoint.clone(), local_address });
                    let End::Lost(problem) = self.converse(&endpoint, &mut backoff).await else { return };
                    self.client = None;
                    // A host that has gone may take its time to come back; the others are there.
                    self.first = (host + 1) % self.settings.hosts.len();
                    let cause = ConnectionError { endpoint, problem };
                    warn!("the connection to the registry is lost: {cause}");
                    self.lost(&cause);
                }
                Err(cause) => {
                    if let Some(cause) = cause.as_ref().filter(|_| !is_known_to_be_away) {
                        warn!("no registry can be reached: {cause}");
                    }
                    is_known_to_be_away = true;
                    self.show(Connectivity::Away { cause: cause.clone() });
                    if self.settings.fail_fast {
                        self.fail_all(&Error::Unreachable { cause });
                    }
                }
            }
            let wait = backoff.next_within(self.kept.longest_wait());
            debug!("the next attempt follows in {} ms", wait.as_millis());
            if self.meanwhile(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Tells those who follow it, if it is something else than before.
    fn show(&self, connectivity: Connectivity) {
        self.connectivity.send_if_modified(|now| {
            let is_other = now.to_string() != connectivity.to_string();
            *now = connectivity;
            is_other
        });
    }

    /// Tries each host once. `None` if nobody wants a connection any more.
    async fn find_host(&mut self) -> Option<Result<(Client, usize), Option<ConnectionError>>> {
        let (settings, first) = (self.settings.clone(), self.first);
        self.meanwhile(async move {
            let mut cause = None;
            for host in (0..settings.hosts.len()).map(|turn| (first + turn) % settings.hosts.len()) {
                match connect(&settings, &settings.hosts[host]).await {
                    Ok(client) => return Ok((client, host)),
                    Err(error) => {
                        debug!("{error}");
                        cause = Some(error);
                    }
                }
            }
            Err(cause)
        })
        .await
    }

    /// Waits for something that takes its time, and takes in requests meanwhile. `None` if nobody wants a connection any
    /// more.
    async fn meanwhile<T>(&mut self, task: impl Future<Output = T>) -> Option<T> {
        let mut task = pin!(task);
        loop {
            tokio::select! {
                done = &mut task => return Some(done),
                () = is_closed(&mut self.closed) => return None,
                command = self.commands.recv() => match command? {
                    Command::Ask(ask) => drop(self.take_in(ask)),
                    // There is nobody to tell.
                    Command::Farewell(_) | Command::Leave(_) => {}
                },
            }
        }
    }

    /// Asks and hears until the connection ends.
    async fn converse(&mut self, endpoint: &Endpoint, backoff: &mut Backoff) -> End {
        self.drop_abandoned();
        for number in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.send(number);
        }
        let mut look = tokio::time::interval((self.settings.dead_after / 4).min(LOOK_EVERY));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pinged = None;
        loop {
            let Some(client) = &mut self.client else { return End::Over };
            tokio::select! {
                message = client.receive() => match message {
                    Ok(frames) => {
                        backoff.reset();
                        self.answered(&frames, endpoint);
                    }
                    Err(error) => return End::Lost(error.into()),
                },
                command = self.commands.recv() => match command {
                    Some(Command::Ask(ask)) => {
                        let number = self.take_in(ask);
                        self.send(number);
                    }
                    Some(Command::Farewell(body)) => put(client, NOBODYS, &body),
                    Some(Command::Leave(host)) if host == *endpoint => return End::Lost(ConnectionProblem::Starting),
                    Some(Command::Leave(_)) => {}
                    None => return self.goodbye().await,
                },
                () = is_closed(&mut self.closed) => return self.goodbye().await,
                _ = look.tick() => {
                    let silence = client.silence();
                    if silence >= self.settings.dead_after {
                        return End::Lost(ConnectionProblem::TimedOut(silence));
                    }
                    let ping_after = self.settings.dead_after / 3;
                    let is_due = pinged.is_none_or(|pinged: Instant| pinged.elapsed() >= ping_after);
                    if silence >= ping_after && is_due && client.put_ping(self.settings.dead_after * 3) {
                        pinged = Some(Instant::now());
                    }
                    if let Some(problem) = self.is_of_no_use(silence) {
                        return End::Lost(problem);
                    }
                },
            }
        }
    }

    /// Whether another connection would be better, although this one has not ended.
    fn is_of_no_use(&mut self, silence: Duration) -> Option<ConnectionProblem> {
        let now = Instant::now();
        let abandoned = self.waiting.values().filter(|waiting| waiting.ask.reply.is_closed());
        let (mut count, mut unheard) = (0, None);
        for waiting in abandoned {
            count += 1;
            // A call that gave up sooner says nothing about the host.
            let is_too_late = |since: &Duration| (self.settings.connect_timeout..=silence).contains(since);
            let sent = waiting.sent.filter(|_| waiting.ask.deadline <= now);
            unheard = unheard.or(sent.map(|sent| now - sent).filter(is_too_late));
        }
        if count > ABANDONED_MAX {
            return Some(ConnectionProblem::Other("too many requests were not answered in time".into()));
        }
        unheard.map(ConnectionProblem::TimedOut)
    }

    /// Lets what is to go leave.
    async fn goodbye(&mut self) -> End {
        while let Ok(command) = self.commands.try_recv() {
            if let (Command::Farewell(body), Some(client)) = (command, &mut self.client) {
                put(client, NOBODYS, &body);
            }
        }
        if let Some(client) = &mut self.client {
            let _ = tokio::time::timeout(GOODBYE_WITHIN, client.send(&[])).await;
        }
        End::Over
    }

    /// Takes in a request, and gives it a number.
    fn take_in(&mut self, ask: Ask) -> u64 {
        if self.client.is_none() {
            self.drop_abandoned();
        }
        self.last_number += 1;
        self.waiting.insert(self.last_number, Waiting { ask, attempts: 0, sent: None });
        self.last_number
    }

    fn send(&mut self, number: u64) {
        if let (Some(client), Some(waiting)) = (&mut self.client, self.waiting.get_mut(&number)) {
            put(client, number, &waiting.ask.body);
            waiting.attempts += 1;
            waiting.sent = Some(Instant::now());
        }
    }

    /// Hands a reply to who waits for it, if somebody still does.
    fn answered(&mut self, frames: &[Bytes], endpoint: &Endpoint) {
        let number = frames.first().and_then(|frame| std::str::from_utf8(frame).ok()?.parse::<u64>().ok());
        let Some(waiting) = number.and_then(|number| self.waiting.remove(&number)) else { return };
        let body = frames.last().cloned().unwrap_or_default();
        let answer = Answer { body, endpoint: endpoint.clone(), attempts: waiting.attempts };
        let _ = waiting.ask.reply.send(Ok(answer));
    }

    /// Nobody waits for these, and no host will answer them any more.
    fn drop_abandoned(&mut self) {
        self.waiting.retain(|_, waiting| !waiting.ask.reply.is_closed());
    }

    /// The connection is lost: what must not be sent twice has failed, and the rest waits for the next one.
    fn lost(&mut self, cause: &ConnectionError) {
        self.show(Connectivity::Away { cause: Some(cause.clone()) });
        for (number, mut waiting) in std::mem::take(&mut self.waiting) {
            if waiting.sent.take().is_some() && !waiting.ask.resend {
                let _ = waiting.ask.reply.send(Err(Error::Unreachable { cause: Some(cause.clone()) }));
            } else {
                self.waiting.insert(number, waiting);
            }
        }
    }

    fn fail_all(&mut self, error: &Error) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            let _ = waiting.ask.reply.send(Err(error.clone()));
        }
    }
}

impl Drop for Driver {
    /// If the runtime ends before the clients say goodbye, what was said last still leaves, as far as it goes without
    /// waiting.
    fn drop(&mut self) {
        let Some(client) = &mut self.client else { return };
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Farewell(body) = command {
                put(client, NOBODYS, &body);
            }
        }
        client.send_now();
    }
}

async fn is_closed(closed: &mut watch::Receiver<bool>) {
    if closed.wait_for(|closed| *closed).await.is_err() {
        // Nobody can close it any more: the commands will end.
        std::future::pending().await
    }
}

/// As a REQ socket that numbers its requests sends them: so a reply need not be read to know whose it is. Who reads the
/// request finds the number there, too.
fn put(client: &mut Client, number: u64, body: &[u8]) {
    let number = number.to_string();
    let open = body.strip_suffix(b"}").unwrap_or(body);
    let body = [open, b",\"request_id\":", number.as_bytes(), b"}"].concat();
    client.put(&[number.as_bytes(), b"", &body]);
}

async fn connect(settings: &Settings, endpoint: &Endpoint) -> Result<Client, ConnectionError> {
    let address = endpoint.address();
    let connecting = Client::connect(&address, "DEALER", settings.keys.as_ref());
    let problem = match tokio::time::timeout(settings.connect_timeout, connecting).await {
        Ok(Ok(client)) => return Ok(client),
        Ok(Err(error)) => ConnectionProblem::from(error),
        Err(_) => ConnectionProblem::TimedOut(settings.connect_timeout),
    };
    Err(ConnectionError { endpoint: endpoint.clone(), problem })
}
