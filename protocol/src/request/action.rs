//! What clients can ask for, in a word.

/// The words by which clients say what they want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Add a service, or update the one with the same id.
    Register,
    /// Remove a service.
    Deregister,
    /// A heartbeat.
    Renew,
    /// One service.
    Get,
    /// All services, or all of a type.
    List,
    /// Any healthy service of a type.
    Discover,
    /// Is the registry there?
    Health,
    /// Its settings and services.
    Info,
    /// Stop the server.
    Terminate,
    /// Which types there are.
    Types,
    /// The changes after a revision, or the next ones.
    Watch,
    /// Change a service's metadata.
    Update,
    /// What has happened to a service.
    History,
    /// End a mass expiry.
    Expiry,
    /// Have a service discovered by nobody.
    Drain,
    /// Have it discovered again.
    Undrain,
    /// Have the server read its configuration again.
    Reload,
    /// Have the server move to another store.
    Swap,
    /// Have the services of a backup take the place of all that are there.
    Restore,
    /// Who is connected.
    Clients,
}

impl Action {
    /// All actions.
    pub const ALL: [Action; 20] = [
        Action::Register,
        Action::Deregister,
        Action::Renew,
        Action::Get,
        Action::List,
        Action::Discover,
        Action::Health,
        Action::Info,
        Action::Terminate,
        Action::Types,
        Action::Watch,
        Action::Update,
        Action::History,
        Action::Expiry,
        Action::Drain,
        Action::Undrain,
        Action::Reload,
        Action::Swap,
        Action::Restore,
        Action::Clients,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Register => "register",
            Action::Deregister => "deregister",
            Action::Renew => "renew",
            Action::Get => "get",
            Action::List => "list",
            Action::Discover => "discover",
            Action::Health => "health",
            Action::Info => "info",
            Action::Terminate => "terminate",
            Action::Types => "types",
            Action::Watch => "watch",
            Action::Update => "update",
            Action::History => "history",
            Action::Expiry => "expiry",
            Action::Drain => "drain",
            Action::Undrain => "undrain",
            Action::Reload => "reload",
            Action::Swap => "swap",
            Action::Restore => "restore",
            Action::Clients => "clients",
        }
    }
}
