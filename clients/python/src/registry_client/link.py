"""One connection to one host: a DEALER socket, and the monitor that tells what becomes of it.

libzmq's own reconnecting is off, and a socket serves one connection: what was written to a host that is gone is
dropped with the socket, and does not arrive years later when the host returns.

The sockets are read by the event loop through their file descriptors. libzmq signals these on edges only: whoever has
been woken, or has written, must look again until there is nothing left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from .settings import Settings
from .values import Json

log = logging.getLogger("registry_client")

_HANDSHAKE_FAILED: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the handshake failed: it does not speak ZMTP as expected (keys?)",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the handshake failed: the keys are refused",
}
_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_AT_ONCE = 100
"""So many messages are taken before others in the event loop have their turn."""


class LinkEnded(Exception):
    """The connection has ended; the text says why."""


_context: zmq.Context[zmq.Socket[bytes]] | None = None
_context_of = 0


def _shared_context() -> zmq.Context[zmq.Socket[bytes]]:
    """The process's own context: one thread of I/O for all clients. A fork needs another."""
    global _context, _context_of  # noqa: PLW0603
    if _context is None or _context_of != os.getpid():
        _context = zmq.Context()
        _context.set(zmq.MAX_SOCKETS, int(_context.get(zmq.SOCKET_LIMIT)))
        _context_of = os.getpid()
    return _context


class Link:
    """A connection from the moment when it is attempted. Once ended it stays so."""

    def __init__(self, endpoint: str, settings: Settings) -> None:
        """Begins to connect."""
        self._loop = asyncio.get_running_loop()
        self.endpoint = endpoint
        self.peer = _peer_of(endpoint)
        """Where the host is, if that is an address."""
        self.last_heard = self._loop.time()
        self.waiting: dict[int, asyncio.Future[Json]] = {}
        """The requests that have no answer yet, by their request id."""
        self.up: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._trouble = "the host closed it"
        self._socket = _shared_context().socket(zmq.DEALER)
        self._monitor: zmq.Socket[bytes] | None = None
        try:
            self._configure(settings)
            self._monitor = self._socket.get_monitor_socket(_EVENTS)
            self._monitor_fd = int(self._monitor.get(zmq.FD))
            self._fd = int(self._socket.get(zmq.FD))
            self._loop.add_reader(self._monitor_fd, self._look_at_monitor)
            self._loop.add_reader(self._fd, self._look_at_socket)
            self._socket.connect(endpoint)
        except (zmq.ZMQError, OSError) as error:
            self.end(str(error))
            return
        self._loop.call_soon(self._look_at_monitor)

    def _configure(self, settings: Settings) -> None:
        milliseconds = int(settings.connect_timeout * 1000)
        third = max(1, int(settings.dead_after * 1000 / 3))
        options: dict[int, int] = {
            zmq.LINGER: 0,
            zmq.RECONNECT_IVL: -1,
            zmq.SNDHWM: 0,
            zmq.RCVHWM: 0,
            zmq.HANDSHAKE_IVL: milliseconds,
            zmq.HEARTBEAT_IVL: third,
            zmq.HEARTBEAT_TIMEOUT: 2 * third,
            zmq.IPV6: int("[" in self.endpoint),
        }
        if self.endpoint.startswith("tcp://"):
            options[zmq.CONNECT_TIMEOUT] = milliseconds
        for option, value in options.items():
            self._socket.set(option, value)
        if settings.keys:
            self._socket.set(zmq.CURVE_PUBLICKEY, settings.keys.public.encode())
            self._socket.set(zmq.CURVE_SECRETKEY, settings.keys.secret.encode())
            self._socket.set(zmq.CURVE_SERVERKEY, settings.keys.server.encode())

    @property
    def is_up(self) -> bool:
        """Whether requests can be sent."""
        return not self.ended.done() and self.up.done()

    def ask(self, number: int, request: Mapping[str, Any]) -> asyncio.Future[Json]:
        """Sends a request with that id. The answer is awaited as long as the caller likes: see `forget`."""
        message = json.dumps({**request, "request_id": number}, ensure_ascii=False, allow_nan=False).encode()
        answer: asyncio.Future[Json] = self._loop.create_future()
        if self.ended.done():
            answer.set_exception(LinkEnded(self.ended.result()))
            return answer
        self.waiting[number] = answer
        try:
            self._socket.send(message, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # The connection has just gone. Why, the monitor may know already.
            self._look_at_monitor()
            self.end(f"cannot send: {error}")
            return answer
        # Sending may have taken the edge that reading waits for.
        self._loop.call_soon(self._look_at_socket)
        return answer

    def forget(self, number: int) -> None:
        """Nobody waits for that answer any more."""
        self.waiting.pop(number, None)

    def end(self, reason: str, error: Exception | None = None) -> None:
        """Closes the connection, if it is not closed. All that wait on it get `error`, else `LinkEnded`."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        for fd in ("_fd", "_monitor_fd"):
            if hasattr(self, fd):
                self._loop.remove_reader(getattr(self, fd))
        if self._monitor is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disable_monitor()
            self._monitor.close(0)
        self._socket.close(0)
        waiting, self.waiting = self.waiting, {}
        answers: list[asyncio.Future[Any]] = [self.up, *waiting.values()]
        for answer in answers:
            if not answer.done():
                answer.set_exception(error or LinkEnded(reason))
                answer.exception()  # Nobody may be there to see it.

    def _look_at_monitor(self) -> None:
        while not self.ended.done():
            assert self._monitor is not None
            try:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            event = parse_monitor_message(frames)["event"]
            if event == zmq.EVENT_CONNECTED:
                self._trouble = "the host closed it before the end of the handshake"
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.last_heard = self._loop.time()
                self._trouble = "the host closed it, or was silent for too long"
                if not self.up.done():
                    self.up.set_result(None)
            elif event in _HANDSHAKE_FAILED:
                self._trouble = _HANDSHAKE_FAILED[event]
            elif event == zmq.EVENT_CLOSED:
                self.end("it cannot be connected to: refused, or not there")
            elif event == zmq.EVENT_DISCONNECTED:
                self._look_at_socket()  # What came before the end counts.
                self.end(self._trouble)

    def _look_at_socket(self) -> None:
        for _ in range(_AT_ONCE):
            if self.ended.done():
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except zmq.ZMQError as error:
                self.end(f"cannot receive: {error}")
                return
            self.last_heard = self._loop.time()
            self._take(frames[-1])
        self._loop.call_soon(self._look_at_socket)

    def _take(self, message: bytes) -> None:
        try:
            reply = json.loads(message)
            number = reply.pop("request_id")
            answer = self.waiting.pop(number, None)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            log.warning("%s sent what is no reply to anything: %.200r", self.endpoint, message)
            return
        if answer is None or answer.done():
            log.debug("%s answered request %s too late", self.endpoint, number)
        else:
            answer.set_result(reply)


def _peer_of(endpoint: str) -> tuple[str, int] | None:
    if not endpoint.startswith("tcp://"):
        return None
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), int(port)
