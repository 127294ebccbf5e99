"""What calls take and give: plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, overload

from .errors import Protocol

Json = dict[str, Any]
"""An object of JSON."""


class State(str, Enum):
    """How a registration is. The last three are for good."""

    REGISTERED = "registered"
    UNSURE = "unsure"
    """It has not been renewed for longer than its ttl: the registry is away."""
    REFUSED = "refused"
    """It had to be registered again and was refused; this is tried again."""
    DEREGISTERED = "deregistered"
    """Somebody else has taken it out."""
    REPLACED = "replaced"
    """Another process has registered the id since."""
    CLOSED = "closed"

    @property
    def is_over(self) -> bool:
        """Whether it stays so."""
        return self in (State.DEREGISTERED, State.REPLACED, State.CLOSED)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the history of a registry."""

    epoch: str
    revision: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which services are meant: all that is given must hold.

    `service_type` and each of `tags` must be among a service's types; each key of `metadata` must be in its metadata
    with an equal value; `version` is a SemVer requirement, such as `">=1.2, <2"`, for its `version` or
    `metadata.version`.
    """

    service_type: str | None = None
    tags: Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = None
    version: str | None = None

    def request(self) -> Json:
        """The fields of a request that say so."""
        fields: Json = {}
        if self.service_type is not None:
            fields["service_type"] = self.service_type
        if self.tags is not None:
            if isinstance(self.tags, str):
                raise TypeError("tags must be a list of texts, not a text")
            fields["tags"] = list(self.tags)
        if self.metadata is not None:
            fields["metadata"] = dict(self.metadata)
        if self.version is not None:
            fields["version"] = self.version
        return fields


@dataclass(frozen=True, slots=True)
class Drain:
    """That a service is drained: it is registered, and not discovered. Times are by the registry's clock."""

    since: int | None
    """Seconds since 1970."""
    until: int | None = None
    """Seconds since 1970; `None` if somebody has to end it."""
    reason: str | None = None
    """Why, if that was said."""


@dataclass(frozen=True, slots=True)
class Record:
    """A service, as the registry shows it.

    `fields` has everything, fields of the service's own too: `record["protocol"]`. If the call names some, only
    those are there; asking for another raises `KeyError`.
    """

    fields: Mapping[str, Any]

    def __getitem__(self, field: str) -> Any:
        """Any field of the record."""
        return self.fields[field]

    def __contains__(self, field: object) -> bool:
        """Whether the record has that field."""
        return field in self.fields

    def __str__(self) -> str:
        """For people: what there is of id, type, address and health."""
        kind, health = self.get("type"), self.get("health")
        place = f"at {self.address}" if "host" in self and "port" in self else ""
        parts = [self.id, f"({kind})" if kind else "", place, health or ""]
        return " ".join(part for part in parts if part)

    def get(self, field: str, default: Any = None) -> Any:
        """Any field of the record, or `default`."""
        return self.fields.get(field, default)

    @property
    def id(self) -> str:
        """The service's id."""
        return str(self.fields["id"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.fields["name"])

    @property
    def host(self) -> str:
        """The address at which it is reached."""
        return str(self.fields["host"])

    @property
    def port(self) -> int:
        """The port at which it is reached."""
        return int(self.fields["port"])

    @property
    def type(self) -> str | None:
        """Its type, if it was registered with one."""
        kind = self.fields.get("type")
        return None if kind is None else str(kind)

    @property
    def tags(self) -> list[str]:
        """What it is discovered by, its type among them."""
        return [str(tag) for tag in self.fields["tags"]]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else it says of itself."""
        metadata: Mapping[str, Any] = self.fields["metadata"]
        return metadata

    @property
    def ttl(self) -> float:
        """For how many seconds it is healthy without a heartbeat."""
        return float(self.fields["ttl"])

    @property
    def health(self) -> str:
        """`"passing"` or `"critical"`, when the registry was asked."""
        return str(self.fields["health"])

    @property
    def is_passing(self) -> bool:
        """Whether it was healthy when the registry was asked."""
        return bool(self.get("health") == "passing")

    @property
    def drain(self) -> Drain | None:
        """Since when, how long and why it is drained, if it is."""
        drain = self.get("drain")
        return Drain(*map(drain.get, ("since", "until", "reason"))) if isinstance(drain, dict) else None

    @property
    def is_drained(self) -> bool:
        """Whether it was drained when the registry was asked: registered, and not to be discovered."""
        return isinstance(self.get("drain"), dict)

    @property
    def last_heartbeat(self) -> int:
        """When the last heartbeat came, by the registry's clock: seconds since 1970."""
        return int(self.fields["last_heartbeat"])

    @property
    def generation(self) -> int | None:
        """Which registration of this id it is. Older registries give none."""
        generation = self.fields.get("generation")
        return None if generation is None else int(generation)

    @property
    def address(self) -> str:
        """Host and port, as one connects to them: `10.0.0.7:7000`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """The same for ZeroMQ: `tcp://10.0.0.7:7000`."""
        return f"tcp://{self.address}"

    def is_of_type(self, service_type: str) -> bool:
        """Whether it is found by this type: one of its tags, or its `metadata.type`."""
        tags, metadata = self.get("tags"), self.get("metadata")
        in_metadata = isinstance(metadata, dict) and metadata.get("type") == service_type
        return in_metadata or (isinstance(tags, list) and service_type in tags)


@dataclass(frozen=True, slots=True)
class Listing(Sequence[Record]):
    """A list of services, with the position in history at which it is exact: a `watch` goes on from there."""

    services: tuple[Record, ...]
    position: Position | None
    stale_seconds: float | None = None
    """For how long the registry has not been able to be sure of its state; `None` if it is sure."""

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        """One or several of the services."""
        return self.services[index]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.services)

    def __iter__(self) -> Iterator[Record]:
        """Each of them."""
        return iter(self.services)

    def by_id(self) -> dict[str, Record]:
        """The services by their ids."""
        return {record.id: record for record in self.services}


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a service: `register` puts it, all else takes it away."""

    kind: str
    """`register`, `deregister`, `expire`, or `leave`: it is not what the filter wants any more."""
    id: str
    record: Record | None
    """The new record, or the last one; `None` if it is not known."""
    position: Position
    timestamp: int | None = None
    synthesized: bool = False
    """Found by comparing lists, because the registry did not know the changes themselves any more."""

    def __str__(self) -> str:
        """For people."""
        return f"{self.kind} {self.record or self.id}"

    @property
    def is_there(self) -> bool:
        """Whether the service is there after this."""
        return self.kind == "register"


@dataclass(frozen=True, slots=True)
class TypeCount:
    """How many services are discovered by a type."""

    passing: int
    """Healthy ones that are discovered."""
    critical: int
    """Those whose heartbeats are late."""
    drained: int = 0
    """Healthy ones that are not discovered, because they are drained. An older registry has none."""


@dataclass(frozen=True, slots=True)
class Connectivity:
    """Whether there is a connection to a registry. As text: to which, or why not."""

    endpoint: str | None = None
    """The host that it goes to; `None` if there is none."""
    local_address: str | None = None
    """This machine's address towards the registry; `None` over a Unix socket, too."""
    cause: str | None = None
    """What the last attempt met, or how the last connection ended; `None` before the first attempt has ended."""

    @property
    def is_connected(self) -> bool:
        """Whether there is one."""
        return self.endpoint is not None

    def __str__(self) -> str:
        """For people."""
        if self.is_connected:
            return f"connected to {self.endpoint}"
        return f"away: {self.cause or 'no attempt has ended yet'}"


@dataclass(frozen=True, slots=True)
class Health:
    """How the registry is. It is alive if it answers at all."""

    ready: bool
    """It can be relied on: its services are loaded, and its storage works."""
    not_ready: tuple[str, ...]
    """Why not."""
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that happened to a service."""

    what: str
    """`registered`, `replaced`, `updated`, `drained`, `undrained`, `deregistered`, `expired`, `refused`."""
    timestamp: float
    fields: Mapping[str, Any]

    @property
    def address(self) -> str | None:
        """By whom: the client's address; `None` if the registry does not know."""
        return self._by("address")

    @property
    def key(self) -> str | None:
        """By whom: the client's public key, if it had one."""
        return self._by("key")

    def _by(self, field: str) -> str | None:
        by = self.fields.get("by")
        found = by.get(field) if isinstance(by, dict) else None
        return found if isinstance(found, str) else None


def drain_fields(seconds: float | None, reason: str | None) -> Json:
    """The fields of a request that say how long a service is to be drained, and why."""
    given = {"seconds": seconds, "reason": reason}
    return {field: value for field, value in given.items() if value is not None}


def record_of(value: object) -> Record:
    """A record from a reply."""
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise Protocol(f"a service without an id: {value!r:.200}")
    return Record(value)


def records_of(reply: Mapping[str, Any]) -> list[Record]:
    """The records of a reply with `services`."""
    services = reply.get("services")
    if not isinstance(services, list):
        raise Protocol(f"a reply without services: {reply!r:.200}")
    return [record_of(service) for service in services]


def position_of(reply: Mapping[str, Any]) -> Position | None:
    """The position that a reply is of, if it says so."""
    epoch, revision = reply.get("epoch"), reply.get("revision")
    if isinstance(epoch, str) and isinstance(revision, int):
        return Position(epoch, revision)
    return None


def stale_of(reply: Mapping[str, Any]) -> float | None:
    """For how long the registry has not been sure of its state, if it says so."""
    stale = reply.get("stale_seconds")
    return float(stale) if isinstance(stale, int | float) and not isinstance(stale, bool) else None


def change_of(event: object) -> Change:
    """A change from the event of it."""
    try:
        assert isinstance(event, dict)
        data = event["data"]
        info = data.get("service_info")
        timestamp = event.get("timestamp")
        return Change(
            kind=str(event["type"]),
            id=str(data["service_id"]),
            record=Record(info) if isinstance(info, dict) else None,
            position=Position(str(event["epoch"]), int(event["revision"])),
            timestamp=timestamp if isinstance(timestamp, int) else None,
        )
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Protocol(f"an event that is none: {event!r:.200}") from error


def merge_patch(target: object, patch: object) -> Any:
    """RFC 7396, as the registry does it."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
