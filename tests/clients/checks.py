"""What both client scripts share: endpoints, checks that print one line each, and waits that end.

A script declares its checks with `@check("the promise")` and calls `run`. Each prints `ok` or `FAILED` with the
reason, all of them run, and the exit code says whether all held. A watchdog ends a script that hangs.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import inspect
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any, Callable

WATCHDOG_SECONDS = 120
"""Nothing here may take so long: the whole script is ended, with a traceback of every thread."""


@dataclass
class Host:
    """The host that is checked: where it listens and what it was told."""

    requests: str
    events: str
    heartbeats: str
    durable: bool
    """A restart keeps the services."""
    unique: bool
    """It enforces unique service types."""
    terminate: bool
    """It lets clients terminate it, and the script shall do so at its end."""
    control: bool
    """The parent process stops and starts the host when it is asked to on stdout: see `ask_parent`."""

    def port(self, endpoint: str) -> int:
        return int(endpoint.rpartition(":")[2])


def arguments(description: str) -> Host:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("requests", help="endpoint of the request port, as tcp://127.0.0.1:5556")
    parser.add_argument("events", help="endpoint of the event port")
    parser.add_argument("heartbeats", help="endpoint of the heartbeat port")
    parser.add_argument("--durable", action="store_true", help="the host keeps its services over a restart")
    parser.add_argument("--unique", action="store_true", help="the host enforces unique service types")
    parser.add_argument("--terminate", action="store_true", help="the host allows terminate: end it at the end")
    parser.add_argument("--control", action="store_true", help="ask the parent process to stop and start the host")
    return Host(**vars(parser.parse_args()))


_checks: list[tuple[str, Callable, Callable[[Host], bool]]] = []


def check(promise: str, when: Callable[[Host], bool] = lambda host: not host.unique):
    """Declares a check. It is skipped, silently, on a host that it does not fit (`when`)."""

    def declare(function: Callable) -> Callable:
        _checks.append((promise, function, when))
        return function

    return declare


def run(host: Host) -> int:
    """Runs every declared check that fits the host, and returns the exit code."""
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)
    chosen = [(promise, function) for promise, function, when in _checks if when(host)]
    assert chosen, "no check fits this host"
    failed = sum(not _passes(promise, function, host) for promise, function in chosen)
    print(f"{len(chosen) - failed} of {len(chosen)} checks passed", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return 1 if failed else 0


def _passes(promise: str, function: Callable, host: Host) -> bool:
    start = time.monotonic()
    try:
        if inspect.iscoroutinefunction(function):
            asyncio.run(function(host))
        else:
            function(host)
    except Exception as exc:  # noqa: BLE001 - whatever a check meets is its failure
        where = traceback.extract_tb(exc.__traceback__)[-1]
        for frame in traceback.extract_tb(exc.__traceback__):
            if frame.name == function.__name__:
                where = frame
        print(f"FAILED {promise}: {type(exc).__name__}: {exc} ({where.name}, line {where.lineno})", flush=True)
        return False
    print(f"ok     {promise} ({time.monotonic() - start:.1f} s)", flush=True)
    return True


def equal(actual: Any, expected: Any, what: str = "value") -> None:
    assert actual == expected, f"{what} is {actual!r}, expected {expected!r}"


def wait_until(what: str, probe: Callable[[], Any], seconds: float = 10.0, pause: float = 0.05) -> Any:
    """The first true answer of `probe`, asked again and again; a failure after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        if answer := probe():
            return answer
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(pause)


async def wait_until_async(what: str, probe: Callable, seconds: float = 10.0, pause: float = 0.05) -> Any:
    """As `wait_until`, for a probe that may be a coroutine function."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        await asyncio.sleep(pause)


def ask_parent(command: str) -> None:
    """Has the parent process `stop` or `start` the host (same ports, same store), and waits until it says `done`."""
    print(f"control: {command}", flush=True)
    answer = sys.stdin.readline().strip()
    assert answer == "done", f"the parent process answered {answer!r} to {command!r}, expected 'done'"
