//! The web page at `/`: files that are in the program, so that nothing is installed beside it and nothing comes from
//! elsewhere.
//!
//! They are the same for everybody and say nothing of what is registered: the page asks for that as all clients do, and
//! is told as much as they are. What services say of themselves is shown as text. Should something slip through, the
//! policy below has browsers run nothing but these files, and refuse markup that is made from text.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'",
);
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page.
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($path:literal, $kind:expr, $file:literal;)*) => {
        &[$(File { path: $path, kind: $kind, text: include_str!(concat!("page/", $file)) }),*]
    };
}

static FILES: &[File] = files! {
    "/", "text/html; charset=utf-8", "index.html";
    "/page/page.css", STYLE, "page.css";
    "/page/parts.css", STYLE, "parts.css";
    "/page/list.css", STYLE, "list.css";
    "/page/detail.css", STYLE, "detail.css";
    "/page/narrow.css", STYLE, "narrow.css";
    "/page/icon.svg", "image/svg+xml", "icon.svg";
    "/page/theme.js", SCRIPT, "theme.js";
    "/page/page.js", SCRIPT, "page.js";
    "/page/activity.js", SCRIPT, "activity.js";
    "/page/api.js", SCRIPT, "api.js";
    "/page/detail.js", SCRIPT, "detail.js";
    "/page/dialogs.js", SCRIPT, "dialogs.js";
    "/page/dom.js", SCRIPT, "dom.js";
    "/page/format.js", SCRIPT, "format.js";
    "/page/list.js", SCRIPT, "list.js";
    "/page/load.js", SCRIPT, "load.js";
    "/page/plots.js", SCRIPT, "plots.js";
    "/page/services.js", SCRIPT, "services.js";
    "/page/summary.js", SCRIPT, "summary.js";
    "/page/sync.js", SCRIPT, "sync.js";
};

/// Adds the page to the routes.
pub(super) fn added_to(mut router: Router) -> Router {
    for file in FILES {
        let text = file.text.replace("{{version}}", env!("CARGO_PKG_VERSION"));
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        let body = Bytes::from(text);
        router = router.route(
            file.path,
            get(move |method: Method, headers: HeaderMap| {
                std::future::ready(response(file.kind, &tag, &body, &method, &headers))
            }),
        );
    }
    router
}

/// The file, or that the browser has it already: another program may have another one, so browsers ask each time.
fn response(kind: &'static str, tag: &str, body: &Bytes, method: &Method, headers: &HeaderMap) -> Response {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|known| known.to_str().ok());
    let is_known = known.flat_map(|known| known.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    });
    let mut response = Response::new(Body::empty());
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else if *method == Method::GET {
        *response.body_mut() = Body::from(body.clone());
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    HeaderValue::from_str(tag).into_iter().for_each(|tag| drop(headers.insert(ETAG, tag)));
    response
}
