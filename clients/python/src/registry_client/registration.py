"""A service that is kept alive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .connector import Connector
from .errors import (
    LATER,
    Closed,
    Deregistered,
    NotFound,
    Refused,
    RegistryError,
    Replaced,
    TimedOut,
    UnknownAction,
    Unreachable,
)
from .heartbeats import Heartbeats
from .settings import Backoff, own_address, positive
from .values import Json, State, drain_fields, merge_patch

log = logging.getLogger("registry_client")

_OWN_FIELDS = ("id", "name", "host", "port", "type", "tags", "metadata", "singleton", "allow_duplicate_service_type")


def service_info(
    name: str,
    port: int,
    *,
    host: str | None,
    id: str | None,
    type: str | None,
    tags: Collection[str],
    metadata: Mapping[str, Any] | None,
    singleton: bool,
    allow_duplicate_service_type: bool,
    extra: Mapping[str, Any] | None,
) -> Json:
    """What a service says of itself when it is registered. Values are for the registry to judge."""
    if isinstance(tags, str):
        raise TypeError("tags must be a list of texts, not a text")
    if extra and (taken := sorted(set(extra) & {*_OWN_FIELDS, "instance"})):
        raise ValueError(f"extra must not have {taken[0]!r}: it has an argument or a meaning of its own")
    info: Json = dict(extra or {})
    # Made here, so that a registration which has to be sent again is the same service.
    info["id"] = id or f"{re.sub(' ', '-', str(name).lower())}-{uuid.uuid4()}"
    info["name"] = name
    info["port"] = port
    info["tags"] = list(tags)
    info["metadata"] = dict(metadata or {})
    info["instance"] = uuid.uuid4().hex[:16]
    if host is not None:
        info["host"] = host
    if type is not None:
        info["type"] = type
    if singleton:
        info["singleton"] = True
    if allow_duplicate_service_type:
        info["allow_duplicate_service_type"] = True
    return info


class AsyncRegistration:
    """A service that is registered and kept so, until `close` or the end of its `async with`.

    It is renewed every ttl / 3, together with others of the same client. If the registry has forgotten it, it is
    registered again; if somebody has deregistered it, or another process has registered its id, it ends: see `state`.
    It lives no longer than its client.
    """

    def __init__(
        self,
        connector: Connector,
        heartbeats: Heartbeats,
        info: Json,
        ttl: float,
        on_state: Callable[[State], None] | None = None,
    ) -> None:
        """Made by `AsyncRegistry.register`."""
        self._connector = connector
        self._heartbeats = heartbeats
        self._info = info
        self._finds_host = "host" not in info
        self._loop = asyncio.get_running_loop()
        self._on_state = on_state
        self._busy = asyncio.Lock()
        self._changed = asyncio.Event()
        self._renewed_at: float | None = None
        self._links_seen = 0
        self._task: asyncio.Task[None] | None = None
        self.id: str = info["id"]
        """The service's id."""
        self.ttl = positive("ttl", ttl)
        """For how many seconds the registry takes it for healthy without a heartbeat."""
        self.generation: int | None = None
        """Which registration of this id it is; `None` if the registry does not say so."""
        self.state = State.UNSURE
        """How it is."""
        self.error: RegistryError | None = None
        """What the last attempt to keep it alive met, if it failed."""

    def __repr__(self) -> str:
        """For logs."""
        return f"<registration {self.id} {self.state.value}>"

    @property
    def is_over(self) -> bool:
        """Whether nothing is done for it any more."""
        return self.state.is_over

    @property
    def info(self) -> Mapping[str, Any]:
        """What it says of itself, as last registered or updated."""
        return self._info

    async def begin(self, timeout: float | None, patient: bool = False) -> None:
        """Registers for the first time. If `patient`, a registry that is away is no error."""
        timeout = self._connector.settings.timeout if timeout is None else positive("timeout", timeout)
        deadline = self._loop.time() + timeout
        backoff = Backoff(self._connector.settings.backoff)
        try:
            while True:
                try:
                    async with self._busy:
                        await self._register(max(deadline - self._loop.time(), 0.001))
                    break
                except LATER as error:
                    wait = backoff.draw()
                    if self._loop.time() + wait > deadline:
                        raise
                    log.debug("%s is tried again: %s", self.id, error)
                    await asyncio.sleep(wait)
        except (Unreachable, TimedOut, *LATER) as error:
            if not patient:
                raise
            self.error = error
            log.warning("%s is not registered yet: %s", self.id, error)
        self._connector.kept[self] = self.ttl
        self._task = self._loop.create_task(self._keep(), name=f"registry-client {self.id}")

    async def __aenter__(self) -> AsyncRegistration:
        """Closed when the block ends."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes it."""
        await self.close()

    async def close(self, timeout: float | None = None) -> None:
        """Deregisters the service, if it is still this one. A registry that is away is not waited for longer."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.state.is_over:
            return
        self._enter(State.CLOSED)
        if self._connector.is_closed or (self._renewed_at is None and self._connector.link is None):
            return  # There is nobody who knows it.
        try:
            try:
                await self._deregister(timeout)
            except Replaced:
                if await self._is_mine(timeout):
                    await self._deregister(timeout)
        except (NotFound, Deregistered, Replaced):
            pass
        except RegistryError as error:
            log.warning("%s is not deregistered, its ttl will see to it: %s", self.id, error)

    async def update(self, patch: Mapping[str, Any], timeout: float | None = None) -> None:
        """Changes the metadata by a JSON merge patch: `None` removes a key, objects are merged, all else replaces."""
        async with self._busy:
            metadata = merge_patch(self._info["metadata"], dict(patch))
            try:
                await self._amend("update", timeout, metadata=dict(patch))
            except (UnknownAction, NotFound):
                self._info["metadata"] = metadata
                await self._register(timeout)
            self._info["metadata"] = metadata

    async def drain(
        self, seconds: float | None = None, reason: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Drains the service: it stays registered, and is not discovered any more, for so long or until `undrain`.

        `reason` is for everybody to read. A registry that has forgotten the service gets it again for that; one that
        forgets it later has forgotten this too. `Closed` if the registration is over.
        """
        await self._drain("drain", timeout, **drain_fields(seconds, reason))

    async def undrain(self, *, timeout: float | None = None) -> None:
        """Has the service discovered again. That it was not drained is no error."""
        await self._drain("undrain", timeout)

    async def _drain(self, action: str, timeout: float | None, **fields: Any) -> None:
        async with self._busy:
            if self.is_over:
                raise Closed(f"{self.id} is {self.state.value}")
            if self._renewed_at is None:
                await self._register(timeout)
            try:
                await self._amend(action, timeout, **fields)
            except NotFound:
                await self._register(timeout)
                await self._amend(action, timeout, **fields)

    async def _amend(self, action: str, timeout: float | None, **fields: Any) -> None:
        """Changes this registration only: who else has the id by now is left alone."""
        try:
            await self._connector.ask(self._named(action, **fields), timeout=timeout)
        except Replaced:
            if not await self._is_mine(timeout):
                self._enter(State.REPLACED)
                raise
            await self._connector.ask(self._named(action, **fields), timeout=timeout)
        except Deregistered:
            self._enter(State.DEREGISTERED)
            raise

    async def until(self, *states: State, timeout: float | None = None) -> State:
        """The state, as soon as it is one of these, or one that is for good; `TimedOut` if that takes too long."""

        async def reached() -> State:
            while self.state not in states and not self.state.is_over:
                await self._changed.wait()
            return self.state

        try:
            return await asyncio.wait_for(reached(), timeout)
        except asyncio.TimeoutError:
            raise TimedOut(f"{self.id} is still {self.state.value}") from None

    def _named(self, action: str, **fields: Any) -> Json:
        return {"action": action, **self._name(), **fields}

    def _name(self) -> Json:
        """What it is called in a request."""
        name: Json = {"service_id": self.id}
        if self.generation is not None:
            name["generation"] = self.generation
        return name

    async def _register(self, timeout: float | None) -> None:
        """Registers it, again or for the first time, with everything that it has."""
        if self._finds_host:
            await self._connector.connected(self._loop.time() + (timeout or self._connector.settings.timeout))
            self._info["host"] = self._address() or self._info.get("host") or "127.0.0.1"
        sent = self._loop.time()
        request = {"action": "register", "service_info": self._info, "ttl": self.ttl}
        reply = await self._connector.ask(request, timeout=timeout)
        generation = reply.get("generation")
        self.generation = generation if isinstance(generation, int) else None
        self._links_seen = self._connector.links
        self._is_renewed(sent)
        log.info("registered %s", self.id)

    async def _deregister(self, timeout: float | None) -> None:
        await self._connector.ask(self._named("deregister"), timeout=timeout)

    async def _is_mine(self, timeout: float | None) -> bool:
        """Whether the registration that has replaced this one is this one's own: one that was sent twice."""
        try:
            reply = await self._connector.ask({"action": "get", "service_id": self.id}, timeout=timeout)
        except NotFound:
            return False
        record = reply.get("service")
        if not isinstance(record, dict) or record.get("instance") != self._info["instance"]:
            return False
        generation = record.get("generation")
        self.generation = generation if isinstance(generation, int) else None
        return True

    def _address(self) -> str | None:
        if self._connector.settings.address is not None:
            return self._connector.settings.address()
        link = self._connector.link
        return own_address(link.peer) if link else None

    async def _keep(self) -> None:
        """Keeps it alive, until it is over."""
        pause: float | None = None
        while not self.state.is_over:
            await self._rest(random.uniform(0.9, 1.0) * self.ttl / 3 if pause is None else pause)
            self._look_at_time()
            if self._connector.link is None:
                pause = self.ttl / 3
                continue
            # Soon again, if it failed; but not sooner than a short ttl can bear.
            pause = None if await self._beat() else random.uniform(0.5, 1.0) * min(1.0, self.ttl / 10)

    async def _rest(self, wait: float) -> None:
        """Waits for its turn: for so long, but no longer than a moment after a new connection.

        If another of the client's services is renewed, and this one is past the middle of its wait, it goes along.
        """
        connector, heartbeats = self._connector, self._heartbeats
        due = self._loop.time() + wait
        seen = heartbeats.calls

        def is_connected_anew() -> bool:
            return connector.link is not None and connector.links > self._links_seen

        def is_news() -> bool:
            return is_connected_anew() or heartbeats.calls != seen

        while await connector.until(is_news, due - self._loop.time()):
            now = self._loop.time()
            if is_connected_anew():
                self._links_seen = connector.links
                due = min(due, now + random.random() * min(1.0, self.ttl / 10))
            elif self._renewed_at is not None and self.state is not State.REFUSED and due - now <= self.ttl / 6:
                return
            seen = heartbeats.calls

    async def _beat(self) -> bool:
        """One heartbeat, or what is needed instead. Whether all is well, or as well as it can be."""
        timeout = min(self._connector.settings.timeout, max(self.ttl / 3, 0.2))
        try:
            async with self._busy:
                await self._renew(timeout)
        except (Unreachable, TimedOut, *LATER) as error:
            # Once is enough, until it is renewed again.
            log.log(logging.DEBUG if self.error else logging.WARNING, "%s is not renewed: %s", self.id, error)
            self.error = error
            self._look_at_time()
            return False
        except Refused as error:
            self.error = error
            log.error("%s is refused, and tried again in a while: %s", self.id, error)
            self._enter(State.REFUSED)
        except Exception as error:
            # One's own `address` may raise anything, and must not end this.
            log.exception("an error in keeping %s alive", self.id)
            self.error = error if isinstance(error, RegistryError) else RegistryError(repr(error))
            return False
        return True

    async def _renew(self, timeout: float) -> None:
        moved = self._finds_host and self._address() not in (None, self._info.get("host"))
        if moved or self._renewed_at is None or self.state is State.REFUSED:
            await self._register(timeout)
            return
        sent = self._loop.time()
        try:
            await self._heartbeats.renew(self._name(), timeout)
            self._is_renewed(sent)
        except Deregistered as error:
            self.error = error
            log.warning("%s has been deregistered by somebody else", self.id)
            self._enter(State.DEREGISTERED)
        except Replaced as error:
            if not await self._is_mine(timeout):
                self.error = error
                log.warning("%s has been registered by another process", self.id)
                self._enter(State.REPLACED)
        except NotFound:
            log.info("the registry does not know %s any more", self.id)
            await self._register(timeout)

    def _is_renewed(self, sent: float) -> None:
        self._renewed_at = sent
        self.error = None
        self._enter(State.REGISTERED)

    def _look_at_time(self) -> None:
        if self.state is State.REGISTERED and self._loop.time() - (self._renewed_at or 0.0) > self.ttl:
            self._enter(State.UNSURE)

    def _enter(self, state: State) -> None:
        if state is self.state or self.state.is_over:
            return
        self.state = state
        if state.is_over:
            self._connector.kept.pop(self, None)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._on_state is not None:
            try:
                self._on_state(state)
            except Exception:
                log.exception("on_state of %s raised", self.id)
