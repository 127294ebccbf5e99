"""Many clients, and services as most programs have them."""

from __future__ import annotations

import asyncio
import time

from network import Wire
from stage import MEMORY, Host, Json, Stage, between, equal, until

MEGABYTE = 1 << 20
CLIENTS = 1000


async def service(stage: Stage) -> None:
    """S1: discoverable for as long as the scope lasts."""
    host = await stage.host()
    adapter = await stage.adapter()
    mine = await adapter.do(
        "service", service="s", hosts=[host.endpoint], name="Five Lines", port=7000, type="five", ttl=1.5
    )
    equal(mine["state"], "registered", "state")
    equal(await host.ids("five"), [mine["id"]], "services")
    await asyncio.sleep(2.5)
    record = await host.get(mine["id"])
    assert record and record["health"] == "passing" and record["host"] == "127.0.0.1", record
    await adapter.do("close_service", service="s")
    equal(await host.ids("five"), [], "services after its scope")
    mine = await adapter.do("service", service="s", hosts=[host.endpoint], name="Five Lines", port=7000, type="five")
    equal(await adapter.end(), 0, "exit code")
    equal(await host.ids("five"), [], "services after the end of the program")


async def thousand_clients(stage: Stage) -> None:
    """C9: a thousand clients lose the host in one instant, three times, and leave nothing behind."""
    # What the host remembers of changes on purpose is as short as it may be, so that the rest is to be seen.
    events = "[events]\nhistory_changes = 2000\nhistory_bytes = 1048576\nservice_history_bytes = 65536\n"
    config = f"[server]\ncleanup_interval = 1.0\n[limits]\nconnections_per_address = 5000\n{events}{MEMORY}"
    host = await stage.host(config)
    wire = await Wire.between(stage, host.port)
    adapter = await stage.adapter()
    settings: Json = {"backoff": [0.1, 2.0], "timeout": 30, "connect_timeout": 20}
    await host.ask(action="health")
    base = host.all_connections()
    memory: list[int] = []

    async def is_at_base() -> bool:
        return host.all_connections() <= base

    for round in range(3):
        await adapter.do(
            "crowd", crowd="c", count=CLIENTS, hosts=[wire.endpoint], type="crowd", ttl=30, within=40, **settings
        )
        equal(len(await host.ids("crowd")), CLIENTS, "services")
        cut, before = time.monotonic(), wire.accepted
        wire.cut()

        async def are_back(before: int = before) -> bool:
            """All of them anew, and no old connection besides."""
            return wire.accepted - before >= CLIENTS and host.all_connections() == base + CLIENTS

        await until("all are back", are_back, 30, 0.1)
        between(time.monotonic() - cut, 0, 25, "seconds until all are back")
        if round == 0:
            # A host that is gone altogether, and comes back with nothing.
            await host.restart()
            await until("all are registered again", lambda: _count(host, CLIENTS), 30, 0.2)
            await host.ask(action="health")
        states = await adapter.do("crowd_states", crowd="c")
        equal(states, {"registered": CLIENTS}, "states")
        await adapter.do("close_crowd", crowd="c", within=30)
        equal(await host.ids("crowd"), [], "services after their end")
        await until("no connection is left", is_at_base, 10)
        await asyncio.sleep(0.5)
        memory.append(host.memory())
    growth = (memory[2] - memory[1]) / MEGABYTE
    assert growth < 1.5, f"the last round has left {growth:.1f} MB at the host: {memory}"


async def _count(host: Host, number: int) -> bool:
    return len(await host.ids("crowd")) == number


thousand_clients.alone = True  # type: ignore[attr-defined]
