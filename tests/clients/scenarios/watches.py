"""Changes, and what is made of them."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

from network import Relay
from stage import MEMORY, PATIENCE, SQLITE, Adapter, Json, Stage, between, equal, until

QUICK: Json = {"backoff": [0.05, 0.3], "connect_timeout": 0.7, "timeout": 3.0}


async def _next(adapter: Adapter, count: int, timeout: float = 5.0, watch: str = "w") -> list[Json]:
    reply: Any = await adapter.do("next", watch=watch, count=count, timeout=timeout)
    return reply["changes"]


def _seen(changes: list[Json]) -> list[tuple[str, str]]:
    return [(change["type"], change["id"]) for change in changes]


async def watch(stage: Stage) -> None:
    """W1, W6: every change once and in order, from where one wants."""
    host = await stage.host()
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    await host.add("old")
    await adapter.do("watch", registry="r", watch="w")
    await adapter.do("watch", registry="r", watch="all", existing=True)
    equal(_seen(await _next(adapter, 1, 0.5)), [], "changes when there are none")
    equal(_seen(await _next(adapter, 5, 0.5, "all")), [("register", "old")], "what is there, as changes")
    await host.add("a")
    await host.add("short", ttl=0.5)
    await host.remove("a")
    await host.add("b", metadata={"x": 1})
    expected = [("register", "a"), ("register", "short"), ("deregister", "a"), ("register", "b"), ("expire", "short")]
    changes = await _next(adapter, 5)
    equal(sorted(_seen(changes)), sorted(expected), "changes")
    equal(_seen(changes)[:3], expected[:3], "their order")
    revisions = [change["revision"] for change in changes]
    equal(revisions, sorted(set(revisions)), "their revisions")
    equal([change["synthesized"] for change in changes], [False] * 5, "none is synthesized")
    record = next(change["record"] for change in changes if change["id"] == "b")
    equal(record["metadata"]["x"], 1, "a record")
    equal(_seen(await _next(adapter, 5, watch="all")), _seen(changes), "changes of the other watch")

    # From a position on.
    position = {"epoch": changes[1]["epoch"], "revision": changes[1]["revision"]}
    await adapter.do("watch", registry="r", watch="after", after=position)
    equal(_seen(await _next(adapter, 3, watch="after")), _seen(changes)[2:], "changes after a position")
    # Of a process that stops in the middle of what it has got.
    for number in range(10):
        await host.add(f"n{number}")
    reply = await adapter.do("next", watch="w", count=4, timeout=5)
    equal([change["id"] for change in reply["changes"]], ["n0", "n1", "n2", "n3"], "changes")
    await adapter.do("watch", registry="r", watch="on", after=reply["position"])
    equal([c["id"] for c in await _next(adapter, 6, watch="on")], [f"n{n}" for n in range(4, 10)], "changes after")
    # Woken at once.
    waiting = adapter.begin("next", watch="w", count=7, timeout=10)
    await asyncio.sleep(0.5)
    start = time.monotonic()
    await host.add("now")
    equal((await asyncio.wait_for(waiting, PATIENCE))["changes"][-1]["id"], "now", "the last change")
    between(time.monotonic() - start, 0, 0.8, "seconds until a watch is told")
    await adapter.do("close_watch", watch="w")
    equal(await _next(adapter, 1, 1.0), [], "changes of a watch that is closed")


async def unpolled_stream(stage: Stage) -> None:
    """W2, W3: nobody asks while the host is killed again and again, and nothing is lost."""
    host = await stage.host(SQLITE)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    await adapter.do("watch", registry="r", watch="w", service_type="thing")
    await adapter.do("watch", registry="r", watch="asking", service_type="thing")
    await host.add("first")
    equal(_seen(await _next(adapter, 1)), [("register", "first")], "the first change")
    expected = []
    asking = adapter.begin("next", watch="asking", count=91, timeout=40)
    for round in range(3):
        for number in range(30):
            service_id = f"{round}-{number}"
            await host.add(service_id, "thing" if number % 3 else "else")
            if number % 3:
                expected.append(("register", service_id))
            if number % 5 == 1 and number % 3:
                await host.remove(service_id)
                expected.append(("deregister", service_id))
        await host.restart()
        if round == 1:
            await asyncio.sleep(2.0)
    await host.add("last")
    expected.append(("register", "last"))
    changes = await _next(adapter, len(expected), 15)
    equal(_seen(changes), expected, "changes that nobody had asked for meanwhile")
    equal([change["synthesized"] for change in changes], [False] * len(changes), "none is synthesized")
    equal(_seen(await _next(adapter, 1, 0.7)), [], "changes after the last")
    # The one that asked all the time has seen the same.
    await host.add("enough")
    rest = len(expected) + 2
    for number in range(91 - rest):
        await host.add(f"more-{number}")
    seen = _seen((await asyncio.wait_for(asking, PATIENCE))["changes"])
    equal(seen[:rest], [("register", "first"), *expected, ("register", "enough")], "changes that were asked for")


async def compacted_watch(stage: Stage) -> None:
    """W4, W5: the host does not remember any more what has happened."""
    host = await stage.host(MEMORY)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    for service_id in ("stays", "changes", "goes"):
        await host.add(service_id)
    await adapter.do("watch", registry="r", watch="w", existing=True)
    equal(len(await _next(adapter, 3)), 3, "changes")
    await adapter.do("watch", registry="r", watch="quiet")
    reply = await adapter.do("next", watch="w", count=1, timeout=0.2)
    await adapter.do("watch", registry="r", watch="after", after=reply["position"])
    generation = (await host.get("stays") or {}).get("generation")
    # A memory host that is killed begins a new epoch, with nothing. It is not to be seen before it is filled.
    await host.kill()
    port = host.move()
    await host.start()
    await host.add("stays")
    await host.add("changes", metadata={"now": "other"})
    await host.add("new")

    def same_generation(request: Json, reply: Json) -> None:
        # Registered anew it would be another one, rightly.
        for service in reply.get("services", []):
            if service["id"] == "stays" and generation is not None:
                service["generation"] = generation

    relay = Relay.to(stage, host.endpoint, port)
    relay.on_reply = same_generation
    for name in ("w", "quiet"):
        changes = await _next(adapter, 3, 10, name)
        equal(sorted(_seen(changes)), [("leave", "goes"), ("register", "changes"), ("register", "new")], f"of {name}")
        equal([change["synthesized"] for change in changes], [True] * 3, "they are synthesized")
    await host.add("next")
    for name in ("w", "quiet"):
        # What came between the list and its position may be told again.
        changes = await until("the next change", lambda name=name: _told(adapter, name, "next"), 6)
        equal(changes[-1]["synthesized"], False, "it is not synthesized")
    failed = await adapter.fails("Compacted", "next", watch="after", count=1, timeout=5)
    equal(failed.code, "compacted", "code")
    equal(await _next(adapter, 1, 1, "after"), [], "changes after that")


async def _told(adapter: Adapter, name: str, service_id: str) -> list[Json]:
    changes = await _next(adapter, 1, 1, name)
    return changes if changes and changes[-1]["id"] == service_id else []


async def cache(stage: Stage) -> None:
    """H1, H4: what is there, without asking."""
    host = await stage.host()
    relay = Relay.to(stage, host.endpoint)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[relay.endpoint], **QUICK)
    for number in range(5):
        await host.add(f"s{number}", "camera" if number % 2 else "stage")
    await adapter.do("cache", registry="r", cache="c")
    await adapter.do("cache_ready", cache="c")
    asked = len(relay.requests)
    listed = await adapter.do("cache_list", cache="c")
    equal(listed["ids"], [f"s{number}" for number in range(5)], "list")
    between(listed["age"], 0, 12, "age")
    equal((await adapter.do("cache_list", cache="c", service_type="camera"))["ids"], ["s1", "s3"], "list of a type")
    equal((await adapter.do("cache_get", cache="c", service_id="s2"))["id"], "s2", "get")
    equal(await adapter.do("cache_get", cache="c", service_id="nobody"), None, "get of nobody")
    found = {(await adapter.do("cache_discover", cache="c", service_type="camera"))["id"] for _ in range(40)}
    equal(found, {"s1", "s3"}, "what is discovered")
    await adapter.fails("NoneHealthy", "cache_discover", cache="c", service_type="none")
    assert len(relay.requests) - asked <= 2, "it has asked the registry"
    await host.add("s5")
    await host.remove("s0")
    await host.add("s1", "camera", metadata={"now": 1})

    async def is_current() -> bool:
        ids = (await adapter.do("cache_list", cache="c"))["ids"]
        record = await adapter.do("cache_get", cache="c", service_id="s1")
        return ids == ["s1", "s2", "s3", "s4", "s5"] and record["metadata"].get("now") == 1

    await until("it is up to date", is_current, 3)


async def cache_while_away(stage: Stage) -> None:
    """H2, H3: a cache goes on while the registry is away, and says how old it is."""
    host = await stage.host(SQLITE)
    adapter = await stage.adapter()
    await adapter.do("connect", registry="r", hosts=[host.endpoint], **QUICK)
    for number in range(5):
        await host.add(f"s{number}", "camera")
    await adapter.do("cache", registry="r", cache="c", service_type="camera")
    await adapter.do("cache_ready", cache="c")
    await host.kill()
    await adapter.do("connect", registry="q", hosts=[host.endpoint], **QUICK)
    await adapter.do("cache", registry="q", cache="empty")
    await adapter.fails("Unreachable", "cache_list", cache="empty")
    await adapter.fails("Unreachable", "cache_get", cache="empty", service_id="s1")
    await adapter.fails("TimedOut", "cache_ready", cache="empty", timeout=0.3)
    ages = []
    for _ in range(4):
        listed = await adapter.do("cache_list", cache="c")
        equal(listed["ids"], [f"s{number}" for number in range(5)], "list while the registry is away")
        assert (await adapter.do("cache_discover", cache="c", service_type="camera"))["id"] in listed["ids"]
        ages.append(listed["age"])
        await asyncio.sleep(0.7)
    waits = [after - before for before, after in pairwise(ages)]
    assert all(0.5 < wait < 1.5 for wait in waits), f"the age does not grow as time does: {ages}"
    await host.start()
    await host.add("s5", "camera")
    await host.remove("s0")

    async def is_current() -> bool:
        listed = await adapter.do("cache_list", cache="c")
        return listed["ids"] == ["s1", "s2", "s3", "s4", "s5"] and listed["age"] < 2

    await until("it is up to date", is_current, 6)
    await adapter.do("cache_ready", cache="empty", timeout=5)
    equal(len((await adapter.do("cache_list", cache="empty"))["ids"]), 5, "services in the other cache")
