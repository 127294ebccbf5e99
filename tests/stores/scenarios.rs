//! What a store does when its wire fails, whatever the server. Each begins with a store that has `first`.

use std::time::Duration;

use registry_plugin_api::{Backend, ErrorKind, Outcome};
use tokio::time::{sleep, timeout};

use super::{Proxy, Wire, commit, contents, ids, put, remove};

/// A commit that was given up while the wire was frozen does not land after the next one.
pub(crate) async fn given_up(store: &impl Backend, proxy: &Proxy) {
    proxy.set(Wire::Frozen);
    let given_up = timeout(Duration::from_millis(300), commit(store, 2, &[put("late", 2)])).await;
    assert!(given_up.is_err());
    let changes = [remove("late", 2), put("next", 3)];
    let next = async {
        sleep(Duration::from_millis(300)).await;
        proxy.set(Wire::Passes);
    };
    let (outcomes, ()) = tokio::join!(commit(store, 3, &changes), next);
    assert_eq!(outcomes.unwrap()[1], Outcome::Done);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(ids(&contents(store).await), ["first", "next"]);
}

/// A commit whose answer is lost is an error, and the next one goes on from what is there. `stored` says that `lost` is in
/// the store, and `unreachable` is how an error begins while the server is away.
pub(crate) async fn lost(store: &impl Backend, proxy: &Proxy, stored: impl AsyncFn() -> bool, unreachable: &str) {
    proxy.set(Wire::Deaf);
    let lost = async {
        while !stored().await {
            sleep(Duration::from_millis(10)).await;
        }
        proxy.set(Wire::Cut);
    };
    let changes = [put("lost", 2)];
    let (error, ()) = tokio::join!(commit(store, 2, &changes), lost);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    // As long as the server is away, each call says so.
    let error = commit(store, 2, &changes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().starts_with(unreachable), "{error}");
    proxy.set(Wire::Passes);
    assert_eq!(commit(store, 3, &[remove("lost", 2), put("next", 3)]).await.unwrap(), [Outcome::Done, Outcome::Done]);
    assert_eq!(ids(&contents(store).await), ["first", "next"]);
}
