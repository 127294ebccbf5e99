"""Hosts that are away, late, hanging, killed, or several."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import zmq.auth

from network import Relay, Wire
from stage import MEMORY, PATIENCE, SQLITE, Failed, Host, Json, Stage, between, equal, until

QUICK: Json = {"backoff": [0.05, 0.3], "connect_timeout": 0.7, "timeout": 2.0}
"""For clients that shall notice soon."""

FAKETIME = [
    Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"),
    Path("/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"),
    Path("/usr/lib/faketime/libfaketimeMT.so.1"),
]


async def away_at_start(stage: Stage) -> None:
    """C1, S2: a registry that is not there yet is waited for, and bad settings are not."""
    host = await stage.host()
    await host.kill()
    adapter = await stage.adapter()
    for bad in ("", "tcp://", "127.0.0.1:0", "127.0.0.1:port", "ipc://", "a b"):
        await adapter.fails("Bad", "connect", registry="bad", hosts=[bad])
    await adapter.fails("Bad", "connect", registry="bad", hosts=[])
    await adapter.fails("Bad", "connect", registry="bad", hosts=[host.endpoint], timeout=-1)
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    start = time.monotonic()
    await adapter.fails("Unreachable", "get", registry="r", service_id="x", timeout=0.6)
    between(time.monotonic() - start, 0.5, 2.0, "seconds until a call fails")

    start = time.monotonic()
    service = {**QUICK, "timeout": 0.6, "name": "Early", "port": 7, "type": "early", "ttl": 5}
    state = await adapter.do("service", service="s", hosts=[host.endpoint], **service)
    equal(state["state"], "unsure", "state before there is a registry")
    between(time.monotonic() - start, 0.5, 2.0, "seconds until the service's scope begins")
    waiting = adapter.begin("discover", registry="r", service_type="early", wait=10)
    await host.start()
    found = await asyncio.wait_for(waiting, PATIENCE)
    equal(found["id"], state["id"], "what is discovered as soon as there is a registry")
    await until("it says so", lambda: _is(adapter.do("service_state", service="s"), "registered"))
    # Only what will never work is an error.
    await adapter.fails(
        "InvalidRequest", "service", service="bad", hosts=[host.endpoint], **{**service, "name": "", "timeout": 2}
    )
    await adapter.do("close_service", service="s")
    equal(await host.ids("early"), [], "services after the end of the scope")


async def _is(state: Any, expected: str) -> bool:
    return (await state)["state"] == expected


async def late_replies(stage: Stage) -> None:
    """C2, R2: late replies answer nothing else, and a registration that was sent twice is one."""
    host = await stage.host()
    relay = Relay.to(stage, host.endpoint)
    adapter = await stage.adapter()
    for number in range(20):
        await host.add(f"s{number}")
    await adapter.do("connect", registry="r", hosts=[relay.endpoint], connect_timeout=2, timeout=3)

    late = {"s0": 1.2, "s1": 1.2}
    relay.on_reply = lambda request, reply: late.get(request.get("service_id", ""))
    start = time.monotonic()
    asked = [adapter.begin("get", registry="r", service_id=f"s{n}", timeout=0.5) for n in (0, 1, 2)]
    for waiting in asked[:2]:
        try:
            raise AssertionError(f"a late reply is given: {await waiting}")
        except Failed as failed:
            equal(failed.kind, "TimedOut", "kind")
    equal((await asked[2])["id"], "s2", "what is answered meanwhile")
    while time.monotonic() - start < 2.0:
        for number in (2, 3, 4):
            found = await adapter.do("get", registry="r", service_id=f"s{number}")
            equal(found["id"], f"s{number}", "what is answered while late replies come in")

    # Many at a time, answered in any order.
    relay.on_reply = lambda request, reply: hash(str(request["request_id"])) % 7 / 10
    names = [f"s{n % 20}" for n in range(300)]
    answers = await asyncio.gather(*(adapter.begin("get", registry="r", service_id=name) for name in names))
    equal([answer["id"] for answer in answers], names, "answers to many at a time")
    numbers = [str(request["request_id"]) for _, request in relay.requests]
    equal(len(set(numbers)), len(numbers), "request ids")

    # A registration that the network delivers twice, the second one late: then its generation is not the one that
    # the client was told.
    relay.on_reply = lambda request, reply: None
    relay.on_request = lambda request: "twice" if request["action"] == "register" else None
    mine = await adapter.do("register", registry="r", registration="twice", name="Twice", port=1, ttl=1.5)
    await asyncio.sleep(3.5)
    state = await adapter.do("state", registration="twice")
    equal(state["state"], "registered", "state of what was registered twice")
    record = await host.get(mine["id"])
    assert record and record["health"] == "passing", record
    await adapter.do("close_registration", registration="twice")
    equal(await host.get(mine["id"]), None, "the service after its end")


async def hanging_network(stage: Stage) -> None:
    """C3, C5: a network that swallows everything costs time-outs, and no more."""
    host = await stage.host()
    wire = await Wire.between(stage, host.port)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[wire.endpoint], **{**QUICK, "timeout": 1.0, "dead_after": 8})
    settings = {**QUICK, "timeout": 12, "dead_after": 1.5}
    await adapter.do("connect", registry="patient", hosts=[wire.endpoint], **settings)
    await adapter.do("health", registry="patient")
    mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=20)
    await adapter.do("watch", registry="r", watch="w")
    for round in range(2):
        wire.hang()
        start = time.monotonic()
        calls = [adapter.begin("get", registry="r", service_id=mine["id"]) for _ in range(5)]
        watching = adapter.begin("next", watch="w", count=1, timeout=1.0)
        for call in calls:
            try:
                raise AssertionError(f"it is answered: {await asyncio.wait_for(call, PATIENCE)}")
            except Failed as failed:
                assert failed.kind in ("TimedOut", "Unreachable"), failed
        between(time.monotonic() - start, 0.8, 2.5, "seconds until calls fail")
        equal((await watching)["changes"], [], "changes")
        between(time.monotonic() - start, 0.8, 2.5, "seconds until asking for a change ends")
        start = time.monotonic()
        await adapter.fails("Unreachable", "get", registry="r", service_id=mine["id"])
        between(time.monotonic() - start, 0.8, 2.5, "seconds until a call fails that finds no connection")
        wire.flow()
        found = await adapter.do("get", registry="r", service_id=mine["id"], timeout=5)
        equal(found["id"], mine["id"], "what is answered when the network is back")
        await host.add(f"new-{round}")
        changes = (await adapter.do("next", watch="w", count=1, timeout=8))["changes"]
        equal([change["id"] for change in changes], [f"new-{round}"], "changes when the network is back")
    equal((await adapter.do("state", registration="s"))["state"], "registered", "state")
    # What was swallowed has come through in the end, and nothing of it counts any more.
    await adapter.do("health", registry="patient")
    await until("two connections are left, and the driver's", lambda: host.all_connections() <= 3)

    # A connection that is silent is given up before any call has timed out.
    wire.hang()
    start = time.monotonic()
    waiting = adapter.begin("get", registry="patient", service_id=mine["id"])
    await asyncio.sleep(0.2)
    wire.abandon()
    equal((await asyncio.wait_for(waiting, PATIENCE))["id"], mine["id"], "what a call gets that waited")
    between(time.monotonic() - start, 0.5, 4.0, "seconds until a silent connection is given up")
    await adapter.do("close", registry="r")


async def kill_and_restart(stage: Stage) -> None:
    """C4, R4, R12, W3: a host on SQLite that is killed and started again."""
    host = await stage.host(SQLITE)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **{**QUICK, "timeout": 8})
    mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=1.5)
    await adapter.do("watch", registry="r", watch="w")
    seen: list[str] = []
    for round in range(3):
        watching = adapter.begin("next", watch="w", count=1, timeout=15)
        host.pause()
        calls = [adapter.begin("get", registry="r", service_id=mine["id"]) for _ in range(5)]
        await asyncio.sleep(0.1)
        await host.kill()
        # Longer than the ttl: then nobody knows.
        await adapter.do("wait_state", registration="s", states=["unsure"], timeout=5)
        await host.start()
        for call in calls:
            equal((await asyncio.wait_for(call, PATIENCE))["id"], mine["id"], "what a call gets that waited")
        await adapter.do("wait_state", registration="s", states=["registered"], timeout=5)
        await host.add(f"new-{round}")
        seen += [change["id"] for change in (await asyncio.wait_for(watching, 20))["changes"]]
        equal((await host.get(mine["id"]) or {}).get("health"), "passing", "health after a restart")
        end = await adapter.do("state", registration="s")
        equal((end["id"], end["generation"]), (mine["id"], mine["generation"]), "id and generation")
    equal(seen, ["new-0", "new-1", "new-2"], "what the watch saw")


async def connectivity(stage: Stage) -> None:
    """C11: whether there is a connection can be asked and waited for."""
    host = await stage.host()
    await host.kill()
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    away = {"endpoint": None, "local_address": None}
    here = {"endpoint": host.endpoint, "local_address": "127.0.0.1"}

    async def now() -> Json:
        return await adapter.do("connectivity", registry="r")

    async def is_now(expected: Json) -> bool:
        return {**await now(), "text": ""} == {**expected, "text": ""}

    equal(await is_now(away), True, "before there is a registry")
    assert "away: " in (await now())["text"], await now()
    for _ in range(2):
        await host.start()
        await until("there is a connection", lambda: is_now(here), 5)
        assert "connected to " in (await now())["text"], await now()
        other = adapter.begin("other_connectivity", registry="r", timeout=10)
        await asyncio.sleep(0.2)
        equal(other.done(), False, "whether something has changed, while nothing has")
        await host.kill()
        told = await asyncio.wait_for(other, PATIENCE)
        equal({key: told[key] for key in away}, away, "what is told when the host dies")
        assert str(host.port) in told["text"], told
    await adapter.do("close", registry="r")


async def lost_answers(stage: Stage) -> None:
    """C4: what has been done when the connection is lost is done once, and is no error."""
    host = await stage.host()
    relay = Relay.to(stage, host.endpoint)
    wire = await Wire.between(stage, relay.port)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[wire.endpoint], **{**QUICK, "timeout": 6})
    lost: set[str] = set()

    def lose(request: Json, reply: Json) -> float | None:
        """The first answer of each kind comes too late: its connection is gone by then."""
        if request["action"] == "health" or request["action"] in lost:
            return None
        lost.add(request["action"])
        wire.cut()
        return 3.0

    relay.on_reply = lose
    mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=1.5)
    equal(await host.ids("s"), [mine["id"]], "services")
    await adapter.do("update_registration", registration="s", patch={"a": 1})
    equal((await host.get(mine["id"]) or {})["metadata"]["a"], 1, "metadata")
    await asyncio.sleep(1.0)
    equal((await adapter.do("state", registration="s"))["state"], "registered", "state")
    await host.add("other")
    await adapter.do("deregister", registry="r", service_id="other")
    equal(await host.get("other"), None, "what was deregistered")
    await adapter.fails("NotFound", "deregister", registry="r", service_id="nobody")
    lost.discard("deregister")
    await adapter.do("close_registration", registration="s")
    equal(await host.ids("s"), [], "services")
    assert lost >= {"register", "update", "renew", "deregister"}, lost


async def stopped_host(stage: Stage) -> None:
    """C5: a host that is stopped for a while, as a debugger or a machine without memory would."""
    host = await stage.host()
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **{**QUICK, "timeout": 0.8})
    mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=3)
    for _ in range(2):
        host.pause()
        start = time.monotonic()
        await adapter.fails("TimedOut", "get", registry="r", service_id=mine["id"])
        between(time.monotonic() - start, 0.6, 2.0, "seconds until a call fails")
        await asyncio.sleep(1.5)
        host.resume()
        found = await adapter.do("get", registry="r", service_id=mine["id"], timeout=5)
        equal(found["id"], mine["id"], "what is answered when it goes on")
    await adapter.do("wait_state", registration="s", states=["registered"], timeout=5)
    await asyncio.sleep(3.2)
    equal((await host.get(mine["id"]) or {}).get("health"), "passing", "health")


async def several_hosts(stage: Stage) -> None:
    """C6: hosts that refuse, hang, or are starting are passed over; one that is lost is followed by the next."""
    first, second = await stage.host(), await stage.host()
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))
    mute = socket.socket()
    mute.bind(("127.0.0.1", 0))
    mute.listen(64)
    starting = Relay.to(stage, first.endpoint)
    reply = {"success": False, "code": "starting", "status": "starting", "alive": True, "ready": False}
    starting.on_request = lambda request: {**reply, "error": "The registry is starting"}
    hosts = [f"127.0.0.1:{one.getsockname()[1]}" for one in (nobody, mute)]
    hosts += [starting.endpoint, first.endpoint, second.endpoint]
    adapter = await stage.adapter()
    start = time.monotonic()
    await adapter.do("connect", registry="r", hosts=hosts, **{**QUICK, "timeout": 6})
    mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=3)
    between(time.monotonic() - start, 0.0, 2.5, "seconds until the third host is reached")
    equal(await first.ids("s"), [mine["id"]], "services at the first host that serves")
    await first.kill()
    await until("it is at the next one", lambda: _has(second, mine["id"]), 6)
    await second.kill()
    await first.start()
    await until("it is back at the first", lambda: _has(first, mine["id"]), 8)
    await adapter.do("close", registry="r")
    nobody.close()
    mute.close()


async def _has(host: Host, service_id: str) -> bool:
    return service_id in await host.ids()


async def clean_end(stage: Stage) -> None:
    """C7: the end of a client takes everything along."""
    host = await stage.host()
    adapter = await stage.adapter()
    await adapter.do("connect", registry="warm", hosts=[host.endpoint])
    await adapter.do("health", registry="warm")
    await adapter.do("close", registry="warm")
    base = psutil.Process(adapter.pid)
    threads, files = base.num_threads(), base.num_fds()
    for _ in range(5):
        await adapter.do("connect", registry="r", hosts=[host.endpoint])
        for number in range(5):
            await adapter.do("register", registry="r", registration=f"s{number}", name=f"S{number}", port=1, type="s")
        await adapter.do("watch", registry="r", watch="w", service_type="none")
        await adapter.do("cache", registry="r", cache="c")
        await adapter.do("cache_ready", cache="c")
        watching = adapter.begin("next", watch="w", count=1, timeout=20)
        calling = adapter.begin("discover", registry="r", service_type="none", wait=20)
        await asyncio.sleep(0.1)
        equal(len(await host.ids("s")), 5, "services")
        start = time.monotonic()
        await adapter.do("close", registry="r")
        between(time.monotonic() - start, 0.0, 2.0, "seconds that the end takes")
        equal((await asyncio.wait_for(watching, 2))["changes"], [], "changes of a watch that has ended")
        try:
            raise AssertionError(f"it is answered: {await asyncio.wait_for(calling, 2)}")
        except Failed as failed:
            equal(failed.kind, "Closed", "kind")
        equal(await host.ids("s"), [], "services after the end")
        await until("no connection is left", lambda: host.connections(adapter.pid) == 0, 3)
    await until("no thread is left", lambda: base.num_threads() <= threads + 1, 3)
    await until("no file is left open", lambda: base.num_fds() <= files + 4, 3)

    # A registry that is away does not hold the end up.
    await adapter.do("connect", registry="r", hosts=[host.endpoint], timeout=1.0)
    await adapter.do("register", registry="r", registration="s", name="S", port=1)
    await host.kill()
    start = time.monotonic()
    await adapter.do("close", registry="r")
    between(time.monotonic() - start, 0.0, 2.0, "seconds that the end takes without a registry")

    # The end of a program is the end of its clients.
    await host.start()
    await adapter.do("connect", registry="r", hosts=[host.endpoint])
    await adapter.do("register", registry="r", registration="s", name="S", port=1, type="last")
    equal(len(await host.ids("last")), 1, "services")
    equal(await adapter.end(), 0, "exit code")
    equal(await host.ids("last"), [], "services after the end of the program")


async def clock_jumps(stage: Stage) -> None:
    """C8: the wall clock is set by hours, forwards and back."""
    library = next((path for path in FAKETIME if path.is_file()), None)
    if library is None:
        assert os.environ.get("CI") != "true", "no libfaketime: scripts/test-tools installs it"
        print("NOT RUN clock_jumps: no libfaketime: scripts/test-tools installs it", flush=True)
        return
    host = await stage.host()
    clock = stage.directory / "clock"
    clock.write_text("+0")
    adapter = await stage.adapter(
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **{**QUICK, "timeout": 1.0, "dead_after": 2})
    mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=1.5)
    await adapter.do("cache", registry="r", cache="c", service_type="s")
    await adapter.do("cache_ready", cache="c")
    for jump in ("+1h", "-2h", "+400d", "+0"):
        waiting = adapter.begin("discover", registry="r", service_type="none", wait=1.0)
        clock.write_text(jump)
        start = time.monotonic()
        unsure = adapter.begin("wait_state", registration="s", states=["unsure"], timeout=1.5)
        try:
            raise AssertionError(f"it is answered: {await asyncio.wait_for(waiting, 4)}")
        except Failed as failed:
            equal(failed.kind, "NoneHealthy", "kind")
        between(time.monotonic() - start, 0.8, 2.0, "seconds that a wait of one second takes")
        try:
            raise AssertionError(f"{jump} makes it {await asyncio.wait_for(unsure, 4)}")
        except Failed as failed:
            equal(failed.kind, "TimedOut", "kind")
        equal((await host.get(mine["id"]) or {}).get("health"), "passing", f"health after {jump}")
        age = (await adapter.do("cache_list", cache="c"))["age"]
        between(age, 0, 12, f"age of the cache after {jump}")


async def keys(stage: Stage) -> None:
    """C10: with keys, over TCP and over a Unix socket; and what becomes of wrong ones."""
    host = stage.prepare("")
    directory = host.directory
    for name in ("registry", "client", "stranger"):
        made = await asyncio.create_subprocess_exec(
            stage.program, "keygen", "--out", f"{name}.key", cwd=directory, stdout=asyncio.subprocess.DEVNULL
        )
        equal(await made.wait(), 0, "exit code of keygen")
    for name in ("clients", "ipc"):
        (directory / name).mkdir()
    (directory / "clients/client.key").write_bytes((directory / "client.key").read_bytes())
    host.config = (
        '[server]\nipc_dir = "ipc"\ncleanup_interval = 0.3\n[security]\nmechanism = "curve"\n'
        'key_file = "registry.key_secret"\nauthorized_clients = "clients"\n' + MEMORY
    )
    await host.start()
    server = zmq.auth.load_certificate(directory / "registry.key")[0].decode()

    def pair(name: str, server: str = server) -> Json:
        public, secret = zmq.auth.load_certificate(directory / f"{name}.key_secret")
        assert secret is not None
        return {"public": public.decode(), "secret": secret.decode(), "server": server}

    adapter = await stage.adapter()
    ipc = f"ipc://{directory}/ipc/requests"
    for endpoint in (host.endpoint, ipc):
        await adapter.do("connect", registry="r", hosts=[endpoint], keys=pair("client"), **QUICK)
        mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=5)
        record = await adapter.do("get", registry="r", service_id=mine["id"])
        equal(record["owner_key"], pair("client")["public"], "owner_key")
        await adapter.do("close_registration", registration="s")
    other = pair("client")["public"]
    for wrong in (pair("stranger"), pair("client", server=other), None):
        start = time.monotonic()
        await adapter.do("connect", registry="r", hosts=[host.endpoint], keys=wrong, **QUICK)
        await adapter.fails("Unreachable", "health", registry="r", timeout=1.5)
        between(time.monotonic() - start, 0.5, 3.5, "seconds until a call fails")
    bad = {**pair("client"), "secret": "short"}
    await adapter.fails("Bad", "connect", registry="r", hosts=[host.endpoint], keys=bad)
