"""A plain client: sockets that send any frames, the usual requests, and what their replies must look like."""

from __future__ import annotations

import json
import re
import uuid
from contextlib import contextmanager
from typing import Any, Iterator

import zmq

from checks import Host, equal, wait_until

REPLY_MS = 3000
"""A reply that takes longer is a failure."""

context = zmq.Context()


# Asking


@contextmanager
def socket(kind: int, endpoint: str, **options: Any) -> Iterator[zmq.Socket]:
    opened = context.socket(kind)
    try:
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.SNDTIMEO, REPLY_MS)
        for option, value in options.items():
            opened.setsockopt(getattr(zmq, option), value)
        opened.connect(endpoint)
        yield opened
    finally:
        opened.close()


def encode(request: Any) -> bytes:
    return request if isinstance(request, bytes) else json.dumps(request).encode()


def receive(opened: zmq.Socket, what: Any) -> list[bytes]:
    assert opened.poll(REPLY_MS), f"no reply within {REPLY_MS} ms to {str(what)[:120]}"
    return opened.recv_multipart()


def ask_frames(opened: zmq.Socket, frames: list[bytes]) -> list[bytes]:
    opened.send_multipart(frames)
    return receive(opened, frames)


def ask(host: Host, request: Any) -> dict[str, Any]:
    """The reply to a request from a REQ socket of its own."""
    with socket(zmq.REQ, host.requests) as req:
        reply = ask_frames(req, [encode(request)])
    equal(len(reply), 1, "number of frames")
    return json.loads(reply[0])


def beat(host: Host, request: Any) -> dict[str, Any]:
    """The heartbeat port's reply to a bare JSON frame."""
    with socket(zmq.DEALER, host.heartbeats) as dealer:
        reply = ask_frames(dealer, [encode(request)])
    equal(len(reply), 1, "number of frames")
    return json.loads(reply[0])


def new_type(word: str) -> str:
    """A service type that no other check uses."""
    return f"{word}-{uuid.uuid4().hex[:8]}"


def info(service_type: str | None = None, **fields: Any) -> dict[str, Any]:
    service_info = {"name": "Plain Service", "host": "10.1.2.3", "port": 4711, **fields}
    if service_type is not None:
        service_info["type"] = service_type
    return service_info


def register(host: Host, service_info: dict[str, Any], **fields: Any) -> str:
    reply = ask(host, {"action": "register", "service_info": service_info, **fields})
    assert reply["success"], f"register was refused: {reply}"
    return reply["service_id"]


def get(host: Host, service_id: str) -> dict[str, Any] | None:
    return ask(host, {"action": "get", "service_id": service_id}).get("service")


def is_refused(reply: dict[str, Any], error: str, code: str | None = None) -> None:
    equal(reply.get("success"), False, "success")
    equal(reply.get("error"), error, "error")
    assert isinstance(reply.get("code"), str) and re.fullmatch("[a-z_]+", reply["code"]), f"no code word in {reply}"
    if code is not None:
        equal(reply["code"], code, "code")


def names_field(reply: dict[str, Any], field: str, value: Any) -> None:
    """The refusal of a bad value: which field, in words."""
    equal(reply.get("success"), False, f"success for {field} = {value!r}")
    words = f"{reply.get('error')} {reply.get('message', '')}"
    assert field in words, f"the refusal of {field} = {value!r} does not name the field: {reply}"
    equal(reply.get("code"), "invalid_request", f"code for {field} = {value!r}")


def is_duplicate(reply: dict[str, Any], service_type: str, existing: str) -> None:
    is_refused(reply, "duplicate_service_type", "duplicate_service_type")
    message = f"Service type '{service_type}' is already registered by service_id '{existing}'."
    equal(reply.get("message"), message, "message")
    equal(reply.get("service_type"), service_type, "service_type")
    equal(reply.get("existing_service_id"), existing, "existing_service_id")


HEALTH = encode({"action": "health"})


def is_healthy(reply: bytes) -> None:
    parsed = json.loads(reply)
    assert parsed["success"] and parsed["status"] == "ok", f"not a reply to health: {parsed}"


# Hearing


@contextmanager
def subscriber(host: Host, topic: bytes) -> Iterator[zmq.Socket]:
    """A SUB socket that is known to hear the host: it has heard of a probe."""
    with socket(zmq.SUB, host.events, SUBSCRIBE=topic, RCVHWM=0) as sub:
        probe = new_type("probe")

        def is_heard() -> bool:
            register(host, info(id=probe))
            ask(host, {"action": "deregister", "service_id": probe})
            return bool(sub.poll(100))

        if topic in (b"", b"register", b"deregister"):
            wait_until("the first event arrives", is_heard)
            # The probe's events that are still under way are not the check's.
            while sub.poll(200):
                sub.recv_multipart()
        yield sub


def next_event(sub: zmq.Socket) -> dict[str, Any]:
    frames = receive(sub, "a change: no event came")
    equal(len(frames), 2, "number of frames of an event")
    event = json.loads(frames[1])
    equal(frames[0].decode(), event["type"], "topic")
    return event


def events_until(sub: zmq.Socket, kind: str, service_id: str) -> list[dict[str, Any]]:
    events = [next_event(sub)]
    while not (events[-1]["type"] == kind and events[-1]["data"]["service_id"] == service_id):
        assert len(events) < 1000, "1000 events and not the one"
        events.append(next_event(sub))
    return events
