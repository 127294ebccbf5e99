//! From the table to routes, and what most of them do: hand one request to the core, and its reply to the client.

use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{Method as HttpMethod, StatusCode};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use tokio::sync::{Semaphore, watch};

use crate::fronts::zmtp::report::{Incident, Report};
use crate::metrics::Metrics;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::{self, Action};
use crate::security::origin::{Address, Origin};
use crate::security::principal::Principal;

use super::answer::{Answer, Refused, no_room};
use super::budget::{Account, Budget, Held};
use super::connections::{Aside, Connection};
use super::fields::Fields;
use super::front::{Came, Core};
use super::guard::{self, Proof};
use super::live::Live;
use super::page;
use super::sse::LastTold;
use super::table::{Method, Needs, Operation, Payload, operations};

/// The longest body of a request that has none to send: what clients add without a thought.
const NO_BODY_BYTES_MAX: usize = 1024;

/// What all calls share.
pub(super) struct Shared {
    pub(super) core: Core,
    pub(super) budget: Arc<Budget>,
    /// What holds now.
    pub(super) live: RwLock<Arc<Live>>,
    /// What operators are told of clients that went too far.
    pub(super) report: Arc<Mutex<Report>>,
    pub(super) metrics: Arc<Metrics>,
    /// Whose turn it is to have all services written down as targets.
    pub(super) targets: Semaphore,
    /// What the streams were told last.
    pub(super) told: LastTold,
    /// True when the registry stops.
    pub(super) stop: watch::Receiver<bool>,
}

impl Shared {
    /// What holds now.
    pub(super) fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something else holds from now on.
    pub(super) fn set_live(&self, live: Live) {
        self.metrics.certificate_until.set(live.certificate_until());
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }
}

/// A request to one of the operations.
pub(super) struct Call {
    pub(super) operation: &'static Operation,
    pub(super) shared: Arc<Shared>,
    pub(super) parts: Parts,
    pub(super) address: Address,
    /// Who asks, as it was proved when the request came.
    pub(super) principal: Principal,
    /// By what.
    proof: Proof,
    /// By which it came.
    pub(super) connection: Arc<Connection>,
    /// What it may have wait of what waits for all.
    pub(super) account: Account,
    /// Whether the core has been asked for something because of it.
    has_asked: AtomicBool,
}

/// The routes of the table.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        let shared = shared.clone();
        let handler = move |request: Request| answer(operation, shared.clone(), request);
        router = router.route(operation.path, on(filter(operation.method), handler));
    }
    page::added_to(router).fallback(unknown_path).method_not_allowed_fallback(unknown_method)
}

fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}

async fn unknown_path() -> Response {
    let message = "/openapi.json has all that there are";
    Refused::new(StatusCode::NOT_FOUND, Code::UnknownAction, "Unknown path", message).into_response()
}

async fn unknown_method(method: HttpMethod) -> Response {
    let error = format!("Unknown method here: {method}");
    let message = "the header Allow says which there are";
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, Code::UnknownAction, &error, message).into_response()
}

async fn answer(operation: &'static Operation, shared: Arc<Shared>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    // `serve` puts it there.
    let Some(connection) = parts.extensions.remove::<Arc<Connection>>() else { return unknown_path().await };
    if let Err(refused) = guard::may_change(&parts.method, &parts.headers) {
        return refused.into_response();
    }
    let address = connection.address();
    let proof = match Proof::of(&parts.headers, connection.certified.get()) {
        Ok(proof) => proof,
        Err(_) if operation.needs == Needs::Nothing => Proof::Token(None),
        Err(refused) => return refused.into_response(),
    };
    let principal = match proof.principal(&shared.live(), operation.needs) {
        Ok(principal) => principal,
        Err(refused) => {
            if let (Some(why), Ok(mut report), Address::Tcp(from)) = (proof.failure(), shared.report.lock(), address) {
                report.note(Some(from.ip()), Incident::Unproved, why, 1);
            }
            return refused.into_response();
        }
    };
    let (account, has_asked) = (shared.budget.account(connection.cut.clone()), AtomicBool::new(false));
    let call = Call { operation, shared, parts, address, principal, proof, connection, account, has_asked };
    (operation.handler)(call, body).await
}

/// Asks the core for what the operation says.
pub(super) async fn ask(mut call: Call, body: Body) -> Response {
    let Some(action) = call.operation.action else { return unknown_path().await };
    match call.fields(body).await {
        Ok((fields, _held)) => call.ask_for(action, &fields).await,
        Err(refused) => refused.into_response(),
    }
}

/// The list; or only that it is the one that the client has, if it does not show what moves with heartbeats: what else
/// there is to see changes with a revision.
pub(super) async fn list(mut call: Call, body: Body) -> Response {
    let (fields, _held) = match call.fields(body).await {
        Ok(fields) => fields,
        Err(refused) => return refused.into_response(),
    };
    let shown = fields.get("fields").and_then(|json| serde_json::from_str::<Vec<String>>(json).ok());
    let moves = |field: &String| field == "last_heartbeat" || field == "health";
    if shown.is_none_or(|shown| shown.iter().any(moves)) {
        return call.ask_for(Action::List, &fields).await;
    }
    let known = call.parts.headers.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok()).map(str::to_string);
    // Where it is not sure of what it knows, it says so in each list.
    let (epoch, revision) = match call.position().await {
        Ok(Some(position)) => position,
        Ok(None) => return call.ask_for(Action::List, &fields).await,
        Err(refused) => return refused.into_response(),
    };
    let tag = call.tag(&epoch, revision);
    if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag || known.trim() == "*")) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        set_tag(&mut response, &tag);
        return response;
    }
    // The list is of this revision or a later one. If it is later, the next answer is the whole list once more.
    let mut response = call.ask_for(Action::List, &fields).await;
    if response.status() == StatusCode::OK {
        set_tag(&mut response, &tag);
    }
    response
}

fn set_tag(response: &mut Response, tag: &str) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    HeaderValue::from_str(tag).into_iter().for_each(|tag| drop(headers.insert(ETAG, tag)));
}

impl Call {
    /// What the request says, read whole, and the room that it takes.
    pub(super) async fn fields(&mut self, body: Body) -> Result<(Fields, Held), Refused> {
        let live = self.shared.live();
        let max = match self.operation.body {
            Payload::None => NO_BODY_BYTES_MAX,
            Payload::Service | Payload::Members(_) => live.body_bytes_max,
        };
        let listening = self.connection.listen();
        let (body, held) =
            tokio::time::timeout(live.patience.request, self.read_body(body, max)).await.unwrap_or_else(|_| {
                let message = "the body has not come within http.request_timeout";
                Err(Refused::new(StatusCode::REQUEST_TIMEOUT, Code::InvalidRequest, "Too slow", message))
            })?;
        drop(listening);
        let path = RawPathParams::from_request_parts(&mut self.parts, &()).await.map_err(|_| {
            let message = "what is escaped there is no UTF-8";
            Refused::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, "Invalid path", message)
        })?;
        let path: Vec<(&str, &str)> = path.iter().collect();
        let query = self.parts.uri.query().unwrap_or_default();
        let fields = Fields::read(self.operation, &path, query, &body);
        Ok((fields?, held))
    }

    async fn read_body(&self, mut body: Body, max: usize) -> Result<(Vec<u8>, Held), Refused> {
        let too_long = || {
            let message = format!("expected at most {max} bytes");
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidRequest, "Too long a body", &message)
        };
        if body.size_hint().lower() > max as u64 {
            return Err(too_long());
        }
        let mut held = self.account.hold(None, 0).ok_or_else(no_room)?;
        // In one piece from the beginning: what is not written to takes no memory, and what would be copied, twice as much.
        let mut bytes = Vec::with_capacity(body.size_hint().lower().min(max as u64) as usize);
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let data = frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(|_| {
                Refused::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, "Invalid body", "it ends too early")
            })?;
            if bytes.len() + data.len() > max {
                return Err(too_long());
            }
            if !held.grow(data.len()) {
                return Err(no_room());
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes, held))
    }

    /// Asks the core, and hands its reply on.
    pub(super) async fn ask_for(&self, action: Action, fields: &Fields) -> Response {
        match self.answer_to(action, fields).await {
            Ok((answer, _waiting)) => answer.into_response(&self.account),
            Err(refused) => refused.into_response(),
        }
    }

    /// The core's answer; and the place among those that wait, if it may take its time.
    pub(super) async fn answer_to(&self, action: Action, fields: &Fields) -> Result<(Answer, Option<Aside>), Refused> {
        let request = fields.request(action, &self.shared.live().limits)?;
        let waiting = if request.may_wait() { Some(self.may_wait()?) } else { None };
        Ok((self.ask(request).await?, waiting))
    }

    /// The core's answer to a request, from whoever the proof still proves to ask; and to whoever it does, if that took
    /// its time.
    pub(super) async fn ask(&self, mut request: request::Request) -> Result<Answer, Refused> {
        let may_wait = request.may_wait();
        // What is needed to answer one request counts as that one.
        let is_first = !self.has_asked.swap(true, Ordering::Relaxed);
        let proved = |live: &Live| self.proof.principal(live, self.operation.needs);
        loop {
            let live = self.shared.live();
            let principal = proved(&live)?;
            let origin = Origin { principal, address: self.address };
            self.connection.note_asked(principal, &request, is_first);
            match self.shared.core.ask(request, origin, live.version, is_first).await.ok_or_else(stopping)? {
                Came::Answer(answer) if may_wait => return proved(&self.shared.live()).map(|_| answer),
                Came::Answer(answer) => return Ok(answer),
                Came::Again(again) => request = again,
            }
        }
    }

    /// A place among those that wait for something to happen.
    pub(super) fn may_wait(&self) -> Result<Aside, Refused> {
        self.connection.wait().ok_or_else(|| {
            let message =
                "too many HTTP clients wait, half as many as http.connections or connections_per_address: try again later";
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, "Too many requests", message)
        })
    }

    /// Where the registry stands, epoch and revision, if it is sure of that.
    ///
    /// # Errors
    /// The client asks too often. What it asks for next would count as the same request, and so not at all.
    async fn position(&self) -> Result<Option<(String, u64)>, Refused> {
        let mut fields = Fields::default();
        fields.set("max_stale", "0".into());
        let Ok((answer, _)) = self.answer_to(Action::Watch, &fields).await else { return Ok(None) };
        match answer.code {
            None => Ok(Position::of(&answer)),
            Some(Code::TooManyRequests) => Err(answer.into()),
            Some(_) => Ok(None),
        }
    }

    /// Stands for what the client is shown at this position.
    fn tag(&self, epoch: &str, revision: u64) -> String {
        let mut hasher = DefaultHasher::new();
        self.parts.uri.query().hash(&mut hasher);
        format!("W/\"{epoch}.{revision}.{:x}\"", hasher.finish())
    }
}

/// What is said by replies that name a moment.
#[derive(serde::Deserialize)]
struct Position {
    epoch: String,
    revision: u64,
}

impl Position {
    fn of(answer: &Answer) -> Option<(String, u64)> {
        let Position { epoch, revision } = serde_json::from_slice(&answer.bytes()).ok()?;
        Some((epoch, revision))
    }
}

/// What is said when nobody answers any more.
pub(super) fn stopping() -> Refused {
    Reply::failure(Code::Starting, "The registry is stopping, try again later").into()
}
