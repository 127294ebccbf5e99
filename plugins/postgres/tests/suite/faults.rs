//! Connections that are lost, frozen or deaf, and hosts that come in between: what was acknowledged is there, and what
//! was given up never lands.

use registry_plugin_api::{Backend, ErrorKind};
use registry_postgres::Postgres;

use crate::common::{Place, revisions};
use crate::stores::{Proxy, Wire, commit, contents, given_up, ids, lost, put};

/// A store that is reached by a wire which can fail.
async fn begin() -> Option<(Place, Proxy, Postgres)> {
    let place = Place::new().await?;
    let (user, rest) = place.url.split_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    let proxy = Proxy::to(server.to_string()).await;
    let url = format!("{user}@127.0.0.1:{}/{database}", proxy.port);
    let store = place.open_at(&url).await.unwrap();
    commit(&store, 1, &[put("first", 1)]).await.unwrap();
    Some((place, proxy, store))
}

#[tokio::test]
async fn a_commit_that_was_given_up_does_not_land_after_the_next_one() {
    let Some((place, proxy, store)) = begin().await else { return };
    given_up(&store, &proxy).await;
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_an_error_and_the_next_one_goes_on_from_what_is_there() {
    let Some((place, proxy, store)) = begin().await else { return };
    let query = format!("SELECT FROM {}.services WHERE id = 'lost'", place.quoted());
    let stored = async || place.sql.query_opt(&query, &[]).await.unwrap().is_some();
    lost(&store, &proxy, stored, "cannot reach PostgreSQL at 127.0.0.1:").await;
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_host_that_was_cut_off_does_not_write_where_another_one_has_come() {
    let Some((place, proxy, store)) = begin().await else { return };
    proxy.set(Wire::Frozen);
    let second = place.open().await.err().unwrap();
    assert!(second.message().contains("in use by another registry host"), "{second}");
    // Its machine is dead as far as the server can tell.
    let ended = format!(
        "SELECT pg_terminate_backend(l.pid) FROM pg_locks l
         WHERE locktype = 'advisory' AND classid::bigint << 32 | objid::bigint =
             hashtextextended('registry_postgres {}', 0)",
        place.schema.replace('\'', "''")
    );
    place.sql.batch_execute(&ended).await.unwrap();
    let second = place.open().await.unwrap();
    commit(&second, 2, &[put("second", 2)]).await.unwrap();
    second.close().await.unwrap();
    drop(second);
    proxy.set(Wire::Passes);
    for _ in 0..2 {
        let error = commit(&store, 2, &[put("stale", 2)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let error = commit(&store, 2, &[put("stale", 2)]).await.unwrap_err();
    assert!(error.message().contains("another host has used schema"), "{error}");
    let third = place.open().await.unwrap();
    assert_eq!(ids(&contents(&third).await), ["first", "second"]);
    third.close().await.unwrap();
    place.remove().await;
}

/// As an old primary that hangs, while a standby has taken over.
#[tokio::test]
async fn a_host_that_takes_connections_and_says_nothing_is_passed_over() {
    let Some((place, frozen, store)) = begin().await else { return };
    store.close().await.unwrap();
    drop(store);
    frozen.set(Wire::Frozen);
    let url = place.url.replacen('@', &format!("@127.0.0.1:1,127.0.0.1:{},", frozen.port), 1);
    let store = place.open_at(&url).await.unwrap();
    assert_eq!(ids(&contents(&store).await), ["first"]);
    store.close().await.unwrap();
    place.remove().await;
}

/// Even a session that has kept its connection, and its lock as it thinks.
#[tokio::test]
async fn a_commit_compares_the_fence() {
    let Some((place, _proxy, store)) = begin().await else { return };
    place.run("UPDATE {s}.store SET fence = fence + 1").await;
    let error = commit(&store, 2, &[put("fenced", 2)]).await.unwrap_err();
    assert!(error.message().contains("another host has taken over"), "{error}");
    let there = format!("SELECT count(*) FROM {}.services", place.quoted());
    assert_eq!(place.sql.query_one(&there, &[]).await.unwrap().get::<_, i64>(0), 1);
    place.remove().await;
}

/// As after a fail-over to a standby that was behind.
#[tokio::test]
async fn a_server_that_has_lost_what_it_had_acknowledged_is_not_written_to() {
    let Some((place, proxy, store)) = begin().await else { return };
    commit(&store, 2, &[put("second", 2)]).await.unwrap();
    proxy.set(Wire::Cut);
    drop(commit(&store, 3, &[]).await);
    place.run("UPDATE {s}.store SET revision = 1; DELETE FROM {s}.services WHERE id = 'second'").await;
    proxy.set(Wire::Passes);
    let error = commit(&store, 3, &[put("third", 3)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("has lost changes that it had acknowledged"), "{error}");
    drop(store);
    let store = place.open().await.unwrap();
    assert_eq!(revisions(contents(&store).await), (None, vec![("first".to_string(), 1)]));
    store.close().await.unwrap();
    place.remove().await;
}
