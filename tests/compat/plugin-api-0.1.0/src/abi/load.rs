//! The host's side: decides whether what a library exports is a plugin that this host can use, and calls it with the
//! plain types of this crate.

use std::ffi::c_void;
use std::future::Future;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals};
use abi_stable::library::{AbiHeaderRef, LibraryError};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{RResult, RStr, RString, Tuple2};
use abi_stable::type_layout::TypeLayout;
use async_ffi::{FfiFuture, FutureExt};

use super::emit::{self, SourceId};
use super::module::{HostTable, HostTable_Ref, PluginModule_Ref, RawBackendBox, RawFields};
use super::types::{RawError, RawGroup, each_back};
use crate::{Capabilities, Cursor, Error, Group, History, OptionSpec, Outcome, Page, Query, Result};

/// The version of plugin-api that the host is built with.
pub const API_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a library that has the symbol is not used.
#[derive(Debug)]
pub enum Refusal {
    /// It was built against another series of versions of plugin-api.
    Version {
        /// Which one.
        built_against: String,
    },
    /// It says that it was built against the same series of versions, but passes something else.
    Layout {
        /// Which version it names.
        built_against: String,
        /// All differences: hundreds of lines.
        report: String,
    },
    /// It could not be asked.
    Broken(String),
}

/// A plugin whose tables can be used.
#[derive(Clone, Copy)]
pub struct Module {
    table: PluginModule_Ref,
    built_against: &'static str,
}

/// What a plugin says of itself.
#[derive(Clone, Debug)]
pub struct ModuleInfo {
    /// The name of its package.
    pub name: String,
    /// The version of its package.
    pub version: String,
    /// The version of plugin-api that it was built against.
    pub api_version: String,
    /// The compiler that built it, or nothing.
    pub rustc: String,
    /// Whether its panics can be caught.
    pub unwinds: bool,
    /// The options that it knows.
    pub options: Vec<OptionSpec>,
}

impl Module {
    /// Looks at what a library exports under [`SYMBOL`](super::SYMBOL).
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Safety
    /// `symbol` is the address of that symbol, in a library that is never unloaded.
    #[allow(unsafe_code)]
    pub unsafe fn check(symbol: *const c_void) -> std::result::Result<Module, Refusal> {
        // SAFETY: `AbiHeaderRef` is a transparent wrapper of the address of the start of a `LibHeader`, which is what
        // `export_backend!` puts under the symbol. It begins with a magic string and abi_stable's own version, which
        // `upgrade` looks at before anything else.
        let start: AbiHeaderRef = unsafe { mem::transmute(symbol) };
        let header = start.upgrade().map_err(broken)?;
        let built_against = header.version_strings().version.as_str();
        // Before the layouts: another series differs in all of them, and that is not worth a report.
        check_version(API_VERSION, built_against)?;
        let theirs = header.layout().ok_or_else(|| Refusal::Broken("it does not describe its layout".to_string()))?;
        check_layout(<PluginModule_Ref as StableAbi>::LAYOUT, theirs)
            .map_err(|report| Refusal::Layout { built_against: built_against.to_string(), report })?;
        // SAFETY: one layout is a prefix of the other, and what only one side has is read with a check at run time.
        let table = unsafe { header.init_root_module_with_unchecked_layout::<PluginModule_Ref>() };
        Ok(Module { table: table.map_err(broken)?, built_against })
    }

    /// What the plugin says of itself.
    pub fn info(&self) -> ModuleInfo {
        ModuleInfo {
            name: self.table.name().into(),
            version: self.table.version().into(),
            api_version: self.built_against.to_string(),
            rustc: self.table.rustc().into(),
            unwinds: self.table.unwinds(),
            options: each_back((self.table.options())()),
        }
    }

    /// Connects the plugin to the host's log and clock. Once is enough for a plugin; more is harmless.
    ///
    /// # Errors
    /// Whatever the plugin says.
    pub fn start<H: HostServices>(&self) -> Result<Started> {
        let host = host_table::<H>(emit::source(self.table.name().as_str()));
        plain((self.table.start())(host))?;
        Ok(Started { table: self.table, host })
    }
}

/// Only the series decides, `0.y` or `x`: the layouts are compared for what is the same within it.
pub(super) fn check_version(host: &str, plugin: &str) -> std::result::Result<(), Refusal> {
    match (series(host), series(plugin)) {
        (Some(host), Some(plugin)) if host == plugin => Ok(()),
        _ => Err(Refusal::Version { built_against: plugin.to_string() }),
    }
}

fn series(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next()??, parts.next()??) {
        (0, minor) => Some((0, minor)),
        (major, _) => Some((major, 0)),
    }
}

/// A plugin can be used if one side is a prefix of the other: tables only grow at their end, and what is behind the
/// end of the shorter one is not called. abi_stable compares in one direction, in which a plugin must have all that
/// the host has; so both directions are asked.
///
/// Nothing is remembered between two checks: abi_stable's memory of them is for plugins that call each other.
pub(super) fn check_layout(host: &'static TypeLayout, plugin: &'static TypeLayout) -> std::result::Result<(), String> {
    let fits = |wanted, given| check_layout_compatibility_with_globals(wanted, given, &CheckingGlobals::new());
    let Err(plugin_lacks) = fits(host, plugin) else { return Ok(()) };
    let Err(_) = fits(plugin, host) else { return Ok(()) };
    Err(plugin_lacks.to_string())
}

fn broken(error: LibraryError) -> Refusal {
    let report = error.to_string();
    match error {
        LibraryError::InvalidAbiHeader(_) => {
            Refusal::Version { built_against: "a version that this host cannot read".to_string() }
        }
        LibraryError::IncompatibleVersionNumber { actual_version, .. } => {
            Refusal::Version { built_against: actual_version.to_string() }
        }
        _ => Refusal::Broken(report.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_string()),
    }
}

/// What the host does for its plugins.
pub trait HostServices: 'static {
    /// The version of the host.
    const VERSION: &'static str;

    /// Waits. Called on any thread, with no runtime around it.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send + 'static;
}

/// The table for a plugin. It is never freed: the plugin may keep it.
pub(crate) fn host_table<H: HostServices>(log: SourceId) -> HostTable_Ref {
    HostTable {
        plugin: log.0,
        version: H::VERSION.into(),
        log_enabled: host_log_enabled,
        log: host_log,
        sleep_ns: host_sleep::<H>,
    }
    .leak_into_prefix()
}

/// A panic in the host's log must not cross into the plugin. What is lost is one message.
extern "C" fn host_log_enabled(plugin: u64, level: u32, target: RStr<'_>) -> bool {
    let enabled = || emit::enabled(SourceId(plugin), level, target.as_str());
    panic::catch_unwind(AssertUnwindSafe(enabled)).unwrap_or(false)
}

extern "C" fn host_log(plugin: u64, level: u32, target: RStr<'_>, message: RStr<'_>, fields: RawFields<'_>) {
    let fields: Vec<_> = fields.iter().map(|Tuple2(name, value)| (name.as_str(), value.as_str())).collect();
    let emit = || emit::emit(SourceId(plugin), level, target.as_str(), message.as_str(), &fields);
    let _ = panic::catch_unwind(AssertUnwindSafe(emit));
}

extern "C" fn host_sleep<H: HostServices>(nanoseconds: u64) -> FfiFuture<()> {
    async move { H::sleep(Duration::from_nanos(nanoseconds)).await }.into_ffi()
}

/// A plugin that is connected to the host.
#[derive(Clone, Copy)]
pub struct Started {
    table: PluginModule_Ref,
    host: HostTable_Ref,
}

impl Started {
    /// What the plugin promises with these options: the text of a JSON object. An option that must be given may be
    /// missing.
    ///
    /// # Errors
    /// An option is unknown or wrong, or the plugin panicked.
    pub fn capabilities(&self, options: String) -> Result<Capabilities> {
        Ok(Capabilities::from_bits(plain((self.table.capabilities())(options.into()))?))
    }

    /// Opens a store. `options` is the text of a JSON object.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub async fn open(&self, options: String) -> Result<Opened> {
        Ok(Opened(plain((self.table.open())(options.into(), self.host).await)?))
    }
}

/// A store that is open. Each call is the one of [`Backend`](crate::Backend), with the same errors.
pub struct Opened(RawBackendBox);

/// See [`Backend`](crate::Backend).
#[allow(clippy::missing_errors_doc)]
impl Opened {
    pub async fn load(&self, after: Cursor) -> Result<Page> {
        Ok(plain(self.0.load(RString::from(after.as_str())).await)?.into())
    }

    pub async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        Ok(each_back(plain(self.0.commit(group.into()).await)?))
    }

    /// As [`commit`](Self::commit), but the change at `place` is of a kind that no version knows: what a newer host
    /// might send. For checks.
    pub async fn commit_unknown(&self, group: Group, place: usize) -> Result<Vec<Outcome>> {
        let mut group = RawGroup::from(group);
        group.make_unknown(place);
        Ok(each_back(plain(self.0.commit(group).await)?))
    }

    pub async fn history(&self, after: Cursor) -> Result<History> {
        Ok(plain(self.0.history(RString::from(after.as_str())).await)?.into())
    }

    pub async fn discover(&self, query: Query) -> Result<Option<String>> {
        Ok(plain(self.0.discover(query.into()).await)?.map(String::from).into_option())
    }

    pub async fn close(&self) -> Result<()> {
        plain(self.0.close().await)
    }
}

fn plain<T>(result: RResult<T, RawError>) -> Result<T> {
    result.into_result().map_err(Error::from)
}
