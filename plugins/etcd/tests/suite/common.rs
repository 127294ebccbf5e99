//! What all tests here need: a prefix of their own, and a hand in etcd that is not the backend's.

use std::sync::atomic::{AtomicUsize, Ordering};

use etcd_client::{Client, DeleteOptions, GetOptions};
use registry_etcd::Etcd;
use registry_plugin_api::{Backend, Host, Options, Result};
use serde_json::json;

use crate::stores::server;

/// A prefix whose keys are deleted when the test is over.
pub(crate) struct Place {
    pub(crate) prefix: String,
    /// The member, and a client of its own.
    pub(crate) endpoint: String,
    pub(crate) etcd: Client,
}

impl Place {
    /// None without a server.
    pub(crate) async fn new() -> Option<Place> {
        let endpoint = server("REGISTRY_TEST_ETCD")?;
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("/test {}/{number}", std::process::id());
        let etcd = Client::connect([&endpoint], None).await.unwrap();
        Some(Place { prefix, endpoint, etcd })
    }

    pub(crate) async fn open(&self) -> Result<Etcd> {
        self.open_at(&self.endpoint).await
    }

    pub(crate) async fn open_at(&self, endpoint: &str) -> Result<Etcd> {
        open(json!({ "endpoints": endpoint, "prefix": self.prefix })).await
    }

    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    pub(crate) async fn has(&self, name: &str) -> bool {
        let count = Some(GetOptions::new().with_count_only());
        self.etcd.kv_client().get(self.key(name), count).await.unwrap().count() > 0
    }

    pub(crate) async fn put(&self, name: &str, value: &str) {
        self.etcd.kv_client().put(self.key(name), value, None).await.unwrap();
    }

    /// The ids of what is stored, whatever backend is open.
    pub(crate) async fn services(&self) -> Vec<String> {
        let all = Some(GetOptions::new().with_prefix().with_keys_only());
        let found = self.etcd.kv_client().get(self.key("services/"), all).await.unwrap();
        let keys = found.kvs().iter().map(|pair| pair.key_str().unwrap().rsplit('/').nth(1).unwrap().to_string());
        keys.collect()
    }

    pub(crate) async fn remove(self) {
        let all = Some(DeleteOptions::new().with_prefix());
        self.etcd.kv_client().delete(self.key(""), all).await.unwrap();
    }
}

pub(crate) async fn open(options: serde_json::Value) -> Result<Etcd> {
    let options = Options::check(Etcd::OPTIONS, options.as_object().unwrap().clone())?;
    Etcd::open(options, Host::for_tests()).await
}
