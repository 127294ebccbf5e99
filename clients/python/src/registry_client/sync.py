"""The client without asyncio: the same calls, which wait. Each does its work in the thread of `thread`."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from .aio import AsyncRegistry
from .cache import AsyncCache
from .errors import Closed, RegistryError
from .registration import AsyncRegistration
from .settings import Keys, Settings
from .thread import LoopThread, closes_at_exit, has_closed
from .values import Change, Connectivity, Listing, Position, Record, State
from .watch import AsyncWatch

P = ParamSpec("P")
R = TypeVar("R")
Inner = TypeVar("Inner")
Made = TypeVar("Made")
Outer = TypeVar("Outer", bound="_Facade[Any]")


class _Facade(Generic[Inner]):
    """Something whose calls are those of `_inner`, in the thread."""

    def __init__(self, thread: LoopThread, inner: Inner) -> None:
        self._thread = thread
        self._inner = inner


def _waits(
    method: Callable[Concatenate[Inner, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[_Facade[Inner], P], R]:
    """The same call, which waits."""

    @functools.wraps(method)
    def call(self: _Facade[Inner], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._thread.run(method(self._inner, *args, **kwargs))

    return call


def _makes(
    method: Callable[Concatenate[Inner, P], Coroutine[Any, Any, Made]],
    facade: Callable[[LoopThread, Made], Outer],
) -> Callable[Concatenate[_Facade[Inner], P], Outer]:
    """The same call, which waits and gives something to wait for in turn."""

    @functools.wraps(method)
    def call(self: _Facade[Inner], /, *args: P.args, **kwargs: P.kwargs) -> Outer:
        return facade(self._thread, self._thread.run(method(self._inner, *args, **kwargs)))

    return call


def _closes(
    method: Callable[Concatenate[Inner, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[_Facade[Inner], P], None]:
    """As `_waits`, for what may be done when all is closed already."""

    @functools.wraps(method)
    def call(self: _Facade[Inner], /, *args: P.args, **kwargs: P.kwargs) -> None:
        with contextlib.suppress(Closed):
            self._thread.run(method(self._inner, *args, **kwargs))

    return call


class Registration(_Facade[AsyncRegistration]):
    """A service that is registered and kept so, until `close` or the end of its `with`.

    It is renewed every ttl / 3, together with others of the same client. If the registry has forgotten it, it is
    registered again; if somebody has deregistered it, or another process has registered its id, it ends: see `state`.
    It lives no longer than its client.
    """

    update = _waits(AsyncRegistration.update)
    drain = _waits(AsyncRegistration.drain)
    undrain = _waits(AsyncRegistration.undrain)
    until = _waits(AsyncRegistration.until)
    close = _closes(AsyncRegistration.close)

    @property
    def id(self) -> str:
        """The service's id."""
        return self._inner.id

    @property
    def generation(self) -> int | None:
        """Which registration of this id it is; `None` if the registry does not say so."""
        return self._inner.generation

    @property
    def state(self) -> State:
        """How it is."""
        return self._inner.state

    @property
    def error(self) -> RegistryError | None:
        """What the last attempt to keep it alive met, if it failed."""
        return self._inner.error

    @property
    def info(self) -> Mapping[str, Any]:
        """What it says of itself, as last registered or updated."""
        return self._inner.info

    def __enter__(self) -> Registration:
        """Closed when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    def __repr__(self) -> str:
        """For logs."""
        return repr(self._inner)


class Watch(_Facade[AsyncWatch]):
    """The changes of services that a filter wants: each once and in order, over restarts of the registry.

    `for change in watch`, or `watch.next(timeout=...)`. Nothing happens while nobody asks: what came in the meantime
    is given when somebody does.
    """

    close = _closes(AsyncWatch.close)

    def next(self, timeout: float | None = None) -> Change | None:
        """The next change; `None` if none has come in that time, or if the watch has been closed."""
        try:
            return self._thread.run(self._inner.next(timeout))
        except Closed:
            if self._inner.is_over:
                return None
            raise

    @property
    def position(self) -> Position | None:
        """The position after the last change that was given: to go on from in another process."""
        return self._inner.position

    def __iter__(self) -> Iterator[Change]:
        """Itself."""
        return self

    def __next__(self) -> Change:
        """The next change, however long it takes. The watch ends when it or its registry is closed."""
        change = self.next()
        if change is None:
            raise StopIteration
        return change

    def __enter__(self) -> Watch:
        """Closed when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()


class Cache(_Facade[AsyncCache]):
    """The services that a filter wants, kept up to date in the background.

    `get`, `list` and `discover` answer at once and from memory, also while the registry is away: `age` says how old
    the answer is. Before the first list has come they raise `Unreachable`: wait for `ready`.
    """

    ready = _waits(AsyncCache.ready)
    close = _closes(AsyncCache.close)

    @property
    def age(self) -> float | None:
        """How many seconds ago the registry last said that this is all; `None` before the first time."""
        return self._inner.age

    @property
    def position(self) -> Position | None:
        """The place in the registry's history at which this is exact."""
        return self._inner.position

    @property
    def error(self) -> RegistryError | None:
        """Why it cannot be kept up to date, if the registry refuses that."""
        return self._inner.error

    def get(self, service_id: str) -> Record | None:
        """One service; `None` if there is none with that id."""
        return self._inner.get(service_id)

    def list(self, service_type: str | None = None) -> Listing:
        """All services, or those of a type."""
        return self._inner.list(service_type)

    def discover(self, service_type: str | None = None) -> Record | None:
        """One service at random, of a type or of all: among those last seen healthy, if there are any.

        One that is drained is never given.
        """
        return self._inner.discover(service_type)

    def __enter__(self) -> Cache:
        """Closed when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()


class Registry(_Facade[AsyncRegistry]):
    """A client of the registry, for any number of threads.

    Any call may take `timeout` seconds, by default the client's; then it raises `Unreachable` or `TimedOut`. What the
    registry refuses is a `Refused`, with a class for each reason. A program that ends without closing it closes it.
    """

    def __init__(self, settings: Settings) -> None:
        """For `connect`."""
        thread = LoopThread.take()
        try:
            super().__init__(thread, thread.call(lambda: AsyncRegistry(settings)))
        except BaseException:
            thread.give_back()
            raise
        self._closing = threading.Lock()
        self._is_closed = False
        closes_at_exit(self, self.close)

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
    ) -> Registry:
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

    register = _makes(AsyncRegistry.register, Registration)
    renew = _waits(AsyncRegistry.renew)
    update = _waits(AsyncRegistry.update)
    deregister = _waits(AsyncRegistry.deregister)
    drain = _waits(AsyncRegistry.drain)
    undrain = _waits(AsyncRegistry.undrain)
    discover = _waits(AsyncRegistry.discover)
    discover_many = _waits(AsyncRegistry.discover_many)
    get = _waits(AsyncRegistry.get)
    list = _waits(AsyncRegistry.list)
    types = _waits(AsyncRegistry.types)
    history = _waits(AsyncRegistry.history)
    health = _waits(AsyncRegistry.health)
    info = _waits(AsyncRegistry.info)
    request = _waits(AsyncRegistry.request)
    request_once = _waits(AsyncRegistry.request_once)
    wait_connectivity = _waits(AsyncRegistry.wait_connectivity)
    watch = _makes(AsyncRegistry.watch, Watch)

    def cache(
        self,
        service_type: str | None = None,
        *,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
        on_change: Callable[[Change], None] | None = None,
    ) -> Cache:
        """Begins to keep a copy of the services that a filter wants. Call `ready` before it is used."""
        inner = self._thread.call(
            lambda: self._inner.cache(service_type, tags=tags, metadata=metadata, version=version, on_change=on_change)
        )
        return Cache(self._thread, inner)

    def connectivity(self) -> Connectivity:
        """Whether there is a connection. Calls wait for one by themselves; this is for showing it."""
        return self._inner.connectivity()

    def close(self) -> None:
        """Deregisters what has been registered, ends watches and caches, and the connection."""
        with self._closing:
            if self._is_closed or not self._thread.is_of_this_process:
                return
            self._is_closed = True
            has_closed(self)
            try:
                self._thread.run(self._inner.close())
            finally:
                self._thread.give_back()

    def __enter__(self) -> Registry:
        """Closed when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()
