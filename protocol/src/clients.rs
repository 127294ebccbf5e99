//! Who is connected: which of them is asked for, a page at a time.

use std::fmt;
use std::net::IpAddr;

use serde_json::value::RawValue;

use crate::page::Page;
use crate::registration::invalid_value;
use crate::reply::Reply;
use crate::request::optional;

/// The longest name of a key or a token that can be asked for, in bytes.
const PRINCIPAL_BYTES_MAX: usize = 256;
/// The longest text that is an address, in bytes.
const ADDRESS_BYTES_MAX: usize = 64;
/// What stands for all Unix sockets.
const IPC: &str = "ipc";

/// Which of those that are connected, and how many of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Only those that come from there.
    pub address: Option<Near>,
    /// Only those that have proved to be this one: its key, or a name that operators have given it.
    pub principal: Option<String>,
    /// Which page of them.
    pub page: Page<ClientsCursor>,
}

/// Where clients may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// This machine's Unix sockets.
    Ipc,
    /// A machine.
    Machine(IpAddr),
}

/// Where a page of clients begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientsCursor {
    /// Which run of the host has given it.
    pub run: u64,
    /// The number of the last connection that has been looked at.
    pub after: u64,
}

impl Clients {
    /// What a request's fields say.
    ///
    /// # Errors
    /// The reply that refuses it, naming the field and what it should be.
    pub(crate) fn read(
        address: Option<&RawValue>,
        principal: Option<&RawValue>,
        page: Page<ClientsCursor>,
    ) -> Result<Self, Reply> {
        let text = optional("address", address, ADDRESS_BYTES_MAX)?;
        let near = |text: String| match text.as_str() {
            IPC => Ok(Near::Ipc),
            text => text.parse().map(|ip: IpAddr| Near::Machine(ip.to_canonical())).map_err(|_| {
                let got = address.map_or("", RawValue::get);
                invalid_value("address", "an IP address without a port, or \"ipc\"", got)
            }),
        };
        Ok(Clients {
            address: text.map(near).transpose()?,
            principal: optional("principal", principal, PRINCIPAL_BYTES_MAX)?,
            page,
        })
    }
}

impl ClientsCursor {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (run, after) = text.split_once('.')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(ClientsCursor { run: number(run)?, after: number(after)? })
    }
}

impl fmt::Display for ClientsCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClientsCursor { run, after } = self;
        write!(f, "{run:x}.{after:x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Limits, Port, Request, parse};

    fn read(fields: &str) -> Result<Clients, String> {
        let body = format!("{{\"action\":\"clients\"{fields}}}");
        match parse(body.as_bytes(), Port::Requests, &Limits::default()).request {
            Ok(Request::Clients(clients)) => Ok(*clients),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.finish(None).into_text()),
        }
    }

    #[test]
    fn clients_are_asked_for_by_where_they_are_and_who() {
        let all = read("").unwrap();
        assert_eq!((all.address, &all.principal, all.page.limit, all.page.cursor), (None, &None, 10_000, None));
        let cursor = ClientsCursor { run: u64::MAX, after: 0x1234 };
        let some = read(&format!(r#","address":"::ffff:10.0.0.7","principal":"ci","limit":2,"cursor":"{cursor}""#));
        let some = some.unwrap();
        assert_eq!(some.address, Some(Near::Machine("10.0.0.7".parse().unwrap())));
        assert_eq!((some.principal.as_deref(), some.page), (Some("ci"), Page { limit: 2, cursor: Some(cursor) }));
        assert_eq!(read(r#","address":"ipc""#).unwrap().address, Some(Near::Ipc));
    }

    #[test]
    fn what_is_no_client_is_refused_by_name() {
        for (fields, expected) in [
            (r#","address":"10.0.0.7:80""#, "an IP address without a port"),
            (r#","address":7"#, "a string"),
            (r#","principal":["a"]"#, "principal: expected a string"),
            (r#","limit":0"#, "limit: expected a whole number"),
            (r#","cursor":"1""#, "cursor: expected the cursor of the page before"),
            (r#","cursor":"1.2.3""#, "cursor: expected the cursor of the page before"),
        ] {
            let refusal = read(fields).unwrap_err();
            assert!(refusal.contains(expected) && refusal.contains("invalid_request"), "{fields}: {refusal}");
        }
    }
}
