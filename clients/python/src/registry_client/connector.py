"""Which host is talked to: connections one after the other, and requests that outlast them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import math
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from .errors import Closed, Protocol, RegistryError, Starting, TimedOut, Unreachable, refusal
from .link import Link, LinkEnded
from .settings import Backoff, Settings, own_address, positive
from .values import Connectivity, Json

log = logging.getLogger("registry_client")

LONGEST_WAIT = 30.0
"""The host is asked to wait so long at most in one request; whoever waits longer asks again."""
_LONG_REQUESTS = 128
"""So many requests that wait at the host at a time: it takes 256 of a connection, and others must get through."""
_CLOSED = "the client has been closed, or was made before a fork"
_SHORTEST_WAIT = 0.01
"""So long is the longest wait between two attempts at least, however short a ttl is."""
_ADDRESSES = 4
"""So many addresses of one name are tried in one round."""


class Connector:
    """Keeps one connection to one of the hosts, from the moment when it is made until `close`."""

    def __init__(self, settings: Settings) -> None:
        """Begins to connect. There must be a running event loop."""
        self.settings = settings
        self.link: Link | None = None
        """The connection, while there is one whose host has answered."""
        self.links = 0
        """How many connections there have been."""
        self.kept: dict[object, float] = {}
        """The ttls of the services that are kept, by their registrations."""
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self._long = asyncio.Semaphore(_LONG_REQUESTS)
        self._connectivity = Connectivity()
        self._waiters: set[asyncio.Future[None]] = set()
        self._reasons: dict[str, str] = {}
        self._is_closed = False
        self._task = self._loop.create_task(self._run(), name="registry-client")

    @property
    def is_closed(self) -> bool:
        """Whether it can never be used again."""
        return self._is_closed or os.getpid() != self._pid

    @property
    def connectivity(self) -> Connectivity:
        """Whether there is a connection."""
        return Connectivity(cause=_CLOSED) if self.is_closed else self._connectivity

    async def close(self) -> None:
        """Ends the connection. Who waits for an answer gets `Closed`."""
        if os.getpid() != self._pid:
            return
        self._is_closed = True
        error = Closed("the client has been closed")
        if self.link:
            self.link.end("closed", error)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def ask(
        self,
        request: Mapping[str, Any],
        *,
        timeout: float | None = None,
        wait: float | None = None,
        again: bool = True,
    ) -> Json:
        """The reply to a request, if it is a success.

        `wait` is how long the host may wait, on top of `timeout`: as the request's own `wait`, less on each new
        connection. `again` says whether the request may be sent again when the connection is lost.
        """
        if wait:
            async with self._long:
                return await self._ask(request, timeout, min(wait, LONGEST_WAIT), again)
        return await self._ask(request, timeout, wait, again)

    async def _ask(self, request: Mapping[str, Any], timeout: float | None, wait: float | None, again: bool) -> Json:
        timeout = self.settings.timeout if timeout is None else positive("timeout", timeout)
        begun = self._loop.time()
        end = begun + (wait or 0.0)
        lost = 0
        while True:
            try:
                link = await self.connected(end + timeout)
            except Unreachable as unreachable:
                if not lost:
                    raise
                # What is too long for the registry looks like this, too.
                times = f"connections lost before an answer came: {lost}"
                raise Unreachable(f"{times}, within {self._loop.time() - begun:.1f} s: {unreachable}") from None
            if wait is not None:
                request = {**request, "wait": max(0.0, round(end - self._loop.time(), 3))}
            number = next(self._numbers)
            sent = self._loop.time()
            answer = link.ask(number, request)
            timer = self._loop.call_at(end + timeout, _expire, answer)
            try:
                reply = await answer
            except LinkEnded as ended:
                if not again:
                    raise Unreachable(f"{link.endpoint} was lost before it answered: {ended}") from None
                lost += 1
                continue
            except TimedOut:
                self._suspect(link, sent)
                raise TimedOut(f"{link.endpoint} did not answer {request.get('action')} in time") from None
            finally:
                timer.cancel()
                link.forget(number)
            success = reply.get("success")
            if success is True:
                return reply
            if success is not False:
                raise Protocol(f"a reply that is neither success nor failure: {reply!r:.200}")
            error = refusal(reply)
            error.repeated = lost > 0
            if isinstance(error, Starting) and again:
                link.end("it says that it is starting")
                continue
            raise error

    def _suspect(self, link: Link, sent: float) -> None:
        """A call has timed out. Was it this request, or does nothing come through any more?"""
        silent = self._loop.time() - max(sent, link.last_heard)
        if link.last_heard <= sent and silent >= min(self.settings.connect_timeout, self.settings.timeout):
            link.end(f"it has not answered anything for {silent:.1f} s")

    async def connected(self, deadline: float) -> Link:
        """The connection, as soon as there is one; `Unreachable` at the deadline."""
        start = self._loop.time()
        while True:
            if self.is_closed:
                raise Closed(_CLOSED)
            if self.link and self.link.is_up:
                return self.link
            if self._task.done():
                raise Closed("the event loop is ending")
            if not await self._wait(deadline):
                reasons = "; ".join(f"{host}: {reason}" for host, reason in self._reasons.items())
                waited = self._loop.time() - start
                raise Unreachable(f"no registry could be reached within {waited:.1f} s: {reasons or 'no answer yet'}")

    async def wait_connectivity(self, after: Connectivity, timeout: float | None) -> Connectivity:
        """How it is, as soon as that is something else than `after`."""
        wait = math.inf if timeout is None else positive("timeout", timeout)
        if not await self.until(lambda: self.connectivity != after or self.is_closed, wait):
            raise TimedOut(f"it is still {self.connectivity}")
        if self.is_closed:
            raise Closed(_CLOSED)
        return self.connectivity

    def _show(self, connectivity: Connectivity) -> None:
        self._connectivity = connectivity
        self.wake()

    async def until(self, is_so: Callable[[], bool], wait: float) -> bool:
        """Whether something is so: waits so long for it, and looks after each new connection and each `wake`."""
        deadline = self._loop.time() + wait
        while not is_so():
            if not await self._wait(deadline):
                return False
        return True

    def wake(self) -> None:
        """Has all who wait look whether there is what they wait for."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def longest_wait(self) -> float:
        """How long a wait between two attempts may be.

        A registry that is back lets a service live for one more ttl: whoever comes later than that is expired.
        """
        return max(_SHORTEST_WAIT, min(self.kept.values(), default=math.inf) / 3)

    async def _wait(self, deadline: float) -> bool:
        """Waits for the next connection, or for a `wake`."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.add(waiter)
        timer = self._loop.call_at(deadline, _expire, waiter)
        try:
            await waiter
        except TimedOut:
            return False
        finally:
            timer.cancel()
            self._waiters.discard(waiter)
        return True

    async def _run(self) -> None:
        """Connects, for ever: whatever goes wrong in here must not end it."""
        backoff = Backoff(self.settings.backoff)
        first = 0
        while True:
            try:
                number, link = await self._round(first)
            except RegistryError as error:
                log.debug("%s", error)
                self._show(Connectivity(cause=str(error)))
                await asyncio.sleep(backoff.draw(self.longest_wait()))
                continue
            except Exception:
                log.exception("an error in connecting to a registry")
                await asyncio.sleep(backoff.draw(self.longest_wait()))
                continue
            self._reasons.clear()
            up = self._loop.time()
            self.link = link
            self.links += 1
            log.info("connected to %s", link.endpoint)
            local_address = own_address(link.peer) if link.peer else None
            self._show(Connectivity(link.endpoint, local_address))
            # If all tasks are cancelled, as at the end of `asyncio.run`, the connection stays: what is closed later
            # has something to say to the registry.
            reason = await asyncio.shield(link.ended)
            self.link = None
            log.warning("lost the connection to %s: %s", link.endpoint, reason)
            self._reasons[link.endpoint] = reason
            self._show(Connectivity(cause=f"{link.endpoint}: {reason}"))
            first = (number + 1) % len(self.settings.hosts)
            if self._loop.time() - up > self.settings.backoff[1]:
                backoff.reset()
            else:
                # Lost so soon: it may happen again and again.
                await asyncio.sleep(backoff.draw(self.longest_wait()))

    async def _round(self, first: int) -> tuple[int, Link]:
        """Tries each host once, beginning with `first`."""
        hosts = self.settings.hosts
        for step in range(len(hosts)):
            number = (first + step) % len(hosts)
            try:
                return number, await self._open(hosts[number])
            except (LinkEnded, OSError) as error:
                self._reasons[hosts[number]] = str(error)
        raise Unreachable("; ".join(f"{host}: {reason}" for host, reason in self._reasons.items()))

    async def _open(self, host: str) -> Link:
        """A connection to a host that has answered."""
        error: Exception = LinkEnded("its name has no address")
        for endpoint in await self._addresses(host):
            link = Link(endpoint, self.settings)
            try:
                await self._try(link)
                return link
            except LinkEnded as ended:
                error = ended
            except BaseException:
                link.end("given up")
                raise
        raise error

    async def _try(self, link: Link) -> None:
        deadline = self._loop.time() + self.settings.connect_timeout
        text = f"no connection within {self.settings.connect_timeout:g} s"
        timer = self._loop.call_at(deadline, link.end, text)
        try:
            await asyncio.shield(link.up)
            text = f"it did not answer within {self.settings.connect_timeout:g} s"
            timer.cancel()
            timer = self._loop.call_at(deadline, link.end, text)
            reply = await link.ask(next(self._numbers), {"action": "health"})
        finally:
            timer.cancel()
        if reply.get("success") is not True:
            starting = reply.get("code") == Starting.code
            text = (
                "it says that it is starting"
                if starting
                else f"it is no registry's port for requests: {refusal(reply)}"
            )
            link.end(text)
            raise LinkEnded(text)

    async def _addresses(self, host: str) -> list[str]:
        """The endpoints that a name stands for. libzmq would look it up itself, and stop all clients meanwhile."""
        if not host.startswith("tcp://"):
            return [host]
        name, _, port = host.removeprefix("tcp://").rpartition(":")
        if _is_address(name.strip("[]")):
            return [host]
        lookup = self._loop.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
        try:
            found = await asyncio.wait_for(lookup, self.settings.connect_timeout)
        except asyncio.TimeoutError:
            raise LinkEnded(f"the look-up of {name} took longer than {self.settings.connect_timeout:g} s") from None
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        return [f"tcp://[{a}]:{port}" if ":" in a else f"tcp://{a}:{port}" for a in addresses][:_ADDRESSES]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _expire(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(TimedOut())
