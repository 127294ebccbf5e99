//! The limit of open files, which is a limit of connections too.
//!
//! Systems start programs with a low limit (1024, often), for those that still use `select`, and with a higher one that
//! a program may give itself.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many files may be open besides connections: the ports, the log, what the storage and the runtime need.
const OTHERS: u64 = 32;

/// How much of what there is HTTP may take at most: a part.
const HTTP_PART: u64 = 8;

/// Raises the limit of open files as far as this process may, and returns how many of the configured connections have
/// room then, and how many of those for HTTP. If the former are fewer, the log says so: connections beyond them are
/// refused, so that the storage can still open files.
pub(crate) fn raise(connections: u32, http: u32) -> (u32, u32) {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, ..before };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!("limit of open files: {}, it was {}", words(raised.current), words(before.current)),
        Err(error) => tracing::debug!("limit of open files: {}, it cannot be raised: {error}", words(before.current)),
    }
    let limit = getrlimit(Resource::Nofile).current;
    let http = for_http(http, limit);
    let Some((limit, room)) = too_few(connections, http, limit) else { return (connections, http) };
    tracing::warn!(
        "limits.connections is {connections}, but the system allows this process {limit} open files, so there is room \
         for {room}: raise that (ulimit -n, or LimitNOFILE of systemd), or lower limits.connections"
    );
    (room, http)
}

/// How many connections for HTTP have room.
fn for_http(http: u32, limit: Option<u64>) -> u32 {
    let part = limit.map_or(u64::from(http), |limit| (limit / HTTP_PART).max(1));
    u32::try_from(part).unwrap_or(u32::MAX).min(http)
}

fn words(limit: Option<u64>) -> String {
    limit.map_or_else(|| "none".into(), |limit| limit.to_string())
}

/// The limit of open files, and how many connections it has room for, if these are fewer.
fn too_few(connections: u32, http: u32, limit: Option<u64>) -> Option<(u64, u32)> {
    let limit = limit?;
    // At least one connection to each port, whatever the limit.
    let room = u32::try_from(limit.saturating_sub(OTHERS + u64::from(http))).unwrap_or(u32::MAX).max(3);
    (room < connections).then_some((limit, room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_leaves_room_for_fewer_connections() {
        assert_eq!(too_few(1000, 0, Some(256)), Some((256, 256 - 32)));
        assert_eq!(too_few(1000, 32, Some(256)), Some((256, 256 - 64)));
        assert_eq!(too_few(1000, 0, Some(1000)), Some((1000, 968)), "connections are not all that is open");
        assert_eq!(too_few(1000, 1, Some(10)), Some((10, 3)));
        for enough in [Some(1032), Some(u64::MAX), None] {
            assert_eq!(too_few(1000, 0, enough), None, "{enough:?}");
        }
        assert_eq!(too_few(3, 0, Some(10)), None);
    }

    #[test]
    fn http_has_a_part_of_a_low_limit() {
        assert_eq!([Some(1024), Some(1 << 20), None].map(|limit| for_http(1000, limit)), [128, 1000, 1000]);
        assert_eq!((for_http(1000, Some(3)), for_http(0, Some(1024))), (1, 0));
    }
}
