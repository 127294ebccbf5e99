"""What becomes of a service that a client keeps alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from itertools import pairwise
from statistics import median

from network import Relay, Wire
from stage import MEMORY, SQLITE, Adapter, Host, Json, Stage, between, equal, until

QUICK: Json = {"backoff": [0.05, 0.3], "connect_timeout": 0.7, "timeout": 2.0}


async def register_and_end(stage: Stage) -> None:
    """R1, R9: all fields come through, refusals are errors, and the end deregisters."""
    host = await stage.host()
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    service: Json = {"name": "Camera 1", "port": 7000, "host": "10.1.2.3", "type": "camera", "tags": ["north"]}
    service |= {"metadata": {"serial": 4711}, "extra": {"protocol": "tcp", "version": "1.2.3"}, "ttl": 12.5}
    state = await adapter.do("register", registry="r", registration="s", **service)
    assert state["id"].startswith("camera-1-"), state
    equal(state["state"], "registered", "state")
    record = await host.get(state["id"])
    assert record
    for field in ("name", "port", "host", "type", "ttl"):
        equal(record[field], service[field], field)
    equal(sorted(record["tags"]), ["camera", "north"], "tags")
    equal(record["metadata"]["serial"], 4711, "metadata.serial")
    equal((record["protocol"], record["version"]), ("tcp", "1.2.3"), "further fields")
    assert record.get("instance"), record
    equal(state["generation"], record.get("generation"), "generation")

    failed = await adapter.fails("InvalidRequest", "register", registry="r", registration="bad", name="", port=1)
    equal(failed.code, "invalid_request", "code")
    await adapter.do("register", registry="r", registration="only", name="O", port=1, type="only", singleton=True)
    await adapter.fails(
        "DuplicateServiceType",
        "register",
        registry="r",
        registration="bad",
        name="O",
        port=2,
        type="only",
        singleton=True,
    )
    await adapter.do(
        "register", registry="r", registration="too", name="O", port=2, type="only", allow_duplicate_service_type=True
    )
    equal(len(await host.ids("only")), 2, "services of a type that may be had twice after all")

    await adapter.do("close_registration", registration="s")
    equal(await host.get(state["id"]), None, "the service after its end")
    equal((await adapter.do("state", registration="s"))["state"], "closed", "state")
    # Gone already is no error.
    state = await adapter.do("register", registry="r", registration="s", name="S", port=1, id="mine")
    equal(state["id"], "mine", "id")
    await host.remove("mine")
    await adapter.do("close_registration", registration="s")


async def kept_alive(stage: Stage) -> None:
    """R3: renewed every ttl / 3, not all at once, and never late."""
    host = await stage.host()
    relay = Relay.to(stage, host.endpoint)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[relay.endpoint], **QUICK)
    mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=1.5)
    end = time.monotonic() + 6
    while time.monotonic() < end:
        equal((await host.get(mine["id"]) or {}).get("health"), "passing", "health")
        await asyncio.sleep(0.1)
    beats = relay.times_of("renew")
    equal(len(relay.times_of("register")), 1, "registrations")
    waits = [after - before for before, after in pairwise(beats)]
    # Each is between 90 % and 100 % of half a second, and a busy machine adds to some.
    between(min(waits), 0.4, 0.49, "least seconds between two renewals")
    between(median(waits), 0.44, 0.67, "seconds between two renewals")


async def renewed_together(stage: Stage) -> None:
    """R14: the services of one client share their heartbeats, and each is told what becomes of it alone."""
    host = await stage.host(MEMORY)
    relay = Relay.to(stage, host.endpoint)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[relay.endpoint], **QUICK)
    ids = [f"s{number}" for number in range(5)]
    for name in ids:
        await adapter.do("register", registry="r", registration=name, name=name, id=name, port=1, ttl=1.5)
        await asyncio.sleep(0.11)
    # They begin at different times, and come together.
    await asyncio.sleep(1.5)
    del relay.requests[:]
    end = time.monotonic() + 4
    while time.monotonic() < end:
        equal([(await host.get(name) or {}).get("health") for name in ids], ["passing"] * 5, "health")
        await asyncio.sleep(0.1)
    equal({request["action"] for _, request in relay.requests} - {"health"}, {"renew"}, "what is asked for")
    beats = [request for _, request in relay.requests if request["action"] == "renew"]
    together = [sorted(one["service_id"] for one in beat.get("services", ())) for beat in beats]
    equal(together, [ids] * len(beats), "who is in each message")
    between(len(beats), 5, 11, "messages in four seconds: one every half a second")

    # One is taken out, one is replaced; the others do not notice.
    await host.remove("s1")
    await host.add("s2", ttl=300)
    for name, state in {"s1": "deregistered", "s2": "replaced"}.items():
        told = await adapter.do("wait_state", registration=name, states=[state], timeout=5)
        assert told["error"], told
    # All that are left are forgotten at once.
    await host.restart()
    await until("they are back", lambda: _are(host.ids(), ["s0", "s3", "s4"]), 5)
    await asyncio.sleep(1.0)
    equal([(await adapter.do("state", registration=n))["state"] for n in ("s0", "s3", "s4")], ["registered"] * 3, "all")

    # A host that takes one in a message.
    def one_at_a_time(request: Json) -> Json | None:
        refused = {"success": False, "error": "Missing required field: service_id"}
        return refused if "services" in request else None

    relay.on_request = one_at_a_time
    end = time.monotonic() + 3
    while time.monotonic() < end:
        equal([(await host.get(n) or {}).get("health") for n in ("s0", "s3", "s4")], ["passing"] * 3, "health")
        await asyncio.sleep(0.1)
    # Who is alone says so.
    relay.on_request = lambda request: None
    for name in ("s3", "s4"):
        await adapter.do("close_registration", registration=name)
    await asyncio.sleep(0.6)
    del relay.requests[:]
    await asyncio.sleep(1.5)
    named = [request.get("service_id") for _, request in relay.requests if request["action"] == "renew"]
    assert len(named) >= 2 and set(named) == {"s0"}, named
    await adapter.do("close", registry="r")
    equal(await host.ids(), [], "services after the end")


async def _are(found: Awaitable[list[str]], expected: list[str]) -> bool:
    return await found == expected


async def forgetful_host(stage: Stage) -> None:
    """R4, R5: a host that has forgotten everything gets it all back, at once."""
    host = await stage.host(MEMORY)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    service: Json = {"name": "S", "port": 7000, "host": "10.1.2.3", "type": "s", "tags": ["t"], "ttl": 30}
    service |= {"metadata": {"a": {"b": 1, "c": 2}}, "extra": {"protocol": "udp"}, "singleton": True}
    mine = await adapter.do("register", registry="r", registration="s", **service)
    await adapter.do("update_registration", registration="s", patch={"a": {"b": None}, "d": 3})
    before = await host.get(mine["id"])
    for _ in range(2):
        await host.restart()
        start = time.monotonic()
        await until("it is back", lambda: host.get(mine["id"]), 5)
        between(time.monotonic() - start, 0, 3, "seconds until it is back (its ttl is 30)")
        after = await host.get(mine["id"])
        equal(_lasting(after), _lasting(before), "the record")
        equal(after["metadata"], {"a": {"c": 2}, "d": 3, "type": "s"}, "its metadata")
        # Its flags count, too.
        reply = await host.ask(
            action="register", service_info={"name": "o", "host": "h", "port": 1, "type": "s", "singleton": True}
        )
        equal(reply.get("code"), "duplicate_service_type", "what another gets that wants to be the only one")
    state = await adapter.do("state", registration="s")
    equal(state["state"], "registered", "state")
    equal(state["generation"], (after or {}).get("generation"), "generation")


def _lasting(record: Json | None) -> Json:
    return {key: value for key, value in (record or {}).items() if key not in ("last_heartbeat", "generation")}


async def deregistered_by_another(stage: Stage) -> None:
    """R6: what somebody has taken out stays out."""
    host = await stage.host(SQLITE)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    for restart in (False, True):
        mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=1.5)
        await host.remove(mine["id"])
        if restart:
            await host.restart()
        state = await adapter.do("wait_state", registration="s", states=["deregistered"], timeout=5)
        assert state["error"], state
        end = time.monotonic() + 2
        while time.monotonic() < end:
            equal(await host.get(mine["id"]), None, "what was deregistered")
            await asyncio.sleep(0.1)
        await adapter.do("close_registration", registration="s")
        # Registered again on purpose it is there again.
        again = await adapter.do("register", registry="r", registration="t", name="S", port=1, id=mine["id"], ttl=1.5)
        await asyncio.sleep(1.0)
        equal((await adapter.do("state", registration="t"))["state"], "registered", "state of the new one")
        await adapter.do("close_registration", registration="t")
        equal(await host.get(again["id"]), None, "the service after its end")


async def two_with_one_id(stage: Stage) -> None:
    """R7: the younger of two processes with one id has it."""
    host = await stage.host()
    old, new = await stage.adapter(), await stage.adapter()
    service: Json = {"name": "S", "id": "shared", "type": "s", "ttl": 1.5}
    for adapter in (old, new):
        await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    await old.do("register", registry="r", registration="s", port=1, **service)
    state = await new.do("register", registry="r", registration="s", port=2, **service)
    over = await old.do("wait_state", registration="s", states=["replaced"], timeout=5)
    assert over["error"], over
    await old.do("close_registration", registration="s")
    await asyncio.sleep(2.0)
    record = await host.get("shared")
    assert record and record["port"] == 2 and record["health"] == "passing", record
    equal(record["generation"], state["generation"], "generation")
    equal((await new.do("state", registration="s"))["state"], "registered", "state of the younger")
    # The old process held up for longer than its ttl: it comes back to find another in its place.
    await new.do("close_registration", registration="s")
    await old.do("register", registry="r", registration="s", port=1, **service)
    old.pause()
    try:
        await until("it has expired", lambda: _gone(host, "shared"), 6)
        await new.do("register", registry="r", registration="s", port=2, **service)
    finally:
        old.resume()
    await old.do("wait_state", registration="s", states=["replaced"], timeout=5)
    record = await host.get("shared")
    assert record and record["port"] == 2, record


async def _gone(host: Host, service_id: str) -> bool:
    return await host.get(service_id) is None


async def refused_for_a_while(stage: Stage) -> None:
    """R8: registering again is refused while another has the type, and then is not."""
    host = await stage.host(MEMORY)
    wire = await Wire.between(stage, host.port)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[wire.endpoint], **QUICK)
    mine = await adapter.do(
        "register", registry="r", registration="s", name="S", port=1, type="only", singleton=True, ttl=2
    )
    wire.refuses = True
    await host.restart()
    await host.add("other", "only", singleton=True)
    wire.refuses = False
    state = await adapter.do("wait_state", registration="s", states=["refused"], timeout=6)
    assert "duplicate" in state["error"], state
    equal(await host.ids("only"), ["other"], "services of the type")
    await host.remove("other")
    await adapter.do("wait_state", registration="s", states=["registered"], timeout=5)
    equal(await host.ids("only"), [mine["id"]], "services of the type")
    equal((await adapter.do("state", registration="s"))["error"], None, "error")


async def update(stage: Stage) -> None:
    """R10: metadata is changed without registering anew; an old host is sent a registration."""
    host = await stage.host()
    relay = Relay.to(stage, host.endpoint)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[relay.endpoint], **QUICK)
    mine = await adapter.do(
        "register", registry="r", registration="s", name="S", port=1, type="s", metadata={"load": 1, "x": {"y": 1}}
    )
    state = await adapter.do("update_registration", registration="s", patch={"load": 2, "x": {"y": None, "z": [1]}})
    equal(state["generation"], mine["generation"], "generation after an update")
    record = await host.get(mine["id"])
    equal((record or {}).get("metadata"), {"load": 2, "x": {"z": [1]}, "type": "s"}, "metadata")
    # Anybody may update, and naming another generation is refused.
    await adapter.do("update", registry="r", service_id=mine["id"], patch={"by": "another"})
    await adapter.fails("Replaced", "update", registry="r", service_id=mine["id"], patch={"x": 1}, generation=1)
    equal((await host.get(mine["id"]) or {})["metadata"]["by"], "another", "what another has changed")
    await adapter.fails("NotFound", "update", registry="r", service_id="nobody", patch={"x": 1})

    old = {"success": False, "error": "Unknown action: update", "code": "unknown_action"}
    relay.on_request = lambda request: old if request["action"] == "update" else None
    await adapter.do("update_registration", registration="s", patch={"load": 3})
    record = await host.get(mine["id"])
    equal((record or {})["metadata"]["load"], 3, "metadata that an old host was given")
    equal(len(relay.times_of("register")), 2, "registrations")


async def drained(stage: Stage) -> None:
    """R15, H5: what is drained stays registered, and is given to nobody until it is drained no more."""
    host = await stage.host(SQLITE)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    await adapter.do("register", registry="r", registration="s", name="S", id="s", port=1, type="s", ttl=3)
    await host.add("other", "s")
    await adapter.do("cache", registry="r", cache="c")
    await adapter.do("cache_ready", cache="c")

    async def cached(service_id: str, is_drained: bool) -> bool:
        record = await adapter.do("cache_get", cache="c", service_id=service_id)
        return record is not None and ("drain" in record) == is_drained

    async def given(count: int) -> set[str]:
        """By the registry and by the cache."""
        commands = [("discover", {"registry": "r"}), ("cache_discover", {"cache": "c"})] * count
        return {(await adapter.do(command, service_type="s", **of))["id"] for command, of in commands}

    async def nobody_is_given() -> None:
        await adapter.fails("NoneHealthy", "discover", registry="r", service_type="s")
        await adapter.fails("NoneHealthy", "cache_discover", cache="c", service_type="s")

    await adapter.do("drain_registration", registration="s", seconds=600, reason="a new bulb")
    await until("the cache knows it", lambda: cached("s", True), 3)
    equal(await given(20), {"other"}, "what is given beside one that is drained")
    listed = {service["id"]: service for service in (await adapter.do("list", registry="r"))["services"]}
    drain = listed["s"]["drain"]
    equal((drain["reason"], "drain" in listed["other"]), ("a new bulb", False), "drain in a list")
    between(drain["until"] - drain["since"], 600, 601, "seconds that it is drained for")
    equal(await adapter.do("types", registry="r"), {"s": {"passing": 1, "drained": 1, "critical": 0}}, "types")
    await host.remove("other")
    await until("the cache knows it", lambda: _is_gone(adapter, "other"), 3)
    await nobody_is_given()
    equal((await adapter.do("cache_list", cache="c", service_type="s"))["ids"], ["s"], "list of a cache")

    # It stays so while the registry is away, and after that; and over another registration of the id.
    await host.kill()
    await adapter.fails("NoneHealthy", "cache_discover", cache="c", service_type="s")
    await host.start()
    equal((await host.get("s") or {}).get("drain"), drain, "drain after a restart")
    await nobody_is_given()
    await adapter.do("connect", registry="q", hosts=[host.endpoint], **QUICK)
    await adapter.do("register", registry="q", registration="again", name="S", id="s", port=2, type="s")
    equal((await host.get("s") or {}).get("drain"), drain, "drain after another registration")
    await adapter.do("wait_state", registration="s", states=["replaced"], timeout=5)
    await adapter.fails("Closed", "undrain_registration", registration="s")
    await nobody_is_given()
    await adapter.do("undrain_registration", registration="again")
    await until("the cache knows it", lambda: cached("s", False), 3)
    equal(await given(3), {"s"}, "what is given when it is drained no more")

    # Anybody may drain, for a time; and each generation by itself.
    await adapter.do("drain", registry="r", service_id="s", seconds=1)
    await adapter.fails("NoneHealthy", "discover", registry="r", service_type="s")
    equal((await adapter.do("discover", registry="r", service_type="s", wait=6))["id"], "s", "when its time is over")
    await adapter.do("undrain", registry="r", service_id="s")
    await adapter.fails("Replaced", "drain", registry="r", service_id="s", generation=1)
    await adapter.fails("NotFound", "drain", registry="r", service_id="nobody")
    await adapter.fails("NotFound", "undrain", registry="r", service_id="nobody")
    await adapter.fails("InvalidRequest", "drain", registry="r", service_id="s", seconds=0)

    # A service of the usual kind; and a registry that has forgotten it.
    relay = Relay.to(stage, host.endpoint)
    one = await adapter.do("service", service="v", hosts=[relay.endpoint], name="V", port=3, type="v", **QUICK)
    forgotten = {"success": False, "error": "Service not found", "code": "not_found"}
    relay.on_request = lambda request: forgotten if request.get("generation") == one["generation"] else None
    await adapter.do("drain_service", service="v", reason="why")
    record = await host.get(one["id"]) or {}
    equal(record.get("drain", {}).get("reason"), "why", "reason")
    await adapter.do("undrain_service", service="v")
    assert "drain" not in (await host.get(one["id"]) or {"drain": None}), "it is still drained"
    actions = ("register", "drain", "undrain")
    asked = [(request["action"], request.get("generation")) for _, request in relay.requests]
    later = record["generation"]
    expected = [("register", None), ("drain", one["generation"]), ("register", None)]
    equal([ask for ask in asked if ask[0] in actions], [*expected, ("drain", later), ("undrain", later)], "requests")


async def _is_gone(adapter: Adapter, service_id: str) -> bool:
    return await adapter.do("cache_get", cache="c", service_id=service_id) is None


async def new_address(stage: Stage) -> None:
    """R11: a service without a host has this machine's address, also when that changes."""
    host = await stage.host()
    adapter = await stage.adapter()
    await adapter.do("connect", registry="found", hosts=[host.endpoint], **QUICK)
    found = await adapter.do("register", registry="found", registration="f", name="F", port=1)
    equal((await host.get(found["id"]) or {})["host"], "127.0.0.1", "address towards a host on this machine")

    await adapter.do("connect", registry="r", hosts=[host.endpoint], address="10.0.0.1", **QUICK)
    mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, ttl=1.5)
    fixed = await adapter.do("register", registry="r", registration="t", name="T", port=1, ttl=1.5, host="192.0.2.1")
    equal((await host.get(mine["id"]) or {})["host"], "10.0.0.1", "address")
    for address in ("10.0.0.2", "10.0.0.3"):
        await adapter.do("set_address", registry="r", address=address)
        await until("the new address is there", lambda: _is_at(host, mine["id"], address), 2)  # noqa: B023
    equal((await host.get(fixed["id"]) or {})["host"], "192.0.2.1", "an address that was given")
    state = await adapter.do("state", registration="s")
    equal((state["id"], state["state"]), (mine["id"], "registered"), "id and state")
    await adapter.do("close", registry="r")
    equal(await host.ids(), [found["id"]], "services after the end")


async def _is_at(host: Host, service_id: str, address: str) -> bool:
    return (await host.get(service_id) or {})["host"] == address


async def old_host(stage: Stage) -> None:
    """R13: a host that knows no generations."""
    host = await stage.host()
    relay = Relay.to(stage, host.endpoint)

    def without(request: Json, reply: Json) -> None:
        reply.pop("generation", None)
        if isinstance(reply.get("service"), dict):
            reply["service"].pop("generation", None)

    relay.on_reply = without
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[relay.endpoint], **QUICK)
    mine = await adapter.do("register", registry="r", registration="s", name="S", port=1, type="s", ttl=1.2)
    equal(mine["generation"], None, "generation")
    await asyncio.sleep(2.5)
    equal((await adapter.do("state", registration="s"))["state"], "registered", "state")
    await adapter.do("close_registration", registration="s")
    equal(await host.get(mine["id"]), None, "the service after its end")
    named = [request for _, request in relay.requests if "generation" in request]
    equal(named, [], "requests that name a generation")
