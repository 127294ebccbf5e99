"""What scenarios play with: hosts that are killed and stopped, and the adapter of the library under test."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import zmq
import zmq.asyncio

Json = dict[str, Any]
SLACK = min(6.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 2))
"""How much longer things may take than on a machine that does nothing else."""

PATIENCE = 15.0 * SLACK
"""Whatever should happen soon fails after so many seconds."""

MEMORY = '[backend]\nplugin = "memory"\n'
SQLITE = '[backend]\nplugin = "sqlite"\n'


class Failed(Exception):
    """A failure that the adapter reports."""

    def __init__(self, failed: Json) -> None:
        self.kind: str = failed["kind"]
        self.code: str | None = failed.get("code")
        super().__init__(f"{self.kind}: {failed.get('text')}")


def _free_port() -> int:
    """A port that is free, and stays so while the host is away: none that outgoing connections are given."""
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(min(20000, least - 1000), least)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Host:
    """The real program, in a directory of its own, on the same port after each start."""

    def __init__(self, stage: Stage, config: str) -> None:
        self.directory = stage.directory / f"host-{next(stage.numbers)}"
        self.directory.mkdir()
        self._program = stage.program
        self._plugins = stage.plugins
        self.config = config
        self.port = _free_port()
        """Where requests go. Nobody needs the other two."""
        self._process: asyncio.subprocess.Process | None = None
        self._asker: zmq.asyncio.Socket | None = None
        self._numbers = itertools.count()
        self._log = b""
        self._reader: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> Host:
        ports = [f"--set=server.req_port={self.port}", "--set=server.pub_port=0", "--set=server.heartbeat_port=0"]
        config = self.config if "[server]" in self.config else "[server]\ncleanup_interval = 0.3\n" + self.config
        (self.directory / "registry.toml").write_text(config)
        environment = {
            "REGISTRY_BACKEND__PLUGIN_DIR": str(self._plugins),
            # A busy machine may take its time with the disk.
            "REGISTRY_BACKEND__REPLY_TIMEOUT": "10",
            # What is freed is given back, so that memory is what the host holds.
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "131072",
        }
        self._process = await asyncio.create_subprocess_exec(
            self._program, "serve", *ports, cwd=self.directory, env=environment, stderr=asyncio.subprocess.PIPE
        )
        self._log = b""
        self._reader = asyncio.create_task(self._read(self._process))
        process = self._process
        await until("the host serves", lambda: b"requests on tcp://" in self._log or process.returncode is not None)
        assert process.returncode is None, f"the host does not start: {self.log}"
        return self

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while piece := await process.stderr.read(65536):
            self._log = self._log[-1000000:] + piece

    @property
    def log(self) -> str:
        return self._log.decode(errors="replace")

    async def kill(self) -> None:
        """As a power cut would."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self._forget_asker()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    def move(self) -> int:
        """Has it start at another port next time, and gives the one where it was."""
        port, self.port = self.port, _free_port()
        return port

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()
        self._forget_asker()

    def _forget_asker(self) -> None:
        if self._asker is not None:
            self._asker.close(0)
            self._asker = None

    async def ask(self, **request: Any) -> Json:
        """What the host says to a client that is neither library: one of plain ZeroMQ."""
        if self._asker is None:
            self._asker = zmq.asyncio.Context.instance().socket(zmq.DEALER)
            self._asker.connect(self.endpoint)
        number = next(self._numbers)
        await self._asker.send_multipart([json.dumps({**request, "request_id": number}).encode()])
        deadline = time.monotonic() + PATIENCE
        while await self._asker.poll(max(int((deadline - time.monotonic()) * 1000), 0)):
            reply = json.loads((await self._asker.recv_multipart())[-1])
            if reply.pop("request_id") == number:
                return reply
        raise AssertionError(f"the host does not answer {request}")

    async def get(self, service_id: str) -> Json | None:
        reply = await self.ask(action="get", service_id=service_id)
        return reply.get("service")

    async def ids(self, service_type: str | None = None) -> list[str]:
        reply = await self.ask(action="list", service_type=service_type)
        return sorted(service["id"] for service in reply["services"])

    async def add(self, service_id: str, service_type: str = "thing", ttl: float = 300, **more: Any) -> Json:
        info = {"id": service_id, "name": service_id, "host": "127.0.0.1", "port": 4000, "type": service_type, **more}
        reply = await self.ask(action="register", service_info=info, ttl=ttl)
        assert reply["success"], reply
        return reply

    async def remove(self, service_id: str) -> None:
        reply = await self.ask(action="deregister", service_id=service_id)
        assert reply["success"], reply

    def connections(self, of: int) -> int:
        """How many connections the process `of` has to this host's port for requests."""
        found = psutil.Process(of).net_connections("tcp")
        return sum(1 for c in found if c.raddr and c.raddr.port == self.port and c.status == psutil.CONN_ESTABLISHED)

    def all_connections(self) -> int:
        """How many connections this host has accepted for requests and not closed."""
        found = psutil.Process(self.pid).net_connections("tcp")
        return sum(1 for c in found if c.laddr.port == self.port and c.status != psutil.CONN_LISTEN)

    def memory(self) -> int:
        return psutil.Process(self.pid).memory_info().rss


class Adapter:
    """The library under test, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.log: list[str] = []
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_log())]

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, command: str, **fields: Any) -> asyncio.Future[Any]:
        """Sends a command; its answer is awaited later."""
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"n": number, "do": command, **fields}).encode() + b"\n")
        return answer

    async def do(self, command: str, *, within: float = PATIENCE, **fields: Any) -> Any:
        """What comes of a command; `Failed` if it fails."""
        try:
            return await asyncio.wait_for(self.begin(command, **fields), within)
        except asyncio.TimeoutError:
            raise AssertionError(f"no answer to {command} {fields} within {within} s") from None

    async def fails(self, kind: str, command: str, **fields: Any) -> Failed:
        """The failure, of that kind, that a command ends in."""
        try:
            done = await self.do(command, **fields)
        except Failed as failed:
            assert failed.kind == kind, f"{command} failed as {failed}, expected {kind}"
            return failed
        raise AssertionError(f"{command} gave {done!r}, expected {kind}")

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def end(self) -> int:
        """Ends its input, and waits until it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await asyncio.wait_for(self._process.wait(), PATIENCE)

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        for task in self._tasks:
            task.cancel()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            waiting = self._waiting.pop(answer["n"], None)
            assert waiting is not None, f"the adapter answers what was not asked: {line!r}"
            if waiting.done():
                continue
            if "failed" in answer:
                waiting.set_exception(Failed(answer["failed"]))
            else:
                waiting.set_result(answer["ok"])
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(AssertionError("the adapter has ended"))

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self.log = [*self.log[-400:], line.decode(errors="replace").rstrip()]


class Stage:
    """Everything that one scenario has started, ended together."""

    numbers = itertools.count()

    def __init__(self, directory: Path, program: Path, plugins: Path, adapter: list[str]) -> None:
        self.directory = directory
        self.program = program
        self.plugins = plugins
        self._command = adapter
        self._things: list[Any] = []

    def prepare(self, config: str) -> Host:
        """A host that is not started yet."""
        host = Host(self, config)
        self._things.append(host)
        return host

    async def host(self, config: str = MEMORY) -> Host:
        return await self.prepare(config).start()

    async def adapter(self, **environment: str) -> Adapter:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **environment},
            limit=1 << 24,
        )
        adapter = Adapter(process)
        self._things.append(adapter)
        return adapter

    def with_end(self, thing: Any) -> Any:
        """Has something closed at the end."""
        self._things.append(thing)
        return thing

    async def close(self) -> None:
        for thing in reversed(self._things):
            await thing.close()

    def logs(self) -> str:
        texts = []
        for thing in self._things:
            lines = (
                thing.log if isinstance(thing, Adapter) else thing.log.splitlines() if isinstance(thing, Host) else []
            )
            if lines:
                texts.append(f"--- {type(thing).__name__}:\n" + "\n".join(lines[-25:]))
        return "\n".join(texts)


async def until(what: str, probe: Callable[[], Any], seconds: float = PATIENCE, pause: float = 0.03) -> Any:
    """The first true answer of `probe` (a function, or one that gives something to await)."""
    end = time.monotonic() + seconds * (SLACK if seconds < PATIENCE else 1)
    while True:
        answer = probe()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        await asyncio.sleep(pause)


def equal(actual: Any, expected: Any, what: str) -> None:
    assert actual == expected, f"{what} is {actual!r}, expected {expected!r}"


def between(actual: float, least: float, most: float, what: str) -> None:
    """Whether a time is as long as it should be; on a busy machine it may be longer."""
    most *= SLACK
    assert least <= actual <= most, f"{what} is {actual:.2f}, expected {least} to {most:.2f}"
