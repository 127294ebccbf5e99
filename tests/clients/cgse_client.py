"""The unchanged clients of cgse-core (egse.registry) against a running host.

Both client classes, the convenience functions, cgse's own command line and its microservice class: registration,
discovery, heartbeats from a thread and from a task, events, expiry, and what happens when a service is lost or the
host goes away and returns.

usage: cgse_client.py REQUESTS EVENTS HEARTBEATS [--durable] [--terminate] [--control]
"""

from __future__ import annotations

import os
import sys
import tempfile

from checks import Host, arguments, ask_parent, check, equal, run, wait_until, wait_until_async

host_under_test = arguments(__doc__)

# cgse's way to say where the registry is: a local settings file, named by <PROJECT>_LOCAL_SETTINGS, read at import.
settings = tempfile.NamedTemporaryFile("w", suffix=".yaml")
settings.write(
    "Service Registry:\n"
    f"    REQUESTER_PORT: {host_under_test.port(host_under_test.requests)}\n"
    f"    PUBLISHER_PORT: {host_under_test.port(host_under_test.events)}\n"
    f"    HEARTBEAT_PORT: {host_under_test.port(host_under_test.heartbeats)}\n"
)
settings.flush()
os.environ.update(
    PROJECT="REGISTRY", SITE_ID="TEST", REGISTRY_LOCAL_SETTINGS=settings.name, LOG_LEVEL="CRITICAL", VERBOSE_DEBUG=""
)

import asyncio  # noqa: E402
import re  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402
from typing import Any  # noqa: E402

import egse.registry.client as egse_client  # noqa: E402
from egse.registry import MessageType  # noqa: E402
from egse.registry import async_is_service_registry_active  # noqa: E402
from egse.registry import is_service_registry_active  # noqa: E402
from egse.registry.client import AsyncRegistryClient, RegistryClient, is_service_registered  # noqa: E402
from egse.registry.service import ZMQMicroservice  # noqa: E402
from egse.system import get_host_ip  # noqa: E402

MY_HOST = get_host_ip() or "127.0.0.1"
"""The address that heartbeats expect in the record: with another one they register again instead of renewing."""

EXPIRY_SECONDS = 20
"""A service without heartbeats is gone after its ttl and one clean-up: well before this."""


def new_type(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:8]}"


def endpoints(host: Host) -> dict[str, str]:
    return {
        "registry_req_endpoint": host.requests,
        "registry_sub_endpoint": host.events,
        "registry_hb_endpoint": host.heartbeats,
    }


def sync_client(host: Host) -> RegistryClient:
    return RegistryClient(**endpoints(host))


def async_client(host: Host) -> AsyncRegistryClient:
    return AsyncRegistryClient(**endpoints(host))


def seen(host: Host, service_type: str) -> dict[str, Any] | None:
    """What a client discovers that connects, asks one question and leaves: most of cgse's code does just that."""
    with sync_client(host) as client:
        return client.discover_service(service_type)


# One question and its answer


@check("RegistryClient: register, get, discover, list, get_endpoint, deregister")
def sync_lifecycle(host: Host) -> None:
    kind = new_type("sync")
    with sync_client(host) as client:
        service_id = client.register("My Sync Service", "10.0.0.1", 7001, kind, {"site": "lab"}, ttl=20)
        assert service_id and re.match("my-sync-service-[0-9a-f-]{36}$", service_id), f"service_id is {service_id!r}"
        record = client.get_service()
        is_record(record, service_id, kind)
        equal(client.get_service(service_id), record, "get_service(id)")
        equal(client.discover_service(kind), record, "discover_service")
        equal(client.list_services(kind), [record], "list_services(type)")
        assert record in client.list_services(), "list_services() does not show it"
        equal(client.get_endpoint(kind), "tcp://10.0.0.1:7001", "get_endpoint")
        equal(client.deregister(), True, "deregister")
        is_absent([client.discover_service(kind), client.list_services(kind), client.get_endpoint(kind)])
        equal(client.get_service(service_id), None, "get_service after deregister")
        equal(client.deregister(service_id), False, "deregister a second time")


@check("AsyncRegistryClient: register, get, discover, list, get_endpoint, deregister")
async def async_lifecycle(host: Host) -> None:
    kind = new_type("async")
    async with async_client(host) as client:
        service_id = await client.register("My Sync Service", "10.0.0.1", 7001, kind, {"site": "lab"}, ttl=20)
        record = await client.get_service()
        is_record(record, service_id, kind)
        equal(await client.get_service(service_id), record, "get_service(id)")
        equal(await client.discover_service(kind), record, "discover_service")
        equal(await client.list_services(kind), [record], "list_services(type)")
        assert record in await client.list_services(), "list_services() does not show it"
        equal(await client.get_endpoint(kind), "tcp://10.0.0.1:7001", "get_endpoint")
        equal(await client.deregister(), True, "deregister")
        is_absent([await client.discover_service(kind), await client.list_services(kind)])
        equal(await client.get_service(service_id), None, "get_service after deregister")
        equal(await client.deregister(service_id), False, "deregister a second time")


def is_record(record: dict[str, Any] | None, service_id: str, kind: str) -> None:
    assert record, "the service is not found"
    expected = {"id": service_id, "name": "My Sync Service", "host": "10.0.0.1", "port": 7001, "type": kind}
    for field, value in {**expected, "tags": [kind], "ttl": 20, "health": "passing"}.items():
        equal(record.get(field), value, field)
    equal(record["metadata"].get("site"), "lab", "metadata.site")


def is_absent(answers: list[Any]) -> None:
    assert not any(answers), f"the service is still seen after deregister: {answers}"


@check("get_endpoint uses the record's protocol")
async def endpoint_protocol(host: Host) -> None:
    kind = new_type("protocol")
    service_info = {"name": "p", "host": "hostname", "port": 1, "type": kind, "protocol": "ipc"}
    request = {"action": "register", "service_info": service_info}
    with sync_client(host) as client:
        assert client._send_request(MessageType.REQUEST_WITH_REPLY, request)["success"]
        equal(client.get_endpoint(kind), "ipc://hostname:1", "get_endpoint")
    async with async_client(host) as client:
        equal(await client.get_endpoint(kind), "ipc://hostname:1", "get_endpoint (async)")


@check("a request that wants no reply is executed, and shifts nobody's answers")
def no_reply(host: Host) -> None:
    kind = new_type("silent")
    service_info = {"name": "s", "host": "h", "port": 1, "type": kind}
    with sync_client(host) as client:
        request = {"action": "register", "service_info": service_info}
        equal(client._send_request(MessageType.REQUEST_NO_REPLY, request), {"success": True}, "reply")
        wait_until("it is discovered", lambda: client.discover_service(kind))
        equal(client.server_status().get("status"), "ok", "status")


@check("health_check and server_status, of both clients")
async def status(host: Host) -> None:
    with sync_client(host) as client:
        equal(client.health_check(), True, "health_check")
        answers = [client.server_status()]
    async with async_client(host) as client:
        equal(await client.health_check(), True, "health_check (async)")
        answers.append(await client.server_status())
    for answer in answers:
        ports = [answer[name] for name in ["req_port", "pub_port", "hb_port"]]
        equal(ports, [host.port(end) for end in [host.requests, host.events, host.heartbeats]], "ports")
        equal([answer["success"], answer["status"]], [True, "ok"], "success and status")
        equal(answer["enforce_unique_service_types"], host.unique, "enforce_unique_service_types")
        assert isinstance(answer["services"], list), f"services: {answer['services']!r}"


@check("is_service_registry_active, its async twin and is_service_registered")
async def convenience_functions(host: Host) -> None:
    equal(egse_client.DEFAULT_RS_REQ_PORT, host.port(host.requests), "the port from the settings file")
    equal(is_service_registry_active(), True, "is_service_registry_active")
    equal(await async_is_service_registry_active(), True, "async_is_service_registry_active")
    kind = new_type("registered")
    equal(is_service_registered(kind), False, "is_service_registered before")
    with sync_client(host) as client:
        client.register("r", MY_HOST, 1, kind)
    equal(is_service_registered(kind), True, "is_service_registered after")


@check("cgse's own command line shows the status")
def command_line(host: Host) -> None:
    ports = [host.port(end) for end in [host.requests, host.events, host.heartbeats]]
    flags = [f"--{name}-port={port}" for name, port in zip(["req", "pub", "hb"], ports)]
    command = [sys.executable, "-W", "ignore", "-m", "egse.registry.server", "status", "--host", "127.0.0.1", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "Status: ok" in done.stdout, f"it prints {done.stdout!r} {done.stderr[-300:]!r}"
    assert f"Heartbeat port: {ports[2]}" in done.stdout, f"it prints {done.stdout!r}"


@check("a given service_id is updated in place, by register and by reregister")
async def same_id(host: Host) -> None:
    kind = new_type("same")
    with sync_client(host) as client:
        service_id = client.register("s", "10.9.9.9", 1, kind)
        equal(client.register("s", "10.9.9.8", 2, kind, service_id=service_id), service_id, "service_id")
        equal([(s["host"], s["port"]) for s in client.list_services(kind)], [("10.9.9.8", 2)], "services")
        equal(client.reregister(), service_id, "reregister")
        equal([s["host"] for s in client.list_services(kind)], [MY_HOST], "hosts after reregister")
    async with async_client(host) as client:
        equal(await client.register("s", "10.9.9.7", 3, kind, service_id=service_id), service_id, "service_id")
        equal(await client.reregister(), service_id, "reregister (async)")
        equal([(s["host"], s["port"]) for s in await client.list_services(kind)], [(MY_HOST, 3)], "services")


@check("singleton is refused beside another service of its type; without it a type may have many")
async def singleton(host: Host) -> None:
    kind = new_type("single")
    with sync_client(host) as client:
        first = client.register("s", MY_HOST, 1, kind)
        equal(client.register("s", MY_HOST, 2, kind, singleton=True), None, "a second, singleton")
        assert client.register("s", MY_HOST, 3, kind, allow_duplicate_service_type=True), "refused though allowed"
        assert client.register("s", MY_HOST, 4, kind), "a second one is refused though nobody asked for it"
        equal(len(client.list_services(kind)), 3, "number of services")
        lonely = new_type("lonely")
        lonely_id = client.register("s", MY_HOST, 5, lonely, singleton=True)
        equal(client.register("s", MY_HOST, 6, lonely, singleton=True, service_id=lonely_id), lonely_id, "the same id")
    async with async_client(host) as client:
        equal(await client.register("s", MY_HOST, 7, lonely, singleton=True), None, "a second, singleton (async)")
        assert first in {service["id"] for service in await client.list_services(kind)}, "the first is gone"


# Connections


@check("200 clients that connect, ask one question and leave, each within cgse's 0.5 s")
def churn(host: Host) -> None:
    kind = new_type("churn")
    with sync_client(host) as owner:
        owner.register("c", MY_HOST, 1, kind)
        for number in range(200):
            start = time.monotonic()
            assert seen(host, kind), f"client {number} has discovered nothing in {time.monotonic() - start:.2f} s"


@check("50 clients at once, each with its own service")
async def many_clients(host: Host) -> None:
    kind = new_type("many")

    async def one(number: int) -> str:
        async with async_client(host) as client:
            service_id = await client.register(f"m{number}", MY_HOST, 1000 + number, kind)
            assert service_id, f"client {number} could not register"
            for _ in range(10):
                record = await client.get_service()
                equal(record and record["port"], 1000 + number, "port in the reply to get")
            return service_id

    ids = await asyncio.gather(*(one(number) for number in range(50)))
    with sync_client(host) as client:
        equal({service["id"] for service in client.list_services(kind)}, set(ids), "ids")


# Heartbeats and events


class Listener:
    """An AsyncRegistryClient that collects the events it hears, in order: (type, service id)."""

    def __init__(self, host: Host):
        self.host = host
        self.client = async_client(host)
        self.heard: list[tuple[str, str]] = []
        self.records: dict[tuple[str, str], dict[str, Any]] = {}

    async def __aenter__(self) -> Listener:
        await self.client.connect()
        for kind in ["register", "deregister", "expire"]:
            self.client.on_event(kind, self._handler(kind))
        await self.client.start_event_listener()
        # A subscription takes effect some time after connect: until a probe's event comes in, nothing is promised.
        probe = new_type("probe")
        with sync_client(self.host) as prober:

            def probe_is_heard() -> bool:
                prober.register("probe", MY_HOST, 1, service_id=probe)
                prober.deregister()
                return bool(self.of(probe))

            await wait_until_async("the first event arrives", probe_is_heard)
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.client.disconnect()

    def _handler(self, kind: str):
        def plain(data: dict[str, Any]) -> None:
            self.heard.append((kind, data["service_id"]))
            self.records[kind, data["service_id"]] = data["service_info"]

        async def coroutine(data: dict[str, Any]) -> None:
            plain(data)

        return coroutine if kind == "expire" else plain

    def of(self, service_id: str) -> list[str]:
        return [kind for kind, heard_id in self.heard if heard_id == service_id]

    async def hears(self, service_id: str, *kinds: str, seconds: float = 10) -> None:
        await wait_until_async(
            f"{kinds} of {service_id} (heard {self.of(service_id)})",
            lambda: len(self.of(service_id)) >= len(kinds),
            seconds,
        )
        await asyncio.sleep(0.2)  # were there one event too many, it would come now
        equal(self.of(service_id), list(kinds), f"events of {service_id}")


@check("on_event handlers hear register and deregister, each once, with the record")
async def events(host: Host) -> None:
    kind = new_type("event")
    async with Listener(host) as listener, async_client(host) as client:
        service_id = await client.register("e", MY_HOST, 1, kind, {"k": "v"})
        await client.deregister()
        await listener.hears(service_id, "register", "deregister")
    for event in ["register", "deregister"]:
        record = listener.records[event, service_id]
        equal([record["id"], record["type"], record["metadata"]["k"]], [service_id, kind, "v"], f"record of {event}")


async def stop_beating(client: AsyncRegistryClient) -> None:
    """Stops a client's heartbeats. Before Python 3.12 `asyncio.wait_for`, in which the client waits for the reply to a
    beat, can lose a cancellation that meets the reply: then the client beats on and waits for its end for ever. To give
    up waiting cancels it once more."""
    try:
        await asyncio.wait_for(client.stop_heartbeat(), 5)
    except asyncio.TimeoutError:
        pass


@check("heartbeats from a thread and from a task keep services alive; when they stop the services expire, with events")
async def heartbeats(host: Host) -> None:
    thread_kind, task_kind = new_type("thread"), new_type("task")
    thread_client = sync_client(host)
    thread_client.connect()
    async with Listener(host) as listener, async_client(host) as task_client:
        thread_id = thread_client.register("beats", MY_HOST, 1, thread_kind, ttl=2)
        task_id = await task_client.register("beats", MY_HOST, 2, task_kind, ttl=2)
        thread_client.start_heartbeat()
        await task_client.start_heartbeat()

        end = time.monotonic() + 7
        while time.monotonic() < end:
            for kind in [thread_kind, task_kind]:
                assert await asyncio.to_thread(seen, host, kind), f"{kind} is not discovered despite its heartbeats"
            await asyncio.sleep(0.25)
        equal([listener.of(thread_id), listener.of(task_id)], [["register"]] * 2, "events during the heartbeats")

        await asyncio.to_thread(thread_client.stop_heartbeat)
        await stop_beating(task_client)
        for service_id in [thread_id, task_id]:
            await listener.hears(service_id, "register", "expire", seconds=EXPIRY_SECONDS)
            record = listener.records["expire", service_id]
            equal([record["id"], record["name"]], [service_id, "beats"], "record of expire")
            equal(await task_client.get_service(service_id), None, "get_service after expire")
    thread_client.disconnect()


@check("a service that the registry lost registers itself again, under the same id")
async def lost_service(host: Host) -> None:
    kinds = [new_type("lost"), new_type("lost")]
    thread_client = sync_client(host)
    thread_client.connect()
    async with async_client(host) as task_client, async_client(host) as other:
        ids = [thread_client.register("l", MY_HOST, 1, kinds[0], ttl=3)]
        ids.append(await task_client.register("l", MY_HOST, 2, kinds[1], ttl=3))
        thread_client.start_heartbeat()
        await task_client.start_heartbeat()
        for service_id in ids:
            equal(await other.deregister(service_id), True, "deregister by another client")
        for service_id, kind in zip(ids, kinds):
            found = await wait_until_async(f"{kind} is back", lambda: other.discover_service(kind))
            equal(found["id"], service_id, "id")
        await asyncio.to_thread(thread_client.stop_heartbeat)
        await stop_beating(task_client)
    thread_client.disconnect()


@check("a heartbeat that finds another address in the record registers the new one, under the same id")
async def moved_service(host: Host) -> None:
    kind = new_type("moved")
    async with async_client(host) as client:
        service_id = await client.register("m", "192.0.2.99", 1, kind, ttl=3)
        await client.start_heartbeat()

        async def has_moved() -> bool:
            record = await asyncio.to_thread(seen, host, kind)
            return record and (record["id"], record["host"]) == (service_id, MY_HOST)

        await wait_until_async("the address is corrected", has_moved)
        await stop_beating(client)


@check("ZMQMicroservice: registers, is called through the registry, and deregisters")
async def microservice(host: Host) -> None:
    kind = new_type("micro")
    places = {"registry_req_endpoint": host.requests, "registry_sub_endpoint": host.events}
    service = ZMQMicroservice("Micro Service", kind, pub_port=0, metadata={"k": "v"}, **places)

    async def double(request: dict[str, Any]) -> dict[str, Any]:
        return {"status": "ok", "result": 2 * request["number"]}

    service.register_handler("double", double)
    task = asyncio.create_task(service.start())
    caller = ZMQMicroservice("Caller", new_type("caller"), **places)
    await caller.registry_client.connect()
    try:
        found = await wait_until_async("it is discovered", lambda: asyncio.to_thread(seen, host, kind))
        equal([found["port"], found["metadata"]["k"]], [service.rep_port, "v"], "port and metadata")
        equal(found["metadata"]["pub_port"], service.pub_port, "metadata.pub_port")
        # It names its own address; from where it is called, loopback will do too.
        answer = await asyncio.wait_for(caller.call_service(kind, "double", {"number": 21}), 10)
        equal(answer, {"status": "ok", "result": 42}, "answer of the service")
    finally:
        await service.stop()
        await asyncio.wait_for(task, 15)
        await caller._cleanup()
    equal(await asyncio.to_thread(seen, host, kind), None, "discover after stop")


# The host goes away


@check("clients outlast a host that stops for a while and returns", when=lambda host: host.control)
async def host_returns(host: Host) -> None:
    kind = new_type("return")
    async with async_client(host) as owner, async_client(host) as other:
        service_id = await owner.register("r", MY_HOST, 1, kind, ttl=6)
        await owner.start_heartbeat(interval=1)
        quiet = await other.register("q", MY_HOST, 2, new_type("quiet"), ttl=60)

        await asyncio.to_thread(ask_parent, "stop")
        assert not await asyncio.to_thread(seen, host, kind), "the host is said to be gone and answers"
        equal(is_service_registry_active(), False, "is_service_registry_active while it is gone")
        await asyncio.sleep(2.5)  # so long that beats fail and pile up
        await asyncio.to_thread(ask_parent, "start")

        async def is_back() -> dict[str, Any] | None:
            return await asyncio.to_thread(seen, host, kind)

        if host.durable:
            found = await is_back()
            assert found, "the service is not there right after the restart of a durable host"
            kept = await other.get_service(quiet)
            equal(kept and kept["health"], "passing", "health of a service without heartbeats after the restart")
            # Longer than the ttl: it lives by its heartbeats, not by the grace of the restart.
            end = time.monotonic() + 8
            while time.monotonic() < end:
                found = await is_back()
                equal(found and found["id"], service_id, "id of what is discovered after the restart")
                await asyncio.sleep(0.25)
        else:
            equal(await other.get_service(quiet), None, "a service of before the restart of a host that forgets")
        await stop_beating(owner)


@check("a host that forgot its services gets them back from the heartbeats", when=lambda host: host.control)
async def host_forgets(host: Host) -> None:
    kind = new_type("forgotten")
    client = sync_client(host)
    client.connect()
    service_id = client.register("f", MY_HOST, 1, kind, ttl=3)
    client.start_heartbeat()
    # Away for an instant only: a cgse client whose health checks pile up meanwhile takes their late answers for
    # others', whichever server it talks to.
    await asyncio.to_thread(ask_parent, "stop")
    await asyncio.to_thread(ask_parent, "start")
    found = await wait_until_async("it is discovered again", lambda: asyncio.to_thread(seen, host, kind), 20)
    equal(found["id"], service_id, "id")
    await asyncio.to_thread(client.stop_heartbeat)
    client.disconnect()


@check("terminate_registry_server is refused unless the host allows it", when=lambda host: not host.terminate)
async def terminate_refused(host: Host) -> None:
    with sync_client(host) as client:
        equal(client.terminate_registry_server(), False, "terminate_registry_server")
        equal(client.health_check(), True, "health_check after it")
    async with async_client(host) as client:
        equal(await client.terminate_registry_server(), False, "terminate_registry_server (async)")


@check("terminate_registry_server ends a host that allows it", when=lambda host: host.terminate)
def terminate(host: Host) -> None:
    with sync_client(host) as client:
        equal(client.terminate_registry_server(), True, "terminate_registry_server")
    wait_until("it is gone", lambda: not is_service_registry_active())


if __name__ == "__main__":
    sys.exit(run(host_under_test))
