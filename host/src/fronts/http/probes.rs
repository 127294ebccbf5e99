//! What those ask who look after the host: is it alive, is it ready, how is it?
//!
//! None of them is answered from here: each goes to the serving thread and back, so that a host that hangs does not say
//! that it is well.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;

use crate::protocol::reply::Code;
use crate::protocol::request::Request;

use super::answer::{Answer, Refused};
use super::routes::Call;

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
    in_time(call.ask(Request::Health)).await
}

async fn in_time(answer: impl Future<Output = Result<Answer, Refused>>) -> Result<Answer, Refused> {
    match tokio::time::timeout(ANSWER_MAX, answer).await {
        Ok(answer) => answer,
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
    use super::*;

    #[test]
    fn who_hangs_does_not_say_that_it_lives() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let hangs = runtime.block_on(in_time(std::future::pending())).unwrap_err().into_response();
        assert_eq!(hangs.status(), 503);
    }
}
