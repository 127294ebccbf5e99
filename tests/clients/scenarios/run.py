"""Runs a client library through all scenarios, against the real program.

usage: run.py --program PATH --plugins DIRECTORY [--only NAME]... [--without NAME]... [--list] -- ADAPTER...

Each scenario starts hosts and the library's adapter for itself, several scenarios at a time. A line is printed for
each; the exit code says whether all held. What they are and what they try is in clients/behaviours.md.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import importlib
import inspect
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from stage import Stage

MODULES = ("connections", "registrations", "reads", "watches", "crowds")
AT_ONCE = 5
LIMIT = 120.0
"""No scenario may take longer."""
WATCHDOG = 300
"""Nor all of them."""

Scenario = Callable[[Stage], Awaitable[None]]


def scenarios() -> dict[str, Scenario]:
    found = {}
    for module in map(importlib.import_module, MODULES):
        for name, function in vars(module).items():
            if not inspect.iscoroutinefunction(function) or function.__module__ != module.__name__:
                continue
            if list(inspect.signature(function).parameters) == ["stage"]:
                found[name] = function
    return found


async def play(name: str, scenario: Scenario, options: argparse.Namespace) -> bool:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"registry-{name}-") as directory:
        stage = Stage(Path(directory), options.program.resolve(), options.plugins.resolve(), options.adapter)
        try:
            await asyncio.wait_for(scenario(stage), LIMIT)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            where = next((frame for frame in reversed(frames) if frame.name == name), frames[-1])
            text = f"{type(error).__name__}: {error}" if str(error) else f"{type(error).__name__}: {where.line}"
            print(f"FAILED {name}: {text} ({Path(where.filename).name}:{where.lineno})", flush=True)
            print(stage.logs(), file=sys.stderr, flush=True)
            return False
        finally:
            await stage.close()
    print(f"ok     {name} ({time.monotonic() - start:.1f} s)", flush=True)
    return True


async def main(options: argparse.Namespace) -> int:
    found = scenarios()
    unknown = {*(options.only or ()), *options.without} - {*found}
    assert not unknown, f"there is no scenario {unknown}"
    wanted = {*(options.only or found)} - {*options.without}
    chosen = {name: scenario for name, scenario in found.items() if name in wanted}
    start = time.monotonic()
    slots = asyncio.Semaphore(AT_ONCE)

    async def in_turn(name: str, scenario: Scenario) -> bool:
        async with slots:
            return await play(name, scenario, options)

    # Those that measure have the machine for themselves.
    alone = [name for name, scenario in chosen.items() if getattr(scenario, "alone", False)]
    held = await asyncio.gather(*(in_turn(name, chosen[name]) for name in chosen if name not in alone))
    held += [await play(name, chosen[name], options) for name in alone]
    print(f"{sum(held)} of {len(held)} scenarios held, {time.monotonic() - start:.0f} s", flush=True)
    return 0 if all(held) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Runs a client library through all scenarios.")
    parser.add_argument("--program", type=Path, default=Path())
    parser.add_argument("--plugins", type=Path, default=Path())
    parser.add_argument("--only", action="append")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("adapter", nargs="*")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(scenarios()))
        sys.exit()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    sys.exit(asyncio.run(main(arguments)))
