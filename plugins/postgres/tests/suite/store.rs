//! What is in the database, whose it is, and what it refuses.

use registry_plugin_api::{Backend, Cursor, ErrorKind, Outcome, Position};
use serde_json::json;

use crate::common::{Place, connect, open, revisions};
use crate::stores::{commit, contents, ids, put, remove};

#[tokio::test]
async fn a_service_that_postgres_cannot_take_is_refused_alone() {
    let Some(place) = Place::new().await else { return };
    let store = place.open().await.unwrap();
    commit(&store, 1, &[]).await.unwrap();
    let long = "x".repeat(2601);
    let outcomes = commit(&store, 4, &[put("a", 2), put(&long, 3), put("nul\0", 4), remove(&long, 5)]).await.unwrap();
    let Outcome::Refused(error) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!((&outcomes[0], &outcomes[2], &outcomes[3]), (&Outcome::Done, &Outcome::Done, &Outcome::Missing));
    assert_eq!(ids(&contents(&store).await), ["a", "nul\0"]);
    // Nothing of it is told either.
    let events = store.history(Cursor::start()).await.unwrap().events;
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [2, 4, 5]);
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_store_that_was_restored_elsewhere_has_no_position() {
    let Some(place) = Place::new().await else { return };
    let store = place.open().await.unwrap();
    commit(&store, 1, &[put("a", 1)]).await.unwrap();
    store.close().await.unwrap();
    let store = place.open().await.unwrap();
    assert_eq!(revisions(contents(&store).await), (Some(Position::new("epoch", 1)), vec![("a".to_string(), 1)]));
    store.close().await.unwrap();
    // As a restoration to a point in time leaves it: another timeline.
    place.run("UPDATE {s}.store SET server = replace(server, '00000001', '00000002')").await;
    let store = place.open().await.unwrap();
    assert_eq!(revisions(contents(&store).await), (None, vec![("a".to_string(), 1)]));
    commit(&store, 1, &[]).await.unwrap();
    store.close().await.unwrap();
    // And as the operator says it.
    place.run("UPDATE {s}.store SET epoch = NULL").await;
    let store = place.open().await.unwrap();
    assert_eq!(contents(&store).await.0, None);
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_schema_of_another_program_or_a_newer_registry_is_refused_and_left_as_it_is() {
    let Some(place) = Place::new().await else { return };
    place.run("CREATE SCHEMA {s}; CREATE TABLE {s}.store (version integer)").await;
    let error = place.open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("belongs to another program"), "{error}");
    place.run("DROP TABLE {s}.store").await;
    // One that is empty will do.
    place.open().await.unwrap().close().await.unwrap();
    place.run("UPDATE {s}.store SET version = 2").await;
    let error = place.open().await.err().unwrap();
    assert!(error.message().contains("newer registry (schema version 2, expected 1)"), "{error}");
    place.remove().await;
}

#[tokio::test]
async fn a_role_that_may_make_no_schemas_uses_one_that_is_there() {
    let Some(place) = Place::new().await else { return };
    let role = format!("role_{}", std::process::id());
    place
        .run(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'sesame';
             REVOKE CREATE ON DATABASE postgres FROM PUBLIC;"
        ))
        .await;
    let url = place.url_as(&role, "sesame");
    let error = place.open_at(&url).await.err().unwrap();
    assert!(error.message().contains("permission denied"), "{error}");
    assert!(!error.message().contains("sesame"), "{error}");
    place.run(&format!("CREATE SCHEMA {{s}} AUTHORIZATION {role}")).await;
    let store = place.open_at(&url).await.unwrap();
    commit(&store, 1, &[put("a", 1)]).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    place.run(&format!("DROP SCHEMA {{s}} CASCADE; DROP ROLE {role}; CREATE SCHEMA {{s}}")).await;
    place.remove().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_options_is_named_without_the_url() {
    let refused = async |options| open(options).await.err().unwrap();
    let url = "postgres://user:sesame@127.0.0.1:1/base";
    let error = refused(json!({ "url": "postgres://user:sesame@host:port/" })).await;
    assert_eq!(error.kind(), ErrorKind::InvalidOption);
    assert!(error.message().contains("\"url\"") && !error.message().contains("sesame"), "{error}");
    let error = refused(json!({ "url": "host=a,b,c port=1,2 user=user password=sesame" })).await;
    assert!(error.message().contains("\"url\" names 3 hosts, 0 addresses and 2 ports"), "{error}");
    for name in ["", "pg_mine", &"x".repeat(64)] {
        let error = refused(json!({ "url": url, "schema": name })).await;
        assert!(error.message().contains("\"schema\""), "{error}");
    }
    let error = refused(json!({ "url": url, "ca": "/no/such.pem" })).await;
    assert!(error.message().contains("\"ca\": cannot read \"/no/such.pem\""), "{error}");
    let error = refused(json!({ "url": url })).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().starts_with("cannot reach PostgreSQL at 127.0.0.1:1/base: "), "{error}");
}

/// Each commit is as safe as the server can make it, and no session waits for anybody for long.
#[tokio::test]
async fn a_session_commits_to_the_disk_and_waits_for_nobody() {
    let Some(place) = Place::new().await else { return };
    let role = format!("careless_{}", std::process::id());
    place
        .run(&format!(
            "CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'x'; ALTER ROLE {role} SET synchronous_commit = off"
        ))
        .await;
    let url = place.url_as(&role, "x");
    let store = place.open_at(&url).await.unwrap();
    // The row that every commit looks at is held by somebody.
    let mut other = connect(&url).await;
    let transaction = other.transaction().await.unwrap();
    transaction.execute(&format!("SELECT 1 FROM {}.store FOR UPDATE", place.quoted()), &[]).await.unwrap();
    let error = commit(&store, 1, &[put("a", 1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("lock timeout"), "{error}");
    transaction.rollback().await.unwrap();
    assert_eq!(commit(&store, 1, &[put("a", 1)]).await.unwrap(), [Outcome::Done]);
    // What the backend's session thinks cannot be asked from outside; that the role's setting was not kept, can.
    place
        .run(
            "CREATE FUNCTION {s}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION 'it is %', current_setting('synchronous_commit'); END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON {s}.services EXECUTE FUNCTION {s}.refuse();",
        )
        .await;
    let error = commit(&store, 2, &[put("b", 2)]).await.unwrap_err();
    assert!(error.message().contains("it is on"), "{error}");
    store.close().await.unwrap();
    drop((store, other));
    place.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}; CREATE SCHEMA {{s}}")).await;
    place.remove().await;
}
