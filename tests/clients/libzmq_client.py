"""libzmq against a running host: its heartbeats, and its clients that want another mechanism.

usage: libzmq_client.py REQUESTS EVENTS HEARTBEATS
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import Any, Iterator

import zmq
from zmq.utils.monitor import recv_monitor_message

from checks import Host, arguments, check, equal, run, wait_until
from plain import ask, context, encode, receive, socket

SECONDS = 3.0
"""How long connections with heartbeats are watched."""

HEARTBEATS = {"HEARTBEAT_IVL": 200, "HEARTBEAT_TIMEOUT": 600, "HEARTBEAT_TTL": 1000}
HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


@contextmanager
def watched(kind: int, endpoint: str, **options: Any) -> Iterator[tuple[zmq.Socket, zmq.Socket]]:
    """A connected socket, and the one that tells what becomes of its connection: see `look`."""
    opened = context.socket(kind)
    monitor = opened.get_monitor_socket()
    try:
        opened.setsockopt(zmq.LINGER, 0)
        for option, value in options.items():
            opened.setsockopt(getattr(zmq, option), value)
        opened.connect(endpoint)
        yield opened, monitor
    finally:
        opened.disable_monitor()
        opened.close()


def look(monitor: zmq.Socket, seen: list[int]) -> list[int]:
    """Adds what has happened since the last look."""
    while monitor.poll(0):
        seen.append(int(recv_monitor_message(monitor)["event"]))
    return seen


@check("requests, heartbeats and events of a libzmq with heartbeats of its own: no connection is lost")
def heartbeats(host: Host) -> None:
    with (
        watched(zmq.REQ, host.requests, **HEARTBEATS) as (req, on_req),
        watched(zmq.DEALER, host.heartbeats, **HEARTBEATS) as (dealer, on_dealer),
        watched(zmq.SUB, host.events, **HEARTBEATS) as (sub, on_sub),
    ):
        sub.subscribe(b"")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            req.send(encode({"action": "health"}))
            receive(req, "health")
            time.sleep(0.1)
        # These two were silent all the time, but for the heartbeats.
        dealer.send(encode({"service_id": "nobody"}))
        receive(dealer, "renew")
        ask(host, {"action": "register", "service_info": {"id": "seen", "name": "n", "host": "h", "port": 1}})
        assert sub.poll(3000), "the subscriber gets an event"
        ask(host, {"action": "deregister", "service_id": "seen"})
        for name, monitor in [("REQ", on_req), ("DEALER", on_dealer), ("SUB", on_sub)]:
            seen = look(monitor, [])
            equal(seen.count(zmq.EVENT_HANDSHAKE_SUCCEEDED), 1, f"number of handshakes of {name}")
            equal(seen.count(zmq.EVENT_DISCONNECTED), 0, f"number of disconnects of {name}")


@check("a client that wants PLAIN or CURVE does not get through, and is told that the handshake failed")
def mechanisms(host: Host) -> None:
    public, secret = zmq.curve_keypair()
    curve = {"CURVE_SERVERKEY": public, "CURVE_PUBLICKEY": public, "CURVE_SECRETKEY": secret}
    for options in [{"PLAIN_USERNAME": b"me", "PLAIN_PASSWORD": b"secret"}, curve]:
        for kind, endpoint in [(zmq.DEALER, host.requests), (zmq.DEALER, host.heartbeats), (zmq.SUB, host.events)]:
            with watched(kind, endpoint, **options) as (opened, monitor):
                seen: list[int] = []
                wait_until("a failed handshake", lambda: any(e & HANDSHAKE_FAILED for e in look(monitor, seen)))
                assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in seen, seen
    equal(ask(host, {"action": "health"})["success"], True)


@check("identities of one byte and of 255 are served")
def identities(host: Host) -> None:
    for identity in [b"x", b"\xff" * 255]:
        with socket(zmq.DEALER, host.requests, IDENTITY=identity) as dealer:
            dealer.send(encode({"action": "health"}))
            receive(dealer, "health")


if __name__ == "__main__":
    sys.exit(run(arguments(__doc__)))
