//! The plugin's side: makes the tables of [`module`](super::module) from an author's [`Backend`].

use std::future::Future;

use abi_stable::library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RErr, ROk, ROption, RResult, RString, RVec};
use async_ffi::{FfiFuture, FutureExt};

use super::guard::{self, Guarded, GuardedBackend};
use super::log;
use super::module::{HostTable_Ref, PluginModule, PluginModule_Ref, RawBackend, RawBackend_TO, RawBackendBox, RawCall};
use super::types::{RawError, RawGroup, RawHistory, RawOption, RawOutcome, RawPage, RawQuery, each};
use crate::{Backend, Cursor, Error, Host, Options, Result};

/// What [`export_backend!`](crate::export_backend) says of an author's crate.
pub trait Exported: 'static {
    /// What is exported.
    type Backend: Backend;
    /// `CARGO_PKG_NAME`.
    const NAME: &'static str;
    /// `CARGO_PKG_VERSION`.
    const VERSION: &'static str;
    /// Whether it was built to unwind.
    const UNWINDS: bool;
}

/// The value of the symbol that a plugin exports.
#[allow(unsafe_code)]
pub const fn header<E: Exported>() -> LibHeader {
    // SAFETY: `construct` returns a `PluginModule_Ref`, the type that is named here.
    unsafe { LibHeader::from_constructor::<PluginModule_Ref>(construct::<E>, CheckTypeLayout::Yes) }
}

extern "C" fn construct<E: Exported>() -> RootModuleResult {
    __call_root_module_loader(module::<E>)
}

/// The plugin's table.
pub fn module<E: Exported>() -> PluginModule_Ref {
    PluginModule {
        name: E::NAME.into(),
        version: E::VERSION.into(),
        rustc: env!("REGISTRY_RUSTC_VERSION").into(),
        unwinds: E::UNWINDS,
        capabilities: capabilities::<E>,
        options: options::<E>,
        start: start::<E>,
        open: open::<E>,
    }
    .leak_into_prefix()
}

extern "C" fn options<E: Exported>() -> RVec<RawOption> {
    E::Backend::OPTIONS.iter().map(RawOption::from).collect()
}

extern "C" fn capabilities<E: Exported>(options: RString) -> RResult<u64, RawError> {
    let promised = guard::catch(|| {
        let options = Options::assume(E::Backend::OPTIONS, parse(&options)?)?;
        Ok(E::Backend::capabilities(&options).bits())
    });
    promised.and_then(|promised| promised).map_err(RawError::from).into()
}

fn parse(options: &str) -> Result<serde_json::Map<String, serde_json::Value>> {
    serde_json::from_str(options)
        .map_err(|error| Error::invalid_option(format!("the options are not a JSON object: {error}")))
}

extern "C" fn start<E: Exported>(host: HostTable_Ref) -> RResult<(), RawError> {
    let started = guard::catch(|| {
        log::install(host);
        guard::install_hook(E::NAME);
    });
    started.map_err(RawError::from).into()
}

extern "C" fn open<E: Exported>(options: RString, host: HostTable_Ref) -> FfiFuture<RResult<RawBackendBox, RawError>> {
    call(async move {
        let options = Options::check(E::Backend::OPTIONS, parse(&options)?)?;
        let backend = E::Backend::open(options, Host::new(host)).await?;
        Ok(RawBackend_TO::from_value(Adapter(GuardedBackend::new(backend)), TD_Opaque))
    })
}

/// Makes a call safe to be polled and dropped by the host. `work` begins with the first poll, so that a panic before
/// its first `await` is caught as well.
fn call<'a, T: 'a>(work: impl Future<Output = Result<T>> + Send + 'a) -> RawCall<'a, T> {
    let guarded = Guarded::new(work);
    async move {
        match guarded.await {
            Ok(value) => ROk(value),
            Err(error) => RErr(error.into()),
        }
    }
    .into_ffi()
}

/// A store that is open: an author's backend behind the table.
struct Adapter<B>(GuardedBackend<B>);

impl<B: Backend> RawBackend for Adapter<B> {
    fn load<'a>(&'a self, after: RString) -> RawCall<'a, RawPage> {
        call(async move { Ok(self.0.get()?.load(Cursor::after(after)).await?.into()) })
    }

    fn commit<'a>(&'a self, group: RawGroup) -> RawCall<'a, RVec<RawOutcome>> {
        call(async move {
            let (group, unknown) = group.into_known();
            let outcomes = self.0.get()?.commit(group).await?;
            Ok(each(unknown.put_among(outcomes)))
        })
    }

    fn history<'a>(&'a self, after: RString) -> RawCall<'a, RawHistory> {
        call(async move { Ok(self.0.get()?.history(Cursor::after(after)).await?.into()) })
    }

    fn discover<'a>(&'a self, query: RawQuery) -> RawCall<'a, ROption<RString>> {
        call(async move { Ok(self.0.get()?.discover(query.into()).await?.map(RString::from).into()) })
    }

    fn close<'a>(&'a self) -> RawCall<'a, ()> {
        call(async move { self.0.get()?.close().await })
    }
}
