//! A store that is open, with a check of what no plugin may get wrong.

use registry_plugin_api::abi::load::Opened;
use registry_plugin_api::{Cursor, Error, Group, History, Outcome, Page, Query, Result};

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
        check_next("load", &after, page.next.as_ref())?;
        Ok(page)
    }

    /// See [`Backend::commit`](registry_plugin_api::Backend::commit).
    ///
    /// # Errors
    /// Whatever the backend says; and if it does not give one outcome for each change.
    pub async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        let expected = group.changes.len();
        let outcomes = self.opened.commit(group).await?;
        if outcomes.len() != expected {
            let given = outcomes.len();
            return Err(Error::internal(format!(
                "the plugin's commit gave {given} outcomes, expected {expected}, one for each change"
            )));
        }
        Ok(outcomes)
    }

    /// [`commit`](Self::commit) with the change at `place` of a kind that no plugin knows.
    pub(crate) async fn commit_unknown(&self, group: Group, place: usize) -> Result<Vec<Outcome>> {
        self.opened.commit_unknown(group, place).await
    }

    /// See [`Backend::history`](registry_plugin_api::Backend::history).
    ///
    /// # Errors
    /// Whatever the backend says; and if the next page would be this one again, so that there is no end.
    pub async fn history(&self, after: Cursor) -> Result<History> {
        let page = self.opened.history(after.clone()).await?;
        check_next("history", &after, page.next.as_ref())?;
        Ok(page)
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

fn check_next(call: &str, after: &Cursor, next: Option<&Cursor>) -> Result<()> {
    if next.is_none_or(|next| !next.is_start() && next != after) {
        return Ok(());
    }
    let position = after.as_str();
    Err(Error::internal(format!("the plugin's {call} does not move on: the page after {position:?} is next again")))
}
