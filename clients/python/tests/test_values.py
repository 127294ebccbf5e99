"""What needs no registry."""

from __future__ import annotations

import asyncio
import copy
import math
import os
import pickle
import statistics
import unittest
from typing import Any
from unittest import mock

import registry_client as client
from registry_client.cache import AsyncCache
from registry_client.connector import Connector
from registry_client.errors import refusal
from registry_client.link import Link
from registry_client.registration import service_info
from registry_client.settings import Backoff, endpoint, own_address
from registry_client.values import change_of, merge_patch


class Hosts(unittest.TestCase):
    def test_endpoints(self) -> None:
        for given, expected in {
            "127.0.0.1:5556": "tcp://127.0.0.1:5556",
            "tcp://registry:6100": "tcp://registry:6100",
            "registry": "tcp://registry:5556",
            "ipc:///run/registry/requests": "ipc:///run/registry/requests",
            "[::1]:7": "tcp://[::1]:7",
            "::1": "tcp://[::1]:5556",
            "[fe80::1]": "tcp://[fe80::1]:5556",
        }.items():
            with self.subTest(given):
                self.assertEqual(endpoint(given), expected)

    def test_what_is_none(self) -> None:
        bad = ("", ":1", "a:b", "a:0", "a:65536", "tcp://", "ipc://", "http://a", "a b", "[::1", "[::1]x", "a:１")
        for given in bad:
            with self.subTest(given), self.assertRaises(ValueError) as raised:
                endpoint(given)
            self.assertIn(repr(given), str(raised.exception))

    def test_where_it_is_looked_for(self) -> None:
        with mock.patch.dict(os.environ, {"REGISTRY_CONNECT": "a:1, b:2"}):
            self.assertEqual(client.Settings.of().hosts, ("tcp://a:1", "tcp://b:2"))
            self.assertEqual(client.Settings.of("c").hosts, ("tcp://c:5556",))
        with mock.patch.dict(os.environ):
            os.environ.pop("REGISTRY_CONNECT", None)
            self.assertEqual(client.Settings.of().hosts, ("tcp://127.0.0.1:5556",))

    def test_settings_that_cannot_be(self) -> None:
        bad: dict[str, Any]
        for bad in (
            {"timeout": 0},
            {"timeout": float("nan")},
            {"connect_timeout": "1"},
            {"dead_after": True},
            {"backoff": (2, 1)},
            {"hosts": []},
        ):
            with self.subTest(bad), self.assertRaises(ValueError):
                client.Settings.of(**bad)

    def test_keys(self) -> None:
        good = "x" * 40
        self.assertNotIn(good, repr(client.Keys("y" * 40, good, "z" * 40)))
        with self.assertRaises(ValueError):
            client.Keys(good, good[:39], good)

    def test_own_address(self) -> None:
        self.assertEqual(own_address(("127.0.0.1", 1)), "127.0.0.1")
        self.assertIsNotNone(own_address(None))


class Backoffs(unittest.TestCase):
    def test_no_wait_is_longer_than_the_smallest_ttl_kept_can_bear(self) -> None:
        async def waits() -> list[float]:
            connector = Connector(client.Settings.of("127.0.0.1:1"))
            longest = [connector.longest_wait()]
            for id, ttl in {"a": 30.0, "b": 3.0}.items():
                connector.kept[id] = ttl
                longest.append(connector.longest_wait())
            await connector.close()
            return longest

        self.assertEqual(asyncio.run(waits()), [math.inf, 10.0, 1.0])
        self.assertLessEqual(max(Backoff((4.0, 5.0)).draw(1.0) for _ in range(50)), 1.0)

    def test_waits_double_within_their_bounds(self) -> None:
        backoff = Backoff((0.1, 1.0))
        for most in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
            self.assertTrue(most / 2 <= backoff.draw() <= most)
        backoff.reset()
        draws = [Backoff((1.0, 1.0)).draw() for _ in range(200)]
        self.assertGreater(statistics.stdev(draws), 0.1)
        self.assertLessEqual(backoff.draw(), 0.1)


class Replies(unittest.TestCase):
    def test_they_come_without_the_number_of_their_request(self) -> None:
        async def taken() -> object:
            link = Link("tcp://127.0.0.1:1", client.Settings.of("127.0.0.1:1"))
            answer = link.waiting[7] = asyncio.get_running_loop().create_future()
            for message in (b"[]", b"{", b'{"success": true}', b'{"success": true, "request_id": 7}'):
                link._take(message)
            link.end("over")
            return await answer

        with self.assertLogs("registry_client", "WARNING") as logged:
            self.assertEqual(asyncio.run(taken()), {"success": True})
        self.assertEqual(len(logged.output), 3)


class Scripted:
    """A connector whose registry gives these replies, and then no more."""

    def __init__(self, *replies: dict[str, Any]) -> None:
        self.settings = client.Settings.of("127.0.0.1:1")
        self.is_closed = False
        self.asked: list[dict[str, Any]] = []
        self.replies = list(replies)
        self.is_at_the_end = asyncio.Event()

    async def ask(self, request: dict[str, Any], **_: object) -> dict[str, Any]:
        self.asked.append(request)
        if not self.replies:
            self.is_at_the_end.set()
            await asyncio.Event().wait()
        return self.replies.pop(0)


class Caches(unittest.TestCase):
    def test_what_is_told_again_changes_nothing(self) -> None:
        def event(kind: str, id: str, revision: int, port: int) -> dict[str, Any]:
            data = {"service_id": id, "service_info": {"id": id, "port": port}}
            return {"type": kind, "data": data, "revision": revision, "epoch": "e", "timestamp": 1}

        # A list may have changes after its revision: a came, b came and went, a became another.
        again = [event("register", "a", 2, 1), event("register", "b", 3, 1), event("deregister", "b", 4, 1)]
        again += [event("register", "a", 5, 2), event("leave", "c", 6, 1), event("register", "a", 7, 2)]
        listed = {"success": True, "services": [{"id": "a", "port": 2}], "revision": 1, "epoch": "e"}
        told = {"success": True, "changes": again, "revision": 7, "epoch": "e"}

        async def cached() -> tuple[list[tuple[str, int]], object]:
            connector: Any = Scripted(listed, told)
            cache = AsyncCache(connector, client.Filter())
            await asyncio.wait_for(connector.is_at_the_end.wait(), 5)
            found = [(record.id, record["port"]) for record in cache.list()]
            await cache.close()
            return found, (connector.asked[1]["after"], connector.asked[2]["after"])

        self.assertEqual(asyncio.run(cached()), ([("a", 2)], (1, 7)))

    def test_one_that_is_drained_is_never_given(self) -> None:
        def given(*services: dict[str, Any]) -> set[str | None]:
            async def cached() -> set[str | None]:
                connector: Any = Scripted({"success": True, "services": list(services), "revision": 1, "epoch": "e"})
                cache = AsyncCache(connector, client.Filter())
                await asyncio.wait_for(connector.is_at_the_end.wait(), 5)
                found = {record.id if record else None for record in (cache.discover() for _ in range(100))}
                await cache.close()
                return found

            return asyncio.run(cached())

        drained = {"id": "drained", "health": "passing", "drain": {"since": 1}}
        late, good = {"id": "late", "health": "critical"}, {"id": "good", "health": "passing"}
        self.assertEqual(given(drained), {None})
        self.assertEqual(given(drained, late), {"late"})
        self.assertEqual(given(drained, late, good), {"good"})


class Errors(unittest.TestCase):
    def test_each_code_has_its_class(self) -> None:
        error = refusal({"success": False, "error": "no", "code": "not_found"})
        self.assertIsInstance(error, client.NotFound)
        other = refusal({"error": "no", "code": "new_in_a_later_version", "message": "why", "field": "x"})
        self.assertIs(type(other), client.Refused)
        self.assertEqual(str(other), "no [new_in_a_later_version]: why")
        self.assertEqual((other.code, other.field), ("new_in_a_later_version", "x"))

    def test_a_configuration_that_is_refused_says_what_is_wrong(self) -> None:
        error = refusal({"error": "no", "code": "config_refused", "problems": ["a", "b"]})
        assert isinstance(error, client.ConfigRefused)
        self.assertEqual(error.problems, ["a", "b"])

    def test_who_asks_too_often_is_told_when_to_ask_again(self) -> None:
        error = refusal({"error": "no", "code": "too_many_requests", "retry_after": 2})
        assert isinstance(error, client.TooManyRequests)
        self.assertEqual(error.retry_after, 2.0)
        self.assertIsInstance(refusal({"code": "quota_exceeded"}), client.QuotaExceeded)

    def test_they_can_be_pickled(self) -> None:
        error = refusal({"error": "no", "code": "stale", "stale_seconds": 3})
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            self.assertEqual((type(twin), twin.reply), (client.Stale, error.reply))

    def test_all_are_registry_errors(self) -> None:
        self.assertTrue(issubclass(client.TimedOut, TimeoutError))
        for name in ("Unreachable", "TimedOut", "Closed", "Protocol", "Refused"):
            self.assertTrue(issubclass(getattr(client, name), client.RegistryError))


class Values(unittest.TestCase):
    def test_merge_patch_is_rfc_7396(self) -> None:
        for target, patch, expected in (
            ({"a": "b"}, {"a": "c"}, {"a": "c"}),
            ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
            ({"a": "b"}, {"a": None}, {}),
            ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
            ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
            ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
            ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
            ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
            ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ):
            self.assertEqual(merge_patch(target, patch), expected)

    def test_service_info(self) -> None:
        def info(**more: object) -> dict[str, object]:
            given: dict[str, object] = {
                "host": None,
                "id": None,
                "type": None,
                "tags": (),
                "metadata": None,
                "singleton": False,
                "allow_duplicate_service_type": False,
                "extra": None,
            }
            return service_info("My Camera", 7, **{**given, **more})  # type: ignore[arg-type]

        one, two = info(), info()
        self.assertRegex(str(one["id"]), "^my-camera-[0-9a-f-]{36}$")
        self.assertNotEqual(one["id"], two["id"])
        self.assertNotEqual(one["instance"], two["instance"])
        self.assertNotIn("host", one)
        with self.assertRaises(ValueError):
            info(extra={"port": 3})
        with self.assertRaises(TypeError):
            info(tags="north")

    def test_an_event_that_is_none(self) -> None:
        bad: Any
        for bad in ({}, [], None, {"type": "register", "data": {}}, {"type": "x", "data": [], "revision": "y"}):
            with self.subTest(bad), self.assertRaises(client.Protocol):
                change_of(bad)

    def test_records(self) -> None:
        record = client.Record({"id": "a", "host": "::1", "port": 7})
        self.assertEqual((record.address, record.endpoint), ("[::1]:7", "tcp://[::1]:7"))
        self.assertIsNone(record.generation)
        self.assertEqual(str(record), "a at [::1]:7")
        self.assertIn("port", record)
        with self.assertRaises(KeyError):
            _ = record.name
        self.assertEqual((record.is_drained, record.drain), (False, None))
        drained = client.Record({"id": "a", "drain": {"since": 1, "until": 3, "reason": "why"}})
        self.assertEqual((drained.is_drained, drained.drain), (True, client.Drain(1, 3, "why")))
        self.assertEqual(client.Record({"id": "a", "drain": {"since": 1}}).drain, client.Drain(1))
        listing = client.Listing((record,), None)
        self.assertEqual((len(listing), listing[0], list(listing)), (1, record, [record]))


if __name__ == "__main__":
    unittest.main()
