//! Who is let in: what a browser may have been made to send is not, nor who cannot prove who they are where that is
//! asked for.
//!
//! A page from anywhere can have the browser on this machine ask a registry on it. So a request has to name a host that
//! the registry is known by (DNS rebinding), and must not come from another site; requests that change something have a
//! type that browsers send across sites only after asking, which nobody allows here. Nothing here does I/O.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;

use crate::protocol::registration::cut;
use crate::protocol::reply::Code;

use crate::security::principal::Principal;
use crate::security::token::Hash;

use super::answer::Refused;
use super::certified::Certified;
use super::live::Live;
use super::table::Needs;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What every response has: it is what it says it is, is shown in no frame, is read by no other site, and loads nothing.
const HEADERS: [(HeaderName, &str); 5] = [
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("x-frame-options"), "DENY"),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("content-security-policy"), "default-src 'none'; frame-ancestors 'none'"),
];

/// The names by which the registry is known, besides addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(HashSet<String>);

impl Hosts {
    /// These names.
    pub(super) fn new(names: &[String]) -> Self {
        Hosts(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether somebody who means this registry would say so. An address cannot be made to mean another machine.
    fn know(&self, authority: &str) -> bool {
        let Some(name) = name_of(authority) else { return false };
        let name = name.to_ascii_lowercase();
        let is_address = |name: &str| match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
            None => name.parse::<Ipv4Addr>().is_ok(),
        };
        name == "localhost" || is_address(&name) || self.0.contains(&name)
    }
}

/// An authority without its port.
fn name_of(authority: &str) -> Option<&str> {
    let end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at(end);
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    is_port.then_some(name)
}

/// Whether a request may be looked at at all.
///
/// # Errors
/// What refuses it.
pub(super) fn admit(method: &Method, uri: &Uri, headers: &HeaderMap, hosts: &Hosts) -> Result<(), Refused> {
    let host = only(headers, HOST)?.filter(|host| !host.is_empty());
    let Some(host) = host else {
        let message = "expected one Host header, with the name or the address that the registry is reached by";
        return Err(Refused::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, "No host", message));
    };
    let target = uri.authority().map(|authority| authority.as_str());
    if let Some(unknown) = [Some(host), target].into_iter().flatten().find(|name| !hosts.know(name)) {
        let shown = cut(unknown, 80);
        let message =
            format!("this registry is not known as {shown}: expected an address, localhost or one of http.hosts");
        return Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, Code::Forbidden, "Not allowed", &message));
    }
    if is_from_elsewhere(method, headers, host)? {
        let message = "requests from other sites are not answered";
        return Err(Refused::new(StatusCode::FORBIDDEN, Code::Forbidden, "Not allowed", message));
    }
    Ok(())
}

/// Whether a browser says that another site has asked for it.
fn is_from_elsewhere(method: &Method, headers: &HeaderMap, host: &str) -> Result<bool, Refused> {
    if let Some(origin) = only(headers, ORIGIN)? {
        let own = origin.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme));
        return Ok(!own.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)));
    }
    let says = |name: HeaderName, value: &str| headers.get(name).is_some_and(|header| header == value);
    // A link to a page here, which somebody follows: the other site sees nothing of it.
    let is_a_link = *method == Method::GET && says(SEC_FETCH_MODE, "navigate") && says(SEC_FETCH_DEST, "document");
    let site = headers.get(SEC_FETCH_SITE);
    Ok(site.is_some_and(|site| site != "same-origin" && site != "none") && !is_a_link)
}

/// What can change something has a type that no form can send. To be asked before an operation does anything.
///
/// # Errors
/// What refuses it.
pub(super) fn may_change(method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
    let types: &[&str] = match *method {
        Method::POST | Method::PUT => &["application/json"],
        Method::PATCH => &["application/json", "application/merge-patch+json"],
        _ => return Ok(()),
    };
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let said = said.split(';').next().unwrap_or_default().trim();
    if types.iter().any(|known| said.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let got = if said.is_empty() { "none".into() } else { cut(said, 80) };
    let message = format!("expected Content-Type: {}, with or without a body, got {got}", types.join(" or "));
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidRequest, "Unsupported Content-Type", &message))
}

/// The text of a header that may stand once.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refused> {
    let mut values = headers.get_all(&name).iter();
    let value = values.next().map(|value| value.to_str().unwrap_or("\u{fffd}"));
    if values.next().is_some() {
        let message = format!("expected {name} once, got several");
        return Err(Refused::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, "Invalid header", &message));
    }
    Ok(value)
}

/// What a request shows to prove who asks. It outlives the request where a stream follows, and may prove nothing later.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// Nothing.
    Nothing,
    /// A token, or something that none can be.
    Token(Option<Hash>),
    /// The certificate of its connection.
    Certificate(Arc<Certified>),
}

impl Proof {
    /// What there is. A token counts for more than a certificate: the request itself says it.
    ///
    /// # Errors
    /// What refuses several tokens.
    pub(super) fn of(headers: &HeaderMap, certified: Option<&Arc<Certified>>) -> Result<Self, Refused> {
        Ok(match (only(headers, AUTHORIZATION)?, certified) {
            (None, None) => Proof::Nothing,
            (None, Some(certified)) => Proof::Certificate(certified.clone()),
            (Some(said), _) => {
                let token = said.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                Proof::Token(token.map(|(_, token)| Hash::of(token.trim())))
            }
        })
    }

    /// Who asks, as far as this proves it now, for an operation that needs so much.
    ///
    /// # Errors
    /// What refuses who proves too little. A token that is not known must not do less than none.
    pub(super) fn principal(&self, live: &Live, needs: Needs) -> Result<Principal, Refused> {
        let problem = match self {
            Proof::Nothing if !live.asks_for_proof => return Ok(Principal::Nobody),
            Proof::Nothing => "clients of this registry have to prove who they are",
            Proof::Token(hash) => match hash.and_then(|hash| live.tokens.find(&hash)) {
                Some(name) => return Ok(Principal::Token(name)),
                None => "this token is not known",
            },
            Proof::Certificate(certified) => match certified.name(live) {
                Ok(name) => return Ok(Principal::Certificate(name)),
                Err(problem) => problem,
            },
        };
        // Who looks after the host is told how it is, whatever else is sent.
        if needs == Needs::Nothing { Ok(Principal::Stranger) } else { Err(unproved(problem, live.tls.is_some())) }
    }

    /// What operators are told of a proof that proves nothing, if there is one.
    pub(super) fn failure(&self) -> Option<&'static str> {
        match self {
            Proof::Nothing => None,
            Proof::Token(_) => Some("unknown token"),
            Proof::Certificate(_) => Some("certificate without a name, or not trusted any more"),
        }
    }
}

/// What is said to who has not proved who they are.
fn unproved(problem: &str, has_tls: bool) -> Refused {
    let or = if has_tls { ", or a certificate of TLS that is trusted" } else { "" };
    let message = format!("{problem}: expected Authorization: Bearer and a token, as `registry token` makes them{or}");
    Refused::new(StatusCode::UNAUTHORIZED, Code::Forbidden, "Not allowed", &message)
}

/// Adds what every response has, unless it has its own.
pub(super) fn protect(response: &mut Response) {
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(method: Method, target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let hosts = Hosts::new(&["Registry.example".to_string()]);
        let admitted = admit(&method, &target.parse().unwrap(), &map, &hosts).and_then(|()| may_change(&method, &map));
        admitted.map_or_else(|refused| refused.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_host_is_one_that_cannot_be_made_to_mean_another_machine() {
        for (host, status) in [
            ("localhost", 200),
            ("LocalHost:5559", 200),
            ("127.0.0.1:80", 200),
            ("10.1.2.3", 200),
            ("[::1]:5559", 200),
            ("registry.EXAMPLE:1", 200),
            ("evil.example", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost.", 421),
            ("[::1", 421),
            ("[evil.example]", 421),
            ("localhost:port", 421),
            ("localhost:80:80", 421),
            ("user@localhost", 421),
            ("", 400),
        ] {
            assert_eq!(admitted(Method::GET, "/", &[("host", host)]), status, "{host}");
        }
        assert_eq!(admitted(Method::GET, "/", &[]), 400);
        assert_eq!(admitted(Method::GET, "/", &[("host", "localhost"), ("host", "localhost")]), 400);
        assert_eq!(admitted(Method::GET, "http://evil.example/", &[("host", "localhost")]), 421);
        assert_eq!(admitted(Method::GET, "http://localhost/", &[("host", "localhost")]), 200);
    }

    #[test]
    fn other_sites_are_told_nothing() {
        let with = |method: Method, headers: &[(&str, &str)]| {
            let all = [&[("host", "localhost:5559"), ("content-type", "application/json")], headers].concat();
            admitted(method, "/", &all)
        };
        for (headers, status) in [
            (&[("origin", "http://localhost:5559")][..], 200),
            (&[("origin", "https://LOCALHOST:5559")], 200),
            (&[("origin", "http://localhost:3000")], 403),
            (&[("origin", "http://evil.example")], 403),
            (&[("origin", "null")], 403),
            (&[("origin", "file://localhost:5559")], 403),
            (&[("sec-fetch-site", "same-origin")], 200),
            (&[("sec-fetch-site", "none")], 200),
            (&[("sec-fetch-site", "same-site")], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")], 403),
            (&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "document")], 403),
            (&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], 403),
        ] {
            assert_eq!(with(Method::GET, headers), status, "{headers:?}");
            assert_eq!(with(Method::POST, headers), status, "{headers:?}");
        }
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert_eq!((with(Method::GET, &link), with(Method::POST, &link)), (200, 403));
    }

    #[test]
    fn what_a_form_could_send_changes_nothing() {
        for (method, content_type, status) in [
            (Method::POST, "application/json", 200),
            (Method::POST, "Application/JSON; charset=utf-8", 200),
            (Method::POST, "text/plain", 415),
            (Method::POST, "application/x-www-form-urlencoded", 415),
            (Method::POST, "text/plain; application/json", 415),
            (Method::PUT, "application/merge-patch+json", 415),
            (Method::PATCH, "application/merge-patch+json", 200),
            (Method::DELETE, "text/plain", 200),
        ] {
            let headers = [("host", "localhost"), ("content-type", content_type)];
            assert_eq!(admitted(method.clone(), "/", &headers), status, "{method} {content_type}");
        }
        assert_eq!(admitted(Method::POST, "/", &[("host", "localhost")]), 415);
    }
}
