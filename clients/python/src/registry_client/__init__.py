"""A client of the service registry: register, stay alive, discover, follow.

`Service` makes a process discoverable for as long as it lives. `Registry` is everything else, for any number of
threads; `AsyncRegistry` is the same for asyncio. What they promise is in `clients/behaviours.md`.
"""

from .aio import AsyncRegistry
from .cache import AsyncCache
from .errors import (
    BackendRefused,
    BackendUnavailable,
    Closed,
    Compacted,
    ConfigRefused,
    Deregistered,
    DuplicateServiceType,
    Forbidden,
    InvalidRequest,
    InvalidServiceTypePolicy,
    NoneHealthy,
    NotFound,
    Overloaded,
    Protocol,
    QuotaExceeded,
    Refused,
    RegistryError,
    Replaced,
    Stale,
    Starting,
    TimedOut,
    TooManyRequests,
    UnknownAction,
    Unreachable,
)
from .registration import AsyncRegistration
from .service import AsyncService, Service
from .settings import Keys, Settings
from .sync import Cache, Registration, Registry, Watch
from .values import (
    Change,
    Connectivity,
    Drain,
    Filter,
    Health,
    HistoryEntry,
    Listing,
    Position,
    Record,
    State,
    TypeCount,
)
from .watch import AsyncWatch

__all__ = [
    "AsyncCache",
    "AsyncRegistration",
    "AsyncRegistry",
    "AsyncService",
    "AsyncWatch",
    "BackendRefused",
    "BackendUnavailable",
    "Cache",
    "Change",
    "Closed",
    "Compacted",
    "ConfigRefused",
    "Connectivity",
    "Deregistered",
    "Drain",
    "DuplicateServiceType",
    "Filter",
    "Forbidden",
    "Health",
    "HistoryEntry",
    "InvalidRequest",
    "InvalidServiceTypePolicy",
    "Keys",
    "Listing",
    "NoneHealthy",
    "NotFound",
    "Overloaded",
    "Position",
    "Protocol",
    "QuotaExceeded",
    "Record",
    "Refused",
    "Registration",
    "Registry",
    "RegistryError",
    "Replaced",
    "Service",
    "Settings",
    "Stale",
    "Starting",
    "State",
    "TimedOut",
    "TooManyRequests",
    "TypeCount",
    "UnknownAction",
    "Unreachable",
    "Watch",
]
