//! What those ask who look after the host: is it alive, is it ready, how is it?
//!
//! None of them is answered from here: each goes to the serving thread and back, so that a host that hangs does not say
//! that it is well.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;

use crate::protocol::reply::Code;
use crate::protocol::request::Request;
use crate::security::origin::Origin;

use super::answer::{Answer, Refused};
use super::front::Core;
use super::routes::{Call, stopping};

/// How long the serving thread may take. Its turns take milliseconds.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Whether it answers: 200 also while it starts, and while its storage fails, since a new start would mend neither.
pub(super) async fn live(call: Call) -> Response {
    health_of(&call).await.map_or_else(Refused::into_response, |answer| shown(answer, StatusCode::OK, &call))
}

/// Whether it can do all that it is for.
pub(super) async fn ready(call: Call) -> Response {
    #[derive(serde::Deserialize)]
    struct Ready {
        ready: bool,
    }
    match health_of(&call).await {
        Ok(answer) => {
            let is_ready = serde_json::from_slice::<Ready>(&answer.bytes()).is_ok_and(|health| health.ready);
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            shown(answer, status, &call)
        }
        Err(refused) => refused.into_response(),
    }
}

/// How it is.
pub(super) async fn health(call: Call) -> Response {
    match health_of(&call).await {
        Ok(answer) => answer.into_response(&call.account),
        Err(refused) => refused.into_response(),
    }
}

async fn health_of(call: &Call) -> Result<Answer, Refused> {
    ask(&call.shared.core, call.origin).await
}

async fn ask(core: &Core, origin: Origin) -> Result<Answer, Refused> {
    match tokio::time::timeout(ANSWER_MAX, core.ask(Request::Health, origin)).await {
        Ok(answer) => answer.ok_or_else(stopping),
        Err(_) => {
            let message = format!("it has not answered within {} s", ANSWER_MAX.as_secs());
            let error = "The registry hangs";
            Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, error, &message))
        }
    }
}

fn shown(answer: Answer, status: StatusCode, call: &Call) -> Response {
    let mut response = answer.into_response(&call.account);
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::super::front::{Http, Serving};
    use super::*;

    #[test]
    fn who_hangs_does_not_say_that_it_lives() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (front, Serving { core, .. }) = Http::new();
        let hangs = runtime.block_on(ask(&core, Origin::default())).unwrap_err().into_response();
        assert_eq!(hangs.status(), 503);
        drop(front);
        let gone = runtime.block_on(ask(&core, Origin::default())).unwrap_err().into_response();
        assert_eq!(gone.status(), 503);
    }
}
