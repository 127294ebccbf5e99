"""What clients ask, and what they are told."""

from __future__ import annotations

import asyncio
import time

from network import Relay
from stage import PATIENCE, SQLITE, Json, Stage, between, equal

QUICK: Json = {"backoff": [0.05, 0.3], "connect_timeout": 0.7, "timeout": 3.0}


async def pages(stage: Stage) -> None:
    """L1: a list in pages is one list."""
    host = await stage.host()
    relay = Relay.to(stage, host.endpoint)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[relay.endpoint], **QUICK)
    ids = sorted(f"s{number:03}" for number in range(250))
    for service_id in ids:
        await host.add(service_id, "even" if service_id[-1] in "02468" else "odd", metadata={"big": "x" * 50})
    for page in (1000, 100, 7):
        asked = len(relay.times_of("list"))
        found = await adapter.do("list", registry="r", page=page)
        equal(sorted(service["id"] for service in found["services"]), ids, f"the list in pages of {page}")
        assert found["epoch"] and found["revision"] == 250, found["revision"]
        assert len(relay.times_of("list")) - asked >= 250 // page, "it was not asked for in pages"
    found = await adapter.do("list", registry="r", page=30, service_type="even", fields=["port"])
    equal(len(found["services"]), 125, "services of one type")
    equal(sorted(found["services"][0]), ["id", "port"], "fields")

    # A cursor that the host cannot go on with.
    spoiled: list[int] = []

    def spoil(request: Json) -> Json | None:
        if request["action"] == "list" and "cursor" in request and len(spoiled) < 2:
            spoiled.append(1)
            return {"success": False, "error": "The cursor is of another time", "code": "compacted"}
        return None

    relay.on_request = spoil
    found = await adapter.do("list", registry="r", page=50)
    equal(sorted(service["id"] for service in found["services"]), ids, "a list that was begun again")
    equal(len(spoiled), 2, "times it was begun again")
    relay.on_request = lambda request: (
        {"success": False, "error": "no", "code": "compacted"} if request["action"] == "list" else None
    )
    asked = len(relay.times_of("list"))
    await adapter.fails("Compacted", "list", registry="r")
    equal(len(relay.times_of("list")) - asked, 5, "times it is tried")

    counts = await adapter.do("types", registry="r")
    each = {"passing": 125, "drained": 0, "critical": 0}
    equal(counts, {"even": each, "odd": each}, "types")


async def discover_waits(stage: Stage) -> None:
    """L2: waiting for a service outlasts restarts."""
    host = await stage.host(SQLITE)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    start = time.monotonic()
    await adapter.fails("NoneHealthy", "discover", registry="r", service_type="none", wait=0.8)
    between(time.monotonic() - start, 0.7, 2.0, "seconds that are waited")
    await adapter.fails("NoneHealthy", "discover", registry="r", service_type="none")
    waiting = adapter.begin("discover", registry="r", service_type="s", wait=20)
    many = adapter.begin("discover_many", registry="r", service_type="s", limit=3, wait=20)
    await asyncio.sleep(0.3)
    await host.add("other", "another")
    await host.restart()
    await asyncio.sleep(0.7)
    await host.restart()
    await asyncio.sleep(0.7)
    assert not waiting.done() and not many.done(), "it has not waited"
    start = time.monotonic()
    await host.add("s", "s")
    equal((await asyncio.wait_for(waiting, PATIENCE))["id"], "s", "what is found")
    equal([found["id"] for found in await asyncio.wait_for(many, PATIENCE)], ["s"], "what is found")
    between(time.monotonic() - start, 0, 1.5, "seconds until it is found")


async def filters(stage: Stage) -> None:
    """L3, L4: the same filters everywhere."""
    host = await stage.host()
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    for number in range(12):
        more: Json = {"tags": ["north"] if number % 2 else ["south"], "version": f"1.{number}.0"}
        await host.add(f"s{number:02}", "camera", metadata={"line": number % 3, "number": number}, **more)
    await host.add("stage", "stage")
    expected = ["s07", "s09", "s11"]
    wanted: Json = {"service_type": "camera", "tags": ["north"], "version": ">=1.7"}
    listed = await adapter.do("list", registry="r", **wanted)
    equal(sorted(service["id"] for service in listed["services"]), expected, "list")
    found = await adapter.do("discover_many", registry="r", limit=10, **wanted)
    equal(sorted(service["id"] for service in found), expected, "discover_many")
    found = await adapter.do("discover_many", registry="r", limit=2, fields=["port"], **wanted)
    equal((len({service["id"] for service in found}), sorted(found[0])), (2, ["id", "port"]), "two of them")
    equal(await adapter.do("discover_many", registry="r", service_type="none", limit=2), [], "none of them")
    one = await adapter.do("discover", registry="r", service_type="camera", metadata={"line": 1, "number": 4})
    equal(one["id"], "s04", "discover by metadata")
    await adapter.fails("NoneHealthy", "discover", registry="r", service_type="camera", metadata={"line": 7})
    failed = await adapter.fails("InvalidRequest", "list", registry="r", version="not a version")
    equal(failed.code, "invalid_request", "code")

    await adapter.do("cache", registry="r", cache="c", **wanted)
    await adapter.do("cache_ready", cache="c")
    equal((await adapter.do("cache_list", cache="c"))["ids"], expected, "cache")
    await adapter.do("watch", registry="r", watch="w", existing=True, **wanted)
    changes = (await adapter.do("next", watch="w", count=3, timeout=5))["changes"]
    equal(sorted(change["id"] for change in changes), expected, "watch")
    await host.add("s12", "camera", tags=["north"], version="2.0.0", metadata={})
    await host.add("s13", "camera", tags=["south"], version="2.0.0", metadata={})
    await host.add("s09", "camera", tags=["south"], version="1.9.0", metadata={})
    changes = (await adapter.do("next", watch="w", count=3, timeout=1.5))["changes"]
    equal([(change["type"], change["id"]) for change in changes], [("register", "s12"), ("leave", "s09")], "changes")

    # What happened to a service.
    history = await adapter.do("history", registry="r", service_id="s09")
    assert [entry["what"] for entry in history][:1] == ["registered"], history
    health = await adapter.do("health", registry="r")
    equal((health["success"], health["status"]), (True, "ok"), "health")
    failed = await adapter.fails("UnknownAction", "request", registry="r", request={"action": "fly"})
    equal(failed.code, "unknown_action", "code")
    (host.directory / "registry.toml").write_text("[server]\nno_such_key = 1\n")
    failed = await adapter.fails("ConfigRefused", "request", registry="r", request={"action": "reload"})
    equal(failed.code, "config_refused", "code")


async def stale(stage: Stage) -> None:
    """L5: a registry that cannot tell is not one that has nothing."""
    host = await stage.host()
    relay = Relay.to(stage, host.endpoint)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[relay.endpoint], **QUICK)
    await host.add("s", "s")

    def lags(request: Json, reply: Json) -> None:
        if request["action"] in ("list", "watch"):
            reply["stale_seconds"] = 7.5

    def refuses(request: Json) -> Json | None:
        if request.get("max_stale", 10) < 7.5:
            return {"success": False, "error": "It is not certain", "code": "stale", "stale_seconds": 7.5}
        return None

    relay.on_reply, relay.on_request = lags, refuses
    equal((await adapter.do("list", registry="r"))["stale_seconds"], 7.5, "stale_seconds")
    equal((await adapter.do("list", registry="r", max_stale=8))["stale_seconds"], 7.5, "stale_seconds")
    for command in ("list", "get", "discover", "discover_many"):
        more: Json = {"get": {"service_id": "s"}, "list": {}}.get(command, {"service_type": "s", "limit": 2})
        failed = await adapter.fails("Stale", command, registry="r", max_stale=2.5, **more)
        equal(failed.code, "stale", "code")
    await adapter.do("cache", registry="r", cache="c")
    await adapter.do("cache_ready", cache="c")
    between((await adapter.do("cache_list", cache="c"))["age"], 7.5, 19, "age of a cache that was told so")
