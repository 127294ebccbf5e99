"""What a record is: ids, fields, types, health, and the values that are refused."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import zmq

from checks import Host, check, equal, wait_until
from plain import ask, ask_frames, encode, get, info, is_refused, names_field, new_type, register, socket

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
GENERAL_FIELDS = {
    *("id", "name", "host", "port", "type", "tags", "metadata", "ttl", "generation", "last_heartbeat", "health"),
}


@check("a new id is the name in lower case with dashes, and a uuid4; also for id null and ''")
def new_ids(host: Host) -> None:
    for name, start in [("My Own SERVICE", "my-own-service"), ("x", "x"), ("Größe Ä", "größe-ä"), ("a-b_c", "a-b_c")]:
        for given in [{}, {"id": None}, {"id": ""}]:
            service_id = register(host, info(name=name, **given))
            assert re.fullmatch(f"{re.escape(start)}-{UUID4}", service_id), f"id {service_id!r} for {name!r}"
            equal(get(host, service_id)["id"], service_id, "id of the record")


@check("a given id is updated in place")
def update_in_place(host: Host) -> None:
    service_id, before, after = new_type("Given Id"), new_type("before"), new_type("after")
    equal(register(host, info(before, id=service_id, colour="red")), service_id, "id")
    equal(register(host, info(after, id=service_id, port=4712), ttl=40), service_id, "id")
    record = get(host, service_id)
    equal([record["port"], record["ttl"], record["type"]], [4712, 40, after], "port, ttl and type")
    assert "colour" not in record, "a field of the earlier registration is left"
    equal(ask(host, {"action": "list", "service_type": before})["services"], [], "services of the former type")
    equal(len(ask(host, {"action": "list", "service_type": after})["services"]), 1, "services of the new type")


@check("a record shows its fields, with whatever else the client sent")
def record_fields(host: Host) -> None:
    kind = new_type("record")
    extra = {"protocol": "ipc", "nested": {"b": [1, None, "ü"], "a": 2**80}, "none": None, "on": False}
    service_id = register(host, info(kind, tags=["t1", "t2"], metadata={"room": 7}, **extra), ttl=12)
    record = get(host, service_id)
    equal(set(record), GENERAL_FIELDS | set(extra), "fields")
    for field, value in {**info(kind), **extra, "ttl": 12, "health": "passing", "id": service_id}.items():
        equal(record[field], value, field)
    equal(sorted(record["tags"]), sorted(["t1", "t2", kind]), "tags")
    equal(record["metadata"]["room"], 7, "metadata.room")
    assert type(record["last_heartbeat"]) is int, f"last_heartbeat {record['last_heartbeat']!r} is no integer"
    assert abs(record["last_heartbeat"] - time.time()) <= 2, f"last_heartbeat {record['last_heartbeat']} is not now"
    found = ask(host, {"action": "discover", "service_type": kind})["service"]
    [listed] = ask(host, {"action": "list", "service_type": kind})["services"]
    equal(found, record, "what discover shows")
    equal(listed, record, "what list shows")


@check("ttl is 30 s if not given")
def default_ttl(host: Host) -> None:
    equal(get(host, register(host, info()))["ttl"], 30, "ttl")


@check("a service answers to its type, its tags and its metadata.type; type wins over metadata.type; case matters")
def service_types(host: Host) -> None:
    kind, tag, overridden, alone = (new_type(word) for word in ["Type", "Tag", "Overridden", "Alone"])
    both = register(host, info(kind, tags=[tag], metadata={"type": overridden, "k": 1}))
    record = get(host, both)
    equal(sorted(record["tags"]), sorted([tag, kind]), "tags")
    equal(record["metadata"], {"type": kind, "k": 1}, "metadata")
    only_metadata = register(host, info(metadata={"type": alone}))

    def ids(service_type: str) -> list[str]:
        return [s["id"] for s in ask(host, {"action": "list", "service_type": service_type})["services"]]

    equal([ids(kind), ids(tag), ids(alone)], [[both], [both], [only_metadata]], "ids by type, tag, metadata.type")
    equal([ids(overridden), ids(kind.upper()), ids(kind[:-1])], [[], [], []], "ids of types that nobody has")
    equal(ask(host, {"action": "discover", "service_type": alone})["service"]["id"], only_metadata, "discovered")
    repeated = get(host, register(host, info(kind, tags=[kind])))
    equal(repeated["tags"], [kind], "tags when the type is among them already")


@check("past its ttl a service is critical and not discovered; a renew brings it back")
def critical(host: Host) -> None:
    # The clean-up may remove it at any moment after its ttl; then it is tried again.
    for _ in range(8):
        kind = new_type("critical")
        service_id = register(host, info(kind), ttl=0.3)
        equal(get(host, service_id)["health"], "passing", "health at first")
        record = wait_until("it is past its ttl", lambda: _unless_passing(host, service_id), pause=0.02)
        if record == "gone":
            continue
        found = ask(host, {"action": "discover", "service_type": kind})
        is_refused(found, f"No healthy service of type {kind} found", "none_healthy")
        if not ask(host, {"action": "renew", "service_id": service_id})["success"]:
            continue
        equal(get(host, service_id)["health"], "passing", "health after a renew")
        return
    raise AssertionError("the clean-up removed the service within its first moments, 8 times in a row")


def _unless_passing(host: Host, service_id: str) -> Any:
    record = get(host, service_id)
    if record is None:
        return "gone"
    return record if record["health"] != "passing" else None


@check("heartbeats keep a service alive beyond its ttl, on either port")
def kept_alive(host: Host) -> None:
    service_id, kind = new_type("kept"), new_type("kept")
    register(host, info(kind, id=service_id), ttl=1)
    with socket(zmq.DEALER, host.heartbeats) as dealer:
        end = time.monotonic() + 3.2
        while time.monotonic() < end:
            reply = json.loads(ask_frames(dealer, [encode({"service_id": service_id})])[0])
            assert reply["success"], f"renew failed: {reply}"
            assert ask(host, {"action": "renew", "service_id": service_id})["success"]
            assert ask(host, {"action": "discover", "service_type": kind})["success"], "it is not discovered"
            time.sleep(0.2)


BAD_VALUES: list[tuple[str, list[Any]]] = [
    ("port", ["http", -1, 65536, 10**30, 1.5, None, True, [80], {}, ""]),
    ("host", ["", 5, None, ["h"], {}]),
    ("name", ["", 5, None, ["n"], {}]),
    ("tags", ["tag", 5, {"a": 1}, [5], [None], [["a"]]]),
    ("metadata", ["m", 5, [], True]),
    ("type", [5, ["t"], {}, True]),
    ("id", [5, ["i"], {}, True]),
]


@check("register: bad values are refused by a message that names the field")
def bad_values(host: Host) -> None:
    before = ask(host, {"action": "info"})["revision"]
    for field, values in BAD_VALUES:
        for value in values:
            reply = ask(host, {"action": "register", "service_info": info(**{field: value})})
            names_field(reply, field, value)
    for value in [5, "text", [], None, True]:
        names_field(ask(host, {"action": "register", "service_info": value}), "service_info", value)
    for value in [0, -1, "soon", True, [30], {}]:
        names_field(ask(host, {"action": "register", "service_info": info(), "ttl": value}), "ttl", value)
    with socket(zmq.REQ, host.requests) as req:
        request = encode({"action": "register", "service_info": info(), "ttl": 0}).replace(b'"ttl": 0', b'"ttl": 1e999')
        names_field(json.loads(ask_frames(req, [request])[0]), "ttl", "1e999")
    after = ask(host, {"action": "info"})["revision"]
    equal(after, before, "the revision after nothing but refusals")


@check("bad service_id and service_type are refused by a message that names them")
def bad_keys(host: Host) -> None:
    for action in ["get", "renew", "deregister"]:
        for value in [5, True, ["x"], {"a": 1}]:
            names_field(ask(host, {"action": action, "service_id": value}), "service_id", value)
    for action in ["list", "discover"]:
        for value in [5, True, ["x"], {"a": 1}]:
            names_field(ask(host, {"action": action, "service_type": value}), "service_type", value)
