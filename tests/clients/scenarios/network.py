"""Networks that misbehave: between bytes (`Wire`), and between requests and replies (`Relay`)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import zmq
import zmq.asyncio

from stage import Json, Stage


class Wire:
    """A TCP proxy. What goes through it can be held, and connections can be cut."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.refuses = False
        """New connections are closed at once."""
        self.accepted = 0
        """How many connections there have been."""
        self._flows = asyncio.Event()
        """For the connections that are made from now on."""
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def between(cls, stage: Stage, target: int) -> Wire:
        wire = stage.with_end(cls(target))
        wire._server = await asyncio.start_server(wire._serve, "127.0.0.1", 0, backlog=4096)
        wire.port = wire._server.sockets[0].getsockname()[1]
        return wire

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def hang(self) -> None:
        """Nothing comes through any more, and nobody is told. New connections hang, too."""
        self._flows.clear()

    def flow(self) -> None:
        """Everything that was held comes through."""
        self._flows.set()

    def abandon(self) -> None:
        """What hangs, hangs for ever; new connections flow."""
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self) -> None:
        """All connections end."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuses:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        ends = {writer}
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            ends.add(back)
            self._writers.add(back)
            flows = self._flows
            await asyncio.gather(self._copy(reader, back, flows), self._copy(there, writer, flows))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in ends:
                self._writers.discard(end)
                end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await flows.wait()
                writer.write(piece)
                await writer.drain()
        # One end ends the other.
        writer.transport.abort()


OnRequest = Callable[[Json], Any]
OnReply = Callable[[Json, Json], Any]


class Relay:
    """A stand-in for the host that passes requests on to it, and may do something about each of them.

    `on_request(request)` gives a reply of the stand-in's own, or None to pass it on, or "drop", or "twice" (the second
    one a second later). `on_reply(request, reply)` may change the reply, and gives how long to hold it, or None.
    """

    def __init__(self, target: str, port: int = 0) -> None:
        self.on_request: OnRequest = lambda request: None
        self.on_reply: OnReply = lambda request, reply: None
        self.requests: list[tuple[float, Json]] = []
        """All that came in, with the times."""
        context = zmq.asyncio.Context.instance()
        self._front = context.socket(zmq.ROUTER)
        self._back = context.socket(zmq.DEALER)
        self._front.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.port = int(self._front.get(zmq.LAST_ENDPOINT).rpartition(b":")[2])
        self._back.connect(target)
        self._numbers = itertools.count(1)
        self._asked: dict[bytes, tuple[list[bytes], Json]] = {}
        self._tasks = {asyncio.create_task(self._take_requests()), asyncio.create_task(self._take_replies())}

    @classmethod
    def to(cls, stage: Stage, target: str, port: int = 0) -> Relay:
        return stage.with_end(cls(target, port))

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def times_of(self, action: str) -> list[float]:
        return [when for when, request in self.requests if request["action"] == action]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._front.close(0)
        self._back.close(0)

    async def _take_requests(self) -> None:
        while True:
            *envelope, message = await self._front.recv_multipart()
            request = json.loads(message)
            self.requests.append((asyncio.get_running_loop().time(), request))
            what = self.on_request(request)
            if isinstance(what, dict):
                if "request_id" in request:
                    what = {**what, "request_id": request["request_id"]}
                await self._answer(envelope, what)
                continue
            if what == "drop":
                continue
            await self._pass_on(envelope, request, message)
            if what == "twice":
                self._later(1.0, partial(self._pass_on, envelope, request, message))

    async def _pass_on(self, envelope: list[bytes], request: Json, message: bytes) -> None:
        number = str(next(self._numbers)).encode()
        self._asked[number] = (envelope, request)
        await self._back.send_multipart([number, b"", message])

    async def _take_replies(self) -> None:
        while True:
            number, _, message = await self._back.recv_multipart()
            envelope, request = self._asked.pop(number)
            reply = json.loads(message)
            held = self.on_reply(request, reply)
            if held:
                self._later(held, partial(self._answer, envelope, reply))
            else:
                await self._answer(envelope, reply)

    async def _answer(self, envelope: list[bytes], reply: Json) -> None:
        frames = [b"RESPONSE" if frame == b"REQ" else frame for frame in envelope]
        await self._front.send_multipart([*frames, json.dumps(reply).encode()])

    def _later(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await work()

        task = asyncio.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
