"""Changes as they happen, and lists to begin with."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

from .connector import LONGEST_WAIT, Connector
from .errors import LATER, Closed, Compacted, Protocol, TimedOut, Unreachable
from .settings import Backoff
from .values import Change, Filter, Json, Listing, Position, Record, change_of, position_of, records_of, stale_of

log = logging.getLogger("registry_client")

PAGE = 1000
"""So many records are asked for at a time, and so many changes."""
WAIT = 10.0
"""So many seconds the registry keeps a watch waiting, before it says that nothing has happened."""
_LISTS = 5
"""So often a list is begun again that the registry cannot go on with."""


async def list_all(
    connector: Connector,
    wanted: Filter,
    *,
    fields: Iterable[str] | None = None,
    page: int = PAGE,
    max_stale: float | None = None,
    timeout: float | None = None,
) -> Listing:
    """The whole list, page by page. `timeout` is for all pages; without, each has the client's own."""
    request: Json = {"action": "list", **wanted.request(), "limit": page}
    if fields is not None:
        request["fields"] = list(fields)
    if max_stale is not None:
        request["max_stale"] = max_stale
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    for attempt in range(_LISTS):
        try:
            return await _pages(connector, request, deadline)
        except Compacted:
            if attempt == _LISTS - 1:
                raise
            log.debug("a list is begun again: the registry cannot go on with it")
    raise AssertionError("unreachable")


async def _pages(connector: Connector, request: Json, deadline: float | None) -> Listing:
    loop = asyncio.get_running_loop()
    found: dict[str, Record] = {}
    position: Position | None = None
    stale: float | None = None
    while True:
        timeout = None if deadline is None else max(deadline - loop.time(), 0.001)
        reply = await connector.ask(request, timeout=timeout)
        for record in records_of(reply):
            # Later pages are younger; a service may have moved into one of them.
            found.pop(record.id, None)
            found[record.id] = record
        position = position or position_of(reply)
        stale = stale_of(reply) if stale is None else max(stale, stale_of(reply) or 0.0)
        cursor = reply.get("cursor")
        if cursor is None:
            return Listing(tuple(found.values()), position, stale)
        request = {**request, "cursor": cursor}


class AsyncWatch:
    """The changes of services that a filter wants: each once and in order, over restarts of the registry.

    `async for change in watch`, or `await watch.next(timeout=...)`. Nothing happens while nobody asks: what came in
    the meantime is given when somebody does. Asking may be cancelled, and nothing is lost. What the first list had
    already may be given again, while the registry takes back a change that its storage was too slow with.
    """

    def __init__(self, connector: Connector, wanted: Filter, after: Position | None, existing: bool) -> None:
        """Made by `AsyncRegistry.watch`."""
        self._connector = connector
        self._wanted = wanted
        self._loop = asyncio.get_running_loop()
        self._asking = asyncio.Lock()
        self._backoff = Backoff(connector.settings.backoff)
        self._ready: deque[tuple[Change, Position]] = deque()
        """Changes that have not been given yet, each with the position after it."""
        self._here: Position | None = after
        self._there: Position | None = after
        self._known: dict[str, int] | None = {} if after is None else None
        """What has been given, as fingerprints, to compare with."""
        self._tells_first_list = existing
        self.is_over = False
        """Whether it has been closed."""
        self.confirmed_at: float | None = None
        """When the registry last said that there is no more (by the event loop's clock)."""
        self.stale_seconds: float | None = None
        """For how long the registry had not been sure of its state then; `None` if it was sure."""

    @property
    def position(self) -> Position | None:
        """The position after the last change that was given: to go on from in another process."""
        return self._here

    async def begin(self, timeout: float | None = None) -> None:
        """Lists what is there, if that is not given."""
        if self._there is None:
            listing = await list_all(self._connector, self._wanted, timeout=timeout)
            self._compare(listing, tell=self._tells_first_list)

    def __aiter__(self) -> AsyncWatch:
        """Itself."""
        return self

    async def __anext__(self) -> Change:
        """The next change, however long it takes. The watch ends when it or its registry is closed."""
        change = await self.next()
        if change is None:
            raise StopAsyncIteration
        return change

    async def next(self, timeout: float | None = None) -> Change | None:
        """The next change; `None` if none has come in that time, or if the watch has been closed."""
        async with self._asking:
            if not self._ready:
                try:
                    await asyncio.wait_for(self._fill(), timeout)
                except asyncio.TimeoutError:
                    return None
            return self._give() if self._ready else None

    async def next_batch(self) -> list[Change]:
        """All changes that are there, as soon as there is an answer: maybe none."""
        async with self._asking:
            if not self._ready:
                await self._ask()
            return [self._give() for _ in range(len(self._ready))]

    def _give(self) -> Change:
        change, self._here = self._ready.popleft()
        if not self._ready:
            self._here = self._there
        return change

    async def close(self) -> None:
        """Ends it. Nothing of it is left at the registry, but for a request that waits a few seconds more."""
        self.is_over = True
        self._ready.clear()

    async def __aenter__(self) -> AsyncWatch:
        """Closed when the block ends."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes it."""
        await self.close()

    async def _fill(self) -> None:
        while not self._ready and not self.is_over:
            await self._ask()

    async def _ask(self) -> None:
        """Asks once. A registry that is away is waited for."""
        try:
            if self._there is None:
                await self.begin()
                return
            request: Json = {"action": "watch", **self._wanted.request(), "limit": PAGE}
            request.update(epoch=self._there.epoch, after=self._there.revision)
            self._take(await self._connector.ask(request, wait=min(WAIT, LONGEST_WAIT)))
            self._backoff.reset()
        except (Unreachable, TimedOut) as error:
            log.debug("a watch goes on waiting: %s", error)
        except LATER as error:
            log.debug("a watch goes on waiting: %s", error)
            await asyncio.sleep(self._backoff.draw())
        except Compacted:
            if self._known is None:
                # Only the caller knows what it has to be compared with.
                await self.close()
                raise
            log.info("the registry does not know the changes after %s any more: listing again", self._there)
            try:
                self._compare(await list_all(self._connector, self._wanted), tell=True)
            except (Unreachable, TimedOut, *LATER) as error:
                log.debug("a watch goes on waiting: %s", error)
                await asyncio.sleep(self._backoff.draw())
        except Closed:
            if not self._connector.is_closed:
                raise
            await self.close()

    def _take(self, reply: Json) -> None:
        """Changes from the registry."""
        position = position_of(reply)
        events = reply.get("changes")
        if position is None or not isinstance(events, list):
            raise Protocol(f"a watch is answered by {reply!r:.200}")
        last = self._there
        for event in events:
            change = change_of(event)
            if last and change.position.epoch == last.epoch and change.position.revision <= last.revision:
                continue
            last = change.position
            self._ready.append((change, change.position))
            if self._known is not None:
                if change.is_there and change.record is not None:
                    self._known[change.id] = _fingerprint(change.record)
                else:
                    self._known.pop(change.id, None)
        self._move(position, stale_of(reply), whole=not events or len(events) < PAGE)

    def _compare(self, listing: Listing, tell: bool) -> None:
        """Takes a list for what is there now; tells what that changes."""
        if listing.position is None:
            raise Protocol("a list without epoch and revision: the registry is too old to be watched")
        assert self._known is not None
        before, after = self._known, {record.id: _fingerprint(record) for record in listing}
        if tell:
            changes = [
                Change("leave", gone, None, listing.position, synthesized=True) for gone in before if gone not in after
            ]
            changes += [
                Change("register", record.id, record, listing.position, synthesized=True)
                for record in listing
                if before.get(record.id) != after[record.id]
            ]
            # Who stops in the middle of these has to begin where they came from.
            came_from = self._here or listing.position
            self._ready.extend((change, came_from) for change in changes)
        self._known = after
        self._move(listing.position, listing.stale_seconds, whole=True)

    def _move(self, position: Position, stale: float | None, whole: bool) -> None:
        self._there = position
        if not self._ready:
            self._here = position
        if whole:
            self.confirmed_at = self._loop.time()
            self.stale_seconds = stale


def _fingerprint(record: Record) -> int:
    """The same for what a heartbeat alone makes differ."""
    rest: dict[str, Any] = {
        key: value for key, value in record.fields.items() if key not in ("last_heartbeat", "health")
    }
    return hash(json.dumps(rest, sort_keys=True))
