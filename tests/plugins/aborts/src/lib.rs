//! A plugin that says of itself what one built with `panic = "abort"` says, so that the tests need no build profile
//! of their own. It exports by hand what `export_backend!` would.

use registry_plugin_api::abi::PluginHeader;
use registry_plugin_api::abi::glue::{Exported, header};
use registry_plugin_api::{Backend, Cursor, Group, Host, Options, Outcome, Page, Result};

/// Is never opened.
pub struct Aborts;

impl Backend for Aborts {
    async fn open(_options: Options, _host: Host) -> Result<Self> {
        Ok(Aborts)
    }

    async fn load(&self, _after: Cursor) -> Result<Page> {
        Ok(Page::new(None))
    }

    async fn commit(&self, _group: Group) -> Result<Vec<Outcome>> {
        Ok(Vec::new())
    }
}

impl Exported for Aborts {
    type Backend = Aborts;
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const UNWINDS: bool = false;
}

#[allow(unsafe_code)] // the attribute: the name is this project's own
#[unsafe(export_name = "registry_storage_plugin")]
static HEADER: PluginHeader = header::<Aborts>();
