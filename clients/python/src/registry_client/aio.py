"""The client for asyncio. The one without is made from it: see `sync`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from .cache import AsyncCache
from .connector import LONGEST_WAIT, Connector
from .errors import Deregistered, NoneHealthy, NotFound, Protocol
from .heartbeats import Heartbeats
from .registration import AsyncRegistration, service_info
from .settings import Backoff, Keys, Settings
from .values import (
    Change,
    Connectivity,
    Filter,
    Health,
    HistoryEntry,
    Json,
    Listing,
    Position,
    Record,
    State,
    TypeCount,
    drain_fields,
    record_of,
    records_of,
)
from .watch import PAGE, AsyncWatch, list_all


class AsyncRegistry:
    """A client of the registry. Belongs to the event loop that it was made in.

    Any call may take `timeout` seconds, by default the client's; then it raises `Unreachable` or `TimedOut`. What the
    registry refuses is a `Refused`, with a class for each reason.
    """

    def __init__(self, settings: Settings) -> None:
        """For `connect`."""
        self._connector = Connector(settings)
        self._heartbeats = Heartbeats(self._connector)
        self._made: list[AsyncRegistration | AsyncWatch | AsyncCache] = []

    @classmethod
    def connect(
        cls,
        hosts: str | Sequence[str] | None = None,
        *,
        keys: Keys | None = None,
        timeout: float = 5.0,
        connect_timeout: float = 2.0,
        dead_after: float = 10.0,
        backoff: tuple[float, float] = (0.1, 5.0),
        address: Callable[[], str] | None = None,
    ) -> AsyncRegistry:
        """Begins to connect to the first of `hosts` that is there; none of them needs to be.

        `hosts` are like `10.0.0.1:5556`, `tcp://name:5556` or `ipc:///run/registry/requests`; without them
        REGISTRY_CONNECT counts, else 127.0.0.1:5556. `address` gives one's own address for services that name no
        `host`; without it that is the one which this machine has towards the registry.
        """
        return cls(
            Settings.of(
                hosts,
                keys=keys,
                timeout=timeout,
                connect_timeout=connect_timeout,
                dead_after=dead_after,
                backoff=backoff,
                address=address,
            )
        )

    async def __aenter__(self) -> AsyncRegistry:
        """Closed when the block ends."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes it."""
        await self.close()

    async def close(self) -> None:
        """Deregisters what has been registered, ends watches and caches, and the connection."""
        if not self._connector.is_closed:
            made, self._made = self._made, []
            await asyncio.gather(*(thing.close() for thing in made))
        await self._connector.close()

    def connectivity(self) -> Connectivity:
        """Whether there is a connection. Calls wait for one by themselves; this is for showing it."""
        return self._connector.connectivity

    async def wait_connectivity(self, after: Connectivity, timeout: float | None = None) -> Connectivity:
        """How it is, as soon as that is something else than `after`; `TimedOut` if that takes too long."""
        return await self._connector.wait_connectivity(after, timeout)

    # Services of one's own

    async def register(
        self,
        name: str,
        port: int,
        *,
        host: str | None = None,
        id: str | None = None,
        type: str | None = None,
        tags: Collection[str] = (),
        metadata: Mapping[str, Any] | None = None,
        ttl: float = 30.0,
        singleton: bool = False,
        allow_duplicate_service_type: bool = False,
        extra: Mapping[str, Any] | None = None,
        on_state: Callable[[State], None] | None = None,
        patient: bool = False,
        timeout: float | None = None,
    ) -> AsyncRegistration:
        """Registers a service and keeps it alive until it, or this client, is closed.

        Without `host` it is this machine's address, also when that changes; without `id` one is made. `extra` has
        further fields for the record. `on_state` is told each new state, by the client's event loop, and must not
        block. If `patient`, the registry may be away: then the service is registered when there is one.
        """
        info = service_info(
            name,
            port,
            host=host,
            id=id,
            type=type,
            tags=tags,
            metadata=metadata,
            singleton=singleton,
            allow_duplicate_service_type=allow_duplicate_service_type,
            extra=extra,
        )
        registration = AsyncRegistration(self._connector, self._heartbeats, info, ttl, on_state)
        await registration.begin(timeout, patient)
        self._keep(registration)
        return registration

    async def renew(self, service_id: str, *, generation: int | None = None, timeout: float | None = None) -> None:
        """One heartbeat for a service that something else keeps alive."""
        await self._connector.ask(_named("renew", service_id, generation), timeout=timeout)

    async def update(
        self,
        service_id: str,
        patch: Mapping[str, Any],
        *,
        generation: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Changes any service's metadata by a JSON merge patch. For one's own see `AsyncRegistration.update`."""
        request = _named("update", service_id, generation)
        await self._connector.ask({**request, "metadata": dict(patch)}, timeout=timeout)

    async def deregister(self, service_id: str, *, generation: int | None = None, timeout: float | None = None) -> None:
        """Takes any service out. Its own client is told so, and does not bring it back."""
        try:
            await self._connector.ask(_named("deregister", service_id, generation), timeout=timeout)
        except (NotFound, Deregistered) as error:
            if not error.repeated:
                raise

    async def drain(
        self,
        service_id: str,
        seconds: float | None = None,
        reason: str | None = None,
        *,
        generation: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Drains any service: it stays registered, and is not discovered any more, for so long or until `undrain`.

        `reason` is for everybody to read. It outlasts restarts of a registry that stores, and the service's own
        re-registration. For one's own see `AsyncRegistration.drain`.
        """
        request = {**_named("drain", service_id, generation), **drain_fields(seconds, reason)}
        await self._connector.ask(request, timeout=timeout)

    async def undrain(self, service_id: str, *, generation: int | None = None, timeout: float | None = None) -> None:
        """Has a drained service discovered again. That it was not drained is no error."""
        await self._connector.ask(_named("undrain", service_id, generation), timeout=timeout)

    # Services of all

    async def discover(
        self,
        service_type: str,
        *,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
        fields: Iterable[str] | None = None,
        wait: float | None = None,
        max_stale: float | None = None,
        timeout: float | None = None,
    ) -> Record:
        """One healthy service of a type, at random; `NoneHealthy` if there is none, also after `wait` seconds."""
        wanted = Filter(service_type, tags, metadata, version)
        reply = await self._discover(wanted, None, fields, wait, max_stale, timeout)
        return record_of(reply.get("service"))

    async def discover_many(
        self,
        service_type: str,
        limit: int,
        *,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
        fields: Iterable[str] | None = None,
        wait: float | None = None,
        max_stale: float | None = None,
        timeout: float | None = None,
    ) -> list[Record]:
        """Up to `limit` healthy services of a type that differ, at random; none if there are none."""
        wanted = Filter(service_type, tags, metadata, version)
        try:
            reply = await self._discover(wanted, limit, fields, wait, max_stale, timeout)
        except NoneHealthy:
            return []
        # A registry that does not know the limit gives one.
        return [record_of(reply["service"])] if "service" in reply else records_of(reply)

    async def _discover(
        self,
        wanted: Filter,
        limit: int | None,
        fields: Iterable[str] | None,
        wait: float | None,
        max_stale: float | None,
        timeout: float | None,
    ) -> Json:
        request: Json = {"action": "discover", **wanted.request()}
        if limit is not None:
            request["limit"] = limit
        if fields is not None:
            request["fields"] = list(fields)
        if max_stale is not None:
            request["max_stale"] = max_stale
        if wait is None:
            return await self._connector.ask(request, timeout=timeout)
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        backoff = Backoff(self._connector.settings.backoff)
        while True:
            # In pieces, because a registry may wait less than that, or not at all.
            left = max(end - loop.time(), 0.0)
            piece = min(left, LONGEST_WAIT)
            begun = loop.time()
            try:
                return await self._connector.ask(request, timeout=timeout, wait=piece)
            except NoneHealthy:
                if loop.time() >= end:
                    raise
                if loop.time() - begun < piece / 2:
                    await asyncio.sleep(min(backoff.draw(), max(end - loop.time(), 0.0)))

    async def get(self, service_id: str, *, max_stale: float | None = None, timeout: float | None = None) -> Record:
        """One service, healthy or not; `NotFound` if there is none with that id."""
        request = _named("get", service_id, None)
        if max_stale is not None:
            request["max_stale"] = max_stale
        return record_of((await self._connector.ask(request, timeout=timeout)).get("service"))

    async def list(
        self,
        service_type: str | None = None,
        *,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
        fields: Iterable[str] | None = None,
        page: int = PAGE,
        max_stale: float | None = None,
        timeout: float | None = None,
    ) -> Listing:
        """All services that a filter wants, healthy or not. It comes in pages, which is not to be seen."""
        timeout = self._connector.settings.timeout if timeout is None else timeout
        wanted = Filter(service_type, tags, metadata, version)
        return await list_all(self._connector, wanted, fields=fields, page=page, max_stale=max_stale, timeout=timeout)

    async def types(self, *, max_stale: float | None = None, timeout: float | None = None) -> dict[str, TypeCount]:
        """By what services can be discovered, and how many of them there are."""
        timeout = self._connector.settings.timeout if timeout is None else timeout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        request: Json = {"action": "types"}
        if max_stale is not None:
            request["max_stale"] = max_stale
        counts: dict[str, TypeCount] = {}
        while True:
            reply = await self._connector.ask(request, timeout=max(deadline - loop.time(), 0.001))
            try:
                for name, count in reply["types"].items():
                    counts[name] = TypeCount(
                        int(count["passing"]), int(count["critical"]), int(count.get("drained", 0))
                    )
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise Protocol(f"types are answered by {reply!r:.200}") from error
            cursor = reply.get("cursor")
            if cursor is None:
                return counts
            request["cursor"] = cursor

    async def history(
        self, service_id: str, *, limit: int | None = None, timeout: float | None = None
    ) -> Sequence[HistoryEntry]:
        """What happened to a service, oldest first, as far as the registry remembers."""
        request = _named("history", service_id, None)
        if limit is not None:
            request["limit"] = limit
        reply = await self._connector.ask(request, timeout=timeout)
        try:
            return [
                HistoryEntry(str(entry["what"]), float(entry.get("timestamp", 0)), entry) for entry in reply["history"]
            ]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise Protocol(f"a history is answered by {reply!r:.200}") from error

    # The registry

    async def health(self, *, timeout: float | None = None) -> Health:
        """How the registry is. That it is alive shows in that this returns."""
        reply = await self._connector.ask({"action": "health"}, timeout=timeout)
        reasons = reply.get("not_ready")
        backend = reply.get("backend")
        # Registries that do not speak of readiness tell how the storage is.
        state = backend.get("state", "ok") if isinstance(backend, dict) else "ok"
        ready = reply.get("ready", state == "ok")
        return Health(bool(ready), tuple(map(str, reasons)) if isinstance(reasons, list) else (), reply)

    async def info(self, *, timeout: float | None = None) -> Mapping[str, Any]:
        """The registry's ports, settings and version, and all services: the reply as it is."""
        return await self._connector.ask({"action": "info"}, timeout=timeout)

    async def request(
        self, action: str, fields: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Mapping[str, Any]:
        """Asks for anything: the reply as it is. What the registry may wait (`wait`) is added to the time-out.

        It is asked again over another connection if the first one is lost, so it should do no harm if it is done twice.
        """
        return await self._request(action, fields, timeout, again=True)

    async def request_once(
        self, action: str, fields: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Mapping[str, Any]:
        """The same, asked once: if the connection is lost before the answer, that is `Unreachable`, and it may have
        been done.
        """
        return await self._request(action, fields, timeout, again=False)

    async def _request(
        self, action: str, fields: Mapping[str, Any] | None, timeout: float | None, again: bool
    ) -> Mapping[str, Any]:
        request = {**(fields or {}), "action": action}
        wait = request.get("wait")
        extra = float(wait) if isinstance(wait, int | float) else 0.0
        timeout = self._connector.settings.timeout if timeout is None else timeout
        return await self._connector.ask(request, timeout=timeout + extra, again=again)

    # What changes

    async def watch(
        self,
        service_type: str | None = None,
        *,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
        existing: bool = False,
        after: Position | None = None,
        timeout: float | None = None,
    ) -> AsyncWatch:
        """The changes from now on, or from a position on; with `existing`, first what is there, as `register`.

        With `after` the watch does not know what the caller knows: if the registry does not remember that position,
        it raises `Compacted`, and the caller has to list again.
        """
        watch = AsyncWatch(self._connector, Filter(service_type, tags, metadata, version), after, existing)
        await watch.begin(self._connector.settings.timeout if timeout is None else timeout)
        self._keep(watch)
        return watch

    def cache(
        self,
        service_type: str | None = None,
        *,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
        on_change: Callable[[Change], None] | None = None,
    ) -> AsyncCache:
        """Begins to keep a copy of the services that a filter wants. `await cache.ready()` before it is used."""
        cache = AsyncCache(self._connector, Filter(service_type, tags, metadata, version), on_change)
        self._keep(cache)
        return cache

    def _keep(self, thing: AsyncRegistration | AsyncWatch | AsyncCache) -> None:
        self._made = [made for made in self._made if not made.is_over]
        self._made.append(thing)


def _named(action: str, service_id: str, generation: int | None) -> Json:
    request: Json = {"action": action, "service_id": service_id}
    if generation is not None:
        request["generation"] = generation
    return request
