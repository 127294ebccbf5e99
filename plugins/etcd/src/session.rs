//! Sessions: one at a time may write, and what an earlier one has left on its way never lands.
//!
//! - **The owner key** belongs to a lease that the host keeps alive. While it is there, a second host is refused; when the
//!   host has died, it goes with the lease, some seconds later. Nothing but that depends on it: a host whose lease has
//!   run out, because it was held up or etcd was away, goes on if nobody else has come.
//! - **The fence** decides who may write: each transaction compares its revision, and each session writes it anew. It
//!   holds the name of a host. One whose session was lost writes it only where its name still stands: if another host
//!   has had the store meanwhile, it is told so for ever.

use std::fs;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, KeyValue, KvClient, LeaseKeepAliveResponse, PutOptions, Txn, TxnOp,
    TxnOpResponse,
};
use registry_plugin_api::{Cursor, Error, ErrorKind, Page, Position, Result};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::batch::Batch;
use crate::keys::{FORMAT, Keys, head_value, read_head};
use crate::server::{Server, is_too_large};

type Etcds<T> = std::result::Result<T, etcd_client::Error>;

/// How long the lease of a host lasts that has died, in seconds, and how often one that lives renews it.
const LEASE_SECONDS: i64 = 3;
const LEASE_INTERVAL: Duration = Duration::from_secs(1);
/// How much later than its time etcd may end a lease.
const LEASE_DELAY: Duration = Duration::from_secs(2);
/// How often somebody else's lease is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A page of `load` ends after about so many bytes. How many keys that is is not known before the first page.
const PAGE_BYTES: usize = 4 << 20;
const FIRST_PAGE_KEYS: usize = 64;
const PAGE_KEYS_MAX: usize = 4096;

/// What may write.
pub(crate) struct Session {
    kv: KvClient,
    keys: Keys,
    cluster: u64,
    /// The revision of the fence, which each transaction has to compare.
    fence: i64,
    head: Option<Position>,
}

/// Why a transaction was not made.
pub(crate) enum Refusal {
    /// etcd takes no such transaction. Nothing has been stored.
    TooLarge,
    /// Another session may write. Nothing has been stored.
    Fenced,
    /// Anything may have been stored.
    Other(etcd_client::Error),
}

impl Session {
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The store's position.
    pub(crate) fn head(&self) -> Option<&Position> {
        self.head.as_ref()
    }

    /// Makes the changes of a batch, and gives what etcd says of each of its operations.
    pub(crate) async fn write(&mut self, batch: &Batch<'_>) -> std::result::Result<Vec<TxnOpResponse>, Refusal> {
        let is_ours = Compare::mod_revision(self.keys.fence(), CompareOp::Equal, self.fence);
        let mut operations = batch.operations();
        operations.push(TxnOp::put(self.keys.head(), head_value(batch.position(), self.cluster), None));
        let response = self
            .kv
            .txn(Txn::new().when([is_ours]).and_then(operations))
            .await
            .map_err(|error| if is_too_large(&error) { Refusal::TooLarge } else { Refusal::Other(error) })?;
        if !response.succeeded() {
            return Err(Refusal::Fenced);
        }
        self.head = Some(batch.position().clone());
        Ok(response.op_responses())
    }

    /// A page of records. The cursor is how many keys the page may have, and the first of them.
    pub(crate) async fn read_page(&self, server: &Server, after: &Cursor) -> Result<Page> {
        let services = self.keys.services();
        let (limit, first) = after.as_str().split_once(' ').unwrap_or_default();
        let limit = limit.parse().unwrap_or(FIRST_PAGE_KEYS);
        let first = if first.is_empty() { &services } else { first };
        let end = format!("{}0", services.trim_end_matches('/'));
        let range = GetOptions::new().with_range(end).with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        let found = self.kv.clone().get(first, Some(range)).await.map_err(|error| server.error("read from", &error))?;
        let (records, next) = self.keys.read_records(found.kvs(), !found.more())?;
        let bytes: usize = found.kvs().iter().map(|pair| pair.key().len() + pair.value().len()).sum();
        let page = Page::new(self.head.clone()).with_records(records);
        Ok(match next {
            Some(next) => {
                let keys = found.kvs().len() * PAGE_BYTES / bytes.max(1);
                page.with_next(Cursor::after(format!("{} {next}", keys.clamp(2, PAGE_KEYS_MAX))))
            }
            None => page,
        })
    }
}

/// The session, and what it takes to begin another one in its place.
pub(crate) struct Sessions {
    current: Option<Session>,
    /// Of the member that was reached last.
    client: Client,
    keys: Keys,
    cluster: u64,
    lease: Lease,
    /// The greatest revision that is known to be stored.
    revision: u64,
}

impl Sessions {
    /// Begins this host's first session.
    pub(crate) async fn open(server: &Arc<Server>, keys: Keys) -> Result<Self> {
        let failed = |error| server.error("open", &error);
        let mut client = server.reach(&keys.fence()).await?;
        check_format(server, &mut client, &keys).await?;
        let lease = client.lease_grant(LEASE_SECONDS, None).await.map_err(failed)?;
        // etcd gives each lease another number: so it names the host as well.
        let host = format!("{:x}", lease.id());
        let begin = Txn::new()
            .when([Compare::create_revision(keys.owner(), CompareOp::Equal, 0)])
            .and_then([
                TxnOp::put(keys.owner(), who(), Some(PutOptions::new().with_lease(lease.id()))),
                TxnOp::put(keys.fence(), host.clone(), None),
                TxnOp::put(keys.format(), FORMAT, None),
                TxnOp::get(keys.head(), None),
            ])
            .or_else([TxnOp::get(keys.owner(), None)]);
        // From the first moment on: somebody else's lease may take longer to end than ours.
        let lease = Lease::keep(Arc::clone(server), client.clone(), keys.clone(), host, lease.id());
        let mut holder = None;
        let response = loop {
            let response = client.txn(begin.clone()).await.map_err(failed)?;
            if response.succeeded() {
                break response;
            }
            let owner = response.op_responses().into_iter().find_map(|found| match found {
                TxnOpResponse::Get(owner) => owner.kvs().first().cloned(),
                _ => None,
            });
            if let Some(owner) = owner {
                let holder = holder.get_or_insert_with(|| Holder::new(&owner));
                if holder.lives(&mut client, &owner).await.map_err(failed)? {
                    let who = String::from_utf8_lossy(owner.value());
                    let reason = format!("{:?} is in use by another registry host ({who})", keys.prefix());
                    lease.end(&client).await.map_err(failed)?;
                    return Err(server.refusal(ErrorKind::Unavailable, &reason));
                }
            }
            sleep(LOOK_INTERVAL).await;
        };
        let header = response.header().ok_or_else(|| Error::internal("etcd's answer has no header"))?;
        let (cluster, fence) = (header.cluster_id(), header.revision());
        let head = read_head_of(&response.op_responses(), cluster)?;
        if head.is_none() && response.op_responses().iter().any(|found| head_pair(found).is_some()) {
            tracing::warn!(prefix = keys.prefix(), "the store comes from a snapshot: a new epoch begins");
        }
        let revision = head.as_ref().map_or(0, |position| position.revision);
        let kv = client.kv_client().max_decoding_message_size(usize::MAX);
        let session = Session { kv, keys: keys.clone(), cluster, fence, head };
        Ok(Sessions { current: Some(session), client, keys, cluster, lease, revision })
    }

    /// The session, for one call. It has to be [put back](Self::put_back) if all went well; if not, or if it is dropped,
    /// another one is begun.
    pub(crate) async fn take(&mut self, server: &Server) -> Result<Session> {
        match self.current.take() {
            Some(session) => Ok(session),
            None => self.come_back(server).await,
        }
    }

    pub(crate) fn put_back(&mut self, session: Session) {
        self.current = Some(session);
    }

    /// Notes that everything up to that revision is stored.
    pub(crate) fn acknowledged(&mut self, revision: u64) {
        self.revision = revision;
    }

    pub(crate) async fn close(&mut self) -> Etcds<()> {
        self.current = None;
        self.lease.end(&self.client).await
    }

    /// A session in place of one with a transaction on its way, which fails from now on.
    async fn come_back(&mut self, server: &Server) -> Result<Session> {
        let fence = self.keys.fence();
        let host = self.lease.host.clone();
        self.client = server.reach(&fence).await?;
        let move_fence = Txn::new()
            .when([Compare::value(fence.clone(), CompareOp::Equal, host.clone())])
            .and_then([TxnOp::put(fence, host, None), TxnOp::get(self.keys.head(), None)]);
        let response = self.client.txn(move_fence).await.map_err(|error| server.error("reach", &error))?;
        if !response.succeeded() {
            return Err(server.fenced());
        }
        let header = response.header().ok_or_else(|| Error::internal("etcd's answer has no header"))?;
        let head = read_head_of(&response.op_responses(), self.cluster)?;
        let revision = head.as_ref().map_or(0, |position| position.revision);
        if header.cluster_id() != self.cluster {
            let reason = "it is another cluster now: restart the registry, which then begins a new epoch";
            return Err(server.refusal(ErrorKind::Corrupt, reason));
        }
        if revision < self.revision {
            // Whoever opens the store next does not take the older history for the one that was told.
            let is_ours = Compare::mod_revision(self.keys.fence(), CompareOp::Equal, header.revision());
            let forget = Txn::new().when([is_ours]).and_then([TxnOp::delete(self.keys.head(), None)]);
            self.client.txn(forget).await.map_err(|error| server.error("reach", &error))?;
            let reason = format!(
                "it has lost changes that it had acknowledged (its revision is {revision}, and was {}): restart the \
                 registry, which then begins a new epoch",
                self.revision
            );
            return Err(server.refusal(ErrorKind::Corrupt, &reason));
        }
        let kv = self.client.kv_client().max_decoding_message_size(usize::MAX);
        Ok(Session { kv, keys: self.keys.clone(), cluster: self.cluster, fence: header.revision(), head })
    }
}

/// Refuses what is not a registry's.
async fn check_format(server: &Server, client: &mut Client, keys: &Keys) -> Result<()> {
    let any = GetOptions::new().with_prefix().with_limit(1).with_keys_only();
    let look = Txn::new().and_then([TxnOp::get(keys.format(), None), TxnOp::get(keys.prefix(), Some(any))]);
    let response = client.txn(look).await.map_err(|error| server.error("reach", &error))?;
    let mut found = response.op_responses().into_iter().map(|found| match found {
        TxnOpResponse::Get(found) => found.kvs().first().cloned(),
        _ => None,
    });
    let (format, any) = (found.next().flatten(), found.next().flatten());
    let reason = match (&format, any) {
        (Some(format), _) if format.value() == FORMAT.as_bytes() => return Ok(()),
        (None, None) => return Ok(()),
        (Some(format), _) => {
            let format = String::from_utf8_lossy(format.value());
            format!("was written by another version of the registry (format {format}, expected {FORMAT})")
        }
        (None, Some(any)) => {
            format!("belongs to another program ({:?} is there)", String::from_utf8_lossy(any.key()))
        }
    };
    let prefix = keys.prefix();
    Err(server.refusal(ErrorKind::Corrupt, &format!("{prefix:?} {reason}: name another one by option \"prefix\"")))
}

fn head_pair(found: &TxnOpResponse) -> Option<&KeyValue> {
    match found {
        TxnOpResponse::Get(found) => found.kvs().first(),
        _ => None,
    }
}

fn read_head_of(responses: &[TxnOpResponse], cluster: u64) -> Result<Option<Position>> {
    let head = responses.iter().find_map(head_pair);
    head.map_or(Ok(None), |pair| read_head(pair.value(), cluster))
}

/// What operators are told of this host.
fn who() -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("process {} on {:?}", process::id(), machine.trim())
}

/// Who has the store, as seen for the first time.
struct Holder {
    lease: i64,
    since: Instant,
    /// How long its lease was to last then, in seconds.
    rest: Option<i64>,
}

impl Holder {
    fn new(owner: &KeyValue) -> Self {
        Holder { lease: owner.lease(), since: Instant::now(), rest: None }
    }

    /// Whether it is certain that the host lives: its lease was renewed, or another one has come.
    async fn lives(&mut self, client: &mut Client, owner: &KeyValue) -> Etcds<bool> {
        if owner.lease() != self.lease {
            return Ok(true);
        }
        let lease = client.lease_time_to_live(self.lease, None).await?;
        let rest = *self.rest.get_or_insert(lease.ttl());
        let passed = self.since.elapsed();
        // In whole seconds: one that nobody renews has less after two.
        let is_renewed = passed >= Duration::from_secs(2) && lease.ttl() >= rest && lease.ttl() > 0;
        let limit = Duration::from_secs(lease.granted_ttl().max(LEASE_SECONDS).unsigned_abs()) + LEASE_DELAY;
        Ok(is_renewed || passed > limit)
    }
}

/// The lease of the owner key, kept alive by a task.
struct Lease {
    host: String,
    id: Arc<AtomicI64>,
    task: JoinHandle<()>,
}

impl Lease {
    fn keep(server: Arc<Server>, client: Client, keys: Keys, host: String, id: i64) -> Self {
        let id = Arc::new(AtomicI64::new(id));
        let task = tokio::spawn(keep_alive(server, client, keys, host.clone(), Arc::clone(&id)));
        Lease { host, id, task }
    }

    async fn end(&self, client: &Client) -> Etcds<()> {
        self.task.abort();
        client.lease_client().revoke(self.id.load(Ordering::Relaxed)).await.map(drop)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_alive(server: Arc<Server>, mut client: Client, keys: Keys, host: String, id: Arc<AtomicI64>) {
    loop {
        if let Err(error) = renew(&mut client, id.load(Ordering::Relaxed)).await {
            tracing::debug!(%error, "the lease of the store in etcd cannot be renewed");
        }
        // It has run out, or the member does not answer.
        let again = async {
            client = server.reach(&keys.fence()).await?;
            take_again(&mut client, &keys, &host).await.map_err(|error| server.error("reach", &error))
        };
        match again.await {
            Ok(Again::Taken(lease)) => id.store(lease, Ordering::Relaxed),
            Ok(Again::Kept) => {}
            Ok(Again::Lost) => return,
            Err(error) => tracing::debug!(%error, "the lease of the store in etcd cannot be taken again"),
        }
        sleep(LEASE_INTERVAL).await;
    }
}

/// Renews a lease until it has run out, or there is no answer.
async fn renew(client: &mut Client, id: i64) -> Etcds<()> {
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
    loop {
        keeper.keep_alive().await?;
        match timeout(LEASE_INTERVAL, answers.message()).await {
            Ok(answer) if answer.as_ref().is_ok_and(is_renewed) => sleep(LEASE_INTERVAL).await,
            Ok(answer) => return answer.map(drop),
            Err(_) => return Ok(()),
        }
    }
}

fn is_renewed(answer: &Option<LeaseKeepAliveResponse>) -> bool {
    answer.as_ref().is_some_and(|answer| answer.ttl() > 0)
}

/// What has become of the owner key.
enum Again {
    /// It was gone, and is there with a new lease.
    Taken(i64),
    /// It is there.
    Kept,
    /// Another host has had the store.
    Lost,
}

/// Takes the owner key with a new lease, if nobody has it and nobody has had it.
async fn take_again(client: &mut Client, keys: &Keys, host: &str) -> Etcds<Again> {
    let lease = client.lease_grant(LEASE_SECONDS, None).await?.id();
    let is_ours = Compare::value(keys.fence(), CompareOp::Equal, host);
    let take = Txn::new()
        .when([is_ours.clone(), Compare::create_revision(keys.owner(), CompareOp::Equal, 0)])
        .and_then([TxnOp::put(keys.owner(), who(), Some(PutOptions::new().with_lease(lease)))])
        .or_else([TxnOp::txn(Txn::new().when([is_ours]))]);
    let response = client.txn(take).await?;
    if response.succeeded() {
        return Ok(Again::Taken(lease));
    }
    client.lease_revoke(lease).await?;
    let is_ours =
        response.op_responses().iter().any(|found| matches!(found, TxnOpResponse::Txn(ours) if ours.succeeded()));
    Ok(if is_ours { Again::Kept } else { Again::Lost })
}
