//! The tables through which the two sides call each other: what a plugin gives to the host ([`PluginModule`] and, for
//! each store that is open, a [`RawBackend`]), and what the host gives to a plugin ([`HostTable`]).
//!
//! `#[sabi(last_prefix_field)]` marks what the first version of a series (0.1.0, and later 1.0.0) had. It does not
//! move within the series: new fields go behind it, and who reads one asks first whether the other side has it.

// They come from the code that abi_stable's macros make.
#![allow(non_local_definitions, non_camel_case_types, unsafe_code)]
// So do the undocumented items: accessors, and the table behind the trait.
#![allow(missing_docs)]

use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RBox, ROption, RResult, RSlice, RStr, RString, RVec, Tuple2};
use abi_stable::{StableAbi, declare_root_module_statics, package_version_strings, sabi_trait};
use async_ffi::{BorrowingFfiFuture, FfiFuture};

use super::types::{RawError, RawGroup, RawHistory, RawOption, RawOutcome, RawPage, RawQuery};

/// A call of a backend that is under way.
pub type RawCall<'a, T> = BorrowingFfiFuture<'a, RResult<T, RawError>>;

/// A store that is open: [`Backend`](crate::Backend) as it crosses the boundary.
#[sabi_trait]
pub trait RawBackend: Send + Sync {
    fn load<'a>(&'a self, after: RString) -> RawCall<'a, RawPage>;
    fn commit<'a>(&'a self, group: RawGroup) -> RawCall<'a, RVec<RawOutcome>>;
    fn history<'a>(&'a self, after: RString) -> RawCall<'a, RawHistory>;
    fn discover<'a>(&'a self, query: RawQuery) -> RawCall<'a, ROption<RString>>;
    #[sabi(last_prefix_field)]
    fn close<'a>(&'a self) -> RawCall<'a, ()>;
}

/// Owns a store that is open, and closes it for good when dropped.
pub type RawBackendBox = RawBackend_TO<'static, RBox<()>>;

/// What the host does for a plugin.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostTable_Ref)))]
#[sabi(missing_field(option))]
pub struct HostTable {
    /// Who is calling: handed back by the plugin with every message that it logs.
    pub plugin: u64,
    /// The version of the host.
    pub version: RStr<'static>,
    /// Whether a message of that level (1 is an error, 5 a trace) and target would be written at all.
    pub log_enabled: extern "C" fn(plugin: u64, level: u32, target: RStr<'_>) -> bool,
    /// Writes a message with its fields to the host's log.
    pub log: extern "C" fn(u64, level: u32, target: RStr<'_>, message: RStr<'_>, fields: RawFields<'_>),
    /// Waits, in nanoseconds.
    #[sabi(last_prefix_field)]
    pub sleep_ns: extern "C" fn(u64) -> FfiFuture<()>,
}

/// Names and values, as text.
pub type RawFields<'a> = RSlice<'a, Tuple2<RStr<'a>, RStr<'a>>>;

/// What a plugin is, and how it is started.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModule_Ref)))]
#[sabi(missing_field(option))]
pub struct PluginModule {
    /// The name of the plugin's package.
    pub name: RStr<'static>,
    /// The version of the plugin's package.
    pub version: RStr<'static>,
    /// What `rustc --version` said when it was built, or nothing.
    pub rustc: RStr<'static>,
    /// Whether a panic can be caught.
    pub unwinds: bool,
    /// [`Backend::capabilities`](crate::Backend::capabilities) with these options, a JSON object: one bit each.
    pub capabilities: extern "C" fn(options: RString) -> RResult<u64, RawError>,
    /// [`Backend::OPTIONS`](crate::Backend::OPTIONS).
    pub options: extern "C" fn() -> RVec<RawOption>,
    /// Called once, before anything is opened: sets up logs and the handling of panics. Calling it again is harmless.
    pub start: extern "C" fn(HostTable_Ref) -> RResult<(), RawError>,
    /// [`Backend::open`](crate::Backend::open), with the options as a JSON object.
    #[sabi(last_prefix_field)]
    pub open: extern "C" fn(options: RString, HostTable_Ref) -> FfiFuture<RResult<RawBackendBox, RawError>>,
}

impl RootModule for PluginModule_Ref {
    declare_root_module_statics! {PluginModule_Ref}
    const BASE_NAME: &'static str = "registry";
    const NAME: &'static str = "registry storage plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
