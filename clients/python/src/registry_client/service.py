"""The usual case: this process is a service, for as long as it lives."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from types import FrameType
from typing import Any, Generic, TypeVar

from .aio import AsyncRegistry
from .errors import RegistryError
from .registration import AsyncRegistration
from .settings import Keys, Settings
from .sync import Registration, Registry
from .values import State

R = TypeVar("R", Registry, AsyncRegistry)
G = TypeVar("G", Registration, AsyncRegistration)


class _Service(Generic[R, G]):
    """What both kinds are told, and what they have."""

    _registry: R | None = None
    _registration: G | None = None

    def __init__(
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
        hosts: str | Sequence[str] | None = None,
        keys: Keys | None = None,
        timeout: float = 5.0,
        connect_timeout: float = 2.0,
        dead_after: float = 10.0,
        backoff: tuple[float, float] = (0.1, 5.0),
        address: Callable[[], str] | None = None,
        sigterm: bool = True,
    ) -> None:
        """Takes what `Registry.register` and `Registry.connect` do; `hosts` are those of the registry.

        With `sigterm`, SIGTERM ends the block as `SystemExit` does, if it is begun in the main thread and the program
        does not handle SIGTERM itself.
        """
        self._service: dict[str, Any] = {
            "name": name,
            "port": port,
            "host": host,
            "id": id,
            "type": type,
            "tags": tags,
            "metadata": metadata,
            "ttl": ttl,
            "singleton": singleton,
            "allow_duplicate_service_type": allow_duplicate_service_type,
            "extra": extra,
            "on_state": on_state,
        }
        self._settings = Settings.of(
            hosts,
            keys=keys,
            timeout=timeout,
            connect_timeout=connect_timeout,
            dead_after=dead_after,
            backoff=backoff,
            address=address,
        )
        self._sigterm = sigterm
        self._handles_sigterm = False

    @property
    def registry(self) -> R:
        """The client, for everything else. Only within the block."""
        if self._registry is None:
            raise RegistryError("the service has not begun, or is over")
        return self._registry

    @property
    def registration(self) -> G:
        """Id, state and so on. Only within the block."""
        if self._registration is None:
            raise RegistryError("the service has not begun")
        return self._registration

    @property
    def state(self) -> State:
        """How it is."""
        return self._registration.state if self._registration else State.CLOSED

    def _begin(self) -> None:
        """From now on SIGTERM ends the block: as it is, Python would die on the spot."""
        in_main = threading.current_thread() is threading.main_thread()
        if self._sigterm and in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _end)
            self._handles_sigterm = True

    def _finish(self) -> None:
        if self._handles_sigterm and threading.current_thread() is threading.main_thread():
            self._handles_sigterm = False
            if signal.getsignal(signal.SIGTERM) is _end:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


class Service(_Service[Registry, Registration]):
    """Makes this process discoverable for as long as a `with` block lasts:

    ```python
    with Service("Camera 1", port=7000, type="camera"):
        serve()
    ```

    The registry need not be there: then the block begins after `timeout` seconds, and the service is registered as
    soon as there is one. What will never work is an error: bad values, keys without the right, a type that must be
    unique and another has.
    """

    def start(self) -> Service:
        """Begins, for programs that cannot have a `with` block: they call `close`, or it is done at exit."""
        if self._registry is not None:
            raise RegistryError("the service has begun already")
        self._registry = Registry(self._settings)
        try:
            self._begin()
            self._registration = self._registry.register(**self._service, patient=True)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Deregisters it."""
        registry, self._registry = self._registry, None
        try:
            if registry is not None:
                registry.close()
        finally:
            self._finish()

    def drain(self, seconds: float | None = None, reason: str | None = None, *, timeout: float | None = None) -> None:
        """Drains it: see `Registration.drain`."""
        self.registration.drain(seconds, reason, timeout=timeout)

    def undrain(self, *, timeout: float | None = None) -> None:
        """Has it discovered again."""
        self.registration.undrain(timeout=timeout)

    def __enter__(self) -> Service:
        """Begins."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Deregisters it."""
        self.close()


class AsyncService(_Service[AsyncRegistry, AsyncRegistration]):
    """`Service` for asyncio: `async with AsyncService("Camera 1", port=7000, type="camera"): ...`."""

    async def start(self) -> AsyncService:
        """Begins."""
        if self._registry is not None:
            raise RegistryError("the service has begun already")
        self._registry = AsyncRegistry(self._settings)
        try:
            self._begin()
            self._registration = await self._registry.register(**self._service, patient=True)
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Deregisters it."""
        registry, self._registry = self._registry, None
        try:
            if registry is not None:
                await registry.close()
        finally:
            self._finish()

    async def drain(
        self, seconds: float | None = None, reason: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Drains it: see `AsyncRegistration.drain`."""
        await self.registration.drain(seconds, reason, timeout=timeout)

    async def undrain(self, *, timeout: float | None = None) -> None:
        """Has it discovered again."""
        await self.registration.undrain(timeout=timeout)

    async def __aenter__(self) -> AsyncService:
        """Begins."""
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        """Deregisters it."""
        await self.close()
