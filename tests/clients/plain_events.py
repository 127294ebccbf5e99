"""Events: what they hold, who gets them, and the revision that counts them."""

from __future__ import annotations

import time

import zmq

from checks import Host, check, equal, wait_until
from plain import ask, events_until, get, info, new_type, register, subscriber


@check("events: [topic, json] with type, timestamp, the whole record, revision, previous and epoch")
def event_shape(host: Host) -> None:
    with subscriber(host, b"") as sub:
        kind = new_type("event")
        service_id = register(host, info(kind, protocol="ipc"), ttl=25)
        record = get(host, service_id)
        ask(host, {"action": "deregister", "service_id": service_id})
        events = [e for e in events_until(sub, "deregister", service_id) if e["data"]["service_id"] == service_id]
    equal([event["type"] for event in events], ["register", "deregister"], "events")
    for event in events:
        equal(set(event), {"type", "timestamp", "data", "revision", "previous", "epoch"}, "fields")
        equal(set(event["data"]), {"service_id", "service_info"}, "fields of data")
        equal(event["data"]["service_info"], record, "service_info")
        assert type(event["timestamp"]) is int and abs(event["timestamp"] - time.time()) <= 3, f"timestamp: {event}"


@check("events: an expiry has one too, with the whole record")
def expire_event(host: Host) -> None:
    with subscriber(host, b"") as sub:
        service_id = register(host, info(new_type("expire"), protocol="ipc"), ttl=0.4)
        record = get(host, service_id)
        wait_until("it is removed", lambda: get(host, service_id) is None, seconds=15)
        events = [e for e in events_until(sub, "expire", service_id) if e["data"]["service_id"] == service_id]
    equal([event["type"] for event in events], ["register", "expire"], "events")
    shown = events[-1]["data"]["service_info"]
    equal({**shown, "health": ""}, {**record, "health": ""}, "service_info")
    equal(shown["health"], "critical", "health")


@check("events: a subscriber gets its topics only, each event once")
def topics(host: Host) -> None:
    with subscriber(host, b"deregister") as one, subscriber(host, b"") as every:
        every.setsockopt(zmq.SUBSCRIBE, b"register")
        service_id = register(host, info())
        register(host, info(id=service_id))
        ask(host, {"action": "deregister", "service_id": service_id})
        heard = [
            e["type"] for e in events_until(every, "deregister", service_id) if e["data"]["service_id"] == service_id
        ]
        equal(heard, ["register", "register", "deregister"], "events of a subscriber to '' and 'register'")
        equal([e["type"] for e in events_until(one, "deregister", service_id)][-1], "deregister", "event")
        assert not one.poll(200), "more than one event for one change"


@check("events: the revision grows with each change, and each event names the one before; the epoch stays")
def revisions(host: Host) -> None:
    with subscriber(host, b"") as sub:
        ids = [register(host, info()) for _ in range(5)]
        register(host, info(id=ids[0]))
        ask(host, {"action": "renew", "service_id": ids[1]})
        for service_id in ids:
            ask(host, {"action": "deregister", "service_id": service_id})
        events = events_until(sub, "deregister", ids[-1])
        listed, shown = ask(host, {"action": "list"}), ask(host, {"action": "info"})
    numbers = [event["revision"] for event in events]
    equal([event["previous"] for event in events[1:]], numbers[:-1], "the revisions before")
    assert all(event["previous"] < event["revision"] for event in events), f"a revision does not grow: {events}"
    equal(len({event["epoch"] for event in events} | {listed["epoch"], shown["epoch"]}), 1, "number of epochs")
    assert shown["revision"] >= listed["revision"] >= numbers[-1], "list or info shows an older revision"
