"""The thread in which the clients without asyncio do their work.

There is one for all of them in a process, while there is any. It runs an event loop with the clients for asyncio; a
call hands its work over and waits. So both kinds are one implementation, services are kept alive while the program
does something else, and calls may come from any thread.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .errors import Closed

log = logging.getLogger("registry_client")

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, shared by all who `take` it, until the last gives it back."""

    _lock = threading.Lock()
    _current: LoopThread | None = None

    def __init__(self) -> None:
        """For `take`."""
        self._pid = os.getpid()
        self._users = 0
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="registry-client", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls) -> LoopThread:
        """The process's thread, which is begun if there is none."""
        with cls._lock:
            if cls._current is None or not cls._current.is_of_this_process:
                cls._current = cls()
            cls._current._users += 1
            return cls._current

    def give_back(self) -> None:
        """Ends the thread, if nobody else has it."""
        if not self.is_of_this_process:
            return
        with LoopThread._lock:
            self._users -= 1
            if self._users > 0:
                return
            if LoopThread._current is self:
                LoopThread._current = None
        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(self._stop()))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def is_of_this_process(self) -> bool:
        """A thread does not come along in a fork."""
        return self._pid == os.getpid()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Does the work in the thread, and gives what comes of it. An interrupt (Ctrl-C) gives the work up."""
        if not self.is_of_this_process or self.loop.is_closed():
            work.close()
            raise Closed("the client has been closed, or was made before a fork")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a callback of the client cannot call it: hand the work to another thread")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            # Only the end of the thread does that.
            raise Closed("the client has been closed") from None
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """As `run`, for a function that must be called where the event loop runs."""

        async def work() -> T:
            return function()

        return self.run(work())

    async def _stop(self) -> None:
        # Calls that wait have been told that their client is closed, and need a moment to say so.
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if rest:
            await asyncio.wait(rest, timeout=1.0)
        self.loop.stop()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            rest = asyncio.all_tasks(self.loop)
            for task in rest:
                task.cancel()
            if rest:
                self.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


_open: dict[int, Callable[[], None]] = {}
"""How to close what is open, by the id of it: a program that just ends deregisters its services, too."""


def closes_at_exit(thing: object, close: Callable[[], None]) -> None:
    """Has something closed when the program ends, unless `is_closed` says that it has been."""
    pid = os.getpid()
    _open[id(thing)] = lambda: close() if os.getpid() == pid else None


def has_closed(thing: object) -> None:
    """There is nothing left to do for it at the end."""
    _open.pop(id(thing), None)


@atexit.register
def _close_all() -> None:
    for close in list(_open.values()):
        try:
            close()
        except Exception:
            log.exception("an error in closing a client at exit")


def _after_fork() -> None:
    # The lock may have been held by a thread that the child does not have.
    LoopThread._lock = threading.Lock()
    LoopThread._current = None
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
