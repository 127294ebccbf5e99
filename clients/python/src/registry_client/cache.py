"""What is there, without asking."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence

from .connector import Connector
from .errors import Closed, RegistryError, TimedOut, Unreachable
from .settings import Backoff
from .values import Change, Filter, Listing, Position, Record
from .watch import AsyncWatch

log = logging.getLogger("registry_client")


class AsyncCache:
    """The services that a filter wants, kept up to date in the background.

    `get`, `list` and `discover` answer at once and from memory, also while the registry is away: `age` says how old
    the answer is. Before the first list has come they raise `Unreachable`: wait for `ready`. They, and `age`, may be
    called by any thread.
    """

    def __init__(self, connector: Connector, wanted: Filter, on_change: Callable[[Change], None] | None = None) -> None:
        """Made by `AsyncRegistry.cache`."""
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._watch = AsyncWatch(connector, wanted, None, existing=True)
        self._records: dict[str, Record] = {}
        self._has_list = asyncio.Event()
        self.is_over = False
        """Whether it has been closed."""
        self.error: RegistryError | None = None
        """Why it cannot be kept up to date, if the registry refuses that."""
        self._task = self._loop.create_task(self._run(), name="registry-client cache")

    async def ready(self, timeout: float | None = None) -> None:
        """Returns when there is something to answer with; `TimedOut` if that takes too long."""
        timeout = self._connector.settings.timeout if timeout is None else timeout
        try:
            await asyncio.wait_for(self._has_list.wait(), timeout)
        except asyncio.TimeoutError:
            raise TimedOut(f"the cache has not been filled within {timeout:g} s") from self.error

    @property
    def age(self) -> float | None:
        """How many seconds ago the registry last said that this is all; `None` before the first time."""
        confirmed = self._watch.confirmed_at
        if confirmed is None:
            return None
        return self._loop.time() - confirmed + (self._watch.stale_seconds or 0.0)

    @property
    def position(self) -> Position | None:
        """The place in the registry's history at which this is exact."""
        return self._watch.position

    def get(self, service_id: str) -> Record | None:
        """One service; `None` if there is none with that id."""
        return self._filled().get(service_id)

    def list(self, service_type: str | None = None) -> Listing:
        """All services, or those of a type."""
        records = tuple(self._filled().values())
        if service_type is not None:
            records = tuple(record for record in records if record.is_of_type(service_type))
        return Listing(records, self.position, self._watch.stale_seconds)

    def discover(self, service_type: str | None = None) -> Record | None:
        """One service at random, of a type or of all: among those last seen healthy, if there are any.

        One that is drained is never given.
        """
        records = [record for record in self.list(service_type) if not record.is_drained]
        passing = [record for record in records if record.is_passing]
        return random.choice(passing or records) if records else None

    async def close(self) -> None:
        """Ends it."""
        self.is_over = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def __aenter__(self) -> AsyncCache:
        """Closed when the block ends."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes it."""
        await self.close()

    def _filled(self) -> dict[str, Record]:
        if self.is_over or self._connector.is_closed:
            raise Closed("the cache has been closed")
        if not self._has_list.is_set():
            raise self.error or Unreachable("the cache has not been filled yet")
        return self._records

    async def _run(self) -> None:
        backoff = Backoff(self._connector.settings.backoff)
        while not self._connector.is_closed:
            try:
                changes = await self._watch.next_batch()
            except RegistryError as error:
                if not self._connector.is_closed:
                    log.error("a cache is not kept up to date: %s", error)
                    self.error = error
                    await asyncio.sleep(backoff.draw())
                continue
            except Exception:
                log.exception("an error in keeping a cache up to date")
                await asyncio.sleep(backoff.draw())
                continue
            backoff.reset()
            self.error = None
            self._put(changes)
            if self._watch.confirmed_at is not None:
                self._has_list.set()

    def _put(self, changes: Sequence[Change]) -> None:
        # A whole step at a time: nobody sees a part of it.
        records = dict(self._records) if len(changes) > 1 else self._records
        for change in changes:
            if change.is_there and change.record is not None:
                records[change.id] = change.record
            else:
                records.pop(change.id, None)
        self._records = records
        if self._on_change is None:
            return
        for change in changes:
            try:
                self._on_change(change)
            except Exception:
                log.exception("on_change of a cache raised")
