//! A store that is open, with a check of what no plugin may get wrong.

use registry_plugin_api::abi::load::Opened;
use registry_plugin_api::{Change, Cursor, Error, Observed, Outcome, Page, Query, Result};

/// A store that a plugin has opened: the calls of [`Backend`](registry_plugin_api::Backend), with the plain types of
/// plugin-api. Dropping it drops the backend.
///
/// A panic in the plugin is an error of the call ([`Panicked`](registry_plugin_api::ErrorKind::Panicked)), and the
/// next call reaches the plugin as usual. A call that is dropped before it has ended is cancelled.
pub struct OpenBackend {
    opened: Opened,
}

impl OpenBackend {
    pub(super) fn new(opened: Opened) -> Self {
        OpenBackend { opened }
    }

    /// See [`Backend::load`](registry_plugin_api::Backend::load).
    ///
    /// # Errors
    /// Whatever the backend says; and if the next page would be this one again, so that there is no end.
    pub async fn load(&self, after: Cursor) -> Result<Page> {
        let page = self.opened.load(after.clone()).await?;
        if page.next.as_ref().is_some_and(|next| next.is_start() || *next == after) {
            let position = after.as_str();
            return Err(Error::internal(format!(
                "the plugin's load does not move on: the page after {position:?} is next again"
            )));
        }
        Ok(page)
    }

    /// See [`Backend::commit`](registry_plugin_api::Backend::commit).
    ///
    /// # Errors
    /// Whatever the backend says; and if it does not give one outcome for each change.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Outcome>> {
        let expected = changes.len();
        let outcomes = self.opened.commit(changes).await?;
        if outcomes.len() != expected {
            let given = outcomes.len();
            return Err(Error::internal(format!(
                "the plugin's commit gave {given} outcomes, expected {expected}, one for each change"
            )));
        }
        Ok(outcomes)
    }

    /// See [`Backend::watch`](registry_plugin_api::Backend::watch).
    ///
    /// # Errors
    /// Whatever the backend says.
    pub async fn watch(&self, revision: u64) -> Result<Vec<Observed>> {
        self.opened.watch(revision).await
    }

    /// See [`Backend::discover`](registry_plugin_api::Backend::discover).
    ///
    /// # Errors
    /// Whatever the backend says; and if it chooses something that is not a candidate.
    pub async fn discover(&self, query: Query) -> Result<Option<String>> {
        let candidates = query.candidates.clone();
        match self.opened.discover(query).await? {
            Some(chosen) if !candidates.contains(&chosen) => {
                Err(Error::internal(format!("the plugin's discover chose {chosen:?}, which is not a candidate")))
            }
            choice => Ok(choice),
        }
    }

    /// See [`Backend::close`](registry_plugin_api::Backend::close).
    ///
    /// # Errors
    /// Whatever the backend says.
    pub async fn close(&self) -> Result<()> {
        self.opened.close().await
    }
}
