"""Forks, signals, threads, and the ends of programs."""

from __future__ import annotations

import os
import signal
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from stand import ENDPOINT, needs_host, python

import registry_client as client

SERVICE = """
import signal, sys, time
from registry_client import Service
# Whoever starts tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Service("Ending", port=7, type={kind!r}, id={kind!r}):
    print("begun", flush=True)
    {body}
"""


@needs_host
class Ends(unittest.TestCase):
    def setUp(self) -> None:
        self.registry = client.Registry.connect(ENDPOINT)
        self.addCleanup(self.registry.close)

    def ids(self, kind: str) -> list[str]:
        return [record.id for record in self.registry.list(kind)]

    def run_service(self, kind: str, body: str, number: int | None = None) -> tuple[int, str]:
        """How a program ends that is a service."""
        with python(SERVICE.format(kind=kind, body=body)) as program:
            assert program.stdout
            self.assertEqual(program.stdout.readline(), "begun\n")
            self.assertEqual(self.ids(kind), [kind])
            if number is not None:
                program.send_signal(number)
            _, errors = program.communicate(timeout=20)
            return program.returncode, errors

    def test_sigterm(self) -> None:
        code, errors = self.run_service("by-sigterm", "time.sleep(60)", signal.SIGTERM)
        self.assertEqual((code, self.ids("by-sigterm")), (128 + signal.SIGTERM, []), errors)

    def test_ctrl_c(self) -> None:
        _, errors = self.run_service("by-sigint", "time.sleep(60)", signal.SIGINT)
        self.assertEqual(self.ids("by-sigint"), [], errors)
        self.assertIn("KeyboardInterrupt", errors)

    def test_an_exception(self) -> None:
        code, errors = self.run_service("by-exception", "sys.stdin.read(); raise OSError('mine')")
        self.assertEqual((code, self.ids("by-exception")), (1, []), errors)

    def test_a_program_that_handles_sigterm_itself(self) -> None:
        body = "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); time.sleep(60)"
        with python(SERVICE.format(kind="own-handler", body=body.replace("; time", "; print('set'); time"))) as program:
            assert program.stdout
            self.assertEqual(program.stdout.readline(), "begun\n")
            self.assertEqual(program.stdout.readline(), "set\n")
            program.terminate()
            program.communicate(timeout=20)
        self.assertEqual((program.returncode, self.ids("own-handler")), (5, []))

    def test_sigterm_with_asyncio(self) -> None:
        code = """
import asyncio
from registry_client import AsyncService
async def main():
    async with AsyncService("Ending", port=7, type="async-end"):
        print("begun", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
        with python(code) as program:
            assert program.stdout
            self.assertEqual(program.stdout.readline(), "begun\n")
            self.assertEqual(len(self.ids("async-end")), 1)
            program.terminate()
            _, errors = program.communicate(timeout=20)
        self.assertEqual((program.returncode, self.ids("async-end")), (128 + signal.SIGTERM, []), errors)

    def test_a_program_that_closes_nothing(self) -> None:
        code = """
from registry_client import Registry
Registry.connect().register("Forgotten", 7, type="forgotten")
print("begun")
"""
        with python(code) as program:
            _, errors = program.communicate(timeout=20)
        self.assertEqual((program.returncode, errors, self.ids("forgotten")), (0, "", []))

    def test_a_fork_has_no_client(self) -> None:
        code = """
import os, sys, threading
from registry_client import Closed, Registry
registry = Registry.connect()
mine = registry.register("Parent", 7, type="forked", id="parent")
watch, cache = registry.watch(), registry.cache()
cache.ready()
child = os.fork()
if child == 0:
    for call in (registry.health, mine.close, registry.list, watch.next, lambda: cache.get("x"), registry.close):
        try:
            call()
        except Closed:
            print("closed", flush=True)
        else:
            print("quiet", flush=True)
    with Registry.connect() as other:
        other.register("Child", 8, type="forked", id="child")
        print(sorted(record.id for record in other.list("forked")), flush=True)
    sys.exit(0)  # Ends as a program does: what is closed at exit is the child's own.
assert os.waitpid(child, 0)[1] == 0
print(mine.state.value, registry.get("parent").id, flush=True)
registry.close()
"""
        with python(code.replace('-X", "dev', "")) as program:
            output, errors = program.communicate(timeout=30)
        self.assertEqual(program.returncode, 0, errors)
        # `close` of what belongs to the parent does nothing.
        expected = [
            "closed",
            "quiet",
            "closed",
            "closed",
            "closed",
            "quiet",
            "['child', 'parent']",
            "registered parent",
        ]
        self.assertEqual(output.splitlines(), expected, errors)
        self.assertEqual(self.ids("forked"), [])


@needs_host
class Threads(unittest.TestCase):
    def test_many_threads_and_no_thread_left(self) -> None:
        with client.Registry.connect(ENDPOINT) as registry, client.Registry.connect(ENDPOINT):
            names = [thread.name for thread in threading.enumerate()]
            self.assertEqual(names.count("registry-client"), 1)
            mine = [registry.register(f"T{number}", 7, type="threads").id for number in range(8)]
            with ThreadPoolExecutor(16) as pool:
                found = list(pool.map(lambda n: registry.get(mine[n % 8]).id, range(400)))
            self.assertEqual(found, [mine[n % 8] for n in range(400)])
        self.assertNotIn("registry-client", [thread.name for thread in threading.enumerate()])
        with self.assertRaises(client.Closed):
            registry.health()

    def test_a_callback_cannot_wait_for_itself(self) -> None:
        errors: list[Exception] = []

        def on_state(state: client.State) -> None:
            try:
                registry.health()
            except RuntimeError as error:
                errors.append(error)

        with client.Registry.connect(ENDPOINT) as registry:
            registry.register("C", 7, on_state=on_state)
        self.assertEqual(len(errors), 2)

    def test_what_cannot_work_is_said(self) -> None:
        """A port that is none of a registry's for requests, and a request that is too long for it."""
        heartbeats = os.environ.get("REGISTRY_HEARTBEATS")
        if heartbeats:
            with (
                client.Registry.connect(heartbeats, timeout=1) as registry,
                self.assertRaises(client.Unreachable) as error,
            ):
                registry.get("x")
            self.assertIn("this is the heartbeat port; requests go to", str(error.exception))
        with client.Registry.connect(ENDPOINT, timeout=2) as registry:
            with self.assertRaises(client.Unreachable) as error:
                registry.register("Long", 7, metadata={"text": "x" * 2_000_000})
            self.assertIn("connections lost before an answer came: ", str(error.exception))
            # The connection was lost again and again: the next attempt may be some seconds away.
            self.assertEqual(registry.list("long", timeout=10).services, ())

    def test_an_interrupted_call_leaves_the_client_usable(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        # Whoever starts tests in the background has them ignore it.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        with client.Registry.connect(ENDPOINT) as registry:
            timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
            timer.start()
            start = time.monotonic()
            with self.assertRaises(KeyboardInterrupt):
                registry.discover("nobody", wait=20)
            self.assertLess(time.monotonic() - start, 2)
            self.assertTrue(registry.health().ready)


if __name__ == "__main__":
    unittest.main()
