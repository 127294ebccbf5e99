"""The adapter of this library for the scenarios: see tests/clients/scenarios/ADAPTER.md.

usage: adapter.py [--sync]      `--sync` drives `Registry` and its kin, otherwise it is `AsyncRegistry`
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import resource
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import registry_client as client

Json = dict[str, Any]
SETTINGS = ("hosts", "timeout", "connect_timeout", "dead_after", "backoff", "keys", "address")
SERVICE = ("host", "id", "type", "tags", "metadata", "ttl", "singleton", "allow_duplicate_service_type", "extra")
THREADS = 64
"""So many calls of the synchronous client at a time."""
FILTER = ("service_type", "tags", "metadata", "version")


class Threads:
    """Lets the synchronous client be driven like the other: each call in a thread of its own."""

    async def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, *args, **kwargs)


class Direct:
    """Calls of the asynchronous client."""

    async def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result


class Adapter:
    def __init__(self, sync: bool) -> None:
        self.call: Threads | Direct = Threads() if sync else Direct()
        self.registry_type: Any = client.Registry if sync else client.AsyncRegistry
        self.service_type: Any = client.Service if sync else client.AsyncService
        self.things: dict[tuple[str, str], Any] = {}
        self.addresses: dict[str, str] = {}

    # Names

    def thing(self, kind: str, command: Json) -> Any:
        return self.things[kind, command[kind]]

    async def put(self, kind: str, command: Json, thing: Any) -> None:
        old = self.things.pop((kind, command[kind]), None)
        self.things[kind, command[kind]] = thing
        if old is not None:
            await self.end(old)

    async def end(self, thing: Any) -> None:
        for one in thing if isinstance(thing, list) else [thing]:
            await self.call(one.close)

    async def close_all(self) -> None:
        # Services and registries end what belongs to them.
        for kind in ("service", "crowd", "registry"):
            for (of, _), thing in list(self.things.items()):
                if of == kind:
                    await self.end(thing)

    # Arguments

    def settings(self, command: Json, name: str) -> Json:
        given = chosen(command, SETTINGS)
        if "address" in given:
            self.addresses[name] = given["address"]
            given["address"] = lambda: self.addresses[name]
        if "backoff" in given:
            given["backoff"] = tuple(given["backoff"])
        if "keys" in given:
            given["keys"] = client.Keys(**given["keys"])
        return given

    # Commands

    async def do_connect(self, command: Json) -> None:
        registry = await self.call_here(self.registry_type.connect, **self.settings(command, command["registry"]))
        await self.put("registry", command, registry)

    async def call_here(self, function: Callable[..., Any], **kwargs: Any) -> Any:
        return await self.call(function, **kwargs)

    async def do_set_address(self, command: Json) -> None:
        self.addresses[command["registry"]] = command["address"]

    async def do_close(self, command: Json) -> None:
        await self.call(self.things.pop(("registry", command["registry"])).close)

    async def do_register(self, command: Json) -> Json:
        registry = self.thing("registry", command)
        given = chosen(command, (*SERVICE, "timeout"))
        registration = await self.call(registry.register, command["name"], command["port"], **given)
        await self.put("registration", command, registration)
        return state(registration)

    async def do_state(self, command: Json) -> Json:
        return state(self.thing("registration", command))

    async def do_wait_state(self, command: Json) -> Json:
        registration = self.thing("registration", command)
        states = [client.State(name) for name in command["states"]]
        reached = await self.call(registration.until, *states, **chosen(command, ("timeout",)))
        if reached not in states:
            raise client.TimedOut(f"it is {reached.value} for good")
        return state(registration)

    async def do_update_registration(self, command: Json) -> Json:
        registration = self.thing("registration", command)
        await self.call(registration.update, command["patch"], **chosen(command, ("timeout",)))
        return state(registration)

    async def do_close_registration(self, command: Json) -> None:
        await self.call(self.thing("registration", command).close)

    async def do_renew(self, command: Json) -> None:
        await self.ask(command, "renew", ("generation",), command["service_id"])

    async def do_update(self, command: Json) -> None:
        await self.ask(command, "update", ("generation",), command["service_id"], command["patch"])

    async def do_deregister(self, command: Json) -> None:
        await self.ask(command, "deregister", ("generation",), command["service_id"])

    async def do_drain(self, command: Json) -> None:
        await self.ask(command, "drain", ("seconds", "reason", "generation"), command["service_id"])

    async def do_undrain(self, command: Json) -> None:
        await self.ask(command, "undrain", ("generation",), command["service_id"])

    async def do_drain_registration(self, command: Json) -> None:
        await self.call(self.thing("registration", command).drain, **chosen(command, ("seconds", "reason")))

    async def do_undrain_registration(self, command: Json) -> None:
        await self.call(self.thing("registration", command).undrain)

    async def do_drain_service(self, command: Json) -> None:
        await self.call(self.thing("service", command).drain, **chosen(command, ("seconds", "reason")))

    async def do_undrain_service(self, command: Json) -> None:
        await self.call(self.thing("service", command).undrain)

    async def do_get(self, command: Json) -> Any:
        return (await self.ask(command, "get", ("max_stale",), command["service_id"])).fields

    async def do_discover(self, command: Json) -> Any:
        return (await self.ask(command, "discover", (*FILTER, "fields", "wait", "max_stale"))).fields

    async def do_discover_many(self, command: Json) -> Any:
        found = await self.ask(command, "discover_many", (*FILTER, "limit", "fields", "wait", "max_stale"))
        return [record.fields for record in found]

    async def do_list(self, command: Json) -> Json:
        found = await self.ask(command, "list", (*FILTER, "fields", "page", "max_stale"))
        return {
            "services": [record.fields for record in found],
            **position(found.position),
            "stale_seconds": found.stale_seconds,
        }

    async def do_types(self, command: Json) -> Json:
        counts = await self.ask(command, "types", ())
        fields = ("passing", "drained", "critical")
        return {name: {field: getattr(count, field) for field in fields} for name, count in counts.items()}

    async def do_history(self, command: Json) -> Any:
        return [entry.fields for entry in await self.ask(command, "history", (), command["service_id"])]

    async def do_health(self, command: Json) -> Any:
        return (await self.ask(command, "health", ())).fields

    async def do_request(self, command: Json) -> Any:
        fields = dict(command["request"])
        return await self.ask(command, "request", (), fields.pop("action"), fields)

    async def do_connectivity(self, command: Json) -> Json:
        return connectivity(self.thing("registry", command).connectivity())

    async def do_other_connectivity(self, command: Json) -> Json:
        now = self.thing("registry", command).connectivity()
        return connectivity(await self.ask(command, "wait_connectivity", (), now))

    async def ask(self, command: Json, name: str, fields: tuple[str, ...], *args: Any) -> Any:
        call = getattr(self.thing("registry", command), name)
        return await self.call(call, *args, **chosen(command, (*fields, "timeout")))

    async def do_watch(self, command: Json) -> None:
        given = chosen(command, (*FILTER, "existing", "after", "timeout"))
        if "after" in given:
            given["after"] = client.Position(**given["after"])
        watch = await self.call(self.thing("registry", command).watch, **given)
        await self.put("watch", command, watch)

    async def do_next(self, command: Json) -> Json:
        watch = self.thing("watch", command)
        end = time.monotonic() + command["timeout"]
        changes: list[Json] = []
        while len(changes) < command["count"]:
            found = await self.call(watch.next, timeout=max(end - time.monotonic(), 0.001))
            if found is None:
                break
            changes.append(
                {
                    "type": found.kind,
                    "id": found.id,
                    "record": found.record.fields if found.record else None,
                    **position(found.position),
                    "synthesized": found.synthesized,
                }
            )
        return {"changes": changes, "position": position(watch.position)}

    async def do_close_watch(self, command: Json) -> None:
        await self.call(self.thing("watch", command).close)

    async def do_cache(self, command: Json) -> None:
        cache = await self.call(self.thing("registry", command).cache, **chosen(command, FILTER))
        await self.put("cache", command, cache)

    async def do_cache_ready(self, command: Json) -> None:
        await self.call(self.thing("cache", command).ready, **chosen(command, ("timeout",)))

    async def do_cache_get(self, command: Json) -> Any:
        found = self.thing("cache", command).get(command["service_id"])
        return found.fields if found else None

    async def do_cache_list(self, command: Json) -> Json:
        cache = self.thing("cache", command)
        found = cache.list(command.get("service_type"))
        return {"ids": sorted(record.id for record in found), "age": cache.age}

    async def do_cache_discover(self, command: Json) -> Any:
        found = self.thing("cache", command).discover(command.get("service_type"))
        if found is None:
            raise client.NoneHealthy({"error": "there is none"})
        return found.fields

    async def do_close_cache(self, command: Json) -> None:
        await self.call(self.thing("cache", command).close)

    async def do_service(self, command: Json) -> Json:
        given = {**self.settings(command, command["service"]), **chosen(command, SERVICE)}
        service = self.service_type(command["name"], command["port"], **given)
        await self.call(service.start)
        await self.put("service", command, service)
        return state(service.registration)

    async def do_service_state(self, command: Json) -> Json:
        return state(self.thing("service", command).registration)

    async def do_close_service(self, command: Json) -> None:
        await self.call(self.things.pop(("service", command["service"])).close)

    async def do_crowd(self, command: Json) -> None:
        name = command["crowd"]
        settings = self.settings(command, name)

        async def one(number: int) -> Any:
            registry = await self.call_here(self.registry_type.connect, **settings)
            own = f"{name}-{number}"
            given = chosen(command, ("type", "ttl"))
            registration = await self.call(registry.register, own, 4000 + number, id=own, host="127.0.0.1", **given)
            return registry, registration

        pairs = await asyncio.gather(*(one(number) for number in range(command["count"])))
        self.things["crowd", name] = [registry for registry, _ in pairs]
        self.things["crowd of", name] = [registration for _, registration in pairs]

    async def do_crowd_states(self, command: Json) -> Json:
        crowd = self.things["crowd of", command["crowd"]]
        return dict(Counter(registration.state.value for registration in crowd))

    async def do_close_crowd(self, command: Json) -> None:
        crowd = self.things.pop(("crowd", command["crowd"]))
        self.things.pop(("crowd of", command["crowd"]))
        await asyncio.gather(*(self.end(registry) for registry in crowd))

    # Lines

    async def answer(self, command: Json) -> None:
        work: Callable[[Json], Coroutine[Any, Any, Any]] | None = getattr(self, f"do_{command['do']}", None)
        if work is None:
            say(command, failed={"kind": "Unknown", "text": f"there is no {command['do']}"})
            return
        try:
            say(command, ok=await work(command))
        except client.Refused as error:
            kind = type(error).__name__
            say(command, failed={"kind": kind, "code": error.code, "text": str(error)})
        except client.RegistryError as error:
            say(command, failed={"kind": type(error).__name__, "text": str(error)})
        except (ValueError, TypeError) as error:
            say(command, failed={"kind": "Bad", "text": str(error)})
        except Exception as error:
            traceback.print_exc()
            say(command, failed={"kind": "Panic", "text": repr(error)})


def chosen(command: Json, fields: tuple[str, ...]) -> Json:
    return {field: command[field] for field in fields if command.get(field) is not None}


def state(registration: Any) -> Json:
    error = registration.error
    return {
        "id": registration.id,
        "generation": registration.generation,
        "state": registration.state.value,
        "error": None if error is None else str(error),
    }


def connectivity(found: client.Connectivity) -> Json:
    return {"endpoint": found.endpoint, "local_address": found.local_address, "text": str(found)}


def position(found: client.Position | None) -> Json:
    return {"epoch": found.epoch if found else None, "revision": found.revision if found else None}


def say(command: Json, **answer: Any) -> None:
    sys.stdout.write(json.dumps({"n": command["n"], **answer}) + "\n")
    sys.stdout.flush()


async def main() -> None:
    adapter = Adapter("--sync" in sys.argv)
    running: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    if "--sync" in sys.argv:
        pool = ThreadPoolExecutor(THREADS)
        loop.set_default_executor(pool)
        # All of them now, so that scenarios which count threads count the library's.
        barrier = threading.Barrier(THREADS)
        await asyncio.gather(*(asyncio.to_thread(barrier.wait) for _ in range(THREADS)))
    lines = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        task = loop.create_task(adapter.answer(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)
    await adapter.close_all()
    for task in running:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*running, return_exceptions=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main())
