"""Where the registry is, and how patient a client is with it."""

from __future__ import annotations

import math
import os
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_HOST = "127.0.0.1:5556"
DEFAULT_PORT = 5556
KEY_LENGTH = 40
"""Of a CURVE key in Z85."""


@dataclass(frozen=True, slots=True)
class Keys:
    """A client's key pair, and the registry's public key, in Z85."""

    public: str
    secret: str = field(repr=False)
    server: str

    def __post_init__(self) -> None:
        """Refuses what cannot be keys, so that it is not found out by silence."""
        for name in ("public", "secret", "server"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) != KEY_LENGTH or not value.isascii():
                raise ValueError(f"keys.{name} must be {KEY_LENGTH} characters of Z85")

    @classmethod
    def load(cls, own: str | Path, server: str | Path) -> Keys:
        """From certificates as `registry keygen` makes them: one's own `.key_secret`, the registry's `.key`."""
        import zmq.auth  # noqa: PLC0415 - only who uses keys needs it

        public, secret = zmq.auth.load_certificate(str(own))
        if secret is None:
            raise ValueError(f"{own} has no secret key in it: expected the client's .key_secret")
        return cls(public.decode(), secret.decode(), zmq.auth.load_certificate(str(server))[0].decode())


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a client can be told. `Registry.connect` takes the same as keyword arguments."""

    hosts: tuple[str, ...]
    """Endpoints of ZeroMQ."""
    keys: Keys | None = None
    timeout: float = 5.0
    connect_timeout: float = 2.0
    dead_after: float = 10.0
    backoff: tuple[float, float] = (0.1, 5.0)
    address: Callable[[], str] | None = None

    @classmethod
    def of(
        cls,
        hosts: str | Sequence[str] | None = None,
        *,
        keys: Keys | None = None,
        timeout: float = 5.0,
        connect_timeout: float = 2.0,
        dead_after: float = 10.0,
        backoff: tuple[float, float] = (0.1, 5.0),
        address: Callable[[], str] | None = None,
    ) -> Settings:
        """Checked settings; without hosts those of REGISTRY_CONNECT."""
        if hosts is None:
            hosts = os.environ.get("REGISTRY_CONNECT") or DEFAULT_HOST
        if isinstance(hosts, str):
            hosts = hosts.split(",")
        endpoints = tuple(dict.fromkeys(endpoint(host.strip()) for host in hosts))
        if not endpoints:
            raise ValueError("hosts must name at least one registry")
        positive("timeout", timeout)
        positive("connect_timeout", connect_timeout)
        positive("dead_after", dead_after)
        least, most = backoff
        if positive("backoff[0]", least) > positive("backoff[1]", most):
            raise ValueError(f"backoff must be (least, most), got {backoff!r}")
        return cls(endpoints, keys, timeout, connect_timeout, dead_after, (least, most), address)


def positive(name: str, value: float) -> float:
    """A number of seconds that is one, else `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a positive number of seconds, got {value!r}")
    return value


def endpoint(host: str) -> str:
    """The endpoint that a text means: `tcp://host:port`, `host:port`, `host`, `ipc://path`."""
    if host.startswith("ipc://") and len(host) > len("ipc://"):
        return host
    rest = host.removeprefix("tcp://")
    name, colon, port = rest, "", ""
    if rest.startswith("["):
        name, bracket, tail = rest[1:].partition("]")
        colon, port = tail[:1], tail[1:]
        valid = bool(bracket) and (not tail or colon == ":")
    elif rest.count(":") <= 1:
        name, colon, port = rest.partition(":")
        valid = True
    else:  # a bare IPv6 address
        valid = True
    number = int(port) if port.isascii() and port.isdigit() else 0 if colon else DEFAULT_PORT
    if not valid or not name or "/" in name or any(c.isspace() for c in name) or not 0 < number < 65536:
        raise ValueError(f"expected tcp://host:port, host:port, host or ipc://path, got {host!r}")
    return f"tcp://[{name}]:{number}" if ":" in name else f"tcp://{name}:{number}"


class Backoff:
    """Waits that double, each drawn at random between half and all of it."""

    def __init__(self, bounds: tuple[float, float]) -> None:
        """Begins with the least."""
        self._least, self._most = bounds
        self._next = self._least

    def reset(self) -> None:
        """Begins again."""
        self._next = self._least

    def draw(self, longest: float = math.inf) -> float:
        """The next wait, and no longer than `longest`."""
        wait = min(self._next, longest)
        self._next = min(2 * self._next, self._most)
        return random.uniform(wait / 2, wait)


def own_address(towards: tuple[str, int] | None) -> str | None:
    """The address that this machine has towards another, by its routes: nothing is sent."""
    address = towards or ("198.51.100.1", 9)
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None if towards else "127.0.0.1"
